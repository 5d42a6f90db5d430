"""Evaluation by an OpenAI-compatible server: what is asked, what comes back, and what goes wrong on the way."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, ImageChops

from balanced_thinking import Benchmark, evaluate
from balanced_thinking.cli import main
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.world import load
from balanced_thinking.evaluation.engines import server
from balanced_thinking.evaluation.engines.chat_answer import read_choice
from balanced_thinking.evaluation.engines.server import ServerEngine
from balanced_thinking.evaluation.engines.vllm import VllmEngine
from balanced_thinking.evaluation.results import answer_task
from balanced_thinking.evaluation.sampling import Sampling
from balanced_thinking.evaluation.task import Task
from balanced_thinking.models.find import find_model_source
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.segments import get_format
from tests.cli.tiny_commands import exit_code


class Stub:
    """Answers every question with its gold answer, and keeps what it was asked."""

    key: str | None = None

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.fail: list[tuple[int, str]] = []  # what the next answers are instead
        self.message: dict[str, Any] = {}
        self.finish: Any = "stop"
        self.models = ["tiny"]
        self.usage: Any = None
        self.extra: dict[str, Any] = {}
        self.golds: dict[str, str] = {}

    def answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        if self.fail:
            return self.fail.pop(0)
        if path == "/v1/models":
            return 200, {"data": [{"id": name} for name in self.models]}
        assert body is not None
        self.asked.append(body)
        content = body["messages"][0]["content"]
        question = content if isinstance(content, str) else content[-1]["text"]
        text = f"<think>I see it .</think><answer>{self.golds.get(question, 'red')}</answer>"
        message = {"role": "assistant", "content": text} | self.message
        return 200, {"choices": [{"message": message, "finish_reason": self.finish}], "usage": self.usage, **self.extra}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    found = Stub()

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            found.key = self.headers.get("Authorization")
            code, value = found.answer(self.path, json.loads(self.rfile.read(size)) if size else None)
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _respond

        def log_message(self, *args: Any) -> None:
            pass

    monkeypatch.setattr(server, "_FIRST_PAUSE_SECONDS", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        found.address = f"http://127.0.0.1:{http.server_address[1]}/v1"  # type: ignore[attr-defined]
        yield found
        http.shutdown()


def test_an_answer_ends_where_one_in_this_process_would(stub: Any) -> None:
    closed = "<think>a</think><answer>red</answer>"
    stub.message = {"content": f"{closed} no wait <answer>blue</answer>"}
    engine = engine_of(stub)
    example = Example("one", "which ?", (), None, "red")
    prediction = engine.scorer.score_completion(example, engine.complete([example])[0])
    assert (prediction.completion, prediction.correct, prediction.truncated) == (closed, True, False)


def test_of_several_models_one_has_to_be_named(stub: Any) -> None:
    stub.models = ["base", "mine"]
    with pytest.raises(ValueError, match="serves base, mine; say which one with --served-model"):
        engine_of(stub)
    assert engine_of(stub, served_model="mine").served_model == "mine"


def engine_of(stub: Any, **options: Any) -> ServerEngine:
    return ServerEngine(stub.address, build_tiny("qwen2")[1], max_new_tokens=77, **options)


def test_pictures_come_before_the_text_and_arrive_as_they_are(stub: Any) -> None:
    example = next(load(split="test", n=1))
    engine_of(stub).complete([example])
    (asked,) = stub.asked
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("tiny", 0.0, 77)
    assert asked["repetition_penalty"] == 1.0  # not the checkpoint's own
    picture, text = asked["messages"][0]["content"]
    assert text == {"type": "text", "text": example.question}
    data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert not ImageChops.difference(Image.open(io.BytesIO(data)), open_image(example.images[0])).getbbox()


def test_answers_are_scored_as_those_of_a_model_in_this_process(stub: Any, tmp_path: Path) -> None:
    examples = list(load(split="test", n=6))
    stub.golds = {example.question: example.answer for example in examples[:4]}
    right = sum(example.answer == stub.golds.get(example.question, "red") for example in examples)
    benchmark = Benchmark("w", batch_size=3, max_new_tokens=77)
    summary = answer_task(
        engine_of(stub), Task(benchmark, "test", examples, get_format("think-answer"), "tiny"), tmp_path
    )
    assert (summary.n, summary.correct, summary.malformed, summary.truncated) == (6, right, 0, 0)
    assert len(stub.asked) == 6
    assert summary.think_tokens_mean > 4


def test_an_answer_that_was_cut_off_counts_as_truncated(stub: Any) -> None:
    stub.finish, stub.message = "length", {"content": "<think>red and"}
    engine = engine_of(stub)
    example = Example("one", "which ?", (), None, "red")
    prediction = engine.scorer.score_completion(example, engine.complete([example])[0])
    assert (prediction.truncated, prediction.malformed, prediction.correct) == (True, True, False)


@pytest.mark.parametrize(
    ("finish", "truncated", "withheld"),
    [
        ("stop", False, ""),
        ("eos_token", False, ""),  # text-generation-inference
        ("end_turn", False, ""),  # Anthropic, through a gateway
        ("stop_sequence", False, ""),
        ("STOP", False, ""),  # Gemini
        (None, False, ""),  # some servers never say
        ("", False, ""),
        ("length", True, ""),
        ("max_tokens", True, ""),
        ("model_length", True, ""),  # Mistral: the model's own limit
        ("content_filter", False, "content_filter"),
        ("error", False, "error"),
        ("a\x1b[2Jb" * 99, False, "a__2jb" * 6 + "a__2"),  # a stranger's text stays short and harmless
        ({"type": "abort"}, False, "dict"),
    ],
)
def test_why_an_answer_ended(finish: Any, truncated: bool, withheld: str, stub: Any) -> None:
    """An answer without a tag is complete where the model ended it itself."""
    stub.finish, stub.message = finish, {"content": "red"}
    engine = engine_of(stub, reasoning_format="direct")
    example = Example("one", "which ?", (), None, "red")
    found = engine.scorer.score_completion(example, engine.complete([example])[0])
    assert (found.truncated, found.withheld) == (truncated, withheld)
    assert found.correct == (not truncated and not withheld)


def test_an_answer_that_ends_at_the_limit_without_a_reason_is_cut_off(stub: Any) -> None:
    stub.finish, stub.message, stub.usage = None, {"content": "red"}, {"completion_tokens": 77}
    engine = engine_of(stub, reasoning_format="direct")
    example = Example("one", "which ?", (), None, "red")
    assert engine.scorer.score_completion(example, engine.complete([example])[0]).truncated


def test_a_complete_answer_counts_whatever_the_server_did_after_it(stub: Any) -> None:
    stub.finish = "content_filter"
    engine = engine_of(stub)
    example = Example("one", "which ?", (), None, "red")
    found = engine.scorer.score_completion(example, engine.complete([example])[0])
    assert (found.correct, found.withheld) == (True, "")


@pytest.mark.parametrize(
    ("finish", "message", "fail", "reason", "said"),
    [
        ("content_filter", {"content": None}, [], "content_filter", ""),
        ("stop", {"content": "", "refusal": "I can't help ."}, [], "refusal", "I can't help ."),
        ("stop", {"content": None, "refusal": "No ."}, [], "refusal", "No ."),
        ("stop", {"content": [{"type": "refusal", "refusal": "No ."}]}, [], "refusal", "No ."),
        ("tool_calls", {"content": None, "tool_calls": [{"id": "1"}]}, [], "tool_calls", ""),
        ("stop", {"content": None, "tool_calls": [{"id": "1"}]}, [], "tool_calls", ""),
        (
            "stop",
            {},
            [(400, '{"error": {"code": "content_filter", "message": "the prompt was filtered"}}')],  # Azure
            "content_filter",
            "the prompt was filtered",
        ),
    ],
)
def test_one_withheld_answer_is_counted_and_the_evaluation_goes_on(
    finish: str, message: Any, fail: Any, reason: str, said: str, stub: Any, tmp_path: Path, caplog: Any
) -> None:
    engine = engine_of(stub)
    usual, stub.fail = stub.answer, list(fail)

    def answer(path: str, body: Any) -> tuple[int, Any]:
        first = not stub.asked and not fail
        stub.message, stub.finish = (message, finish) if first else ({}, "stop")
        return usual(path, body)  # type: ignore[no-any-return]

    stub.answer = answer
    examples = [Example(str(i), f"which {i} ?", (), None, "red") for i in range(3)]
    benchmark = Benchmark("w", batch_size=1, max_new_tokens=77)
    task = Task(benchmark, "test", examples, get_format("think-answer"), "tiny")
    summary = answer_task(engine, task, tmp_path)
    assert (summary.correct, summary.truncated, summary.malformed) == (2, 0, 1)
    assert summary.withheld == {reason: 1}
    assert [one.withheld for one in summary.predictions].count(reason) == 1
    line = f"gave no complete answer to item 0 ({reason}{f': {said}' if said else ''})"
    assert caplog.text.count(line) == 1
    assert "have no content" not in caplog.text


def test_withheld_answers_are_never_a_reason_to_raise_the_limit(
    stub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.finish, stub.message = "content_filter", {"content": ""}
    words = ["eval", "--model", "world-base", "--server", stub.address, "--data", "world", "--data_options.n", "3"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "all outputs were withheld by the server (content_filter: 3) and count as wrong" in said
    assert "cut off" not in said
    assert "choose the --format" not in said


@pytest.mark.parametrize("content", [None, [], [{"type": "text", "text": None}], [{"type": "text"}]])
def test_answers_without_content_are_warned_of(content: Any, stub: Any, caplog: pytest.LogCaptureFixture) -> None:
    stub.message = {"content": content}
    engine_of(stub).complete([Example("one", "which ?", (), None, "red")])
    assert "all 1 answers so far have no content (null)" in caplog.text


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 529])
def test_a_busy_server_is_asked_again(status: int, stub: Any) -> None:
    engine = engine_of(stub)
    stub.fail = [(503, "loading"), (status, "slow down")]
    assert engine.complete([Example("one", "which ?", (), None, "red")])
    assert not stub.fail


REFUSALS = [
    # (status, what the server says, fields that it is not asked again with, those that it is asked with instead)
    (400, "Unrecognized request argument supplied: skip_special_tokens", {"skip_special_tokens"}, set()),
    (
        400,
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        {"max_tokens"},
        {"max_completion_tokens"},
    ),
    (
        422,
        {"detail": [{"loc": ["body", "repetition_penalty"], "msg": "Extra inputs are not permitted", "input": 1.0}]},
        {"repetition_penalty"},
        set(),
    ),
]


@pytest.mark.parametrize(("status", "said", "without", "instead"), REFUSALS)
def test_what_a_server_does_not_take_is_left_out_and_named_once(
    status: int, said: Any, without: set[str], instead: set[str], stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine, usual = engine_of(stub), stub.answer

    def refuse(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (status, said) if without & body.keys() else usual(path, body)

    stub.answer = refuse
    for number in range(2):
        assert engine.complete([Example(str(number), "which ?", (), None, "red")])
    assert len(stub.asked) == 2
    everything = {"model", "messages", "temperature", "repetition_penalty", "max_tokens", "stream"}
    everything |= {"skip_special_tokens"}
    assert all(body.keys() - {"stop_token_ids"} == everything - without | instead for body in stub.asked)
    (name,) = without
    assert [name in one.message for one in caplog.records] == [True]


def test_a_field_that_a_refusal_repeats_is_not_what_is_wrong(stub: Any) -> None:
    engine = engine_of(stub)
    repeated = {
        "loc": ["body", "model"],
        "msg": "no such model",
        "input": {"skip_special_tokens": False, "temperature": 0},
    }
    stub.fail = [(422, json.dumps({"detail": [repeated]}))]
    with pytest.raises(ConnectionError, match=r"answered 422: .*\}$"):  # no advice on the temperature that it repeats
        engine.complete([Example("one", "which ?", (), None, "red")])


def test_a_question_that_a_refusal_repeats_is_not_too_long(stub: Any) -> None:
    engine = engine_of(stub)
    stub.fail = [(422, json.dumps({"detail": [{"msg": "broken", "input": {"messages": "which model size ?"}}]}))]
    with pytest.raises(ConnectionError, match="answered 422"):
        engine.complete([Example("one", "which model size ?", (), None, "red")])


def test_where_every_item_is_too_long_the_options_that_help_are_named(stub: Any) -> None:
    engine = engine_of(stub)
    refuse_one(stub, *LONG_PROMPTS[0], "which")
    with pytest.raises(ConnectionError, match=r"/v1 refused 4 prompts.* as too long .*4096 tokens.*: lower --max-new"):
        engine.complete(ASKED)
    with pytest.raises(ConnectionError, match=r"/v1 refused the prompt as too long .*: lower --max-new"):
        engine_of(stub).stream(ASKED[0], lambda ids: True)


def test_fields_can_be_refused_one_after_another(stub: Any) -> None:
    engine = engine_of(stub)
    names = ("skip_special_tokens", "repetition_penalty")
    stub.fail = [(400, f"unknown field {name}") for name in names]
    engine.complete([Example("one", "which ?", (), None, "red")])
    assert not {*names} & stub.asked[0].keys()


def test_sampling_is_asked_for_in_full_and_each_item_has_a_seed_of_its_own(stub: Any) -> None:
    """What is not limited is named, too: else the checkpoint's own settings would apply."""
    engine, names = engine_of(stub), ("temperature", "top_p", "top_k", "min_p")
    engine.sampling = Sampling(temperature=0.6, top_p=0.95)
    examples = [Example(name, f"which {name} ?", (), None, "red") for name in ("one", "two")]
    engine.complete(examples)
    engine.complete(examples)
    assert {tuple(asked[name] for name in names) for asked in stub.asked} == {(0.6, 0.95, -1, 0.0)}
    seeds = sorted(asked["seed"] for asked in stub.asked)
    assert seeds[0] == seeds[1] < seeds[2] == seeds[3]


def test_an_evaluation_through_a_server_may_sample(stub: Any) -> None:
    found = evaluate("tiny:qwen2", Benchmark(ASKED, temperature=0.6), engine=stub.address)
    assert found.sampling == "temperature 0.6, seed 0"
    assert {asked["temperature"] for asked in stub.asked} == {0.6}


@pytest.mark.parametrize(
    ("sampling", "name", "is_left_out"),
    [
        (Sampling(temperature=0.6), "top_k", True),
        (Sampling(temperature=0.6), "top_p", True),
        (Sampling(temperature=0.6), "min_p", True),
        (Sampling(temperature=0.6), "seed", True),
        (Sampling(temperature=1.0), "temperature", True),
        (Sampling(temperature=0.6), "temperature", False),
        (Sampling(temperature=0.6, top_k=20), "top_k", False),
        (Sampling(temperature=0.6, top_p=0.9), "top_p", False),
        (Sampling(), "temperature", False),
    ],
    ids=str,
)
def test_a_field_that_changes_the_answers_is_not_left_out(
    sampling: Sampling, name: str, is_left_out: bool, stub: Any
) -> None:
    engine, usual = engine_of(stub), stub.answer
    engine.sampling = sampling
    stub.answer = lambda path, body: (400, f"no {name} here") if name in body else usual(path, body)
    example = Example("one", "which ?", (), None, "red")
    if is_left_out:
        assert engine.complete([example])
    else:
        with pytest.raises(ConnectionError, match=f"no {name} here"):
            engine.complete([example])


ASKED = [Example(str(number), f"which {number} ?", (), None, "red") for number in range(4)]
LONG_PROMPTS = [  # (status, what a server says)
    (400, "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens."),
    (400, {"error": {"code": "context_length_exceeded", "message": "reduce the length of the messages"}}),
    (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048: inputs is too long"),
    (400, "the request exceeds the available context size, try increasing it"),
    (413, "Prompt has 9000 tokens and is too long"),
]


def refuse_one(stub: Any, status: int, said: Any, text: str = "which 2 ?") -> None:
    """Let the server refuse each question with this text."""
    usual = stub.answer
    stub.answer = lambda path, body: (status, said) if text in json.dumps(body) else usual(path, body)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(("status", "said"), LONG_PROMPTS)
def test_a_prompt_that_is_too_long_for_the_server_does_not_end_the_evaluation(
    status: int, said: Any, batch_size: int, stub: Any
) -> None:
    engine = engine_of(stub)
    refuse_one(stub, status, said)
    asked = [ASKED[2], *ASKED[:2], ASKED[3]]  # the longest first
    parts = [asked[start : start + batch_size] for start in range(0, 4, batch_size)]
    found = [ids for part in parts for ids in engine.complete(part)]
    assert [getattr(ids, "reason", "") for ids in found] == ["context_length", "", "", ""]


@pytest.mark.parametrize("status", [400, 422, 500])
def test_an_item_that_the_server_fails_at_does_not_end_the_evaluation(
    status: int, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balanced_thinking.evaluation.engines.server._FIRST_PAUSE_SECONDS", 0.0)
    engine = engine_of(stub)
    refuse_one(stub, status, "cannot read this picture")
    found = engine.complete(ASKED)
    assert [getattr(ids, "reason", "") for ids in found] == ["", "", f"status_{status}", ""]
    assert "cannot read this picture" in found[2].said  # type: ignore[attr-defined]
    engine.complete([ASKED[0]])
    assert engine.complete([ASKED[2]])[0].reason == f"status_{status}"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "said"), [*LONG_PROMPTS, (400, "no such field"), (500, "out of memory"), (403, "no")]
)
def test_a_server_that_refuses_every_item_ends_the_evaluation(
    status: int, said: Any, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balanced_thinking.evaluation.engines.server._FIRST_PAUSE_SECONDS", 0.0)
    engine = engine_of(stub)
    engine.complete(ASKED)
    refuse_one(stub, status, said, "which")
    with pytest.raises(ConnectionError):
        engine.complete(ASKED)
    alone, withheld = engine_of(stub), 0
    with suppress(ConnectionError):  # also one item after the other
        for withheld, example in enumerate([*ASKED, *ASKED]):  # noqa: B007
            alone.complete([example])
    assert withheld <= 3


@pytest.mark.parametrize(
    ("message", "choice"),
    [
        ({"content": "B", "thoughts": "hm"}, {}),
        ({"content": "B", "reasoning_text": "hm"}, {}),
        ({"content": "B", "provider_specific_fields": {"reasoning_content": "hm"}}, {}),
        ({"content": "B"}, {"reasoning": "hm"}),
        ({"content": "", "reasoning": ""}, {"finish_reason": "length"}),
    ],
)
def test_reasoning_that_was_taken_out_is_found_wherever_a_gateway_puts_it(
    message: dict[str, Any], choice: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="without a reasoning parser"):
        read_choice({"finish_reason": "stop", **choice}, message, "http://here/v1")


def test_an_empty_content_beside_a_null_reasoning_is_an_empty_answer() -> None:
    """vLLM names the key without a parser, too."""
    assert read_choice({"finish_reason": "stop"}, {"content": "", "reasoning": None}, "http://here/v1").text == ""


def test_what_follows_the_end_of_a_turn_is_cut_off_before_its_answer_is_looked_for(stub: Any) -> None:
    """A server that knows no `stop_token_ids` may write on, as if the user spoke."""
    engine = engine_of(stub)
    end = engine.tokenizer.eos_token
    ids = engine.tokenize_completion(f"<think>red{end}\nx</think><answer>red</answer>", True)
    prediction = engine.scorer.score_completion(ASKED[0], ids)
    assert (prediction.correct, prediction.completion) == (False, "<think>red")


def test_a_model_that_is_never_greedy_is_named_with_the_option(stub: Any) -> None:
    engine = engine_of(stub)
    stub.fail = [(400, "Unsupported value: 'temperature' does not support 0.0 with this model.")]
    with pytest.raises(ConnectionError, match="unless --temperature is given"):
        engine.complete([Example("one", "which ?", (), None, "red")])


@pytest.mark.parametrize(
    ("name", "times"),
    [("other", 1), ("tiny-mini", 1), ("tiny", 0), ("tiny-2024-08-06", 0), ("tiny-latest", 0), ("", 0), (None, 0)],
)
def test_another_model_that_answers_is_named_once(
    name: str | None, times: int, stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stub.extra = {"model": name}
    engine_of(stub).complete([Example(str(n), "which ?", (), None, "red") for n in range(3)])
    assert caplog.text.count(f"was asked for tiny, but {name} answers; check --served-model") == times
    assert caplog.text.count("was asked for") == times


@pytest.mark.parametrize("end", ["", "/", "/chat/completions", "/chat/completions/"])
def test_an_address_may_have_a_slash_or_the_end_point(end: str, stub: Any) -> None:
    assert ServerEngine(f"{stub.address}{end}", build_tiny("qwen2")[1]).base_url == stub.address


def test_an_address_without_its_version_is_named(stub: Any) -> None:
    stub.fail = [(404, "Not Found")]
    place = stub.address.removesuffix("/v1")
    with pytest.raises(
        ConnectionError, match=rf"Not Found; .* no version of the API: expected one such as {stub.address}"
    ):
        ServerEngine(place, build_tiny("qwen2")[1])


@pytest.mark.parametrize(
    ("fail", "message", "error", "said"),
    [
        ([(400, "max_tokens is too large")], {}, ConnectionError, "answered 400: max_tokens is too large"),
        ([(500, "out of memory")] * 4, {}, ConnectionError, "answered 500: out of memory"),
        ([], {"content": "B", "reasoning_content": "hm"}, ValueError, "without a reasoning parser"),
        ([], {"content": "B", "reasoning": "hm"}, ValueError, "without a reasoning parser"),
        ([], {"content": "B", "reasoning_details": [{"text": "hm"}]}, ValueError, r"\(`reasoning_details`\)"),
        ([], {"content": "B", "thinking": "hm"}, ValueError, "without a reasoning parser"),
        ([], {"content": "B", "thinking_blocks": [{}]}, ValueError, "without a reasoning parser"),
        ([], {"content": [], "reasoning_content": None}, ValueError, "without a reasoning parser"),
        ([], {"content": [{"type": "thinking", "thinking": []}, {"text": "B"}]}, ValueError, "of type thinking"),
        ([], {"content": [{"type": "reasoning", "text": "hm"}]}, ValueError, "without a reasoning parser"),
        ([], {"content": [{"type": "redacted_thinking", "data": "x"}]}, ValueError, "without a reasoning parser"),
        ([(200, "<html>")], {}, ConnectionError, "cannot be read"),
        ([(429, "slow down")] * 4, {}, ConnectionError, "answered 429: slow down; ask for less at a time with --batch"),
        ([(404, "no model x")], {}, ConnectionError, "answered 404: no model x$"),
        ([(200, '{"error": "overloaded"}')], {}, ConnectionError, "answered without a completion: .*overloaded"),
        ([(200, '{"choices": [{"message": null}]}')], {}, ConnectionError, "answered without a completion: .*None"),
    ],
)
def test_what_the_server_says_is_told(fail: Any, message: Any, error: Any, said: str, stub: Any) -> None:
    engine = engine_of(stub)
    stub.fail, stub.message = list(fail), message
    with pytest.raises(error, match=said):
        engine.complete([Example("one", "which ?", (), None, "red")])


@pytest.mark.parametrize("answer", ['["a"]', '{"error": "a"}', '{"data": [{}]}', "null"])
def test_a_server_that_lists_no_models_is_told(answer: str, stub: Any) -> None:
    stub.fail = [(200, answer)]
    with pytest.raises(ConnectionError, match=r"/models gave no list of models: .*is the server OpenAI-compatible"):
        engine_of(stub)


def test_a_wrong_address_is_told(stub: Any) -> None:
    with pytest.raises(ValueError, match="expected an address such as http"):
        ServerEngine("localhost:8000", build_tiny("qwen2")[1])
    with pytest.raises(ConnectionError, match="is the server running, and the address right"):
        ServerEngine("http://127.0.0.1:9/v1", build_tiny("qwen2")[1])


def test_a_key_comes_from_the_environment(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    ServerEngine(stub.address, build_tiny("qwen2")[1])
    assert stub.key == "Bearer secret"


def fake_vllm(monkeypatch: pytest.MonkeyPatch, golds: dict[str, str]) -> list[Any]:
    """A module `vllm` whose model answers each question with its gold; returns what it was asked."""
    asked: list[Any] = []

    class LLM:
        def __init__(self, model: str, dtype: str, **revisions: str) -> None:
            asked.append((model, dtype, *revisions.items()))

        def chat(self, conversations: list[Any], how: Any, use_tqdm: bool) -> list[Any]:
            asked.append(how)
            texts = [one[0]["content"][-1]["text"] for one in conversations]
            said = [f"<think>I see it .</think><answer>{golds[text]}</answer> and more" for text in texts]
            return [SimpleNamespace(outputs=[SimpleNamespace(text=text, finish_reason="stop")]) for text in said]

    module = SimpleNamespace(LLM=LLM, SamplingParams=lambda **how: how)
    monkeypatch.setitem(sys.modules, "vllm", module)
    return asked


def test_vllm_answers_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_vllm(monkeypatch, {example.question: example.answer for example in load(split="test", n=5)})
    words = ["eval", "--model", "world-base", "--engine", "vllm", "--data", "world", "--data_options.n", "5"]
    words += ["--dtype", "float16"]
    assert main([*words, "--max-new-tokens", "77", "--out", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["n"], summary["correct"], summary["truncated"], summary["malformed"]) == (5, 5, 0, 0)
    assert asked[0] == (find_model_source("world-base"), "float16")
    assert asked[1] == [{"temperature": 0.0, "max_tokens": 77, "skip_special_tokens": False}] * 5
    assert main([*words, "--temperature", "0.6", "--top-k", "20", "--out", str(tmp_path / "sampled")]) == 0
    drawing = {"temperature": 0.6, "top_p": 1.0, "top_k": 20, "min_p": 0.0}
    assert all(drawing.items() <= one.items() for one in asked[3])
    assert len({one["seed"] for one in asked[3]}) == 5


def test_vllm_loads_the_revision_in_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_vllm(monkeypatch, {})
    VllmEngine("acme/tiny@v1", build_tiny("qwen2")[1], dtype="float32")
    assert asked == [("acme/tiny", "float32", ("revision", "v1"), ("tokenizer_revision", "v1"))]


def test_vllm_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_tiny("qwen2")[1]
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match=r"balanced-thinking\[vllm\]"):
        VllmEngine("somewhere", tokenizer)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="is an adapter"):
        VllmEngine(str(tmp_path), tokenizer)


def test_from_the_command_line(stub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", "world-base", "--server", stub.address, "--data", "world", "--data_options.n", "4"]
    assert main([*words, "--prompt", "instructed", "--out", str(tmp_path / "out")]) == 0
    assert "n = 4" in capsys.readouterr().out
    assert len(stub.asked) == 4
    assert all("exactly in this form" in str(asked) for asked in stub.asked)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["prompt"], summary["scorer"]) == ("instructed", "exact")


def test_a_server_has_its_own_dtype(stub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", "world-base", "--server", stub.address, "--data", "world", "--data_options.n", "1"]
    assert exit_code([*words, "--dtype", "bfloat16", "--out", str(tmp_path / "out")]) == 2
    assert "has its own dtype: leave --dtype bfloat16 out" in capsys.readouterr().err
