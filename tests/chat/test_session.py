"""Questions to several models: asked as an evaluation asks, streamed, stopped, refused, scored."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from balanced_thinking.chat.question import MOST_PICTURES, Question, QuestionError, check_picture
from balanced_thinking.chat.session import ChatOptions, Session, load_models
from balanced_thinking.chat.turn import CLOSED, END_TOKEN, LIMIT, USER, Progress, Turn
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.evaluation.engines.start import EngineOptions
from balanced_thinking.evaluation.sampling import Sampling
from tests.evaluation.engines.test_server import Stub, stub  # noqa: F401  (a fixture)


def turns_of(session: Session, question: Question) -> list[Turn]:
    return [event for event in session.ask(question) if isinstance(event, Turn)]


def test_a_reply_is_the_completion_of_an_evaluation(session: Session, world_example: Example, picture: Path) -> None:
    turn = turns_of(session, Question(world_example.question, (picture,), answer=world_example.answer))[0]
    model = session.models[0]
    assert isinstance(model.engine, LocalEngine)
    [ids] = model.engine.complete([world_example])
    expected = model.engine.scorer.score_completion(world_example, ids)
    assert turn.ids == ids
    assert turn.prediction == replace(expected, id=turn.example.id, family=None)
    assert (turn.tokens, turn.stopped_by) == (len(ids), CLOSED)
    assert turn.is_scored
    assert turn.seconds > 0


def test_progress_grows_to_the_complete_reply(session: Session, world_example: Example, picture: Path) -> None:
    events = list(session.ask(Question(world_example.question, (picture,))))
    texts = [event.text for event in events if isinstance(event, Progress) and event.model == "world-reasoner"]
    turn = next(event for event in events if isinstance(event, Turn))
    assert turn.prediction is not None
    assert texts
    assert [len(text) for text in texts] == sorted(len(text) for text in texts)
    assert all(turn.prediction.completion.startswith(text) for text in texts)
    assert not turn.is_scored
    assert turn.verdict == ""


def test_a_stop_keeps_what_there_is_and_asks_nobody_else(paused: Session, session: Session) -> None:
    both = Session([*paused.models, session.models[1]], session.options)
    both._stop = paused._stop
    turns = []
    for event in both.ask(Question("what is it ?")):
        if isinstance(event, Turn):
            turns.append(event)
        elif event.tokens >= 3:
            both.stop()
    assert [turn.model for turn in turns] == ["world-reasoner"]
    assert (turns[0].tokens, turns[0].stopped_by) == (3, USER)
    assert turns[0].prediction is not None
    assert turns[0].prediction.completion != ""
    assert turns[0].flaws == []  # the user's doing, not the model's


def test_a_reader_that_leaves_ends_the_reply(session: Session) -> None:
    """Else the next question would have the model at the same time."""
    events = session.ask(Question("what is it ?"))
    assert isinstance(next(events), Progress)
    events.close()  # type: ignore[attr-defined]
    assert "generation" not in [thread.name for thread in threading.enumerate()]
    assert len(turns_of(session, Question("what is it ?"))) == 2


def test_a_stop_before_a_question_does_not_stop_it(session: Session) -> None:
    session.stop()
    assert [turn.model for turn in turns_of(session, Question("what is it ?"))] == ["world-reasoner", "tiny:qwen2"]


def test_a_limit_is_named_with_the_option_that_raises_it(session: Session) -> None:
    session.models[0].engine.configure("think-answer", 4)
    turn = turns_of(session, Question("what is it ?"))[0]
    assert (turn.tokens, turn.stopped_by) == (4, LIMIT)
    assert "--max-new-tokens" in turn.flaws[0]
    assert turn.flaws[1].startswith("malformed: ")


def test_a_model_of_texts_refuses_a_picture_and_the_other_answers(session: Session, picture: Path) -> None:
    seeing, reading = turns_of(session, Question("what is it ?", (picture,)))
    assert seeing.refusal == ""
    assert "takes text only" in reading.refusal
    assert reading.prediction is None


def test_a_special_token_in_a_question_is_refused(session: Session) -> None:
    tokenizer = session.models[0].engine.tokenizer
    refusal = turns_of(session, Question(f"what {tokenizer.eos_token} is it ?"))[0].refusal
    assert tokenizer.eos_token in refusal


def test_a_temperature_samples_and_zero_is_greedy(session: Session) -> None:
    engine, question = session.models[0].engine, Question("what is it ?")
    engine.configure("think-answer", 12)
    greedy = turns_of(session, question)[0].ids
    engine.sampling = Sampling(5.0)
    sampled = turns_of(session, question)[0].ids
    engine.sampling = Sampling()
    assert turns_of(session, question)[0].ids == greedy
    assert sampled != greedy


def test_an_answer_known_later_scores_the_reply(session: Session, world_example: Example, picture: Path) -> None:
    turn = turns_of(session, Question(world_example.question, (picture,)))[0]
    assert turn.prediction is not None
    given = turn.prediction.prediction
    assert given is not None
    assert session.score(turn, given).verdict == "right"
    assert session.score(turn, "zeppelin").verdict == "wrong: the right answer is zeppelin"


def test_a_server_gives_the_complete_reply_at_once(stub: Stub, picture: Path) -> None:  # noqa: F811
    address = stub.address  # type: ignore[attr-defined]
    options = ChatOptions(engine=EngineOptions(server=address), temperature=0.5)
    session = Session(load_models(["tiny:qwen2_5_vl"], options), options)
    [turn] = turns_of(session, Question("what color ?", (picture,), answer="red"))
    assert turn.verdict == "right"
    assert turn.stopped_by == CLOSED
    assert stub.asked[0]["temperature"] == 0.5
    stub.fail = [(400, "no")]
    [failed] = turns_of(session, Question("what color ?"))
    assert "answered 400: no" in failed.refusal


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["world-base", "world-base"], {}, "named twice"),
        (["world-base"], {"served_models": ("x",)}, "give the server's address with --server"),
        (["a", "b"], {"served_models": ("x",), "engine": EngineOptions(server="http://x/v1")}, "one for each"),
    ],
)
def test_models_that_do_not_fit_are_refused(names: list[str], options: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        load_models(names, ChatOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), 1e9])
def test_an_impossible_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(RecipeError, match="expected 0"):
        ChatOptions(temperature=temperature)


def test_questions_and_pictures_that_cannot_be_asked(tmp_path: Path, picture: Path) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(picture.read_bytes()[:-30])
    for make, says in (
        (lambda: Question("  \n"), "empty"),
        (lambda: Question("?", (picture,) * (MOST_PICTURES + 1)), "expected at most 16"),
        (lambda: Question("a" * 20_001), "20,001 characters"),
        (lambda: check_picture(tmp_path / "none.png"), "does not exist"),
        (lambda: check_picture(tmp_path), "is a folder"),
        (lambda: check_picture(damaged), "damaged"),
    ):
        with pytest.raises(QuestionError, match=says):
            make()
    assert check_picture(str(picture)) == picture


def test_options_are_listed_as_in_data(session: Session) -> None:
    example = Question("Which?", choices=("dog", "cat")).to_example("1", "question", session.models[0].format)
    assert example.question == "Which?\nA. dog\nB. cat"
    assert example.choices == ("dog", "cat")


def test_a_picture_that_the_processor_refuses_is_named(session: Session, tmp_path: Path) -> None:
    thin = tmp_path / "thin.png"
    Image.new("RGB", (2000, 2)).save(thin)
    assert "thin.png has 2000 x 2 pixels" in turns_of(session, Question("what is it ?", (thin,)))[0].refusal


def test_an_end_token_ends_a_reply(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The random model never closes an answer; its end token is found among what it writes."""
    model = session.models[1]
    first = turns_of(Session([model], session.options), Question("what is it ?"))[0].ids[0]
    monkeypatch.setattr(model.engine.scorer, "stops", [first])
    [turn] = turns_of(Session([model], session.options), Question("what is it ?"))
    assert (turn.ids, turn.stopped_by) == ([first], END_TOKEN)


def test_a_stop_does_not_wait_for_a_slow_server(stub: Stub) -> None:  # noqa: F811
    answer, asked, released = stub.answer, threading.Event(), threading.Event()

    def slow_answer(path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        asked.set()
        if body is not None:
            released.wait(30)
        return answer(path, body)

    options = ChatOptions(engine=EngineOptions(server=stub.address))  # type: ignore[attr-defined]
    session = Session(load_models(["tiny:qwen2"], options), options)
    stub.answer = slow_answer  # type: ignore[method-assign]
    stopper = threading.Thread(target=lambda: (asked.wait(30), session.stop()))
    stopper.start()
    [turn] = turns_of(session, Question("what color ?"))
    still_waiting = not released.is_set()
    released.set()
    stopper.join()
    assert still_waiting
    assert (turn.stopped_by, turn.tokens, turn.flaws) == (USER, 0, [])
    stub.answer = answer  # type: ignore[method-assign]
    assert turns_of(session, Question("what color ?"))[0].stopped_by == CLOSED  # the next question is asked again
