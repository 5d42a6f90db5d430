"""The tokens of closing tags: where thinking closes, the answer opens and closes, and the turn ends."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from balanced_thinking.segments import FORMATS, get_format, parse
from balanced_thinking.segments.closing import closing_spans, mark_closing_tokens

# (format, text, the marked parts in their order)
CASES: list[tuple[Any, str, list[str]]] = [
    (
        "think-answer",
        "<think>a</think><answer>B</answer><|im_end|>\n",
        ["</think>", "<answer>", "</answer>", "<|im_end|>\n"],
    ),
    ("think-answer", "<answer>B</answer>", ["<answer>", "</answer>"]),  # without thinking or an end token
    ("think-answer", "<think>a <answer>b</answer>", []),  # a draft inside of thinking that never closes
    ("auto", "<reason>a</reason>\n<answer>B</answer></s>", ["</reason>", "<answer>", "</answer>", "</s>"]),
    ("deepseek-r1", "<think>\na\n</think>\n\nB<|im_end|>", ["</think>", "<|im_end|>"]),  # the answer has no tags
    ("deepseek-r1", "a</think>B</think>C", ["</think>"]),  # the last one, which the answer follows
    (
        "glm-box",
        "<think>a</think><answer><|begin_of_box|>B<|end_of_box|></answer><|user|>",
        ["</think>", "<answer>", "<|begin_of_box|>", "<|end_of_box|>", "</answer>", "<|user|>"],
    ),
    ("boxed", r"so \frac{1}{2}, thus \boxed{\frac{1}{2}}.", [r"\boxed{", "}"]),  # nested braces
    ("llava-cot", FORMATS["llava-cot"].example, ["</REASONING>", "<CONCLUSION>", "</CONCLUSION>"]),
    ("mulberry", FORMATS["mulberry"].example + "<eos>", ["### The final answer is:", "<eos>"]),
    ("direct", "Two<end_of_turn>", ["<end_of_turn>"]),
    ({"think_close": "[/T]", "answer_open": "[A]"}, "a[/T] [A]B", ["[/T]", "[A]"]),  # a user's own format
]


@pytest.mark.parametrize(("format", "text", "expected"), CASES)
def test_closing_tags_of_every_format_are_found(format: Any, text: str, expected: list[str]) -> None:
    spans = closing_spans(parse(text, format), get_format(format))
    assert [text[slice(*span)] for span in spans] == expected
    assert spans == sorted(spans)


def test_what_the_prompt_has_opened_is_closed() -> None:
    text = "a</think><answer>B</answer>"
    spans = closing_spans(parse(text, opened="<think>"), get_format("think-answer"))
    assert [text[slice(*span)] for span in spans] == ["</think>", "<answer>", "</answer>"]


def test_a_token_is_marked_by_any_visible_character_of_a_tag() -> None:
    text = "<think>a.</think><answer>B</answer>[END] "
    parsed, format = parse(text), get_format("think-answer")
    cuts = [0, 7, 9, 16, 18, 24, 26, 35, 40, 41, 41]  # "</think" is one token, "><" another, ">B" a third
    offsets = list(itertools.pairwise(cuts))
    assert [text[slice(*offset)] for offset in offsets][3:6] == ["><", "answer", ">B"]
    assert mark_closing_tokens(parsed, format, offsets) == [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]
    assert mark_closing_tokens(parsed, format, offsets, end="[END]") == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
