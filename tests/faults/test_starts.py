"""Two commands in one folder: one trains, the other is refused, whatever the time between them."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forked import Forked, Moment, run_command
from tests.faults.kills import Reference, run_reference
from tests.faults.kinds import Training, make_training
from tests.faults.outcome import differences
from tests.faults.tally import Tally, scaled_count

OFFSETS = 20  # from no time at all to nearly the length of a run
# Name -> what is given to the first and the second command, beside the same recipe and folder.
CASES = {
    "two starts": ([], []),
    "two resumes": (["--resume"], ["--resume"]),
    "a resume beside a start": ([], ["--resume"]),
}


def train(words: list[str]) -> int:
    from balanced_thinking.cli import main

    return main(words)


def run_both(training: Training, case: str, offset_seconds: float) -> tuple[list[int], list[str]]:
    outputs = [training.output.with_name(f"output-{number}.txt") for number in (1, 2)]
    first, second = (partial(train, training.words(*more)) for more in CASES[case])
    with Forked(first, outputs[0]) as one:
        time.sleep(offset_seconds)
        with Forked(second, outputs[1]) as two:
            return [one.wait(), two.wait()], [one.text(), two.text()]


def judge(codes: list[int], texts: list[str], different: list[str]) -> list[str]:
    wrong = list(different)
    if sorted(codes) != [0, 2]:
        wrong.append(f"exit codes {codes}; expected 0 of one and 2 of the other")
    refused = texts[codes.index(2)] if 2 in codes else ""
    if refused and "already holds a run" not in refused and "process" not in refused:
        wrong.append("the refusal does not name the process that has the folder")
    return wrong


def try_once(reference: Reference, case: str, number: int, folder: Path) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    training = make_training("sft", folder)
    if case == "two resumes":  # of a run that was killed early
        moment = Moment(r"^write RUN/metrics\.jsonl", 2)
        assert run_command(training.words(), training.output, watched=training.run, moment=moment).killed
    share = 0.75 if case == "two resumes" else 0.85
    offset = number / scaled_count(OFFSETS) * share * reference.ended.seconds
    codes, texts = run_both(training, case, offset)
    wrong = judge(codes, texts, differences(training.run, reference.outcome))
    about = {"case": case, "offset": round(offset, 3), "passed": not wrong}
    return about | ({"wrong": wrong, "said": "\n----\n".join(text[-900:] for text in texts)} if wrong else {})


@pytest.mark.faults
@pytest.mark.parametrize("case", CASES)
def test_the_second_command_is_refused_and_the_first_unharmed(case: str, tmp_path: Path) -> None:
    reference, tally = run_reference("sft", tmp_path), Tally(f"starts-{case.replace(' ', '-')}")
    for name in tally.open_trials(scaled_count(OFFSETS)):
        tally.add(name, **try_once(reference, case, int(name), tmp_path / "trial"))
    assert not tally.failures()
