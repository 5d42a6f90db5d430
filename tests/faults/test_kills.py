"""A training that is killed with SIGKILL and resumed is, bit for bit, the one that nobody disturbed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forked import Moment
from tests.faults.kills import POINTS, Reference, any_time, at_point, inside_a_save, kill_and_resume, run_reference
from tests.faults.tally import Tally, scaled_count

TRIALS = {"sft": 100, "lora": 30, "grpo": 30}
_ATTEMPTS = 20  # to meet the process with a kill


def first_moment(number: int, reference: Reference, rng: random.Random) -> tuple[str, Moment]:
    """What a trial tests: of ten, four are inside a save, three at a named point, three at any time."""
    if number % 10 < 4:
        return "inside a save", inside_a_save(reference, rng)
    if number % 10 < 7:
        point = list(POINTS)[number // 10 * 3 % len(POINTS) + number % 10 - 4 - len(POINTS)]
        return point, at_point(reference, point, rng)
    return "any time", any_time(reference, rng)


def later_moments(reference: Reference, rng: random.Random) -> list[Moment]:
    """Every second run is killed again while it resumes, some of them twice."""
    kinds = [any_time, inside_a_save, lambda r, g: at_point(r, g.choice(list(POINTS)), g)]
    return [rng.choice(kinds)(reference, rng) for _ in range(rng.choice([0, 0, 1, 2]))]


def choose_moments(number: int, reference: Reference, rng: random.Random) -> tuple[str, list[Moment]]:
    aim, moment = first_moment(number, reference, rng)
    if aim == "verification":  # of what a first kill has left
        return aim, [any_time(reference, rng), Moment(POINTS[aim], rng.randint(1, 30))]
    return aim, [moment, *later_moments(reference, rng)]


def run_trial(number: int, reference: Reference, folder: Path) -> dict[str, Any]:
    rng = random.Random(number)
    for _ in range(_ATTEMPTS):
        aim, moments = choose_moments(number, reference, rng)
        trial = kill_and_resume(reference, folder, moments)
        hit = trial.inside if aim == "inside a save" else trial.kills
        if hit or not trial.passed:
            break
    else:
        raise AssertionError(f"trial {number}, {aim}: no kill of {_ATTEMPTS} met the process there")
    about = {"aim": aim, "kills": trial.kills, "inside": trial.inside, "passed": trial.passed}
    return about | ({} if trial.passed else {"different": trial.different, "said": trial.text[-1500:]})


@pytest.mark.faults
@pytest.mark.parametrize("kind", TRIALS)
def test_killed_trainings_resume_bitwise(kind: str, tmp_path: Path) -> None:
    tally, count = Tally(f"kills-{kind}"), scaled_count(TRIALS[kind])
    reference = run_reference(kind, tmp_path)
    for name in tally.open_trials(count):
        tally.add(name, **run_trial(int(name), reference, tmp_path / "trial"))
    assert not tally.failures()
    assert sum(trial["inside"] > 0 for trial in tally.trials.values()) >= 0.4 * count
