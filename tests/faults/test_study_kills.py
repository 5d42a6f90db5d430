"""A study that is killed anywhere ends, after the same command again, with the same table."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.studies import KilledStudy, prepare_studies, random_kill, read_tables
from tests.faults.tally import Tally, scaled_count

TRIALS, REAL = 30, 6  # of 30 trials, the workers of six are new interpreters, as a user's are
_TRIES = 4  # of the command after the last kill: a worker that was killed makes a study end with 1


def run_trial(number: int, tables: dict[str, str], seconds: float, folder: Path) -> dict[str, Any]:
    rng, real = random.Random(number), number % (TRIALS // REAL) == 0
    shutil.rmtree(folder, ignore_errors=True)
    study, kills, inside = KilledStudy(folder, real=real), [], 0
    for extra in range(rng.choice([1, 1, 2])):
        kill = random_kill(rng, number + extra, seconds * (4 if real else 1))
        _, met, _ = study.run(kill)
        kills.append(kill.describe())
        inside += met
    for _ in range(_TRIES):
        code, _, text = study.run()
        if code == 0:
            break
    found = read_tables(study.root) if code == 0 else {"exit code": str(code)}
    different = sorted(name for name in found.keys() | tables.keys() if found.get(name) != tables.get(name))
    about = {"kills": kills, "inside": inside, "real": real, "passed": not different}
    return about | ({"different": different, "said": text[-1500:]} if different else {})


@pytest.mark.faults
def test_killed_studies_give_the_same_table(tmp_path: Path) -> None:
    prepare_studies(tmp_path)
    tally, reference = Tally("kills-study"), KilledStudy(tmp_path / "reference", real=False)
    began = time.monotonic()
    code, _, text = reference.run()
    assert code == 0, text[-3000:]
    seconds, tables = time.monotonic() - began, read_tables(reference.root)
    for name in tally.open_trials(scaled_count(TRIALS)):
        tally.add(name, **run_trial(int(name), tables, seconds, tmp_path / "trial"))
    assert not tally.failures()
