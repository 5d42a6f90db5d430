"""A sample of `make faults` for every run of the suite: kills, damage and a disk that refuses, in a few seconds."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from balanced_thinking.study import worker
from balanced_thinking.study.load import make_study
from balanced_thinking.study.run import prepare_folder
from tests.faults.damage import DamageCase, copy_run
from tests.faults.forked import Moment, run_command, run_forked
from tests.faults.kills import SAVE_BEGINS, SAVED, kill_and_resume
from tests.faults.outcome import differences, half_written_checkpoints
from tests.faults.studies import read_ledger_rows
from tests.faults.test_damage import Stopped, resume_damaged, stop_training
from tests.study.helpers import SMALL, fingerprints


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stopped]:
    yield stop_training("sft", tmp_path_factory.mktemp("sample"))
    gc.unfreeze()


def test_a_training_that_is_killed_again_and_again_ends_as_if_nobody_had(stopped: Stopped, tmp_path: Path) -> None:
    moments = [
        Moment(SAVE_BEGINS, 1, 0.01),  # while files are written, with no older checkpoint
        Moment(SAVED.replace("renamed", "rename"), 2),  # all is written, and nothing has its name
        Moment(r"RUN/checkpoints/\.removing-checkpoint-", 3),  # an old checkpoint is half deleted
        Moment(r"^write RUN/\.saving-model/", 2),  # the trained model is half written
    ]
    trial = kill_and_resume(stopped.reference, tmp_path / "killed", moments)
    assert trial.passed, (trial.different, trial.text[-3000:])
    assert len(trial.kills) == len(moments)
    assert trial.inside >= 3


@pytest.mark.parametrize("case", [DamageCase("optimizer.pt", "swap"), DamageCase("manifest.json", "flip", 0)], ids=str)
def test_a_damaged_checkpoint_is_passed_over(case: DamageCase, stopped: Stopped, tmp_path: Path) -> None:
    result = resume_damaged(stopped, case, tmp_path, alone=False)
    assert result["end"] == "passed over", result


def test_a_save_that_the_system_refuses_costs_no_checkpoint(stopped: Stopped, tmp_path: Path) -> None:
    """The optimizer's state is too large for the limit on a file; the checkpoints before stay valid."""
    run, reference = copy_run(stopped.training.run, tmp_path / "run"), stopped.reference
    words = stopped.training.words("--resume", run=run)
    limit = (600_000, 600_000)
    refused = run_command(
        words, tmp_path / "output.txt", prepare=partial(resource.setrlimit, resource.RLIMIT_FSIZE, limit)
    )
    assert (refused.code, refused.crashed) == (1, False), refused.text[-2000:]
    assert "bytes" in refused.text
    assert not half_written_checkpoints(run)
    assert run_command(words, tmp_path / "output.txt").code == 0
    assert not differences(run, reference.outcome)


ONE_RUN = {**SMALL, "arms": {"sft": SMALL["arms"]["sft"]}, "contrasts": []}
# In the order in which they come: a checkpoint, the model, the predictions, and before the ledger's row.
WORKER_MOMENTS = (
    Moment(r"^rename RUN/sft/seed-0/checkpoints/\.saving-\S+ RUN/sft/seed-0/checkpoints/checkpoint-2"),
    Moment(r"^rename RUN/sft/seed-0/\.saving-model"),
    Moment(r"^write RUN/ledger\.jsonl"),
    Moment(r"^write \S*predictions\.jsonl"),
    Moment(r"^write RUN/ledger\.jsonl"),
)


def run_worker(root: Path, name: str) -> int:
    sys.argv = ["worker", str(root), name]
    return worker.main()


@pytest.mark.usefixtures("stopped")  # it prepares this process
def test_a_studys_run_that_is_killed_at_its_writes_gives_the_same_results(tmp_path: Path) -> None:
    study = make_study(ONE_RUN)
    (run,) = study.planned_runs()
    roots = [tmp_path / "undisturbed", tmp_path / "killed"]
    for root in roots:
        prepare_folder(study, root)
    assert run_forked(partial(run_worker, roots[0], run.name), tmp_path / "output.txt").code == 0
    for moment in WORKER_MOMENTS:
        ended = run_forked(
            partial(run_worker, roots[1], run.name), tmp_path / "output.txt", watched=roots[1], moment=moment
        )
        assert ended.killed, (moment, ended.text[-3000:])
    ended = run_forked(partial(run_worker, roots[1], run.name), tmp_path / "output.txt")
    assert ended.code == 0, ended.text[-3000:]
    assert len(fingerprints(roots[1])) == 2
    assert fingerprints(roots[1]) == fingerprints(roots[0])
    assert read_ledger_rows(roots[1]) == read_ledger_rows(roots[0])
