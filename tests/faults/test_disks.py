"""A disk that is full, read-only or gone stops a run, and costs at most the steps since the last checkpoint."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.disks import fill_disk, mounted_disk, need_mounts, read_only, resize_disk
from tests.faults.forked import Ended, Forked, Moment, run_command
from tests.faults.kills import SAVE_BEGINS, Reference, run_reference
from tests.faults.kinds import Training, make_training
from tests.faults.outcome import differences, half_written_checkpoints
from tests.faults.tally import Tally

PLENTY = 1 << 30
_BYTES = re.compile(r"\d[\d,.]* (bytes|[KMG]i?B)")
# Sizes of the disk, in checkpoints. The training keeps three and needs a fourth while it saves.
SIZES = (0.1, 0.9, 1.02, 1.3, 1.6, 1.9, 2.05, 2.5, 2.9, 3.1, 3.6, 3.95)
# Where a disk becomes full in addition, apart from saves of checkpoints: event, occurrence.
FILLED_AT = {
    "metrics": (r"^write RUN/metrics\.jsonl", 2),
    "final model": (r"^mkdir RUN/\.saving-model", 1),
    "provenance": (r"^write RUN/\.provenance", 2),
    "recipe": (r"^write RUN/\.config", 1),
}


class DiskTrial(NamedTuple):
    training: Training
    reference: Reference

    def judge(self, ended: Ended, *, names_bytes: bool) -> list[str]:
        """What is wrong with how a run ended on a disk that failed."""
        wrong = []
        if ended.crashed:
            wrong.append("a traceback")
        if ended.code != (2 if "nothing was started" in ended.text else 1):
            wrong.append(f"exit code {ended.code}")
        if names_bytes and not _BYTES.search(ended.text.strip().rpartition("balanced ")[2]):
            wrong.append("no number of bytes in the message")
        return wrong + [f"not valid: {name}" for name in half_written_checkpoints(self.training.run)]

    def resume(self) -> list[str]:
        """What is wrong with the resumed run."""
        ended = run_command(self.training.words("--resume"), self.training.output)
        if ended.code:
            return [f"the resume ended with {ended.code}: {ended.text[-700:]}"]
        return differences(self.training.run, self.reference.outcome)


def new_trial(reference: Reference, folder: Path) -> DiskTrial:
    """With the run on the disk that is mounted at `folder`, and its output elsewhere."""
    shutil.rmtree(folder / "t", ignore_errors=True)
    training = make_training(reference.training.kind, folder / "t")
    return DiskTrial(training, reference)


def pause_and(trial: DiskTrial, moment: Moment, output: Path, act: Callable[[], Any]) -> Ended:
    """Run until the moment, do something to the disk, and let the run go on."""
    with Forked(lambda: _main(trial.training.words()), output, watched=trial.training.run, moment=moment) as child:
        assert child.wait_for_event(), child.text()[-2000:]
        act()
        child.go_on()
        return Ended(child.wait(), child.text(), 0.0)


def _main(words: list[str]) -> int:
    from balanced_thinking.cli import main

    return main(words)


def record(tally: Tally, name: str, wrong: list[str], text: str) -> None:
    tally.add(name, passed=not wrong, **({"wrong": wrong, "said": text[-1500:]} if wrong else {}))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("disks")
    need_mounts(folder)
    return run_reference("sft", folder)


def checkpoint_bytes(reference: Reference) -> int:
    (last, *_) = sorted((reference.training.run / "checkpoints").glob("checkpoint-*"))
    return sum(path.stat().st_size for path in last.rglob("*"))


@pytest.mark.faults
def test_a_full_disk_costs_no_checkpoint(reference: Reference, tmp_path: Path) -> None:
    tally = Tally("disk-full")
    for share in SIZES:
        name = f"{share} checkpoints"
        if name in tally.trials:
            continue
        with mounted_disk(tmp_path / "disk", max(65536, int(share * checkpoint_bytes(reference)))) as disk:
            trial = new_trial(reference, disk)
            ended = run_command(trial.training.words(), tmp_path / "output.txt")
            wrong = trial.judge(ended, names_bytes=True)
            resize_disk(disk, PLENTY)
            record(tally, name, wrong + trial.resume(), ended.text)
    for name, (pattern, occurrence) in FILLED_AT.items():
        if name in tally.trials:
            continue
        with mounted_disk(tmp_path / "disk", 8 * checkpoint_bytes(reference)) as disk:
            trial, moment = new_trial(reference, disk), Moment(pattern, occurrence, pause=True)
            ended = pause_and(trial, moment, tmp_path / "output.txt", lambda: fill_disk(disk))
            wrong = trial.judge(ended, names_bytes=name == "final model")
            (disk / "filler").unlink()
            record(tally, name, wrong + trial.resume(), ended.text)
    assert not tally.failures()


@pytest.mark.faults
@pytest.mark.parametrize("kibibytes", [16, 300, 800, 1000])
def test_a_limit_on_the_size_of_a_file_costs_no_checkpoint(
    reference: Reference, kibibytes: int, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE: what a batch system sets; a write fails with EFBIG."""
    tally, trial = Tally("disk-file-limit"), new_trial(reference, tmp_path / "place")
    limit = (kibibytes * 1024, kibibytes * 1024)
    ended = run_command(
        trial.training.words(),
        tmp_path / "output.txt",
        prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    wrong = trial.judge(ended, names_bytes=True) + trial.resume()
    record(tally, f"{kibibytes} KiB", wrong, ended.text)
    assert not wrong


def compile_quota(folder: Path) -> Path:
    """The library that makes writes fail as on a disk with a quota. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = folder / "quota.so"
    source = Path(__file__).with_name("quota.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.mark.faults
@pytest.mark.parametrize("share", [1.2, 2.7, 4.4])
def test_a_quota_costs_no_checkpoint(reference: Reference, share: float, tmp_path: Path) -> None:
    """Writes fail with EDQUOT once so many checkpoints were written. A new interpreter, which loads the library."""
    tally, trial = Tally("disk-quota"), new_trial(reference, tmp_path / "place")
    limit = {"QUOTA_FOLDER": str(trial.training.run), "QUOTA_BYTES": str(int(share * checkpoint_bytes(reference)))}
    command = [sys.executable, "-m", "balanced_thinking.cli", *trial.training.words()]
    done = subprocess.run(
        command,
        env={**os.environ, **limit, "LD_PRELOAD": str(compile_quota(tmp_path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    ended = Ended(done.returncode, done.stdout + done.stderr, 0.0)
    wrong = trial.judge(ended, names_bytes=True) + trial.resume()
    wrong += [] if "quota" in ended.text else ["the message does not say that it may be a quota"]
    record(tally, f"{share} checkpoints", wrong, ended.text)
    assert not wrong


@pytest.mark.faults
@pytest.mark.parametrize("save", [1, 2, 4])
def test_a_disk_that_turns_read_only_costs_no_checkpoint(reference: Reference, save: int, tmp_path: Path) -> None:
    tally = Tally("disk-read-only")
    with mounted_disk(tmp_path / "disk", PLENTY) as disk, ExitStack() as stack:
        trial, moment = new_trial(reference, disk), Moment(SAVE_BEGINS, save, pause=True)
        act = lambda: stack.enter_context(read_only(disk))  # noqa: E731
        ended = pause_and(trial, moment, tmp_path / "output.txt", act)
        wrong = trial.judge(ended, names_bytes=False)
        stack.close()
        wrong += trial.resume()
        record(tally, f"at save {save}", wrong, ended.text)
    assert not wrong


@contextmanager
def renamed_away(place: Path) -> Any:
    aside = place.with_name(f"{place.name}-away")
    place.rename(aside)
    yield
    shutil.rmtree(place, ignore_errors=True)  # what the run may have made in its place
    aside.rename(place)


@contextmanager
def emptied_in_its_place(place: Path) -> Any:
    """As a network disk that is unmounted: its mount point is an empty folder of another disk."""
    aside = place.with_name(f"{place.name}-away")
    place.rename(aside)
    place.mkdir()
    yield
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)


VANISHED: dict[str, tuple[Callable[[Path], AbstractContextManager[None]], str]] = {
    "the run's folder": (renamed_away, "."),
    "the folder of checkpoints": (renamed_away, "checkpoints"),
    "an unmounted disk": (emptied_in_its_place, "."),
}


@pytest.mark.faults
@pytest.mark.parametrize("name", VANISHED)
@pytest.mark.parametrize("pattern", [SAVE_BEGINS, r"^write RUN/metrics\.jsonl"], ids=["save", "metrics"])
def test_a_folder_that_vanishes_costs_no_checkpoint(
    reference: Reference, name: str, pattern: str, tmp_path: Path
) -> None:
    tally, (vanish, below) = Tally("disk-vanished"), VANISHED[name]
    trial = new_trial(reference, tmp_path / "place")
    with ExitStack() as stack:
        act = lambda: stack.enter_context(vanish(trial.training.run / below))  # noqa: E731
        moment = Moment(pattern, 4 if pattern == SAVE_BEGINS else 2, pause=True)
        ended = pause_and(trial, moment, tmp_path / "output.txt", act)
        wrong = trial.judge(ended, names_bytes=False)
        stack.close()
    wrong += trial.resume()
    record(tally, f"{name}, {'save' if pattern == SAVE_BEGINS else 'metrics'}", wrong, ended.text)
    assert not wrong
