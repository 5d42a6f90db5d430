"""Fuzz every target, each in a process of its own, and write what was found.

    python -m tests.faults.fuzz.campaign --runs 1000000 --out docs/results/fuzz.json        (`make fuzz`)
    python -m tests.faults.fuzz.campaign --runs 20000 --only rows,yaml

Parser, row reader and YAML are guided by coverage where `atheris` is installed (`pip install -e '.[fuzz]'`, Python 3.11
to 3.13 on Linux); the others, and these without it, take new and mutated inputs at random. An input that fails is saved
in `--findings` and can be run again with `--replay FILE --only TARGET`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.fuzz.target import PEAK, Finding, Target, next_input, peak_mib, try_input


class Kind(NamedTuple):
    """How much of a campaign a target gets, and whether coverage chooses its inputs."""

    share: float
    guided: bool = False


KINDS = {
    "segments": Kind(0.36, guided=True),
    "rows": Kind(0.12, guided=True),
    "yaml": Kind(0.12, guided=True),
    "row_check": Kind(0.04),
    "scoring": Kind(0.22),
    "pictures": Kind(0.08),
    "server": Kind(0.04),
    "runs": Kind(0.01),
    "checkpoints": Kind(0.01),
}
_MOST_BYTES = 3 * 2**30  # of data: a target that wants more gets a MemoryError instead of the machine
_LONGEST = 20_000  # bytes of an input that coverage chose
_KEPT = 3  # inputs kept for one place
_SEEDS = 200
_WRITE_SECONDS = 20


class Tally:
    """What a target's process has done so far, written to a file every few seconds."""

    def __init__(self, target: Target, file: Path, findings: Path, guided: bool) -> None:
        self.target, self.file, self.findings, self.guided = target, file, findings, guided
        self.inputs, self.bytes, self.began, self.written = 0, 0, time.monotonic(), 0.0
        self.found: dict[tuple[str, str], dict[str, Any]] = {}
        target.prepare()
        PEAK.rise()  # of the imports
        self.start_mib = PEAK.mib

    def run_input(self, data: bytes) -> None:
        self.inputs, self.bytes = self.inputs + 1, self.bytes + len(data)
        finding = try_input(self.target, data)
        if finding is not None:
            self._keep(finding, data)
        if time.monotonic() - self.written > _WRITE_SECONDS:
            self.write()

    def _keep(self, finding: Finding, data: bytes) -> None:
        entry = self.found.setdefault(finding[:2], {"count": 0, "text": finding.text, "files": []})
        entry["count"] += 1
        if len(entry["files"]) < _KEPT:
            self.findings.mkdir(parents=True, exist_ok=True)
            file = self.findings / f"{self.target.name}-{finding.kind}-{hashlib.sha256(data).hexdigest()[:12]}"
            file.write_bytes(data)
            entry["files"].append(file.name)

    def write(self) -> None:
        self.written = time.monotonic()
        values = {
            "inputs": self.inputs,
            "guided_by_coverage": self.guided,
            "seconds": round(self.written - self.began, 1),
            "cpu_seconds": round(time.process_time(), 1),
            "mean_bytes": round(self.bytes / max(1, self.inputs)),
            "start_mib": round(self.start_mib),
            "peak_mib": round(peak_mib()),
            "findings": [{"kind": k, "place": place, **entry} for (k, place), entry in self.found.items()],
        }
        self.file.write_text(json.dumps(values), encoding="utf-8")


def fuzz_target(name: str, runs: int, seed: int, file: Path, findings: Path, *, guided: bool) -> None:
    """Run one target in this process. With coverage, the process ends here."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
    atheris = import_module("atheris") if guided else None
    with atheris.instrument_imports(include=["balanced_thinking"]) if atheris else nullcontext():
        target: Target = import_module(f"tests.faults.fuzz.{name}_target").TARGET
    tally = Tally(target, file, findings, guided)
    rng = random.Random(f"{name} {seed}")
    if atheris:
        _fuzz_by_coverage(atheris, tally, runs, rng)
    pool: list[bytes] = []
    while tally.inputs < runs:
        tally.run_input(next_input(target, rng, pool))
    _finish(tally)


def _finish(tally: Tally) -> None:
    tally.target.close()
    tally.write()


def _fuzz_by_coverage(atheris: Any, tally: Tally, runs: int, rng: random.Random) -> None:
    target, folder = tally.target, Path(tempfile.mkdtemp(prefix="fuzz-seeds-"))
    for k in range(_SEEDS):
        (folder / f"{k:03d}").write_bytes(target.generate(rng)[:_LONGEST])

    def take_input(data: bytes) -> None:
        tally.run_input(data)
        if tally.inputs >= runs:
            shutil.rmtree(folder)
            _finish(tally)
            os._exit(0)  # libFuzzer has no other end that leaves the process's files closed

    def choose_input(data: bytes, most: int, seed: int) -> bytes:
        own = random.Random(seed)
        luck = own.random()
        if luck < 0.3:
            return target.generate(own)[:most]
        return target.mutate(own, data)[:most] if luck < 0.8 else atheris.Mutate(data, most)

    options = [
        f"-max_len={_LONGEST}",
        "-rss_limit_mb=0",
        "-timeout=600",
        f"-seed={rng.randrange(1, 2**31)}",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], take_input, custom_mutator=choose_input)
    atheris.Fuzz()


def run_campaign(names: Sequence[str], runs: int, seed: int, findings: Path, out: Path | None) -> dict[str, Any]:
    """Every target one after another; `out` is rewritten after each."""
    shares = sum(KINDS[name].share for name in names)
    report: dict[str, Any] = {
        "command": f"python -m tests.faults.fuzz.campaign --runs {runs} --seed {seed}",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "inputs": 0,
        "findings": 0,
        "peak_mib": 0,
        "targets": {},
    }
    for name in names:
        count = -int(-runs * KINDS[name].share // shares)
        values = _run_target(name, count, seed, findings)
        report["targets"][name] = values
        every = report["targets"].values()
        report["inputs"] = sum(one["inputs"] for one in every)
        report["findings"] = sum(len(one["findings"]) for one in every)
        report["peak_mib"] = max(one["peak_mib"] for one in every)
        print(f"{name}: {values['inputs']:,} inputs in {values['seconds']:.0f} s, peak {values['peak_mib']} MiB, "
              f"{len(values['findings'])} findings", flush=True)  # fmt: skip
        for finding in values["findings"]:
            print(
                f"  {finding['kind']} at {finding['place']} ({finding['count']}): {finding['text']} {finding['files']}"
            )
        if out is not None:
            out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _run_target(name: str, runs: int, seed: int, findings: Path) -> dict[str, Any]:
    guided = KINDS[name].guided and find_spec("atheris") is not None
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        file, log = Path(folder) / "tally.json", Path(folder) / "log.txt"
        command = [sys.executable, "-m", "tests.faults.fuzz.campaign", "--only", name, "--runs", str(runs)]
        command += ["--seed", str(seed), "--findings", str(findings), "--tally", str(file)]
        with log.open("wb") as stream:  # libraries of pictures write a line for every damaged one
            done = subprocess.run([*command, *(["--guided"] if guided else [])], stdout=stream, stderr=stream)
        values: dict[str, Any] = {"inputs": 0, "seconds": 0.0, "peak_mib": 0, "findings": []}
        if file.is_file():
            values = json.loads(file.read_text(encoding="utf-8"))
        if done.returncode:  # the interpreter itself ended
            text = log.read_bytes()[-2000:].decode(errors="replace")
            values["findings"].append({"kind": "died", "place": name, "text": text, "count": 1, "files": []})
        return values


def replay_file(name: str, file: Path) -> int:
    """Run one saved input; an error that has no name comes with its traceback."""
    import_module(f"tests.faults.fuzz.{name}_target").TARGET.run(file.read_bytes())
    print(f"{file}: {name} reads it without an error")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--runs", type=int, default=1_000_000, help="inputs of all targets together (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(KINDS), help="targets, with commas (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="where to write the counts as JSON")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="a folder for inputs that fail")
    parser.add_argument("--replay", type=Path, help="run one saved input of the one target in --only")
    parser.add_argument("--tally", type=Path, help=argparse.SUPPRESS)  # a target's own process
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replay:
        return replay_file(given.only, given.replay)
    if given.tally:
        fuzz_target(given.only, given.runs, given.seed, given.tally, given.findings, guided=given.guided)
        return 0
    return int(run_campaign(given.only.split(","), given.runs, given.seed, given.findings, given.out)["findings"] > 0)


if __name__ == "__main__":
    sys.exit(main())
