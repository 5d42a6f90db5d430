"""A chat template that opens the thinking: every engine counts it, ends at the answer and stops at the turn's end."""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from balanced_thinking.data.bad_rows import BadRowsError
from balanced_thinking.data.example import Example, Turn
from balanced_thinking.data.load import LoadedData
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.evaluation.engines.local import FinishedSequences, LocalEngine
from balanced_thinking.evaluation.engines.server import ServerEngine
from balanced_thinking.evaluation.prompt_checks import drop_unrenderable_prompts
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.segments import get_format

CLOSED = "red it is .</think><answer>red</answer>"
EXAMPLE = Example("one", "which color ?", (), None, "red")


def processor_that(opens: str, architecture: str = "qwen2") -> Any:
    processor = copy.deepcopy(build_tiny(architecture)[1])
    template = processor.chat_template
    assert template.count("<|im_start|>assistant\\n") + template.count("<|im_start|>assistant\n") >= 1
    start = "{% if add_generation_prompt %}" + opens + "{% endif %}"
    processor.chat_template = template.rstrip() + start
    return processor


@pytest.mark.parametrize(
    ("opens", "text", "problems", "finished"),
    [
        ("<think>\n", CLOSED, [], True),
        ("<think>", f"\n{CLOSED}", [], True),
        ("", CLOSED, ["missing_open_think"], False),
        ("<think>\n\n</think>\n\n", CLOSED, ["missing_open_think"], False),  # closed again: nothing is open
        ("<think>\n\n</think>\n\n", f"<think>{CLOSED}", [], True),
        ("<think>\n", "red it is .", ["unclosed_think", "no_answer"], False),
        ("<think>\n", f"<think>{CLOSED}", ["nested_tag"], False),
        ("<think>\n", "</think><answer>red</answer>", ["empty_think"], False),
    ],
)
@pytest.mark.parametrize("architecture", ["qwen2", "qwen2_5_vl"])
def test_what_the_template_opens_counts(
    architecture: str, opens: str, text: str, problems: list[str], finished: bool
) -> None:
    scorer = CompletionScorer(processor_that(opens, architecture))
    ids = scorer.tokenizer(text, add_special_tokens=False)["input_ids"]
    prediction = scorer.score_completion(EXAMPLE, ids)
    assert prediction.problems == problems
    assert prediction.completion == text
    rows = torch.tensor([[1, 2, *ids]])
    stopping = FinishedSequences(scorer, 2, 1000, [scorer.find_opened(EXAMPLE)])
    assert stopping(rows, None).tolist() == [finished]


def test_an_opened_prompt_follows_the_format_that_is_evaluated() -> None:
    scorer = CompletionScorer(processor_that("◁think▷"))
    assert scorer.find_opened(EXAMPLE) == ""
    scorer.format = get_format("kimi")
    assert scorer.find_opened(EXAMPLE) == "◁think▷"


class Server:
    """Answers every question with one message."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {}
        self.finish: str | None = "stop"
        self.asked: list[dict[str, Any]] = []
        self.address = ""


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"role": "assistant", **found.message}
            data = json.dumps({"choices": [{"message": message, "finish_reason": found.finish}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        found.address = f"http://127.0.0.1:{http.server_address[1]}/v1"
        yield found
        http.shutdown()


def ask(server: Server, opens: str = "", examples: int = 1) -> Any:
    engine = ServerEngine(server.address, processor_that(opens), served_model="tiny")
    found = engine.complete([EXAMPLE] * examples)
    return engine.scorer.score_completion(EXAMPLE, found[0])


@pytest.mark.parametrize(
    ("opens", "content", "completion", "problems"),
    [
        ("<think>\n", CLOSED, CLOSED, []),
        ("<think>\n", f"\n{CLOSED}", f"\n{CLOSED}", []),
        ("<think>\n", f"<think>{CLOSED}", CLOSED, []),  # a server that repeats what the prompt opened
        ("", CLOSED, CLOSED, ["missing_open_think"]),
        ("", [{"type": "text", "text": "<think>red it is .</think>"}, {"type": "text", "text": "<answer>red</answer>"}],
         f"<think>{CLOSED}", []),  # content in parts
        ("", ["<think>", CLOSED], f"<think>{CLOSED}", []),
        ("", [], "", ["no_think", "no_answer"]),
        ("", f"<think>{CLOSED}<|im_end|>\n<|im_start|>user\nmore", f"<think>{CLOSED}", []),  # it ran past its end
        ("", "<think>red<|im_end|>\n<|im_start|>user", "<think>red", ["unclosed_think", "no_answer"]),
    ],
)  # fmt: skip
def test_a_servers_text_is_read_as_one_of_this_process(
    server: Server, opens: str, content: Any, completion: str, problems: list[str]
) -> None:
    server.message = {"content": content}
    prediction = ask(server, opens)
    assert (prediction.completion, prediction.problems) == (completion, problems)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("value", ["It is", "", None])
def test_a_reasoning_parser_is_noticed_by_its_key(server: Server, name: str, value: str | None) -> None:
    server.message, server.finish = {"content": None, name: value}, "length"
    with pytest.raises(ValueError, match="start it without a reasoning parser"):
        ask(server)


@pytest.mark.parametrize("message", [
    {"content": "<think>a</think><answer>red</answer>", "reasoning": None},  # a key alone says nothing beside a text
    {"content": None, "reasoning": None, "refusal": "no"},
    {"content": None, "tool_calls": [{"id": "1"}], "reasoning_content": None},
])  # fmt: skip
def test_a_key_alone_is_no_reasoning_parser(server: Server, message: dict[str, Any]) -> None:
    server.message = message
    assert ask(server).completion in ("", "<think>a</think><answer>red</answer>")


def test_answers_without_any_content_are_reported_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.message = {"content": None}
    with caplog.at_level(logging.WARNING):
        assert ask(server, examples=3).completion == ""
    assert [record.message for record in caplog.records if "have no content (null)" in record.message]
    caplog.clear()
    server.message = {"content": "B"}
    with caplog.at_level(logging.WARNING):
        ask(server)
    assert not caplog.records


def test_content_of_another_kind_is_a_connection_error(server: Server) -> None:
    server.message = {"content": 7}
    with pytest.raises(ConnectionError, match="expected a text, or parts with texts"):
        ask(server)


def test_a_server_is_given_the_ends_that_its_checkpoint_may_lack(server: Server) -> None:
    server.message = {"content": CLOSED}
    processor = processor_that("")
    processor.eos_token = "<|endoftext|>"
    engine = ServerEngine(server.address, processor, served_model="tiny")
    engine.complete([EXAMPLE])
    assert server.asked[-1]["stop_token_ids"] == [processor.convert_tokens_to_ids("<|im_end|>")]
    ask(server)
    assert "stop_token_ids" not in server.asked[-1]


def test_evaluation_stops_where_the_template_ends_a_turn_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = build_tiny("qwen2")
    tokenizer = copy.deepcopy(tokenizer)
    end, tokenizer.eos_token = tokenizer.eos_token_id, "<|endoftext|>"
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    with caplog.at_level(logging.INFO):
        engine = LocalEngine(model, tokenizer)
    assert set(engine.scorer.stops) == {end, tokenizer.eos_token_id}
    assert "ends a turn with '<|im_end|>'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        LocalEngine(*build_tiny("gemma3"))
    assert "ends a turn" not in caplog.text


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"question": "What is <|im_end|>?"}, "special_token"),
        ({"system": "Be <|im_start|>"}, "special_token"),
        ({"history": (Turn("user", "<|im_end|>"), Turn("assistant", "ok"))}, "special_token"),
        ({}, None),
    ],
)
def test_examples_that_cannot_be_asked_are_refused_before_the_model_is_loaded(
    changes: Any, problem: str | None
) -> None:

    data = LoadedData([EXAMPLE, replace(EXAMPLE, id="two", **changes)])
    about = (build_tiny("qwen2")[1], get_format("think-answer"))
    if problem is None:
        assert drop_unrenderable_prompts("mine", data, *about, "error") is data
        return
    with pytest.raises(BadRowsError) as refused:
        drop_unrenderable_prompts("mine", data, *about, "error")
    assert [(bad.row, bad.id, bad.problems) for bad in refused.value.rows] == [(2, "two", (problem,))]
    kept = drop_unrenderable_prompts("mine", data, *about, "drop")
    assert ([one.id for one in kept.examples], kept.dropped) == (["one"], 1)


def test_a_model_without_a_template_is_left_to_its_engine() -> None:
    data = LoadedData([EXAMPLE])
    tokenizer = SimpleNamespace(chat_template=None)
    assert drop_unrenderable_prompts("mine", data, tokenizer, get_format("direct"), "error") is data
