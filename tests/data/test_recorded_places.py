"""A run is continued and exported from another folder than the one where it was started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.recorded_places import is_recorded_place, recorded_place
from balanced_thinking.runs.directory import create_run, read_provenance
from balanced_thinking.training.run_recipe import resumed_recipe


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Started in `project` on `t.jsonl`; the present folder is the one above."""
    (tmp_path / "project" / "sets").mkdir(parents=True)
    for name in ("t.jsonl", "sets/more.jsonl"):
        (tmp_path / "project" / name).write_text("{}\n")
    monkeypatch.chdir(tmp_path / "project")
    found = create_run(Path("runs/x"), yaml.safe_dump({"stage": "sft", "data": "t.jsonl"}), {}).absolute()
    monkeypatch.chdir(tmp_path)
    return found


def test_a_run_says_where_it_was_started_without_naming_this_machine(run: Path) -> None:
    about = read_provenance(run)
    assert about is not None
    assert about.working_folder == "../.."


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("t.jsonl", "project/t.jsonl"),
        ("./sets/more.jsonl", "project/sets/more.jsonl"),
        ("jsonl:t.jsonl", "jsonl:project/t.jsonl"),
        (["t.jsonl", {"data": "sets", "weight": 2}], ["project/t.jsonl", {"data": "project/sets", "weight": 2}]),
        ("world", "world"),
        ("owner/name", "owner/name"),  # on the hub
        ("gone.jsonl", "gone.jsonl"),
        ("/absolute/t.jsonl", "/absolute/t.jsonl"),
    ],
)
def test_recorded_data_are_found_from_another_folder(data: Any, expected: Any, run: Path) -> None:
    assert recorded_place(data, run) == expected


def test_recorded_data_stay_as_they_are_where_the_run_was_started(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent.parent)
    assert recorded_place("./t.jsonl", run) == "./t.jsonl"


def test_recorded_data_are_found_after_run_and_data_were_moved_together(run: Path, tmp_path: Path) -> None:
    (tmp_path / "project").rename(tmp_path / "moved")
    assert recorded_place("t.jsonl", tmp_path / "moved/runs/x") == "moved/t.jsonl"


@pytest.mark.parametrize(
    ("stated", "is_same"),
    [
        ("project/t.jsonl", True),
        ("./project/../project/t.jsonl", True),
        ("{tmp}/project/t.jsonl", True),
        ("project/sets/more.jsonl", False),
        ("t.jsonl", False),  # another file of that name, in the present folder
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_the_same_file_is_the_same_data(stated: str, is_same: bool, older: bool, run: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("another\n")
    if older:  # it does not say where it was started: any folder above it may be meant
        values = json.loads((run / "provenance.json").read_text())
        del values["working_folder"]
        (run / "provenance.json").write_text(json.dumps(values))
        is_same = is_same or stated == "t.jsonl"
    assert is_recorded_place(stated.format(tmp=tmp_path), "t.jsonl", run) == is_same


@pytest.mark.parametrize("options", [[], [("data", "project/t.jsonl")], [("data", "{tmp}/project/t.jsonl")]])
def test_a_run_is_resumed_from_another_folder(options: list[tuple[str, str]], run: Path, tmp_path: Path) -> None:
    options = [(name, value.format(tmp=tmp_path)) for name, value in options]
    recipe = resumed_recipe(run / "config.yaml", None, options)
    assert Path(str(recipe.data)).resolve() == tmp_path / "project/t.jsonl"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("runs/base", "project/runs/base"),  # another run, as of a GRPO stage
        ("world-base", "world-base"),  # also where a folder has that name
        ("owner/name", "owner/name"),  # on the hub
    ],
)
@pytest.mark.parametrize("is_stated", [False, True])
def test_the_model_of_a_run_is_found_from_another_folder(
    model: str, expected: str, is_stated: bool, run: Path, tmp_path: Path
) -> None:
    for name in ("runs/base", "world-base"):
        (tmp_path / "project" / name).mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({"stage": "grpo", "model": model, "data": "t.jsonl"}))
    options = [("model", str(tmp_path / expected) if expected != model else model)] if is_stated else []
    found = resumed_recipe(run / "config.yaml", None, options).model
    assert found == (options[0][1] if is_stated else expected)
    with pytest.raises(RecipeError, match=r"model was .* and is 'project'; undo"):
        resumed_recipe(run / "config.yaml", None, [("model", "project")])


def test_other_data_are_refused_wherever_they_are(run: Path) -> None:
    with pytest.raises(RecipeError, match=r"data was 'project/t\.jsonl' and is 'project/sets/more\.jsonl'; undo"):
        resumed_recipe(run / "config.yaml", None, [("data", "project/sets/more.jsonl")])


@pytest.mark.parametrize("record", ["[]", '{"working_folder": 5}', '{"working_folder": "a\\u0000b"}', "{"])
def test_a_damaged_record_leaves_the_data_as_they_are(record: str, run: Path) -> None:
    (run / "provenance.json").write_text(record)
    assert recorded_place("t.jsonl", run) == "t.jsonl"
