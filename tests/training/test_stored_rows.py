"""Rows that were read before are used again only while everything that they follow from is the same."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from balanced_thinking.training import splits, stored_rows
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.splits import TRAINING, read_splits

ARGS = SimpleNamespace(reasoning_format="think-answer")
ROW = {"question": "which color ?", "think": "it looks red .", "answer": "red", "image": "a.png"}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of four rows with a picture each, and a store of its own."""
    monkeypatch.setenv("BALANCED_THINKING_CACHE", str(tmp_path / "store"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({**ROW, "id": str(k)}) + "\n" for k in range(4)))
    return file


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets the data of each reading."""
    seen: list[str] = []
    stream = splits.stream_data

    def watched(data: Any, **options: Any) -> Any:
        seen.append(str(data))
        return stream(data, **options)

    monkeypatch.setattr(splits, "stream_data", watched)
    return seen


def recipe(data: Path, **options: Any) -> Recipe:
    return Recipe(data=str(data), **options)


def test_a_second_start_gets_the_same_rows_without_reading(data: Path, reads: list[str]) -> None:
    first, name = read_splits(recipe(data), ARGS)
    second, again = read_splits(recipe(data), ARGS)
    assert name == again
    assert len(reads) == 1
    assert second[TRAINING].rows.to_list() == first[TRAINING].rows.to_list()
    assert second[TRAINING].numbers == first[TRAINING].numbers == [1, 2, 3, 4]


def touch(file: Path) -> None:
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def add_row(data: Path) -> None:
    data.write_text(data.read_text() + json.dumps({**ROW, "id": "new"}) + "\n")


def other_picture(data: Path) -> None:
    Image.new("RGB", (16, 8)).save(data.parent / "a.png")


@pytest.mark.parametrize(
    "change",
    [
        add_row,
        touch,
        other_picture,
        lambda data: (data.parent / "a.png").rename(data.parent / "b.png") and other_picture(data),
        lambda data: touch(data.parent / "a.png"),
        lambda data: Path(str(next((data.parent / "store/rows").iterdir()) / "about.json")).write_text("{"),
        lambda data: next((data.parent / "store/rows").iterdir()).joinpath("training.arrow").unlink(),
        lambda data: next((data.parent / "store/rows").iterdir()).joinpath("training.arrow").write_bytes(b"torn"),
    ],
)
def test_what_has_changed_is_read_again(change: Any, data: Path, reads: list[str]) -> None:
    read_splits(recipe(data), ARGS)
    change(data)
    read_splits(recipe(data), ARGS)
    assert len(reads) == 2


@pytest.mark.parametrize(
    "options", [{"limit": 2}, {"stage": "grpo"}, {"data_options": {"format": "prose"}}, {"split": "all"}]
)
def test_other_options_are_other_rows(options: dict[str, Any], data: Path, reads: list[str]) -> None:
    read_splits(recipe(data), ARGS)
    read_splits(recipe(data, **options), ARGS)
    assert len(reads) == 2


def test_another_format_of_the_completions_is_other_rows(data: Path, reads: list[str]) -> None:
    read_splits(recipe(data), ARGS)
    found, _ = read_splits(recipe(data), SimpleNamespace(reasoning_format="deepseek-r1"))
    assert len(reads) == 2
    assert "<answer>" not in found[TRAINING].rows[0]["completion"][0]["content"]


def test_other_code_reads_again(data: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read_splits(recipe(data), ARGS)
    monkeypatch.setattr(splits, "code_stamp", lambda: "other")
    read_splits(recipe(data), ARGS)
    assert len(reads) == 2


def test_rows_with_a_missing_picture_are_read_again(data: Path, reads: list[str]) -> None:
    """Nothing would show that the picture has come in the meantime."""
    data.write_text(data.read_text() + json.dumps({**ROW, "id": "lost", "image": "gone.png"}) + "\n")
    for _ in range(2):
        found, _ = read_splits(recipe(data), ARGS)
        assert [bad.problems for bad in found[TRAINING].bad_rows] == [("missing_image",)]
    assert len(reads) == 2
    Image.new("RGB", (8, 8)).save(data.parent / "gone.png")
    assert not read_splits(recipe(data), ARGS)[0][TRAINING].bad_rows


def test_bad_rows_are_known_again_with_their_problems(data: Path, reads: list[str]) -> None:
    data.write_text(data.read_text() + json.dumps({**ROW, "id": "empty", "answer": ""}) + "\n")
    before, after = (read_splits(recipe(data), ARGS)[0][TRAINING].bad_rows for _ in range(2))
    assert before == after
    assert [(bad.row, bad.id, bad.problems) for bad in after] == [(5, "empty", ("no_answer",))]
    assert len(reads) == 1


def test_the_world_needs_no_file_to_be_known_again(data: Path, reads: list[str]) -> None:
    world = Recipe(data_options={"n": 4})
    first, second = (read_splits(world, ARGS)[0][TRAINING].rows.to_list() for _ in range(2))
    assert first == second
    assert len(reads) == 1


def test_a_store_that_cannot_be_written_is_no_fault(data: Path, reads: list[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("BALANCED_THINKING_CACHE", str(data / "below-a-file"))
    for _ in range(2):
        read_splits(recipe(data), ARGS)
    assert len(reads) == 2


@pytest.mark.parametrize("limit", ["_KEPT_ENTRIES", "_KEPT_BYTES"])
def test_the_store_keeps_the_entries_that_were_used_last(
    limit: str, data: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_splits(recipe(data, limit=1), ARGS)
    (first,) = (data.parent / "store/rows").iterdir()
    size = sum(file.stat().st_size for file in first.iterdir())
    monkeypatch.setattr(stored_rows, limit, 2 if limit == "_KEPT_ENTRIES" else int(2.9 * size))
    for rows in (2, 3):
        read_splits(recipe(data, limit=rows), ARGS)
    assert len(list((data.parent / "store/rows").iterdir())) == 2
    for rows in (2, 3, 1):
        read_splits(recipe(data, limit=rows), ARGS)
    assert len(reads) == 4  # the first one was removed


def test_an_entry_that_another_process_is_writing_is_left_until_it_is_abandoned(data: Path, reads: list[str]) -> None:
    read_splits(recipe(data, limit=1), ARGS)
    store = data.parent / "store/rows"
    for name, age in (("young.partial", 3600), ("old.partial", 90_000)):
        (store / name).mkdir()
        (store / name / "train.arrow").touch()
        os.utime(store / name, (time.time() - age,) * 2)
    read_splits(recipe(data, limit=2), ARGS)
    assert [path.name for path in store.glob("*.partial")] == ["young.partial"]
