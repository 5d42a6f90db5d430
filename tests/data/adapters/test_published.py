"""Data sets in the layouts that their authors publish, one row of each by hand."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from balanced_thinking.data import tables
from balanced_thinking.data.convert import write_jsonl
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.load import load_data
from balanced_thinking.data.registry import DATASETS, resolve_data
from balanced_thinking.data.rows import to_dataset
from tests.conftest import REPOSITORY


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)


def dump(path: Path, value: Any, *, lines: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in value) if lines else json.dumps(value))


def vision_r1(folder: Path) -> None:
    picture(folder / "llava_cot_images/sqa/1.png")
    picture(folder / "mulberry_images/geo/2.png")
    said = "<think>\nTwo sides.\n</think>\n\n<answer> Final Answer:C </answer>"
    turns = [{"from": "human", "value": "<image>\nWhich ?"}, {"from": "gpt", "value": said}]
    dump(
        folder / "vision_r1_llava_cot_full.json",
        [{"id": "a", "image": "llava_cot_images/sqa/1.png", "conversations": turns}],
    )
    turns = [{"from": "user", "value": "<image>Which ?"}, {"from": "assistant", "value": said}]
    dump(
        folder / "vision_r1_mulberry_sft_full.json",
        [{"images": "mulberry_images/geo/2.png", "conversations": turns}],
    )


def llava_cot(folder: Path) -> None:
    picture(folder / "coco/1.jpg")
    said = "<SUMMARY> s </SUMMARY>\n\n<CAPTION> c </CAPTION>\n\n<REASONING> r </REASONING>\n\n"
    said += "<CONCLUSION> {} </CONCLUSION>"
    turns = [
        {"from": "human", "value": "Which ?"},
        {"from": "gpt", "value": said.format("D")},
        {"from": "human", "value": "How many ?"},
        {"from": "gpt", "value": said.format("4")},
    ]
    dump(folder / "train.jsonl", [{"id": "x", "image": "coco/1.jpg", "conversations": turns}], lines=True)


def vlaa(folder: Path) -> None:
    picture(folder / "images/geo/1.png")
    row = {"id": "g1", "image": "geo/1.png", "question": "Which ?\nChoices:\nA: 1\nB: 2", "gt": "B"}
    said = "<think>It is two.</think>\n<answer> B </answer>"
    dump(folder / "VLAA-Thinking-SFT-126K.json", [row | {"answer": said}], lines=True)
    dump(folder / "VLAA-Thinking-GRPO-25K.json", [row | {"gt": 3}], lines=True)


def mulberry(folder: Path) -> None:
    picture(folder / "mulberry_images/geo/1.png")
    said = (
        "### Image Description:\nA square.\n\n### Rationales:\nSides.\n\n### Let's think step by step.\n\n### Step 1:\n"
        "Count.\n\n### The final answer is:\nB: 4"
    )
    turns = [{"role": "user", "content": "<image>Question: Which ?"}, {"role": "assistant", "content": said}]
    dump(folder / "mulberry_sft.json", [{"messages": turns, "images": "geo/1.png"}])


def tabmwp(folder: Path) -> None:
    picture(folder / "tables/462.png")
    picture(folder / "tables/7.png")
    item = {"question": "What was the cost ?", "choices": None, "answer": "3.30", "unit": "$", "solution": "Multiply."}
    other = {"question": "Enough ?", "choices": ["yes", "no"], "answer": "no", "unit": None, "solution": "Add."}
    dump(folder / "problems_train.json", {"462": item | {"ans_type": "decimal_number"}, "7": other})


def chartqa(folder: Path) -> None:
    picture(folder / "test/png/41.png")
    picture(folder / "test/png/42.png")
    dump(folder / "test/test_human.json", [{"imgname": "41.png", "query": "How many ?", "label": "14"}])
    dump(folder / "test/test_augmented.json", [{"imgname": "42.png", "query": "Which ?", "label": "Yes"}])


def mathvista(folder: Path) -> None:
    picture(folder / "images/3.jpg")
    item = {"question": "The angle ?", "image": "images/3.jpg", "choices": ["135°", "145°"], "answer": "145°"}
    dump(folder / "testmini.json", {"3": item | {"pid": "3", "unit": None, "metadata": {"task": "geometry"}}})
    dump(folder / "test.json", {"3": item | {"pid": "3", "answer": ""}})


# name, what writes it, split, options, (id, question, think, answer, choices) of each example
PUBLISHED: list[tuple[str, Callable[[Path], None], str, dict[str, Any], list[tuple[Any, ...]]]] = [
    (
        "vision-r1-cold",
        vision_r1,
        "train",
        {},
        [
            ("a", "Which ?", "Two sides.", "Final Answer:C", ()),
            ("vision_r1_mulberry_sft_full-000001", "Which ?", "Two sides.", "Final Answer:C", ()),
        ],
    ),
    (
        "vision-r1-cold",
        vision_r1,
        "train",
        {"part": "llava_cot"},
        [("a", "Which ?", "Two sides.", "Final Answer:C", ())],
    ),
    (
        "llava-cot",
        llava_cot,
        "train",
        {},
        [("x-0", "Which ?", ..., "D", ()), ("x-1", "How many ?", ..., "4", ())],
    ),
    ("vlaa-thinking", vlaa, "train", {}, [("g1", "Which ?\nChoices:\nA: 1\nB: 2", "It is two.", "B", ())]),
    ("vlaa-thinking", vlaa, "train", {"part": "grpo"}, [("g1", "Which ?\nChoices:\nA: 1\nB: 2", None, "3", ())]),
    ("mulberry", mulberry, "train", {}, [("mulberry_sft-000001", "Question: Which ?", ..., "B: 4", ())]),
    (
        "tabmwp",
        tabmwp,
        "train",
        {},
        [
            ("462", "What was the cost ? (Unit: $)", "Multiply.", "3.30", ()),
            ("7", "Enough ?\nA. yes\nB. no", "Add.", "no", ("yes", "no")),
        ],
    ),
    (
        "chartqa",
        chartqa,
        "test",
        {},
        [("human-00001", "How many ?", None, "14", ()), ("augmented-00001", "Which ?", None, "Yes", ())],
    ),
    (
        "mathvista",
        mathvista,
        "testmini",
        {},
        [("3", "The angle ?\nA. 135°\nB. 145°", None, "145°", ("135°", "145°"))],
    ),
]


@pytest.mark.parametrize(("name", "write", "split", "options", "expected"), PUBLISHED)
def test_a_published_folder_is_recognised_and_read(
    name: str, write: Callable[[Path], None], split: str, options: dict[str, Any], expected: list[Any], tmp_path: Path
) -> None:
    write(tmp_path)
    assert resolve_data(str(tmp_path))[0] == name
    examples = load_data(str(tmp_path), split=split, options=options, verify_images=True).examples
    assert len(examples) == len(expected)
    for example, (identity, question, think, answer, choices) in zip(examples, expected, strict=True):
        assert (example.id, example.question, example.answer, example.choices) == (identity, question, answer, choices)
        assert len(example.images) == 1
        assert example.think if think is ... else example.think == think
    with pytest.raises(ValueError, match=r"no split|is not"):
        load_data(str(tmp_path), split="dev")


def test_withheld_answers_are_bad_rows(tmp_path: Path) -> None:
    mathvista(tmp_path)
    loaded = load_data(str(tmp_path), split="test", on_bad_row="drop")
    assert [row.problems for row in loaded.bad_rows] == [("no_answer",)]


@pytest.mark.parametrize("part", ["nothing", "sftt"])
def test_an_unknown_part_is_refused(part: str, tmp_path: Path) -> None:
    vlaa(tmp_path)
    with pytest.raises(ValueError, match="no part"):
        load_data(str(tmp_path), options={"part": part})


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), "blue").save(buffer, format="JPEG")
    return buffer.getvalue()


def table(folder: Path, split: str, **columns: list[Any]) -> str:
    """A folder as the hub has it: one parquet file of a split, pictures as `datasets` stores them."""
    cells = {
        name: [{"bytes": cell, "path": None} if isinstance(cell, bytes) else cell for cell in column]
        for name, column in columns.items()
    }
    rows = datasets.Dataset.from_dict(cells)
    for name, column in columns.items():
        if any(isinstance(cell, bytes) for cell in column):
            rows = rows.cast_column(name, datasets.Image())
    (folder / "data").mkdir()
    rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


def scienceqa_table(folder: Path) -> str:
    return table(
        folder,
        "test",
        image=[jpeg(), None],
        question=["Which ?", "What ?"],
        choices=[["dog", "cat"], ["a", "b"]],
        answer=[1, 0],
        hint=["", "Look."],
        lecture=["Cats purr.", ""],
        solution=["It purrs.", ""],
        subject=["biology", "biology"],
    )


def iconqa_table(folder: Path) -> str:
    return table(
        folder,
        "test",
        question_id=["1", "2", "3", "4"],
        question=["Which ?", "How many ?", "How much ?", "Which ?"],
        choices=["choice_0.png,choice_1.png", "4,6,8", None, "choice_0.png,choice_1.png,choice_2.png"],
        answer=["choice_1.png", "6", "12", "choice_2.png"],
        query_image=[jpeg()] * 4,
        choice_image_0=[jpeg(), None, None, jpeg()],
        choice_image_1=[jpeg(), None, None, jpeg()],
        ques_type=["choose_img", "choose_txt", "fill_in_blank", "choose_img"],
    )


def chartqa_table(folder: Path) -> str:
    return table(folder, "test", image=[jpeg()], query=["How many ?"], label=[["14"]], human_or_machine=[1])


def lmms_chartqa_table(folder: Path) -> str:
    return table(folder, "test", image=[jpeg()], type=["human_test"], question=["How many ?"], answer=["14"])


def mathvista_table(folder: Path) -> str:
    return table(
        folder,
        "testmini",
        pid=["3"],
        question=["The weight ?"],
        image=["images/3.jpg"],
        decoded_image=[jpeg()],
        choices=[[]],
        unit=["g"],
        answer=["12"],
        metadata=[{"task": "geometry"}],
    )


def puzzlevqa_table(folder: Path) -> str:
    return table(
        folder,
        "train",
        image=[jpeg()],
        category=["colors"],
        question=["Which ?"],
        options=["[6, 3, 4]"],
        answer=["4"],
        caption=["A grid."],
        explanation=["It grows."],
        deduction=["So 4."],
    )


# name, what writes it, split, (answer, choices, pictures, family) of each good row, bad rows
TABLES = [
    ("scienceqa", scienceqa_table, "test", [("B", ("dog", "cat"), 1, "biology")], 0),
    (
        "iconqa",
        iconqa_table,
        "test",
        [
            ("B", ("picture 2", "picture 3"), 3, "choose_img"),
            ("B", ("4", "6", "8"), 1, "choose_txt"),
            ("12", (), 1, "fill_in_blank"),
        ],
        1,
    ),
    ("chartqa", chartqa_table, "test", [("14", (), 1, "augmented")], 0),
    ("chartqa", lmms_chartqa_table, "test", [("14", (), 1, "human")], 0),
    ("mathvista", mathvista_table, "testmini", [("12", (), 1, "geometry")], 0),
    ("puzzlevqa", puzzlevqa_table, "all", [("4", ("6", "3", "4"), 1, "colors")], 0),
]


@pytest.mark.parametrize(("name", "write", "split", "expected", "bad"), TABLES)
def test_the_hubs_columns_are_read(
    name: str, write: Callable[[Path], str], split: str, expected: list[Any], bad: int, tmp_path: Path
) -> None:
    loaded = load_data(f"{name}:{write(tmp_path)}", split=split, on_bad_row="drop", verify_images=True)
    found = [(e.answer, e.choices, len(e.images), e.meta["family"]) for e in loaded.examples]
    assert (found, loaded.dropped) == (expected, bad)
    (stored,) = to_dataset(loaded.examples[:1])["images"]
    assert stored[0]["bytes"] == jpeg()  # as published, not encoded again
    assert open_image(loaded.examples[0].images[0]).size == (16, 12)


def test_a_name_on_the_hub_goes_to_its_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    local = scienceqa_table(tmp_path)
    load = datasets.load_dataset

    def there(name: str, subset: str | None, **options: Any) -> Any:
        asked.append((name, subset))
        return load(local, **options)

    monkeypatch.setattr(datasets, "load_dataset", there)
    assert resolve_data("derek-thomas/ScienceQA") == ("scienceqa", "derek-thomas/ScienceQA")
    examples: list[Example] = load_data("derek-thomas/ScienceQA", split="test").examples
    load_data("scienceqa:somebody/copy", split="test", options={"subset": "ScienceQA-IMG"})
    assert [e.id for e in examples] == ["test-00001"]
    assert asked == [("derek-thomas/ScienceQA", None), ("somebody/copy", "ScienceQA-IMG")]


def test_files_of_a_hub_name_are_downloaded_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlaa(tmp_path)
    asked = []

    def snapshot(name: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        asked.append((name, repo_type, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(ValueError, match="image_root"):
        load_data("UCSC-VLAA/VLAA-Thinking")
    assert asked == []
    options = {"image_root": str(tmp_path / "images")}
    assert len(load_data("UCSC-VLAA/VLAA-Thinking", options=options).examples) == 1
    assert asked == [("UCSC-VLAA/VLAA-Thinking", "dataset", ["VLAA-Thinking-SFT-126K.json"])]


def test_a_truncated_picture_of_a_table_is_found(tmp_path: Path) -> None:
    place = table(tmp_path, "test", image=[jpeg()[:-200]], query=["How many ?"], label=[["14"]])
    loaded = load_data(f"chartqa:{place}", split="test", on_bad_row="drop", verify_images=True)
    assert [row.problems for row in loaded.bad_rows] == [("broken_image",)]


def test_a_row_without_its_picture_is_found(tmp_path: Path) -> None:
    place = table(tmp_path, "test", image=[jpeg(), None], query=["How many ?"] * 2, label=[["14"], ["15"]])
    loaded = load_data(f"chartqa:{place}", split="test", on_bad_row="drop")
    assert [row.problems for row in loaded.bad_rows] == [("missing_image",)]


def test_a_table_is_converted_with_its_pictures_as_they_are(tmp_path: Path) -> None:
    examples = load_data(f"chartqa:{chartqa_table(tmp_path)}", split="test").examples
    out = tmp_path / "out.jsonl"
    write_jsonl(examples, out)
    assert (tmp_path / "out-images" / "000000-0.jpeg").read_bytes() == jpeg()
    again = load_data(str(out), verify_images=True).examples
    assert [example.answer for example in again] == ["14"]

    def failing() -> Iterator[Example]:
        yield Example("x", "Which ?", (Image.new("RGB", (4, 4)),), None, "B")
        raise ValueError("a bad row")

    with pytest.raises(ValueError, match="a bad row"):
        write_jsonl(failing(), out)
    assert sorted(file.name for file in (tmp_path / "out-images").iterdir()) == ["000000-0.jpeg"]
    assert not list(tmp_path.glob(".out*"))


def test_a_users_folder_in_llava_cots_tags_is_not_taken_for_llava_cot(tmp_path: Path) -> None:
    llava_cot(tmp_path)
    dump(tmp_path / "test.jsonl", [], lines=True)
    assert resolve_data(str(tmp_path))[0] == "jsonl"


@pytest.mark.parametrize(("name", "file"), [("tabmwp", "problems_train.json"), ("mathvista", "testmini.json")])
def test_items_that_are_not_objects_are_bad_rows(name: str, file: str, tmp_path: Path) -> None:
    split = "train" if name == "tabmwp" else "testmini"
    dump(tmp_path / file, {"1": "text"})
    loaded = load_data(f"{name}:{tmp_path}", split=split, on_bad_row="drop")
    assert [row.problems for row in loaded.bad_rows] == [("not_an_object",)]
    dump(tmp_path / file, ["text"])
    with pytest.raises(ValueError, match="has a list"):
        load_data(f"{name}:{tmp_path}", split=split)


def test_an_existing_path_is_not_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not tables.is_hub_name("owner/name")
    assert not tables.is_hub_name("owner/misspelt")
    assert tables.is_hub_name("another/name")
    assert not tables.is_hub_or_parquet("owner/name")


@pytest.mark.slow
def test_200_000_rows_are_indexed_within_four_minutes_and_a_gibibyte(tmp_path: Path) -> None:
    script = REPOSITORY / "benchmarks" / "index.py"
    words = ["--rounds", "1", "--only", "rows", "--json", str(tmp_path / "found.json")]
    subprocess.run([sys.executable, str(script), *words], check=True)
    found = json.loads((tmp_path / "found.json").read_text())["figures"]["rows"]
    assert found["cpu_seconds"]["median"] < 240  # of a slow CPU, not of the clock: others may use the machine
    assert found["mib"]["median"] < 1024


def test_every_data_set_lists_its_options() -> None:
    from importlib import import_module

    for name, module in DATASETS.items():
        assert import_module(module).__doc__, name


@pytest.mark.parametrize(("label", "family"), [("machine", "augmented"), ("human", "human")])
def test_chartqa_names_its_halves(tmp_path: Path, label: str, family: str) -> None:
    found = table(tmp_path, "test", image=[jpeg()], query=["How many ?"], label=[["14"]], human_or_machine=[label])
    assert load_data(f"chartqa:{found}", split="test").examples[0].meta["family"] == family
