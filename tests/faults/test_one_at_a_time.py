"""Two commands on one run: the second is refused with exit code 2, and the first is bit for bit what it is alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.cli import main
from tests.faults.forked import Forked, Moment, run_command
from tests.faults.kills import Reference, run_reference
from tests.faults.kinds import Training, make_training
from tests.faults.outcome import differences, unfinished_folders
from tests.faults.tally import Tally, scaled_count

OFFSETS = 20
_ATTEMPTS = 5  # to meet the first command while it runs
_PAIRS = {  # what the two commands have beside the recipe
    "double start": ((), ()),
    "resume beside a live run": ((), ("--resume",)),
    "double resume": (("--resume",), ("--resume",)),
}


def start(training: Training, name: str, more: tuple[str, ...]) -> Forked:
    call: Callable[[], int] = partial(main, training.words(*more))
    return Forked(call, training.folder / f"{name}.txt")


def run_pair(reference: Reference, folder: Path, pair: str, share: float) -> dict[str, Any]:
    """Start two commands, the second after a share of the time that the first takes alone."""
    shutil.rmtree(folder, ignore_errors=True)
    training = make_training(reference.training.kind, folder)
    first_words, second_words = _PAIRS[pair]
    if first_words:  # there is something to resume
        ended = run_command(training.words(), training.output, watched=training.run, moment=Moment("checkpoint-3$"))
        assert ended.killed, ended.text
    with ExitStack() as stack:
        first = stack.enter_context(start(training, "first", first_words))
        time.sleep(share * reference.ended.seconds)
        second = stack.enter_context(start(training, "second", second_words))
        while [first.poll(), second.poll()] == [None, None]:
            time.sleep(0.002)
        met = 2 in (first.poll(), second.poll())  # refused; otherwise the first had ended before the second asked
        codes = [first.wait(), second.wait()]
        texts = [first.text(), second.text()]
    refused = texts[codes.index(2)] if 2 in codes else ""
    return {
        "met": met,
        "codes": codes,
        "named": "is in use: process" in refused or "already holds a run" in refused,
        "different": differences(training.run, reference.outcome) + unfinished_folders(training.run),
        "left": sorted(path.name for path in training.run.glob(".*")),
        "said": "" if sorted(codes) == [0, 2] else "\n----\n".join(text[-1500:] for text in texts),
    }


def run_trial(reference: Reference, folder: Path, pair: str, share: float) -> dict[str, Any]:
    for _ in range(_ATTEMPTS):
        result = run_pair(reference, folder, pair, share)
        if result["met"]:
            break
        share *= 0.8
    passed = result["met"] and sorted(result["codes"]) == [0, 2] and result["named"]
    return {"pair": pair, "share": share, "passed": passed and not result["different"] and not result["left"], **result}


@pytest.mark.faults
@pytest.mark.parametrize("pair", _PAIRS)
def test_a_second_command_is_refused_and_the_first_unharmed(pair: str, tmp_path: Path) -> None:
    tally, count = Tally(f"one at a time, {pair}"), scaled_count(OFFSETS)
    reference = run_reference("sft", tmp_path)
    for name in tally.open_trials(count):
        tally.add(name, **run_trial(reference, tmp_path / "trial", pair, 0.9 * int(name) / count))
    assert not tally.failures()
