"""Results in an archive: the report reads them, and a study continues from them without any weights."""

from __future__ import annotations

import json
import logging
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.report.write.archive import archive_runs
from balanced_thinking.runs.records import LedgerEntry
from balanced_thinking.study.load import make_study
from balanced_thinking.study.run import check_study, run_study
from balanced_thinking.study.unrecorded import write_ledger_entry
from tests.report.synthetic import outcomes, write_run
from tests.study.helpers import SMALL, changed, finish

RUNS = ("sft/seed-0", "sft+grpo/seed-0")


def finished_study(root: Path) -> Path:
    """Both runs of SMALL, finished, with weights, a checkpoint and a log."""
    for run in RUNS:
        finish(root, SMALL, run, "world-test")
        (root / run / "eval/world-test/summary.json").write_text('{"n": 2, "correct": 1}')
        for part in ("train", "world-test"):
            write_ledger_entry(root, LedgerEntry(run=run, part=part, wall_seconds=1.0))
        for place in ("model/model.safetensors", "checkpoints/checkpoint-2/x", "eval/world-test/images/a.png"):
            (root / run / place).parent.mkdir(parents=True, exist_ok=True)
            (root / run / place).write_text("large")
        (root / run / "log.txt").write_text("said")
    config = root / "sft+grpo/seed-0/config.yaml"
    config.write_text(config.read_text().replace("model: world-base", f"model: {root.resolve()}/sft/seed-0"))
    return root


def restore(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return next(folder.iterdir())


def test_a_study_continues_from_its_archive_where_nothing_needs_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_runs(finished_study(tmp_path / "s"), tmp_path / "docs")
    root = restore(archive, tmp_path / "restored")
    ledger = (root / "ledger.jsonl").read_text()
    assert not [path for path in root.rglob("*") if path.name in ("model", "checkpoints", "images", "log.txt")]

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(subprocess, "Popen", never)
    run_study(make_study(SMALL), root)
    assert (root / "ledger.jsonl").read_text() == ledger
    with pytest.raises(AssertionError, match="a run was started"):  # a new arm that starts from the base
        run_study(make_study(changed(arms={"scale-sft": {"training": {"schedule": "cosine"}}})), root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"arms": {"again": {"after": "sft", "stage": "grpo", "training": {"beta": 0.1}}}},
            "train, world-test of again/seed-0 needs the model of sft/seed-0, which has finished but has no",
        ),
        (
            {"evaluate": {"world": {"splits": ["test", "test_longer"]}}},
            "world-test_longer of sft/seed-0 needs the model of sft/seed-0, which has finished but has no",
        ),
    ],
)
def test_what_needs_an_archived_model_is_said_before_anything_runs(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    study = finished_study(tmp_path / "s")
    check_study(make_study(changed(**change)), study)  # with the weights it could
    root = restore(archive_runs(study, tmp_path / "docs"), tmp_path / "restored")
    with pytest.raises(
        RecipeError, match=r"results are archived without weights; delete .* to train it again"
    ) as error:
        check_study(make_study(changed(**change)), root)
    assert said in str(error.value)


def test_the_report_of_an_archive_is_that_of_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arm, base = outcomes(30, 10, 1, 59)
    write_run(tmp_path / "runs/sft/seed-0", base)
    write_run(tmp_path / "runs/scale-sft/seed-0", arm)
    folder = tmp_path / "docs"
    assert main(["report", str(tmp_path / "runs"), "--archive", str(folder)]) == 0
    assert capsys.readouterr().out.strip().endswith(str(folder / "runs.tar.xz"))
    root = restore(folder / "runs.tar.xz", tmp_path / "restored")
    assert main(["report", str(root)]) == 0
    for name in ("report.md", "report.csv", "report-contrasts.csv"):
        assert (root / name).read_text() == (folder / name).read_text()
    again = archive_runs(tmp_path / "runs", tmp_path / "again")
    assert again.read_bytes() == (folder / "runs.tar.xz").read_bytes()
    assert not list(folder.glob(".*"))


def test_an_archive_names_no_folder_of_this_machine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = finished_study(tmp_path / "s")
    with caplog.at_level(logging.WARNING):
        root = restore(archive_runs(study, tmp_path / "docs"), tmp_path / "restored")
    assert str(tmp_path) not in "".join(path.read_text() for path in root.rglob("*.*") if path.is_file())
    assert "model: runs/s/sft/seed-0\n" in (root / "sft+grpo/seed-0/config.yaml").read_text()
    assert not caplog.records
    (study / "sft/seed-0/metrics.jsonl").write_text('{"step": 1, "data": "/home/me/data/x.jsonl"}\n')
    with caplog.at_level(logging.WARNING):
        archive_runs(study, tmp_path / "docs")
    assert "absolute paths of this machine, such as /home/me/data/x.jsonl;" in caplog.text


def test_only_complete_paths_are_rewritten_and_the_study_itself_is_never(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "s")
    (study / "sft/seed-0/metrics.jsonl").write_text(json.dumps({"step": 1, "data": f"/mnt{tmp_path}/x.jsonl"}) + "\n")
    root = restore(archive_runs(study, tmp_path / "docs"), tmp_path / "restored")
    assert f"/mnt{tmp_path}/x.jsonl" in (root / "sft/seed-0/metrics.jsonl").read_text()
    with pytest.raises(ValueError, match="is the folder of the study itself"):
        archive_runs(study, study)


def test_a_damaged_file_is_archived_as_it_is(tmp_path: Path) -> None:
    config = finished_study(tmp_path / "s") / "sft/seed-0/config.yaml"
    config.write_bytes(damaged := config.read_bytes() + b"\xff\r\n")
    root = restore(archive_runs(tmp_path / "s", tmp_path / "docs"), tmp_path / "restored")
    assert (root / "sft/seed-0/config.yaml").read_bytes() == damaged
