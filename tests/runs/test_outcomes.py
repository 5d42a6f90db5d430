"""How a completion ended."""

from __future__ import annotations

from typing import Any

import pytest

from balanced_thinking.runs.outcomes import MALFORMED, RIGHT, SLIP, TRUNCATED, WRONG, classify_outcome
from balanced_thinking.runs.records import Prediction
from tests.report.synthetic import row


def wrong(think: str, **changes: Any) -> dict[str, Any]:
    return row(0, False) | {"completion": f"<think>{think}</think><answer>blue</answer>"} | changes


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (row(0, True), RIGHT),
        (wrong("red", truncated=True, malformed=True), TRUNCATED),
        (wrong("red", malformed=True), MALFORMED),
        (wrong("the tile is blue .\nso its color is red ."), SLIP),
        (wrong("So it is Red."), SLIP),  # case does not matter
        (wrong("so its color is red . it is not blue ."), WRONG),  # only the last sentence concludes
        (wrong("it is red or blue ."), WRONG),  # both are named, so the conclusion is unclear
        (wrong("it is bored ."), WRONG),  # part of a word
        (wrong("so there are 3 .", gold="3", prediction="4"), SLIP),
        (wrong("so there are 13 .", gold="3", prediction="4"), WRONG),
        (wrong("take a look .", gold="A", prediction="B"), WRONG),  # a letter alone is no evidence
        (wrong("its color is green . option D is green .", gold="D", prediction="B"), SLIP),
        (wrong("the answer is (D)", gold="D", prediction="B"), SLIP),
        (wrong("", completion="no tags at all: red"), WRONG),
        (wrong("red .", gold="(red)", prediction=None), WRONG),
    ],
)
def test_every_completion_ends_in_one_group(prediction: dict[str, Any], expected: str) -> None:
    assert classify_outcome(Prediction(**({"id": "one"} | prediction)), "think-answer") == expected
