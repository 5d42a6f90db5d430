"""Measures what stays exact over ranks: `python -m tests.ranks.measure [--out FILE]`. Exits with 1 where a cell fails.

Every kind of run is started once on each number of ranks, and trains all its cases there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from balanced_thinking.models.tiny import build_tiny
from tests.conftest import REPOSITORY
from tests.forked import ForkedPython, StartedRank, start_ranks
from tests.ranks import program
from tests.ranks.cases import COMMON, EXACT, FEATURES, KINDS, RANKS, make_data
from tests.ranks.compare import summarize

MEASURED = REPOSITORY / "docs" / "results" / "ranks.json"
_ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_ENVIRONMENT |= {"HF_HUB_OFFLINE": "1"}
_PATIENCE_SECONDS = 3600.0  # of one start: a hang ends here
_COMPILE = "`torch.compile`"


def prepare_folder(folder: Path) -> None:
    """Models and rows, the same for all."""
    for architecture in {case.architecture for case in EXACT.values()}:
        for part in build_tiny(architecture):
            part.save_pretrained(folder / architecture)
    for name, rows in make_data().items():
        rows.save_to_disk(folder / name)


def run_cases(folder: Path, kind: str, ranks: int, names: Sequence[str], dtype: str = "float32") -> dict[str, Any]:
    """The cases by name, as `program.train_case` returns them. 0 ranks are one process without a launcher."""
    found = folder / f"found-{kind}-{ranks}-{dtype}.json"
    found.unlink(missing_ok=True)
    command = [sys.executable, str(Path(program.__file__)), str(folder), kind, json.dumps(list(names)), dtype]
    if ranks:
        started = start_ranks(command, ranks, folder, _ENVIRONMENT)
    else:
        log = folder / "alone.log"
        with log.open("wb") as file:
            alone = ForkedPython(command, stdout=file, stderr=file, env={**os.environ, **_ENVIRONMENT})
        started = [StartedRank(alone, log)]
    _wait_for_all(started)
    return json.loads(found.read_text())


class Spent(NamedTuple):
    """What a start has taken."""

    wall_seconds: float
    cpu_seconds: float


def run_once(folder: Path, name: str, *what: Any) -> dict[str, Any]:
    """`run_cases`, or its result of an earlier try in the same folder."""
    file = folder / f"start-{name}.json"
    if file.is_file():
        return json.loads(file.read_text())["found"]
    began, cpu = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    found = run_cases(folder, *what)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = Spent(time.monotonic() - began, after.ru_utime - cpu.ru_utime + after.ru_stime - cpu.ru_stime)
    print(f"{name}: {spent.wall_seconds:.0f} s, of CPUs {spent.cpu_seconds:.0f} s", flush=True)
    file.write_text(json.dumps({"found": found, "spent": spent}))
    return found


def _wait_for_all(started: Sequence[StartedRank]) -> None:
    """Until every process has ended by itself. Raises AssertionError with the output of one that failed."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while any(rank.process.poll() is None for rank in started):
        if any(rank.process.poll() for rank in started) or time.monotonic() > end:  # the others would wait for it
            time.sleep(2.0)
            for rank in started:
                rank.process.kill()
        time.sleep(0.05)
    failed = [rank.log.read_text()[-3000:] for rank in started if rank.process.returncode]
    assert not failed, "\n---- next rank\n".join(failed)


def names_for(kind: str, ranks: int) -> list[str]:
    """The cases of a start. Features run on two ranks."""
    features = [name for name in FEATURES if name != _COMPILE]
    if kind == "plain":
        return [*EXACT, *features, "saved"]
    names = [*(COMMON if ranks == 1 else EXACT)]
    if ranks == 2:
        names += features
        names.append(f"{program.RESUMED}plain-1")
    if ranks == 4:
        names.append("saved")
    return [*names, f"{program.RESUMED}{kind}-4"]


def measure(folder: Path, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """All cases: by `kind-ranks` and name."""
    if not (folder / "ready").exists():
        prepare_folder(folder)
        (folder / "ready").touch()
    found = {"plain": run_once(folder, "plain", "plain", 0, names_for("plain", 0))}
    found["float64"] = run_once(folder, "float64", "plain", 0, [*COMMON], "float64")
    for kind in kinds:
        for ranks in RANKS:
            name = f"{kind}-{ranks}"
            found[name] = run_once(folder, name, kind, ranks, names_for(kind, ranks))
    elsewhere = [f"{program.RESUMED}{kind}-4" for kind in kinds]
    found["plain"] |= run_once(folder, "plain-resumed", "plain", 0, elsewhere)
    # By themselves, because compiling takes long.
    found["plain"] |= run_once(folder, "plain-compiled", "plain", 0, [_COMPILE])
    if "ddp" in kinds:
        found["ddp-2"] |= run_once(folder, "ddp-2-compiled", "ddp", 2, [_COMPILE])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MEASURED, help="the JSON file to write (default: %(default)s)")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="keeps the runs, and continues there (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ranks-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        summary = summarize(measure(folder, options.kinds), options.kinds) | {"torch": torch.__version__}
        spent = [Spent(*json.loads(file.read_text())["spent"]) for file in folder.glob("start-*.json")]
    summary["minutes"] = round(sum(one.wall_seconds for one in spent) / 60, 1)
    summary["cpu_minutes"] = round(sum(one.cpu_seconds for one in spent) / 60, 1)
    options.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    for failure in summary["failed"]:
        print(f"FAILED {failure}")
    print(f"{summary['minutes']} minutes, {summary['cpu_minutes']} of CPUs; wrote {options.out}")
    return 1 if summary["failed"] else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
