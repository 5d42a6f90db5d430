"""Everything that would stop a run, or be trained on wrongly, is known before the first step and named by row."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.row_check import RowChecker
from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.bad_rows import PROBLEMS
from balanced_thinking.inspection import inspect_data
from balanced_thinking.models.load import load_processor
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.training import preflight
from balanced_thinking.training.checked_data import _fill_places
from balanced_thinking.training.checks import read_sample_size
from balanced_thinking.training.preflight import Preflight, check_rows
from tests.cli.tiny_commands import STEPS, exit_code
from tests.planted_faults import FAULTS, good_row, write_planted

ROWS = 1000
MODEL = ["--model", "tiny:qwen2_5_vl"]


def write_rows(folder: Path, *rows: dict[str, Any]) -> Path:
    Image.new("RGB", (56, 56), "red").save(folder / "tile-0.png")
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def good(number: int) -> dict[str, Any]:
    return {**good_row(number), "image": "tile-0.png"}


def sft(data: Path, out: Path, *options: str) -> list[str]:
    return ["sft", *MODEL, "--data", str(data), "--out", str(out), *STEPS, *options]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, str]]:
    folder = tmp_path_factory.mktemp("planted")
    return folder, write_planted(folder, ROWS)


def test_there_are_thirty_kinds_of_planted_faults() -> None:
    names = {name for name, _ in FAULTS}
    assert len(names) >= 30
    assert names <= PROBLEMS.keys()


def test_training_names_every_planted_fault_and_no_other_row(
    planted: tuple[Path, dict[int, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, faults = planted
    assert main(sft(folder / "train.jsonl", tmp_path / "run", "--max_length", "512")) == 1
    table = capsys.readouterr().err
    assert f"{len(faults)} bad rows" in table
    counted = dict(line.split(" (", 1) for line in table.splitlines() if line.partition(" (")[0] in PROBLEMS)
    for name, number in Counter(faults.values()).items():
        assert int(counted[name].partition(")")[0]) >= number, name
    assert not (tmp_path / "run").exists()


def test_inspect_reports_the_same_rows_as_training(planted: tuple[Path, dict[int, str]], tmp_path: Path) -> None:
    folder, faults = planted
    found = inspect_data(str(folder / "train.jsonl"), processor=load_processor("tiny:qwen2_5_vl"), max_length=512)
    named = {bad.row: bad.problems for bad in found.bad_rows}
    assert named.keys() == faults.keys()
    assert {row: name for row, name in faults.items() if name not in named[row]} == {}
    run = tmp_path / "run"
    assert main(sft(folder / "train.jsonl", run, "--max_length", "512", "--on_bad_row", "drop")) == 0
    kept = json.loads((run / "preflight.json").read_text())["training"]
    assert {bad["row"]: tuple(bad["problems"]) for bad in kept["bad_rows"]} == named
    about = json.loads((run / "provenance.json").read_text())
    assert (about["examples"], about["dropped"]) == (ROWS - len(faults), len(faults))


def test_the_check_counts_the_tokens_of_the_batch(world_rows: Dataset) -> None:
    for architecture in ("qwen2_5_vl", "llava_next", "gemma3"):
        collator = ScaleCollator(build_tiny(architecture)[1])
        checker = RowChecker(collator, count_all=True)
        for row in world_rows.select(range(3)):
            assert checker.check_row(row) == (collator([row])["input_ids"].shape[1], (), False)


@pytest.mark.parametrize("overflow", ["error", "drop", "trim_think"])
def test_the_check_decides_on_long_samples_as_the_batch_does(overflow: str, world_rows: Dataset) -> None:
    processor = build_tiny("qwen2_5_vl")[1]
    length = ScaleCollator(processor)([world_rows[1]])["input_ids"].shape[1]
    for limit in (length - 1, length, length + 1):
        checked = RowChecker(ScaleCollator(processor, max_length=limit, overflow=overflow)).check_row(world_rows[1])
        fits = limit >= length
        assert checked.too_long == (overflow == "drop" and not fits)
        assert [one.name for one in checked.problems] == (["too_long"] if overflow == "error" and not fits else [])


def test_several_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from balanced_thinking.data.load import stream_data
    from balanced_thinking.data.rows import to_dataset

    rows = [good(number) for number in range(150)]
    for place in (3, 64, 149):
        rows[place]["question"] = "what is <|im_end|> ?"
    data = to_dataset(stream_data(str(write_rows(tmp_path, *rows))))
    checker = RowChecker(ScaleCollator(load_processor("tiny:qwen2_5_vl")))
    monkeypatch.setattr(preflight, "_FEW_ROWS", 0)
    alone, many = (check_rows(data, checker, "rows", workers=workers) for workers in (1, 2))
    assert alone.problems == many.problems
    assert list(many.problems) == [3, 64, 149]


@pytest.mark.parametrize("found", [Preflight(3, 3), Preflight(9, 2, too_long=(4,), seconds=0.5)])
def test_a_result_survives_its_file(found: Preflight) -> None:
    assert Preflight.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("text", "size"),
    [("all", None), ("sample:1", 1), ("sample:20", 20), ("sample:0", ""), ("sample:", ""), ("10", ""), (10, "")],
)
def test_how_many_rows_are_looked_at(text: Any, size: Any) -> None:
    if size == "":
        with pytest.raises(RecipeError, match=r"expected all, or sample:N"):
            read_sample_size(text)
    else:
        assert read_sample_size(text) == size


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_row_that_stops_the_run_keeps_a_checkpoint_and_can_be_passed(
    workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample of one row does not find the bad one. The loader reads a batch ahead of the step."""
    data = write_rows(tmp_path, *(good(number) for number in range(8)))
    lines = data.read_text().splitlines()
    lines[5] = json.dumps({**good(5), "question": "what is <|im_end|> ?"})
    data.write_text("\n".join(lines))
    run = tmp_path / "run"
    sequential = ["--preflight", "sample:1", "--train_sampling_strategy", "sequential", "--max_steps", "4"]
    assert main(sft(data, run, *sequential, "--dataloader_num_workers", str(workers))) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "special token '<|im_end|>'" in told
    assert "--resume --on_bad_row drop" in told
    (kept,) = (run / "checkpoints").glob("checkpoint-*")
    assert kept.name in told
    assert main(["sft", "--out", str(run), "--resume", "--on_bad_row", "drop"]) == 0
    told = capsys.readouterr().err
    assert "on_bad_row was 'error' and is 'drop'" in told
    assert workers or "a row was left out" in told  # a worker writes to its own error stream
    assert json.loads((run / "provenance.json").read_text())["steps"] == 4


def test_a_row_that_stops_grpo_keeps_a_checkpoint_and_can_be_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [good(number) for number in range(4)]
    data = write_rows(tmp_path, *rows)
    torn = tmp_path / "torn.png"
    torn.write_bytes((tmp_path / "tile-0.png").read_bytes()[:60])
    rows[2]["image"] = "torn.png"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sampling = ["--num_generations", "2", "--max_completion_length", "4", "--shuffle_dataset", "false"]
    options = [*STEPS, *sampling, "--max_steps", "4", "--preflight", "sample:1"]
    command = ["grpo", *MODEL, "--data", str(data), "--out", str(tmp_path / "run"), *options]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "torn.png" in told
    assert [place.name for place in (tmp_path / "run/checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    # A random model may earn equal rewards in four generations, which ends with 1 after the last step.
    main(["grpo", "--out", str(tmp_path / "run"), "--resume", "--on_bad_row", "drop"])
    told = capsys.readouterr().err
    assert "other rows take the places of 1 that turned out to be bad" in told
    assert "torn.png cannot be read" not in told
    assert (tmp_path / "run/model/config.json").is_file()


def test_places_of_bad_rows_are_filled_without_moving_the_others() -> None:
    assert _fill_places([0, 2, 3, 5], {2, 5}, "data") == [0, 3, 3, 0]
    assert _fill_places([0, 2], {1}, "data") == [0, 2]
    assert _fill_places([0, 2], {0, 2}, "data") == []


def test_a_resumed_run_leaves_out_the_same_rows_and_refuses_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture that breaks in the meantime is dropped when it comes: leaving out its row would change the order."""
    rows = [good(number) for number in range(6)]
    rows[1]["question"] = "what is <|im_end|> ?"
    rows[4]["image"] = "own.png"
    data, run, own = write_rows(tmp_path, *rows), tmp_path / "run", tmp_path / "own.png"
    own.write_bytes((tmp_path / "tile-0.png").read_bytes())
    assert main(sft(data, run, "--on_bad_row", "drop", "--save_steps", "1")) == 0
    before = json.loads((run / "preflight.json").read_text())["training"]
    own.write_bytes(own.read_bytes()[:60])
    assert main(["sft", "--out", str(run), "--resume", "--max_steps", "6"]) == 0
    after = json.loads((run / "preflight.json").read_text())["training"]
    assert before["left_out"] == after["left_out"] == [1]
    assert [bad["row"] for bad in after["bad_rows"]] == [2, 5]
    assert "a row was left out: sample good-4" in capsys.readouterr().err
    data.write_text(data.read_text() + json.dumps(good(7)) + "\n")
    assert exit_code(["sft", "--out", str(run), "--resume", "--max_steps", "7"]) == 1
    assert "not those (6) with which the run was started" in capsys.readouterr().err


def test_a_longer_schedule_is_said_at_the_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_rows(tmp_path, *(good(number) for number in range(4))), tmp_path / "run"
    assert main(sft(data, run, "--save_steps", "1", "--learning_rate", "1e-3", "--think_weight_end", "0.5")) == 0
    capsys.readouterr()
    assert main(["sft", "--out", str(run), "--resume", "--max_steps", "4"]) == 0
    told = capsys.readouterr().err
    assert "max_steps was 2 and is 4: all schedules are stretched" in told
    # Step 3 of 4 is two thirds of the way along the cosine from 0.9 to 0.5.
    changed = "go from 0.500 / 0.500 at step 2 to 0.600 / 0.400 at step 3, and end at 0.500 / 0.500"
    assert f"the weights of reasoning / answer {changed}" in told
    assert "the learning rate goes from 0.0005 to 0.0005" in told


def test_a_picture_that_was_broken_or_fixed_is_checked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file of the rows stays the same, and so do the rows that are kept."""
    data, tile = write_rows(tmp_path, *(good(number) for number in range(4))), tmp_path / "tile-0.png"
    complete = tile.read_bytes()
    assert main(sft(data, tmp_path / "first")) == 0
    tile.write_bytes(complete[:60])
    assert main(sft(data, tmp_path / "second")) == 1
    assert "4 bad rows" in capsys.readouterr().err
    tile.write_bytes(complete)
    assert main(sft(data, tmp_path / "third")) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "code"), [("error", 1), ("drop", 0)])
def test_two_ranks_learn_of_a_bad_row_from_the_first(policy: str, code: int, tmp_path: Path) -> None:
    rows = [good(number) for number in range(6)]
    rows[1]["question"] = "what is <|im_end|> ?"
    data, run = write_rows(tmp_path, *rows), tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "balanced_thinking"]
    command = [*launch, *sft(data, run, "--use_cpu", "true", "--on_bad_row", policy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode == 0) == (code == 0)
    assert done.stderr.count("rows checked") == 1  # the first rank's
    assert run.exists() == (code == 0)
    if code == 0:
        assert json.loads((run / "provenance.json").read_text())["examples"] == 5
