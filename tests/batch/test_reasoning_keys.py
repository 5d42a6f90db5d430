"""Reasoning beside the content of a row that a trainer gets: it is trained on, or the row is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from balanced_thinking.batch.messages import merge_reasoning
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.segments import get_format

FORMAT = get_format("think-answer")
WRITTEN = "<think>It has fins.</think><answer>fish</answer>"


@pytest.mark.parametrize("content", ["fish", "<answer>fish</answer>", [{"type": "text", "text": "fish"}]])
@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "thought", "think"])
@pytest.mark.parametrize("value", ["It has fins.", ["It has fins."], [{"type": "text", "text": " It has fins. "}]])
def test_reasoning_under_a_key_is_written_into_the_content(content: Any, key: str, value: Any) -> None:
    found = merge_reasoning({"role": "assistant", key: value, "content": content}, FORMAT, "one")
    assert found == {"role": "assistant", "content": WRITTEN}


@pytest.mark.parametrize("kind", ["thinking", "reasoning", "thought"])
def test_reasoning_in_a_part_is_written_into_the_content(kind: str) -> None:
    parts = [{"type": kind, kind: "It has fins."}, {"type": "text", "text": "fish"}]
    assert merge_reasoning({"role": "assistant", "content": parts}, FORMAT, "one")["content"] == WRITTEN


@pytest.mark.parametrize("value", [True, "off", None])
def test_a_flag_is_not_reasoning(value: Any) -> None:
    message = {"role": "assistant", "reasoning": value, "content": WRITTEN}
    assert merge_reasoning(message, FORMAT, "one") == {"role": "assistant", "content": WRITTEN}


@pytest.mark.parametrize("value", [{"steps": 3}, [["It has fins."]]])
def test_reasoning_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(RowError, match="sample one: reasoning") as caught:
        merge_reasoning({"role": "assistant", "reasoning": value, "content": "fish"}, FORMAT, "one")
    assert caught.value.problem == "not_text"
