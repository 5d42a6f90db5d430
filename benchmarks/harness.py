"""What the benchmarks share: contestants in turn, each in a process of its own, and ratios taken within a round.

A script names its contestants and gives a function that measures one and returns figures by name; `contest` runs them
in alternating order and writes the JSON of record.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

Figures = Mapping[str, float]
Rows = dict[str, dict[str, Any]]  # a contestant's figures as median, min and max; or {"failed": why}
_PACKAGES = ("torch", "triton", "transformers", "trl", "peft", "accelerate", "liger-kernel", "cut-cross-entropy")
_MESSAGE = 200  # characters of a failure's message


def options_of(
    script: str, contestants: Sequence[str], rounds: int = 5, devices: Sequence[str] = ("cpu", "cuda")
) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=script, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"fresh processes a contestant (default {rounds})")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--device", choices=devices, default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures, the machine and the versions here")
    parser.add_argument("--measure", choices=contestants, help=argparse.SUPPRESS)
    return parser


def contest(
    script: str,
    options: argparse.Namespace,
    contestants: Sequence[str],
    arguments: Sequence[str],
    baseline: str,
    record_as: Callable[[Rows], Any] = lambda rows: rows,
    ranks: int = 1,
    beside: str | None = None,
    **about: Any,
) -> Rows:
    """Measure every contestant once a round, in alternating order, so that drift of the machine falls on all alike.

    What is known is written to `options.json` after each round, as `record_as` puts it. A contestant that fails once is
    left out of the later rounds, and its row says why. With `ranks` that many processes measure together. With `beside`
    there are ratios to that contestant too.
    """
    samples: dict[str, list[Figures]] = {name: [] for name in contestants}
    failures: dict[str, str] = {}
    rows: Rows = {}
    for round_ in range(options.rounds):
        for name in contestants[:: 1 if round_ % 2 == 0 else -1]:
            if name in failures:
                continue
            try:
                samples[name].append(in_fresh_process(name, script, arguments, ranks))
                print(f"round {round_ + 1}/{options.rounds} {name}: {samples[name][-1]}", file=sys.stderr)
            except MeasurementError as error:
                failures[name] = str(error)
                print(f"round {round_ + 1}/{options.rounds} {name} failed:\n{error.output}", file=sys.stderr)
        rows = compare(samples, baseline, failures, beside)
        record(script, options, record_as(rows), **({"rounds": round_ + 1, "ranks": ranks} | about))
    return rows


class MeasurementError(Exception):
    """A contestant's process failed; the message is its last line, `output` all it wrote."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


def in_fresh_process(
    name: str, script: str, arguments: Sequence[str], ranks: int = 1, environment: Mapping[str, str] | None = None
) -> Figures:
    """The figures that `script --measure name` prints as its last line, in the first of `ranks` processes.

    `environment`: variables beside those of this process.
    """
    launched = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launched, script, *arguments, "--measure", name]
    changed = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=changed)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    code = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    message = said[-1][:_MESSAGE] if said and done.returncode > 0 else code
    raise MeasurementError(message, f"{done.stdout}\n{done.stderr}\n{code}")


def measured(name: str, options: argparse.Namespace, measure: Callable[[str, argparse.Namespace], Figures]) -> None:
    """In the process of one contestant: measure it and print its figures."""
    torch.set_num_threads(options.threads)
    figures = measure(name, options)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(figures))


def compare(
    samples: Mapping[str, Sequence[Figures]], baseline: str, failures: Mapping[str, str], beside: str | None = None
) -> Rows:
    """Median, min and max of each contestant's figures, and of their ratios to the baseline's of the same round. No
    ratios where the baseline is missing or failed; of a contestant that failed, why: `{"failed": message}`. Ratios to
    `beside` have names such as `seconds_of_NAME`."""
    rows: Rows = {}
    peers = {"ratio": baseline} | ({f"of_{beside}": beside} if beside else {})
    for name, runs in samples.items():
        if name in failures:
            rows[name] = {"failed": failures[name]}
            continue
        rows[name] = {field: spread([run[field] for run in runs]) for field in runs[0]}
        for suffix, peer in peers.items():
            against = [] if peer in failures else samples.get(peer, [])
            for field in runs[0]:
                if against and all(base.get(field) for base in against):
                    ratios = [run[field] / base[field] for run, base in zip(runs, against, strict=True)]
                    rows[name][f"{field}_{suffix}"] = spread(ratios)
    return rows


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def table(rows: Rows, columns: Mapping[str, str], baseline: str) -> str:
    """A Markdown table. `columns` maps a figure's name to its heading and format, as in `{"seconds": "CPU s:.2f"}`."""
    heads = [heading.rsplit(":", 1)[0] for heading in columns.values()]
    cells = [cell for head in heads for cell in (head, f"of {baseline}'s")]
    lines = [f"| | {' | '.join(cells)} |", "| --- |" + " ---: |" * len(cells)]
    for name, row in rows.items():
        if "failed" in row:
            why = row["failed"].replace("|", "\\|")
            lines.append(f"| `{name}` | failed: {why} |" + " |" * (len(cells) - 1))
            continue
        line = []
        for field, heading in columns.items():
            ratio = row.get(f"{field}_ratio")
            line.append(format(row[field]["median"], heading.rsplit(":", 1)[1]))
            line.append("" if ratio is None else f"{ratio['median']:.3f} ({ratio['min']:.3f}-{ratio['max']:.3f})")
        lines.append(f"| `{name}` | {' | '.join(line)} |")
    return "\n".join(lines)


def record(script: str, options: argparse.Namespace, rows: Any, **about: Any) -> None:
    """Write what was measured to `options.json`, if it is given, with the date, the machine and the versions."""
    if options.json is None:
        return
    written = {
        "benchmark": Path(script).stem,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(options),
        "versions": {"python": platform.python_version()} | versions(),
        "device": options.device,
        "rounds": options.rounds,
        **about,
        "figures": rows,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(written, indent=2) + "\n")


def machine(options: argparse.Namespace) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else None
    return describe_processor() | {"threads": options.threads, "gpu": gpu}


def describe_processor() -> dict[str, Any]:
    """Its name, its cores, and the widest vectors that torch uses: two of one name may differ in these."""
    return {"cpu": cpu_model(), "vectors": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count()}


def cpu_model() -> str:
    """The processor's name, as Linux gives it."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return models[0].split(":", 1)[1].strip() if models else platform.machine()


def versions() -> dict[str, str]:
    """Of the packages that a figure depends on; those that are not installed are missing."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_mib(before_mib: float = 0.0) -> float:
    """The process's peak memory since `reset_peak` (Linux), less what it held before."""
    return memory_mib("VmHWM:") - before_mib


def reset_peak() -> float:
    """Start the high-water mark anew; what the process holds now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mib("VmRSS:")


def memory_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
