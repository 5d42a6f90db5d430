"""The benchmarks' own layouts: ScienceQA and IconQA as their authors publish them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from balanced_thinking.data.bad_rows import BadRowsError
from balanced_thinking.data.load import load_data
from balanced_thinking.data.registry import resolve_data
from balanced_thinking.scoring.scorers import get_scorer


def test_every_public_scienceqa_item_loads(real_data: Path) -> None:
    examples = load_data(str(real_data / "scienceqa"), split="test", verify_images=True).examples
    assert len(examples) == 24
    first = examples[0]
    assert (first.id, first.answer, len(first.choices), len(first.images)) == ("5", "B", 3, 1)
    assert first.question.startswith("Context: People can use the engineering-design process")
    assert first.question.endswith("C. whether a parachute with a 1 m vent would swing too much at 400 km per hour")
    assert "\nWhich of the following could Gordon's test show?\nA. if the spacecraft" in first.question
    assert all(example.think for example in examples)


def test_every_public_iconqa_item_loads(real_data: Path) -> None:
    examples = load_data(str(real_data / "iconqa"), split="test", verify_images=True).examples
    assert len(examples) == 150
    by_family = {kind: [e for e in examples if e.meta["family"] == kind] for kind in ("choose_img", "fill_in_blank")}
    assert {len(group) for group in by_family.values()} == {50}
    assert {len(e.images) - len(e.choices) for e in by_family["choose_img"]} == {1}
    assert {len(e.choices) for e in by_family["choose_img"]} == {2, 3, 4, 5}
    assert all(e.think is None and not e.choices for e in by_family["fill_in_blank"])


@pytest.mark.parametrize("name", ["scienceqa", "iconqa"])
def test_the_gold_answer_is_right_and_the_other_letters_are_not(name: str, real_data: Path) -> None:
    scorer = get_scorer("exact")
    for example in load_data(str(real_data / name), split="test").examples:
        letters = [chr(ord("A") + k) for k in range(len(example.choices))]
        right = [letter for letter in letters if scorer(letter, example.answer, example.choices) == 1.0]
        assert right == ([example.answer] if letters else [])
        assert scorer(example.answer, example.answer, example.choices) == 1.0


def scienceqa(folder: Path, **changes: Any) -> str:
    item = {"question": "Which ?", "choices": ["dog", "cat"], "answer": 1, "hint": "", "image": "image.png"}
    item |= {"lecture": "Cats purr.", "solution": "It purrs.", "subject": "natural science"} | changes
    (folder / "problems.json").write_text(json.dumps({"7": item, "8": item | {"image": None}}))
    (folder / "pid_splits.json").write_text(json.dumps({"train": ["7", "8"], "test": ["9"]}))
    place = folder / "images" / "train" / "7"
    place.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(place / "image.png")
    return str(folder)


def test_scienceqa_reads_context_options_and_reasoning(tmp_path: Path) -> None:
    path = scienceqa(tmp_path)
    assert resolve_data(path) == ("scienceqa", path)
    (example,) = load_data(path).examples
    assert example.question == "Which ?\nA. dog\nB. cat"
    assert (example.answer, example.think) == ("B", "Cats purr.\nIt purrs.")
    assert [e.images for e in load_data(path, options={"pictures_only": False}).examples][1] == ()
    with pytest.raises(ValueError, match="no split 'val'"):
        load_data(path, split="val")
    with pytest.raises(BadRowsError):  # the split names an item that is not there
        load_data(path, split="test")


@pytest.mark.parametrize("changes", [{"answer": 2}, {"answer": "cat"}, {"choices": None}])
def test_scienceqa_items_without_a_right_option_are_bad_rows(changes: dict[str, Any], tmp_path: Path) -> None:
    loaded = load_data(scienceqa(tmp_path, **changes), on_bad_row="drop")
    assert [(row.id, row.problems) for row in loaded.bad_rows] == [("7", ("unknown_schema",))]


def iconqa(folder: Path, kind: str, name: str, item: Any) -> Path:
    place = folder / kind / name
    place.mkdir(parents=True)
    (place / "data.json").write_text(item if isinstance(item, str) else json.dumps(item))
    for picture in ("image.png", "choice_0.png", "choice_1.png"):
        Image.new("RGB", (8, 8)).save(place / picture)
    return place


def test_iconqa_reads_all_types_in_order_and_names_bad_items(tmp_path: Path) -> None:
    images = {"question": "Which ?", "choices": ["choice_0.png", "choice_1.png"], "answer": 0}
    place = iconqa(tmp_path / "val", "choose_img", "10", images)
    iconqa(tmp_path / "val", "choose_img", "9", images | {"answer": 5})
    iconqa(tmp_path / "val", "choose_txt", "3", {"question": "What ?", "choices": ["a", "b"], "answer": 1})
    iconqa(tmp_path / "val", "fill_in_blank", "1", {"question": "How many ?", "answer": 12})
    iconqa(tmp_path / "val", "fill_in_blank", "2", "{")
    loaded = load_data(f"iconqa:{tmp_path}", split="val", on_bad_row="drop")
    assert [(e.id, e.answer) for e in loaded.examples] == [
        ("choose_img-10", "A"),
        ("choose_txt-3", "B"),
        ("fill_in_blank-1", "12"),
    ]
    assert loaded.examples[0].images == tuple(place / n for n in ("image.png", "choice_0.png", "choice_1.png"))
    assert loaded.examples[0].question == "Which ?\nA. picture 2\nB. picture 3"
    assert [row.problems for row in loaded.bad_rows] == [("unknown_schema",), ("invalid_json",)]
    assert resolve_data(str(tmp_path))[0] == "iconqa"
    with pytest.raises(ValueError, match="is not IconQA"):
        load_data(f"iconqa:{tmp_path}", split="test")
    with pytest.raises(ValueError, match="did you mean 'choose_txt'"):
        load_data(f"iconqa:{tmp_path}", split="val", options={"types": "choose_text"})
