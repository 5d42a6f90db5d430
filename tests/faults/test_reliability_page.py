"""docs/reliability.md: its counts are those that were measured, its tests exist, and nothing measured failed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.faults.reliability_tables import MEASURED, PAGE, TABLES, fill_page


def measured() -> dict[str, Any]:
    return json.loads(MEASURED.read_text(encoding="utf-8"))


def test_the_counts_are_those_that_were_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert fill_page(page, measured()) == page, "run `python -m tests.faults.reliability_tables`"
    assert set(re.findall(r"<!-- counts of (\w+) -->", page)) == set(TABLES)


def test_every_trial_ended_as_promised() -> None:
    failed = [f"{name} {trial}" for name, values in measured().items() for trial in failed_trials(values)]
    assert not failed


def failed_trials(values: dict[str, Any]) -> Iterator[str]:
    yield from (number for number, trial in values["trials"].items() if not trial["passed"])


@pytest.mark.parametrize(("section", "least"), [("kills-sft", 100), ("kills-lora", 30), ("kills-grpo", 30)])
def test_there_were_enough_kills(section: str, least: int) -> None:
    trials = measured()[section]["trials"].values()
    assert len(trials) >= least
    assert sum(bool(trial["inside"]) for trial in trials) >= 0.4 * least


def test_every_named_test_exists() -> None:
    names = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE.read_text(encoding="utf-8")))
    assert len(names) >= 6
    assert not [name for name in names if not (REPOSITORY / name).is_file()]
