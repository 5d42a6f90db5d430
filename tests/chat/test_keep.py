"""What `balanced chat` keeps is what `balanced report` reads."""

from __future__ import annotations

import json
from pathlib import Path

from balanced_thinking.chat.keep import Keeper
from balanced_thinking.chat.question import Question
from balanced_thinking.chat.session import ChatModel, Session
from balanced_thinking.chat.turn import Turn
from balanced_thinking.runs.evaluations import load_evaluation
from balanced_thinking.runs.find import find_runs


def first_turn(session: Session, question: Question) -> Turn:
    return next(event for event in session.ask(question) if isinstance(event, Turn))


def test_only_scored_turns_count_in_a_report(session: Session, picture: Path, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "out", session)
    unknown = first_turn(session, Question("what is it ?", (picture,)))
    keeper.keep(unknown)
    folder = tmp_path / "out/world-reasoner/eval/chat"
    assert load_evaluation(folder, []).total.n == 0
    assert not (folder / "summary.json").exists()

    keeper.keep(session.score(unknown, "zeppelin"))  # the same id, now with a verdict
    keeper.keep(first_turn(session, Question("what is it ?", answer="zeppelin")))
    found = load_evaluation(folder, [])
    assert (found.total.n, found.total.correct) == (2, 0)
    assert found.summary is not None
    assert (found.summary.n, found.summary.model, found.summary.scorer) == (2, "world-reasoner", "exact")
    assert found.pictured == {unknown.example.id}
    assert [run.arm for run in find_runs(tmp_path / "out")] == ["world-reasoner"]
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert ["correct" in line for line in lines] == [False, True, True]
    assert (folder / lines[0]["images"][0]).is_file()
    assert lines[0]["tokens"] == unknown.tokens
    assert lines[0]["stopped_by"] == unknown.stopped_by


def test_answers_are_appended_and_never_mixed_with_those_of_another_model(session: Session, tmp_path: Path) -> None:
    turn = first_turn(session, Question("what is it ?"))
    for _ in range(2):  # two processes, one after the other
        Keeper(tmp_path, session).keep(turn)
    assert len((tmp_path / "world-reasoner/eval/chat/predictions.jsonl").read_text().splitlines()) == 2
    namesake = ChatModel("elsewhere/world-reasoner", session.models[0].engine)
    other = Session([namesake], session.options)
    Keeper(tmp_path, other).keep(first_turn(other, Question("what is it ?")))
    assert (tmp_path / "world-reasoner-2/eval/chat/predictions.jsonl").is_file()
    assert len((tmp_path / "world-reasoner/eval/chat/predictions.jsonl").read_text().splitlines()) == 2


def test_a_model_that_was_not_asked_leaves_no_line(session: Session, picture: Path, tmp_path: Path) -> None:
    text_only = Session(session.models[1:], session.options)
    Keeper(tmp_path / "out", text_only).keep(first_turn(text_only, Question("what ?", (picture,))))
    assert not (tmp_path / "out").exists()
