"""Running a study: each part once, failures by name, threads and GPUs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.study import run as study_run
from balanced_thinking.study.executors import local
from balanced_thinking.study.executors.local import LocalExecutor
from balanced_thinking.study.load import make_study
from balanced_thinking.study.run import StudyError, describe_plan, run_study
from tests.forked import popen_forked
from tests.study.helpers import SMALL, changed


def test_a_study_runs_every_part_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(SMALL)
    monkeypatch.setattr(subprocess, "Popen", popen_forked)
    run_study(study, tmp_path, jobs=2)
    rows = read_ledger(tmp_path, [])
    assert [(row.run, row.part) for row in rows] == [
        ("sft/seed-0", "train"),
        ("sft/seed-0", "world-test"),
        ("sft+grpo/seed-0", "train"),
        ("sft+grpo/seed-0", "world-test"),
    ]
    assert all(row.wall_seconds > 0 and row.cpu_seconds > 0 and row.peak_mib > 0 for row in rows)
    about = json.loads((tmp_path / "sft" / "seed-0" / "provenance.json").read_text())
    assert (rows[0].wall_seconds, rows[0].cpu_seconds) == (about["train_seconds"], about["train_cpu_seconds"])
    config = yaml.safe_load((tmp_path / "sft+grpo" / "seed-0" / "config.yaml").read_text())
    assert Path(config["model"]) == tmp_path / "sft" / "seed-0"
    assert "complete" in describe_plan(study, tmp_path)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(subprocess, "Popen", never)
    run_study(study, tmp_path, jobs=2)


def test_a_failed_run_is_named_with_its_log_and_the_others_are_finished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", popen_forked)
    arms = {"broken": {"model": "nowhere/at/all"}, "after": {"after": "broken", "stage": "grpo"}}
    study = make_study({**SMALL, "arms": arms | {"sft": SMALL["arms"]["sft"]}, "contrasts": []})
    caplog.set_level("INFO")
    with pytest.raises(
        StudyError,
        match=r"1 of 3 runs failed, 1 more that start from them were left out.*again \([^,]*broken/seed-0/log.txt\)",
    ):
        run_study(study, tmp_path, jobs=2)
    assert "no model folder nowhere/at/all" in caplog.text
    assert (tmp_path / "sft" / "seed-0" / "eval" / "world-test" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("code", "log", "said"),
    [
        (1, "Traceback\nValueError: no", "failed (ValueError: no); see"),
        (1, "Traceback\nbalanced_thinking.training.health.NothingLearnedError: none: 0", "failed (none: 0); see"),
        (1, "", "failed (exit code 1); see"),
        (-9, "step 7 of 9", "failed (ended by signal 9, Killed); see"),  # not by what its last line is about
        (0, "", "sft/seed-0: world-test 25.0%"),  # nor by results that are not the study's
    ],
)
def test_the_end_of_a_run_is_one_line(code: int, log: str, said: str, tmp_path: Path) -> None:
    node = make_study(SMALL).planned_runs()[0]
    for label, summary in (("world-test", '{"n": 4, "correct": 1, "accuracy": 0.25}'), ("other-test", "{}")):
        (tmp_path / node.name / "eval" / label).mkdir(parents=True)
        (tmp_path / node.name / "eval" / label / "summary.json").write_text(summary)
    (tmp_path / node.name / "log.txt").write_text(log)
    assert said in study_run._result_line(tmp_path, node, code)


def test_jobs_and_threads_follow_the_usable_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(command: list[str], env: dict[str, str], **_: Any) -> None:
        raise OSError(f"{env['OMP_NUM_THREADS']} threads")

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8, 14)), raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(subprocess, "Popen", start)
    assert LocalExecutor().count_slots() == 6
    with pytest.raises(OSError, match=r"^2 threads"):
        run_study(make_study(SMALL), tmp_path, jobs=3)


@pytest.mark.parametrize(
    ("visible", "jobs", "expected"),
    [
        (None, None, ["0", "1"]),  # as many runs as GPUs
        ("GPU-a, GPU-b", 4, ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]),
        ("3,5,-1,7", None, ["3", "5"]),  # CUDA sees none after one that is not there
    ],
)
def test_every_run_sees_one_gpu(
    visible: str | None, jobs: int | None, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    class Running:
        def __init__(self, command: list[str], env: dict[str, str], **_: Any) -> None:
            started.append(env["CUDA_VISIBLE_DEVICES"])
            if len(started) == len(expected):
                raise OSError("all are started")

        def send_signal(self, number: int) -> None: ...

        def poll(self) -> int:
            return 0

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(local, "check_runs", lambda *_: None)
    monkeypatch.setattr(subprocess, "Popen", Running)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    study = make_study({**changed(seeds=[0, 1, 2, 3]), "arms": {"mine": {}}, "contrasts": []})
    with pytest.raises(OSError, match="all are started"):
        run_study(study, tmp_path, jobs=jobs)
    assert started == expected
