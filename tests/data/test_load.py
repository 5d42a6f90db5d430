"""Data: what the registry resolves, what each schema becomes, what is refused and how it is shown."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from balanced_thinking.data.adapters.puzzlevqa import FIELDS
from balanced_thinking.data.bad_rows import PROBLEMS, BadRow, BadRowsError
from balanced_thinking.data.checks import check_examples
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import decode_rgb, image_size, open_image
from balanced_thinking.data.load import load_data
from balanced_thinking.data.overlap import assert_no_overlap
from balanced_thinking.data.registry import DATASETS, register, resolve_data
from balanced_thinking.scoring.scorers import score_exact
from tests.conftest import REPOSITORY

THIRD_PARTY = Path(os.environ.get("BALANCED_THINKING_DATA", REPOSITORY.parent / "shared" / "data"))
PUZZLES = THIRD_PARTY / "puzzlevqa"
needs_puzzles = pytest.mark.skipif(
    not PUZZLES.is_dir(), reason="PuzzleVQA is not here: set BALANCED_THINKING_DATA to the folder that holds puzzlevqa/"
)
COMPLETION = "<think>Two reds, one blue.</think>\n<answer>2</answer>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures and one file that is none."""
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (4, 4), color).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return tmp_path


def write(folder: Path, *rows: Any, name: str = "data.jsonl") -> str:
    """A JSON Lines file; a row that is a string is written as it is."""
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


ASSISTANT = {"role": "assistant", "content": COMPLETION}
OURS = {"question": "How many reds?", "think": "Two reds, one blue.", "answer": "2", "image": "a.png"}
PARTS = [{"type": "image"}, {"type": "text", "text": "How many reds?"}]

SCHEMAS = [
    OURS,  # ours
    {**OURS, "answer": 2, "image": ["a.png"]},  # a number, a list of one
    {
        "question": "<image>\nHow many reds?",
        "reasoning": " Two reds, one blue.\n",
        "answer": " 2 ",
        "images": ["a.png"],
    },
    {"prompt": "How many reds?", "completion": COMPLETION, "image": "a.png"},  # TRL, strings
    {"prompt": [user("How many reds?")], "completion": [ASSISTANT], "images": ["a.png"]},  # TRL, messages
    {"prompt": [user(PARTS)], "completion": [ASSISTANT], "images": ["a.png"]},  # with parts
    {"messages": [user("How many reds?"), ASSISTANT], "images": ["a.png"]},  # TRL, one list
    {"messages": [user([{"type": "image", "image": "a.png"}, PARTS[1]]), ASSISTANT]},  # the picture inside its part
    {"messages": [user(PARTS), ASSISTANT], "images": [{"bytes": None, "path": "a.png"}]},  # as datasets stores pictures
    {  # Vision-R1-cold's first file
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "<image>\nHow many reds?"},
            {"from": "gpt", "value": COMPLETION},
        ],
    },
    {  # its second file
        "images": ["a.png"],
        "conversations": [
            {"from": "user", "value": "<image>How many reds?"},
            {"from": "assistant", "value": COMPLETION},
        ],
    },
    {"images": ["a.png"], "conversations": [user("How many reds?"), ASSISTANT]},  # the other spelling of its keys
    {**OURS, "images": None, "messages": None, "prompt": None, "completion": None, "split": None},  # joined
    {**OURS, "images": []},  # an empty list instead of null
    {**OURS, "think": None, "reasoning": OURS["think"]},  # the first spelling is null
    {**OURS, "think": "", "reasoning": OURS["think"]},  # or says nothing
    {  # both files of Vision-R1-cold in one
        "image": None,
        "images": ["a.png"],
        "messages": None,
        "conversations": [
            {"role": None, "content": None, "from": "human", "value": "How many reds?"},
            {"role": "assistant", "content": COMPLETION, "from": None, "value": None},
        ],
    },
    {"question": None, "messages": [], "prompt": "How many reds?", "completion": COMPLETION, "image": "a.png"},
]


@pytest.mark.parametrize("row", SCHEMAS)
def test_every_schema_becomes_the_same_example(folder: Path, row: dict[str, Any]) -> None:
    (example,) = load_data(write(folder, row), verify_images=True).examples
    read_as = {} if row.get("question") else {"read_as": "think-answer"}
    assert example == Example(
        "data-000001", "How many reds?", (folder / "a.png",), "Two reds, one blue.", "2", meta={"row": 1} | read_as
    )


def test_schemas_and_blank_lines_may_mix_and_json_may_be_lines_or_an_array(folder: Path) -> None:
    lines = load_data(write(folder, *SCHEMAS[:3], "", *SCHEMAS[3:], name="lines.json")).examples
    (folder / "array.json").write_text("\ufeff \n" + json.dumps(SCHEMAS, indent=1), encoding="utf-8")
    array = load_data(str(folder / "array.json")).examples
    assert [example.meta["row"] for example in lines] == [1, 2, 3, *range(5, len(SCHEMAS) + 2)]  # lines of the file
    assert [example.meta["row"] for example in array] == list(range(1, len(SCHEMAS) + 1))  # places in the array
    assert {(e.question, e.images, e.think, e.answer) for e in (*lines, *array)} == {
        ("How many reds?", (folder / "a.png",), "Two reds, one blue.", "2")
    }


def test_ids_choices_family_and_foreign_keys_are_kept(folder: Path) -> None:
    row = {**OURS, "id": 7, "choices": [1, 2], "family": "count", "source": "x", "meta": {"level": 3}}
    (example,) = load_data(write(folder, row)).examples
    assert (example.id, example.choices) == ("7", ("1", "2"))
    assert example.meta == {"family": "count", "source": "x", "level": 3, "row": 1}


def test_completions_are_read_in_the_format_that_is_asked_for(folder: Path) -> None:
    completions = (r"Two reds. \boxed{2}", "<think>Two reds.</think> 2", "2")
    data = write(folder, *({"prompt": "Q?", "completion": text} for text in completions))
    auto = load_data(data, on_bad_row="drop")
    assert [(e.think, e.answer) for e in auto.examples] == [("Two reds.", "2")] * 2
    assert [(bad.row, bad.problems[-1]) for bad in auto.bad_rows] == [(3, "no_answer")]
    for arguments in ({"format": "direct"}, {"options": {"format": "direct"}}):
        assert [e.answer for e in load_data(data, **arguments).examples] == list(completions)


def test_images_start_at_the_root_that_is_given_and_several_keep_their_order(folder: Path) -> None:
    data = write(folder, {**OURS, "image": None, "images": ["b.png", "a.png"]}, name="moved.jsonl")
    moved = folder / "elsewhere" / "moved.jsonl"
    moved.parent.mkdir()
    Path(data).rename(moved)
    (example,) = load_data(str(moved), options={"image_root": str(folder)}).examples
    assert example.images == (folder / "b.png", folder / "a.png")


BAD = [
    ("{not json", "invalid_json", "{not json"),  # broken syntax
    ("[" * 20 + "]" * 20, "not_an_object", "[["),  # a list
    ("17", "not_an_object", "17"),  # a number
    ({"text": "How many?"}, "unknown_schema", "keys: text"),  # a schema of someone else
    ({"prompt": "How many?"}, "unknown_schema", "keys: prompt"),  # half of one
    ({"messages": None, "question": None}, "unknown_schema", "keys: messages, question"),  # nothing but nulls
    ({"prompt": "How many?", "completion": None}, "no_answer", "How many?"),  # nobody answers
    ({**OURS, "images": None, "image": "c.png"}, "missing_image", "c.png"),  # the key that is not null is looked at
    ({"messages": [{"role": None, "content": "Q"}, ASSISTANT]}, "unknown_schema", "a turn without a role"),  # no role
    ({"messages": [user("Q"), {"role": "tool", "content": ""}]}, "unknown_schema", "tool"),  # a role we don't know
    ({"messages": ["Q", "A"]}, "unknown_schema", "a turn"),  # turns without roles
    ({"messages": [user([{"type": "chart"}]), ASSISTANT]}, "unknown_schema", "chart"),  # a part we can't show
    ({**OURS, "answer": True}, "not_text", "answer"),  # a truth value
    ({"messages": [user("Q")]}, "no_answer", "Q"),  # nobody answers
    ({"messages": [user("Q"), ASSISTANT, ASSISTANT]}, "multi_turn", "turns: user, assistant"),
    ({"messages": [user("Q"), ASSISTANT, user("Thanks!")]}, "multi_turn", "turns"),  # the last word is the user's
    ({**OURS, "question": " <image>\n"}, "no_question", "2"),  # only a placeholder
    ({**OURS, "answer": " "}, "no_answer", "How many reds?"),  # blank
    ({**OURS, "answer": None}, "no_answer", "How many reds?"),  # null
    ({"question": "Q", "image": "a.png"}, "no_answer", "Q"),  # absent
    ({**OURS, "question": "<image><image> Q"}, "image_count", "2 placeholders, 1 images"),  # more than pictures
    ({"question": "<image> Q", "answer": "2"}, "image_count", "1 placeholders, 0 images"),  # without any
    ({**OURS, "images": ["a.png", "b.png"], "question": "<image> Q"}, "image_count", "1 placeholders, 2 images"),
    ({**OURS, "image": "c.png"}, "missing_image", "c.png"),  # no such file
    ({**OURS, "image": "x" * 5000}, "missing_image", "x"),  # a name no file can have
    ({**OURS, "image": "a\0.png"}, "missing_image", "a"),  # likewise
    ({**OURS, "image": "."}, "missing_image", ""),  # a folder
    ({**OURS, "image": "broken.png"}, "broken_image", "broken.png"),  # damaged
    ({**OURS, "image": 3}, "broken_image", "3"),  # no path
    ({**OURS, "image": "https://example.com/a.png"}, "remote_image", "https://"),  # never fetched
    ({**OURS, "image": "data:image/png;base64,AAAA"}, "broken_image", "no picture"),  # no picture either
    ({**OURS, "choices": ["1", "3"]}, "answer_not_in_choices", "2 not in 1, 3"),  # gold is not a choice
    ({**OURS, "answer": "C", "choices": ["1", "3"]}, "answer_not_in_choices", "C not in"),  # a letter too far
    ({**OURS, "answer": "\ud800"}, "lone_surrogate", "\ud800"),  # no text that can be written
    ({**OURS, "system": "\ud800"}, "lone_surrogate", "\ud800"),
    ({**OURS, "history": [["\ud800", "Hi."]]}, "lone_surrogate", "\ud800"),
    ({**OURS, "answers": ["\ud800"]}, "lone_surrogate", "\ud800"),
    ({"prompt": "Q", "completion": "<think>Two reds"}, "unclosed_think", "<think>Two reds"),  # truncated
    ({"prompt": "Q", "completion": "<answer>2</answer>"}, "no_think", "<answer>2"),  # the format asks for thoughts
    ({"prompt": "Q", "completion": f"{COMPLETION} Bye"}, "text_after_answer", "Bye"),  # talk after the answer
]


@pytest.mark.parametrize(("row", "problem", "text"), BAD)
def test_a_bad_row_is_named_with_its_line_and_text(folder: Path, row: Any, problem: str, text: str) -> None:
    loaded = load_data(write(folder, OURS, "", row), on_bad_row="drop", verify_images=True)
    (bad,) = loaded.bad_rows
    assert bad.row == 3
    assert problem in bad.problems
    assert text in bad.text
    assert [example.id for example in loaded.examples] == ["data-000001"]


def test_the_answer_may_be_a_choice_or_its_letter_in_many_spellings() -> None:
    def problems(answer: str) -> list[str]:
        (row,) = check_examples([Example("1", "Q", (), None, answer, ("Cat", "big dog"))])
        return list(row.problems) if isinstance(row, BadRow) else []

    for answer in ("cat", "B", "b.", "(A)", "Final Answer: B", "The answer is (b).", "option A", "Answer: big dog"):
        assert problems(answer) == [], answer
    for answer in ("C", "dog", "Final Answer: cow", "A or B"):
        assert problems(answer) == ["answer_not_in_choices"], answer


def test_the_second_row_with_an_id_is_the_duplicate(folder: Path) -> None:
    loaded = load_data(write(folder, {**OURS, "id": "x"}, {**OURS, "id": "y"}, {**OURS, "id": "x"}), on_bad_row="drop")
    assert [(bad.row, bad.problems, bad.id) for bad in loaded.bad_rows] == [(3, ("duplicate_id",), "x")]
    assert loaded.dropped == 1


def test_bytes_that_are_not_utf8_are_one_bad_row(folder: Path) -> None:
    data = Path(write(folder, OURS))
    data.write_bytes(b'{"question": "\xff"}\n' + data.read_bytes())
    loaded = load_data(str(data), on_bad_row="drop")
    assert [bad.problems for bad in loaded.bad_rows] == [("invalid_json",)]
    assert len(loaded.examples) == 1


def test_the_table_shows_twenty_rows_short_and_printable_and_counts_the_rest(folder: Path) -> None:
    hostile = {"\x1b[31mred\n" + "é" * 200: 1}
    data = write(folder, *[hostile] * 24, {**OURS, "id": "kept", "answer": ""})
    with pytest.raises(BadRowsError) as caught:
        load_data(data)
    table = caught.value.table()
    assert len(caught.value.rows) == 25
    assert str(caught.value) == table
    assert "\x1b" not in table
    lines = table.splitlines()
    assert lines[0] == f"{data}: 25 bad rows"
    shown = [line for line in lines if line.lstrip()[:1].isdigit()]
    assert len(shown) == 20
    assert "... and 5 more" in lines
    column = lines[2].index("text")
    assert {len(line[column:]) for line in shown} == {60}
    assert all("…" in line for line in shown)
    explained = lines[-3:]  # with the complete text that the table shortens
    assert explained[0] == f"unknown_schema (24): {PROBLEMS['unknown_schema']}"
    assert explained[1].startswith("    row 1: keys: [31mred ééé")
    assert explained[2] == f"no_answer (1): {PROBLEMS['no_answer']}"


def test_limit_counts_rows_and_dropping_keeps_the_good_ones(folder: Path) -> None:
    data = write(folder, "{", OURS, OURS, OURS)
    loaded = load_data(data, limit=3, on_bad_row="drop")
    assert (len(loaded.examples), loaded.dropped) == (2, 1)
    assert loaded.table().startswith("1 bad row\n")


def test_images_are_not_opened_unless_asked(folder: Path) -> None:
    data = write(folder, {**OURS, "image": "broken.png"})
    assert load_data(data).examples[0].images == (folder / "broken.png",)


def test_a_split_is_a_file_of_a_folder_or_a_key_of_a_row(folder: Path) -> None:
    write(folder, OURS, name="train.jsonl")
    write(folder, OURS, OURS, name="test.json")
    assert [len(load_data(str(folder), split=split).examples) for split in ("train", "test")] == [1, 2]
    with pytest.raises(ValueError, match="has no split 'validation'; it has test, train"):
        load_data(str(folder), split="validation")
    tagged = write(folder, {**OURS, "split": "train"}, {**OURS, "split": "test"}, {**OURS, "split": "test"})
    assert [len(load_data(tagged, split=split).examples) for split in ("train", "test", "all")] == [1, 2, 3]
    with pytest.raises(ValueError, match="no row of split 'dev'; choose a split that it has: test, train"):
        load_data(tagged, split="dev")


def test_an_array_may_hold_what_only_python_writes(folder: Path) -> None:
    rows = [{"question": "Which ?", "answer": "B", "weight": weight} for weight in (1.5, float("nan"), 10**30)]
    (folder / "data.json").write_text(json.dumps(rows))
    found = load_data(str(folder / "data.json")).examples
    assert [example.meta["row"] for example in found] == [1, 2, 3]
    assert found[2].meta["weight"] == 10**30


def test_a_damaged_array_is_refused_with_its_file(folder: Path) -> None:
    (folder / "data.json").write_text('[{"question": "Q"},')
    with pytest.raises(ValueError, match=r"data\.json begins like a JSON array but is not valid"):
        load_data(str(folder / "data.json"))


def test_names_paths_and_layouts_resolve(folder: Path) -> None:
    data = write(folder, OURS)
    assert resolve_data("world") == ("world", None)
    assert resolve_data("puzzlevqa:some/folder") == ("puzzlevqa", "some/folder")
    assert resolve_data(data) == ("jsonl", data)
    (folder / "images" / "venn").mkdir(parents=True)
    (folder / "venn.json").write_text("")
    assert resolve_data(str(folder)) == ("jsonl", str(folder))  # a folder of one's own may look like it
    (folder / "venn.json").write_text(json.dumps(dict.fromkeys(FIELDS, "x")))
    assert resolve_data(str(folder)) == ("puzzlevqa", str(folder))


@pytest.mark.parametrize("answer", ["B", "b", "cat", "(B)", "B. cat", "**B**", r"\boxed{B}", "The answer is (B)."])
def test_an_answer_names_a_choice_as_scorers_read_it(folder: Path, answer: str) -> None:
    (example,) = load_data(write(folder, {**OURS, "choices": ["dog", "cat"], "answer": answer})).examples
    assert score_exact(example.answer, "B", example.choices) == 1.0


@pytest.mark.parametrize(
    ("question", "answer", "good"),
    [
        ("Which?\nA. dog\nB. cat", "B", True),
        ("Which?\nA. dog\nB. cat", "C", False),
        ("Which?\n(A) dog\n(B) cat\n(C) bird", "(D)", False),
        ("Which?\nA. dog\nB. cat", "cat", True),  # a text
        ("Who?\nB. Obama came.", "C", True),  # no list
    ],
)
def test_options_in_the_question_are_choices_too(folder: Path, question: str, answer: str, good: bool) -> None:
    loaded = load_data(write(folder, {**OURS, "question": question, "answer": answer}), on_bad_row="drop")
    assert [bad.problems for bad in loaded.bad_rows] == ([] if good else [("answer_not_in_choices",)])


def test_ten_choices_have_ten_letters(folder: Path) -> None:
    many = {**OURS, "choices": [f"thing {k}" for k in range(10)]}
    assert load_data(write(folder, {**many, "answer": "J"})).examples
    assert load_data(write(folder, {**many, "answer": "K"}), on_bad_row="drop").dropped == 1


def test_a_rotated_photograph_becomes_upright(tmp_path: Path) -> None:
    photo, turned = Image.new("RGB", (8, 4), "red"), Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    photo.save(tmp_path / "photo.jpg", exif=turned)
    assert open_image(tmp_path / "photo.jpg").size == image_size(tmp_path / "photo.jpg") == (4, 8)
    assert decode_rgb(open_image(tmp_path / "photo.jpg", convert=False)).size == (4, 8)


@pytest.mark.parametrize(("kind", "most"), [(np.uint16, 2**16 - 1), (np.int32, 2**16 - 1), (np.int32, 255)])
def test_sixteen_bits_become_eight(tmp_path: Path, kind: type, most: int) -> None:
    ramp = np.linspace(0, most, 256).astype(kind).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "depth.tiff")
    grey = np.asarray(open_image(tmp_path / "depth.tiff"))[..., 0]
    assert np.array_equal(grey.flatten(), np.arange(256))


def test_data_without_splits_is_split_by_its_pictures(folder: Path) -> None:
    for k in range(60):
        Image.new("RGB", (4, 4), (k, 2 * k, 255 - k)).save(folder / f"{k}.bmp")
        (folder / f"copy-{k}.bmp").write_bytes((folder / f"{k}.bmp").read_bytes())
    rows = [{**OURS, "image": f"{name}{k}.bmp", "question": f"{name}?"} for k in range(60) for name in ("", "copy-")]
    path = write(folder, *rows)
    parts = {
        split: load_data(path, split=split, options={"hash_split": True}).examples
        for split in ("train", "validation", "test", "all")
    }
    assert [len(parts[split]) for split in parts] == [100, 12, 8, 120]  # fixed: a later version must not move any
    owners = [{example.images[0].name.removeprefix("copy-") for example in parts[s]} for s in list(parts)[:3]]
    assert sum(map(len, owners)) == 60  # a picture and its copy stay together
    with pytest.raises(ValueError, match="no split 'dev'"):
        load_data(path, split="dev", options={"hash_split": True})


def test_the_world_passes_the_checks() -> None:
    loaded = load_data("world", split="test", limit=6, options={"n": 50})
    assert (len(loaded.examples), loaded.dropped) == (6, 0)


def test_a_registered_module_is_a_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balanced_thinking.data.registry.DATASETS", dict(DATASETS))
    register("mine", "balanced_thinking.data.world")
    assert len(load_data("mine", options={"n": 2}).examples) == 2
    for name, problem in (("world", "is taken by"), ("a:b", "has a colon")):
        with pytest.raises(ValueError, match=problem):
            register(name, "other.module")


def test_the_package_imports_without_torch_and_without_its_adapters() -> None:
    code = (
        "import sys, balanced_thinking.data.load, balanced_thinking.scoring.scorers\n"
        "from balanced_thinking.data.registry import DATASETS\n"
        "assert not {'torch', 'numpy', *DATASETS.values()} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_overlap_is_found_by_id_and_by_question_about_the_same_files() -> None:
    a, b = Path("a.png"), Path("b.png")
    train = [Example("1", "Q", (a,), None, "x"), Example("2", "Q", (b,), None, "x")]
    assert_no_overlap(train=train, test=[Example("3", "R", (a,), None, "x")])
    for leak in (Example("2", "R", (), None, "x"), Example("9", "Q", (b,), None, "y")):
        with pytest.raises(ValueError, match=f"splits 'train' and 'test' both contain '{leak.id}'.*hash_split: true"):
            assert_no_overlap(train=train, test=[leak])


@needs_puzzles
def test_every_published_puzzle_loads_completely() -> None:
    examples = load_data(str(PUZZLES), split="all").examples
    assert set(Counter(example.meta["family"] for example in examples).values()) == {50}
    assert len({example.id for example in examples}) == 1000
    assert all(e.think and e.answer in e.choices and e.images[0].is_file() for e in examples)
    first = examples[0]
    assert (first.id, first.answer, first.choices) == ("circle_size_number-0000", "4", ("6", "3", "4", "2"))
    assert first.question.endswith("denoted with a question mark?\nOptions: (A) 6 (B) 3 (C) 4 (D) 2")
    assert first.think.startswith("There are 6 numbered circles")
    assert first.think.endswith("should be 4.")


@needs_puzzles
@pytest.mark.slow
def test_every_picture_of_a_published_puzzle_can_be_decoded() -> None:
    assert not load_data(str(PUZZLES), split="all", verify_images=True).bad_rows


@needs_puzzles
def test_no_picture_of_a_puzzle_is_in_two_splits_and_the_splits_never_move() -> None:
    splits = {name: load_data(f"puzzlevqa:{PUZZLES}", split=name).examples for name in ("train", "validation", "test")}
    assert_no_overlap(**splits)
    owners = defaultdict(set)
    for name, examples in splits.items():
        for example in examples:
            owners[hashlib.sha256(example.images[0].read_bytes()).digest()].add(name)
    assert len(owners) == 867
    assert all(len(names) == 1 for names in owners.values())
    assert {name: len(examples) for name, examples in splits.items()} == {"train": 792, "validation": 83, "test": 125}


def puzzle(folder: Path, *rows: Any) -> str:
    """A copy of the published layout with one family."""
    (folder / "images" / "venn").mkdir(parents=True, exist_ok=True)
    write(folder, *rows, name="venn.json")
    return f"puzzlevqa:{folder}"


PUZZLE = {"image": "a.png", "question": "Q?", "options": [1, "2"], "answer": 2, "caption": "C.", "explanation": "E."}
PUZZLE |= {"deduction": "D."}


def test_a_puzzle_becomes_reasoning_lettered_options_and_a_text(folder: Path) -> None:
    (example,) = load_data(puzzle(folder, PUZZLE), split="all").examples
    assert example == Example(
        id="venn-0000",
        question="Q?\nOptions: (A) 1 (B) 2",
        images=(folder / "a.png",),
        think="C. E. D.",
        answer="2",
        choices=("1", "2"),
        meta={"family": "venn", "row": 1},
    )


@pytest.mark.parametrize("split", ["train", "validation", "test", "all"])
def test_damaged_puzzles_are_bad_rows_of_every_split(folder: Path, split: str) -> None:
    rows = ({**PUZZLE, "image": "gone.png"}, {**PUZZLE, "caption": ""}, {**PUZZLE, "options": "1, 2"}, "{")
    loaded = load_data(puzzle(folder, *rows), split=split, on_bad_row="drop")
    found = [(bad.row, bad.problems[0]) for bad in loaded.bad_rows]
    assert found == [(1, "missing_image"), (2, "unknown_schema"), (3, "unknown_schema"), (4, "invalid_json")]


def test_unknown_puzzle_splits_and_families_are_named(folder: Path) -> None:
    data = puzzle(folder, PUZZLE)
    with pytest.raises(ValueError, match=r"no split 'vaildation' \(did you mean 'validation'\?\)"):
        load_data(data, split="vaildation")
    with pytest.raises(ValueError, match=r"no family 'ven' \(did you mean 'venn'\?\)"):
        load_data(data, options={"families": ["ven"]})
