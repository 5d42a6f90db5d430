"""A short form of the campaign, and every input that ever failed. `make fuzz` is the long form."""

from __future__ import annotations

import logging
import random
from importlib import import_module
from pathlib import Path

import pytest

from tests.faults.fuzz.campaign import KINDS
from tests.faults.fuzz.target import CORPUS, PEAK, Target, next_input, try_input

# Inputs of the short form, which takes about half a second for each target.
SHORT = {"segments": 2000, "rows": 150, "yaml": 200, "scoring": 700}
SAVED = sorted(CORPUS.glob("*/*"))


def target_of(name: str) -> Target:
    return import_module(f"tests.faults.fuzz.{name}_target").TARGET


@pytest.fixture(autouse=True)
def quiet() -> object:
    logging.disable(logging.CRITICAL)
    PEAK.rise()  # of other tests
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", KINDS)
def test_a_sample_of_inputs_ends_well_or_in_an_error_with_a_name(name: str) -> None:
    target, rng, pool = target_of(name), random.Random(0), []
    found = []
    for _ in range(SHORT[name]):
        data = next_input(target, rng, pool)
        if (finding := try_input(target, data)) is not None:
            found.append((finding, data[:400]))
    target.close()
    assert found == []


@pytest.mark.parametrize("file", SAVED, ids=[f"{file.parent.name}-{file.name}" for file in SAVED])
def test_what_failed_once_does_not_fail_again(file: Path) -> None:
    assert try_input(target_of(file.parent.name), file.read_bytes()) is None


def test_the_guard_finds_what_it_is_for() -> None:
    """An error without a name, a hang, memory and slowness are findings; an error with a name is not."""
    from balanced_thinking.config.errors import RecipeError

    def behave(data: bytes) -> None:
        if data == b"crash":
            raise KeyError("x")
        if data == b"named":
            raise RecipeError("x is 1; expected 2")
        if data == b"empty":
            raise RecipeError("")
        if data == b"memory":
            bytearray(300 * 2**20)
        while data == b"hang":
            pass

    target = Target("behave", lambda _: b"", behave, lambda _, data: data)
    limit = pytest.MonkeyPatch()
    limit.setattr("tests.faults.fuzz.target.HANG_SECONDS", 0.05)
    with limit.context():
        kinds = {
            data: try_input(target, data.encode()) for data in ("crash", "named", "empty", "memory", "hang", "fine")
        }
    limit.undo()
    found = {data: finding.kind for data, finding in kinds.items() if finding is not None}
    assert found == {"crash": "crash", "empty": "crash", "memory": "memory", "hang": "hang"}
