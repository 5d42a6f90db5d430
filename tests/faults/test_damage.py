"""Damaged checkpoints are passed over, damaged models refused: no run goes on from other weights than were saved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.damage import DamageCase, copy_run, list_damages
from tests.faults.forked import Ended, Moment, run_command
from tests.faults.kills import Reference, run_reference
from tests.faults.kinds import Training, make_training
from tests.faults.outcome import checkpoint_steps, differences
from tests.faults.tally import Tally, scaled_count

FORMS = ("sft", "lora", "grpo", "sft-unsealed")
NEWEST = 4  # the step of the last checkpoint of a run that was killed in the step after it
# With no older checkpoint left, these cases are enough: what is found out is the same.
ALONE = ("delete", "empty", "cut", "flip")


class Stopped(NamedTuple):
    """A run that was killed after the save of step NEWEST, and the same run undisturbed."""

    training: Training
    reference: Reference

    @property
    def newest(self) -> Path:
        return self.training.run / "checkpoints" / f"checkpoint-{NEWEST}"


def stop_training(form: str, folder: Path) -> Stopped:
    kind = form.partition("-")[0]
    reference = run_reference(kind, folder)
    training = make_training(kind, folder / "stopped")
    moment = Moment(rf"^mkdir RUN/checkpoints/\.saving-checkpoint-{NEWEST + 1}$")
    ended = run_command(training.words(), training.output, watched=training.run, moment=moment)
    assert ended.killed, ended.text[-3000:]
    assert checkpoint_steps(training.run) == [NEWEST - 2, NEWEST - 1, NEWEST]
    if form.endswith("unsealed"):  # as versions before 0.2 wrote them
        for manifest in training.run.glob("checkpoints/*/manifest.json"):
            manifest.unlink()
    return Stopped(training, reference)


def describe_end(ended: Ended, different: list[str], names: tuple[str, ...]) -> tuple[str, bool]:
    """What a damage led to, and whether that is as promised."""
    if ended.crashed:
        return "crash", False
    named = any(name in ended.text for name in names)
    if ended.code:
        return ("refused", True) if named else ("refused without its name", False)
    if not different:
        return "passed over" if named else "harmless", True
    return ("went on, with a warning", False) if named else ("went on silently", False)


def resume_damaged(stopped: Stopped, case: DamageCase, folder: Path, *, alone: bool) -> dict[str, Any]:
    run = copy_run(stopped.training.run, folder / "run")
    checkpoints = run / "checkpoints"
    if not case.apply(checkpoints / f"checkpoint-{NEWEST}", checkpoints / f"checkpoint-{NEWEST - 1}"):
        return {"case": str(case), "end": "the same file", "passed": True}
    hidden = is_hidden(stopped, case)
    if alone:
        for step in (NEWEST - 2, NEWEST - 1):
            shutil.rmtree(checkpoints / f"checkpoint-{step}")
    ended = run_command(stopped.training.words("--resume", run=run), folder / "output.txt")
    different = [] if ended.code else differences(run, stopped.reference.outcome)
    names = (*(f"checkpoint-{NEWEST}{after}" for after in "/ :"), case.file)
    end, passed = describe_end(ended, different, names)
    if end == "went on silently" and hidden:
        end, passed = "not noticed", True
    if not alone and end.startswith("refused"):
        passed = False  # there is an older one
    about = {"case": str(case), "end": end, "passed": passed}
    return about | ({} if passed else {"different": different, "said": ended.text[-1500:]})


def is_hidden(stopped: Stopped, case: DamageCase) -> bool:
    """Whether nobody may notice it: other weights or numbers in a checkpoint that has no manifest."""
    return not (stopped.newest / "manifest.json").is_file() and case.kind in ("flip", "swap", "link")


def some_of(cases: list[Any]) -> list[Any]:
    """All, or evenly chosen ones where FAULTS_SCALE asks for fewer trials."""
    count = scaled_count(len(cases))
    return [cases[i * len(cases) // count] for i in range(count)]


@pytest.mark.faults
@pytest.mark.parametrize("form", FORMS)
def test_no_damaged_checkpoint_is_resumed_from(form: str, tmp_path: Path) -> None:
    stopped, tally = stop_training(form, tmp_path), Tally(f"damage-{form}")
    cases = [(case, False) for case in list_damages(stopped.newest)]
    cases += [(case, True) for case, _ in cases if case.kind in ALONE and case.offset in (0, half_size(stopped, case))]
    for case, alone in some_of(cases):
        name = f"{case}{', the only checkpoint' if alone else ''}"
        if name not in tally.trials:
            tally.add(name, **resume_damaged(stopped, case, tmp_path / "trial", alone=alone))
    assert not tally.failures()


def half_size(stopped: Stopped, case: DamageCase) -> int:
    return (stopped.newest / case.file).stat().st_size // 2


def evaluation_words(model: Path, data: Path, out: Path) -> list[str]:
    words = ["eval", "--model", str(model), "--data", str(data), "--split", "train", "--out", str(out)]
    return [*words, "--max-new-tokens", "4", "--overwrite"]


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["sft", "lora"])
def test_no_damaged_model_is_evaluated(kind: str, tmp_path: Path) -> None:
    reference, tally = run_reference(kind, tmp_path), Tally(f"damaged-model-{kind}")
    run, rows = reference.training.run, tmp_path / "rows.jsonl"
    whole = run_command(evaluation_words(run, rows, tmp_path / "whole"), tmp_path / "output.txt")
    assert whole.code == 0, whole.text[-3000:]
    answers = (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    spare = tmp_path / "spare"
    shutil.copytree(run / "checkpoints" / "checkpoint-4", spare)
    for case in some_of(list(list_damages(run / "model"))):
        if str(case) in tally.trials:
            continue
        damaged = copy_run(run, tmp_path / "damaged")
        if not case.apply(damaged / "model", copy_run(spare, tmp_path / "other")):
            continue
        out = tmp_path / "results"
        shutil.rmtree(out, ignore_errors=True)
        ended = run_command(evaluation_words(damaged, rows, out), tmp_path / "output.txt")
        same = not ended.code and (out / "predictions.jsonl").read_bytes() == answers
        end, passed = describe_end(ended, [] if same else ["predictions.jsonl"], (case.file, str(damaged / "model")))
        about = {"case": str(case), "end": end, "passed": passed}
        tally.add(str(case), **about, **({} if passed else {"said": ended.text[-1500:]}))
    assert not tally.failures()
