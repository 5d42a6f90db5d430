"""Data as a user names them: names, options and their types, progress, and the lengths that `inspect` reports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from balanced_thinking.data.load import load_data
from balanced_thinking.data.registry import DATASETS, register
from balanced_thinking.inspection import describe_inspection, inspect_data
from balanced_thinking.models.tokenizer import make_tokenizer
from tests.conftest import REPOSITORY

REFUSED = [
    ({"data": "wrold"}, r"'wrold' \(did you mean 'world'\?\); expected one of world, puzzlevqa, scienceqa"),  # a slip
    ({"data": "no/such.jsonl"}, "there is no data set and no path"),  # a path that leads nowhere
    ({"data": "jsonl:no/such.jsonl"}, "there is no file no/such.jsonl"),  # likewise with its name
    ({"data": "jsonl"}, "needs a path: write jsonl:PATH"),  # a name that wants one
    ({"data": "puzzlevqa:."}, "is not PuzzleVQA"),  # another folder
    ({"data": str(REPOSITORY / "pyproject.toml")}, "is not in the form of a known data set"),  # another kind of file
    ({"data": "world", "options": {"ration": 10}}, r"no option 'ration' \(did you mean 'ratio'\?\); known: n, seed"),
    ({"data": "world", "options": {"split": "test"}}, "no option 'split'"),  # what load_data has itself
    ({"data": "world", "options": {"ratio": "ten"}}, "option 'ratio' of data set 'world' is 'ten'; expected float"),
    ({"data": "world", "options": {"n": "two"}}, "'n' of data set 'world' is 'two'; expected int"),  # a word
    ({"data": "world", "options": {"n": 2.5}}, "'n' .* is 2.5; expected int"),  # a fraction
    ({"data": "world", "options": {"n": True}}, "'n' .* is True; expected int"),  # a truth value
    ({"data": "world", "options": {"seed": None}}, "'seed' .* is None; expected int"),  # null
    ({"data": "world", "options": {"style": 3}}, "'style' .* is 3; expected str"),  # a number
    ({"data": "world", "options": {"families": "count"}}, "is 'count'; expected Sequence"),  # not in a list
    ({"data": "puzzlevqa:.", "options": {"families": 3}}, r"is 3; expected str \| Sequence\[str\] \| None"),  # neither
    ({"data": "jsonl:x", "options": {"image_root": 3}}, r"is 3; expected str \| Path \| None"),  # a union
    ({"data": 5}, "data is 5; expected a data set's name or a path as text, or a list of them"),  # no text
    ({"data": None}, "data is None; expected"),  # nothing
    ({"data": "world", "limit": 0}, "limit is 0"),  # nothing
    ({"data": "world", "on_bad_row": "skip"}, "expected 'error' or 'drop'"),  # a word for drop
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_an_error_of_loading_says_what_was_expected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(**arguments)


def test_an_option_of_its_type_passes_and_an_int_is_a_float(tmp_path: Path) -> None:
    for options in ({"ratio": 10}, {"ratio": 10.5}, {"families": ("count",)}, {"families": None}, {"n": np.int64(2)}):
        assert load_data("world", options={"n": 2} | options).examples
    (data := tmp_path / "data.jsonl").write_text('{"question": "Q", "answer": "2"}')
    for root in (str(tmp_path), tmp_path, None):
        assert load_data(str(data), options={"image_root": root}).examples


def test_only_options_with_a_plain_annotation_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balanced_thinking.data.registry.DATASETS", dict(DATASETS))
    levels = {
        "bare": "level=1",
        "hidden": "level: Unknown = 1",  # imported for type checkers only
        "typed": "level: int | None = 1",
    }
    for name, level in levels.items():
        (tmp_path / f"adapter_{name}.py").write_text(
            "from __future__ import annotations\nfrom balanced_thinking.data import Example\n"
            f"def load(path=None, *, split, {level}):\n    yield Example('1', 'Q', (), None, str(level))\n"
        )
        register(name, f"adapter_{name}")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("bare", "hidden"):
        assert load_data(name, options={"level": "high"}).examples[0].answer == "high"
    with pytest.raises(ValueError, match="'level' of data set 'typed' is 'high'"):
        load_data("typed", options={"level": "high"})


def test_rows_that_take_long_are_counted(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balanced_thinking.system.progress._MOST_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        assert len(load_data("world", limit=3, options={"n": 5}).examples) == 3
    assert caplog.messages[0].startswith("rows of world read: 1 after")


@pytest.mark.parametrize("ratio", [10, 40])
def test_words_and_tokens_give_the_same_ratio_of_thinking_to_answer(ratio: int) -> None:
    numbers = []
    for tokenizer in (None, make_tokenizer(eos_token="<eos>")):
        options = {"n": 80, "ratio": ratio}
        text = describe_inspection(inspect_data("world", split="test", options=options, processor=tokenizer))
        numbers.append([float(number) for number in re.findall(r"(?:mean|median|give|thinking and) ([\d.]+)", text)])
    words, tokens = numbers
    assert len(words) == 8  # think, answer: mean and median; the two weights of plain SFT; the ratio's mean and median
    assert words == pytest.approx(tokens, rel=0.15)
