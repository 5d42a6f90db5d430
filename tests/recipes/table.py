"""The complete table of twins, and the plans of all recipes: `make test-recipes`.

    python -m tests.recipes.table --out docs/results/recipes.json

Each row is written as it comes, and a row that has passed is not run again, so an interrupted table continues. The
exit code is 1 if a row fails. Rows of ZeRO-3 need DeepSpeed, and say so where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from balanced_thinking.cli import main as balanced
from tests.forked import popen_forked
from tests.recipes.twins import FAMILY, HARDWARE, RECIPES, Twin, TwinPlace, small_overlay

TRAINED = ("sft", "scale-sft", "grpo")
STUDY_MACHINES = [name for name, ranks in HARDWARE.items() if ranks == 1]
_VERSIONS = ("torch", "transformers", "trl", "peft", "accelerate")


class Row(NamedTuple):
    """One recipe on one machine, and what runs it."""

    name: str
    run: Callable[[], None]


def all_rows(place: TwinPlace) -> Iterator[Row]:
    """The dry runs, the twins of trainings, each with its resume and its evaluation, and those of studies."""
    for machine, recipe, model in product(HARDWARE, TRAINED, FAMILY):
        twin = Twin(model, recipe, machine, place)
        yield Row(f"{model}, {recipe}, {machine}, dry run", twin.dry_run)
    for recipe, machine, model in product(TRAINED, HARDWARE, FAMILY):
        yield Row(f"{model}, {recipe}, {machine}", Twin(model, recipe, machine, place).check)
    for number, model in enumerate(FAMILY):
        machine = STUDY_MACHINES[number % len(STUDY_MACHINES)]
        yield Row(f"{model}, study, {machine}", _StudyTwin(model, machine, place).check)


class _StudyTwin(NamedTuple):
    """The study of a model on one machine: its four arms with one seed."""

    model: str
    machine: str
    place: TwinPlace

    def check(self) -> None:
        out = self.place.folder / f"{self.model}-study-{self.machine}"
        small = [small_overlay(self.place, 1, self.model), self.place.own_file("one-seed.yaml", {"seeds": [0]})]
        short: dict[str, Any] = {"stages": {stage: {"training": {"max_steps": 2}} for stage in ("sft", "grpo")}}
        # That of the rows, as in `Twin.evaluate`.
        short["evaluate"] = {"scienceqa:$BALANCED_THINKING_DATA/scienceqa": {"format": "think-answer"}}
        files = [RECIPES / "hardware" / f"{self.machine}.yaml", *small, self.place.own_file("short.yaml", short)]
        base = {"stages": {"sft": {"model": str(self.place.model(FAMILY[self.model]))}}}
        files.append(self.place.own_file(f"{self.model}-base.yaml", base))
        words = ["study", str(RECIPES / self.model / "study.yaml"), "--out", str(out), "--jobs", "1", "--quiet"]
        words += [word for file in files for word in ("--config", str(file))]
        words += ["--data", str(self.place.rows)]
        ours, subprocess.Popen = subprocess.Popen, popen_forked  # type: ignore[assignment,misc]
        try:
            assert balanced(words) == 0
        finally:
            subprocess.Popen = ours  # type: ignore[misc]
        arms = ("sft", "scale-sft", "sft+grpo", "scale-sft+grpo")
        assert all((out / arm / "seed-0" / "eval" / "my-test" / "summary.json").is_file() for arm in arms)
        assert (out / "report.html").is_file()


def run_row(row: Row) -> dict[str, Any]:
    """Its status and its seconds; the reason where it failed."""
    began = time.monotonic()
    if "zero3" in row.name and "dry run" not in row.name and find_spec("deepspeed") is None:
        return {"status": "skipped", "reason": "DeepSpeed is not installed"}
    try:
        row.run()
    except (Exception, SystemExit) as error:  # whatever goes wrong is the row's result
        return {"status": "failed", "reason": f"{type(error).__name__}: {str(error)[-2000:]}"}
    return {"status": "passed", "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of the results")
    parser.add_argument("--only", default="", help="a part of the names of the rows to run")
    arguments = parser.parse_args()
    os.environ["BALANCED_THINKING_DATA"] = "data"
    found = json.loads(arguments.out.read_text())["rows"] if arguments.out.is_file() else {}
    versions = {name: version(name) for name in _VERSIONS}
    with tempfile.TemporaryDirectory() as folder:
        for row in all_rows(TwinPlace(Path(folder))):
            if arguments.only in row.name and found.get(row.name, {}).get("status") != "passed":
                found[row.name] = run_row(row)
                print(row.name, found[row.name]["status"], flush=True)
                arguments.out.write_text(json.dumps({"versions": versions, "rows": found}, indent=1) + "\n")
    counts = [one["status"] for one in found.values()]
    print({status: counts.count(status) for status in ("passed", "failed", "skipped")})
    return int("failed" in counts)


if __name__ == "__main__":
    sys.exit(main())
