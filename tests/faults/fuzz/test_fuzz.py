"""A short form of the campaign, and every input that ever failed. `make fuzz` is the long form."""

from __future__ import annotations

import logging
import random
import time
from importlib import import_module
from pathlib import Path

import pytest

from balanced_thinking.config.errors import RecipeError
from tests.faults.fuzz.campaign import KINDS
from tests.faults.fuzz.target import CORPUS, PEAK, Target, next_input, try_input

# Inputs of the short form, which takes about half a second for each target.
SHORT = {
    "segments": 1500,
    "rows": 120,
    "row_check": 100,
    "yaml": 150,
    "scoring": 250,
    "pictures": 250,
    "server": 60,
    "runs": 15,
    "checkpoints": 40,
}
pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged metadata
SAVED = sorted(CORPUS.glob("*/*"))


def target_of(name: str) -> Target:
    return import_module(f"tests.faults.fuzz.{name}_target").TARGET


@pytest.fixture(autouse=True)
def quiet() -> object:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", KINDS)
def test_a_sample_of_inputs_ends_well_or_in_an_error_with_a_name(name: str) -> None:
    target, rng, pool = target_of(name), random.Random(0), []
    target.prepare()
    PEAK.rise()  # of the imports, and of other tests
    found = []
    for _ in range(SHORT[name]):
        data = next_input(target, rng, pool)
        if (finding := try_input(target, data)) is not None:
            found.append((finding, data[:400]))
    target.close()
    assert found == []


@pytest.mark.parametrize("file", SAVED, ids=[f"{file.parent.name}-{file.name}" for file in SAVED])
def test_what_failed_once_does_not_fail_again(file: Path) -> None:
    target = target_of(file.parent.name)
    target.prepare()
    PEAK.rise()
    assert try_input(target, file.read_bytes()) is None


def test_the_guard_finds_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error without a name, a hang, memory and slowness are findings; an error with a name is not."""
    peaks = {"now": 100.0}
    monkeypatch.setattr("tests.faults.fuzz.target.peak_mib", lambda: peaks["now"])
    monkeypatch.setattr("tests.faults.fuzz.target.HANG_SECONDS", 0.05)
    PEAK.rise()

    def behave(data: bytes) -> None:
        if data == b"crash":
            raise KeyError("x")
        if data == b"named":
            raise RecipeError("x is 1; expected 2")
        if data == b"empty":
            raise RecipeError("")
        if data == b"memory":
            peaks["now"] += 300
        end = time.process_time() + 0.02
        while data == b"hang" or (data == b"slow" and time.process_time() < end):
            pass

    target = Target("behave", lambda _: b"", behave, lambda _, data: data, seconds=0.01)
    names = ("crash", "named", "empty", "memory", "hang", "slow", "fine")
    kinds = {data: try_input(target, data.encode()) for data in names}
    found = {data: finding.kind for data, finding in kinds.items() if finding is not None}
    assert found == {"crash": "crash", "empty": "crash", "memory": "memory", "hang": "hang", "slow": "slow"}
