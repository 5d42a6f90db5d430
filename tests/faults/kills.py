"""One trial: a training that is killed at some moments, resumed, and compared with an undisturbed one."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.faults.forked import Ended, Moment, prepare_parent, run_command
from tests.faults.kinds import Training, make_training
from tests.faults.outcome import differences, read_outcome, unfinished_folders

# The first event of a save, and the last.
SAVE_BEGINS = r"^mkdir RUN/(checkpoints/)?\.saving-[\w-]+$"
SAVED = r"^renamed RUN/\S*\.saving-\S+ RUN/(checkpoints/checkpoint-\d+|model|base)$"
# Moments of special interest, by name; each is met several times in a run.
POINTS = {
    "before the rename": SAVED.replace("renamed", "rename"),
    "after the rename": SAVED,
    "retention": r"RUN/checkpoints/\.removing-checkpoint-",
    "metrics": r"^write RUN/\.?metrics",
    "manifest": r"^(write|rename|renamed) RUN/\S*manifest\.json",
    "sync": r"^sync RUN/",
    "final model": r"RUN/(\.saving-)?model",
    "provenance": r"RUN/\.?provenance",
    "recipe": r"RUN/\.?config\.yaml",
    "verification": r"^read RUN/checkpoints/checkpoint-\d+/",
}


class Reference(NamedTuple):
    """An undisturbed run: what it leaves, how long it took, and its file operations."""

    training: Training
    outcome: dict[str, str]
    ended: Ended

    def count_events(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, text)) for _, text in self.ended.events)

    def save_seconds(self) -> float:
        """The mean time from the first event of a save to its rename."""
        began = [at for at, text in self.ended.events if re.search(SAVE_BEGINS, text)]
        done = [at for at, text in self.ended.events if re.search(SAVED, text)]
        assert began, "no save was seen: has the name of the staging folder changed?"
        assert len(began) == len(done)
        return sum(b - a for a, b in zip(began, done, strict=True)) / len(began)


class KillTrial(NamedTuple):
    """`kills`: the moments at which a kill met the process. `inside`: of these, inside a save."""

    kills: list[str]
    inside: int
    different: list[str]
    text: str

    @property
    def passed(self) -> bool:
        return not self.different


def run_reference(kind: str, folder: Path) -> Reference:
    training = make_training(kind, folder / f"reference-{kind}")
    prepare_parent(training.words())
    shutil.rmtree(training.run)
    ended = run_command(training.words(), training.output, watched=training.run, trace=True)
    assert ended.code == 0, ended.text[-3000:]
    return Reference(training, read_outcome(training.run), ended)


def kill_and_resume(reference: Reference, folder: Path, moments: list[Moment]) -> KillTrial:
    """Start, kill, `--resume`, kill ... and finish; compare with the reference."""
    shutil.rmtree(folder, ignore_errors=True)
    training = make_training(reference.training.kind, folder)
    kills, inside, texts = [], 0, []
    for number, moment in enumerate([*moments, None]):
        words = training.words(*(["--resume"] if number else []))
        with hold_staged_folders(training.run) as before:
            ended = run_command(words, training.output, watched=training.run, moment=moment)
            new = staged_inodes(training.run) - before
        texts.append(ended.text)
        if ended.killed:
            assert moment is not None
            kills.append(moment.describe())
            inside += bool(new)
        elif ended.code:
            return KillTrial(kills, inside, [f"exit code {ended.code}"], "\n----\n".join(texts))
    different = differences(training.run, reference.outcome)
    if left := unfinished_folders(training.run):
        different.append(f"left behind: {[place.name for place in left]}")
    return KillTrial(kills, inside, different, "\n----\n".join(texts))


def staged_inodes(run: Path) -> set[int]:
    """Of the staging folders: after a kill, a new one proves that it was inside a save."""
    return {place.stat().st_ino for place in unfinished_folders(run)}


@contextmanager
def hold_staged_folders(run: Path) -> Iterator[set[int]]:
    """Their inodes. They stay open, because the file system may give a deleted folder's inode to the next one."""
    with ExitStack() as stack:
        for place in unfinished_folders(run):
            stack.callback(os.close, os.open(place, os.O_RDONLY))
        yield staged_inodes(run)


def inside_a_save(reference: Reference, rng: random.Random) -> Moment:
    """A random time in a random save, of a checkpoint or of the final model."""
    occurrence = rng.randint(1, reference.count_events(SAVE_BEGINS))
    return Moment(SAVE_BEGINS, occurrence, max(1e-5, rng.uniform(0, reference.save_seconds())))


def any_time(reference: Reference, rng: random.Random) -> Moment:
    """From the first file of the run to its end."""
    first, last = reference.ended.events[0][0], reference.ended.seconds
    return Moment(delay_seconds=rng.uniform(0.9 * first, last))


def at_point(reference: Reference, point: str, rng: random.Random) -> Moment:
    return Moment(POINTS[point], rng.randint(1, max(1, reference.count_events(POINTS[point]))))
