"""The JSON of a run, written anew after every part, and its table."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu.parts import PARTS, SKIPPED, Outcome
from gpu.rows import Row
from harness import describe_processor, versions


def describe_machine(device: str, threads: int) -> dict[str, Any]:
    """Processor, cores, and of the GPU its name, memory and driver as `nvidia-smi` names them."""
    found: dict[str, Any] = describe_processor() | {"threads": threads, "gpu": None}
    if device == "cuda":
        import torch

        facts = torch.cuda.get_device_properties(0)
        found |= {"gpu": facts.name, "gpu_mib": facts.total_memory // 2**20, "cuda": torch.version.cuda}
        found["driver"] = _driver()
    return found


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n", 1)[0].strip()


def as_json(outcomes: Mapping[str, Outcome], machine: Mapping[str, Any], device: str, minutes: float) -> dict[str, Any]:
    """The record of a run; parts that have not run yet are missing."""
    return {
        "benchmark": "gpu",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": dict(machine),
        "versions": {"python": platform.python_version()} | versions(),
        "device": device,
        "minutes_allowed": minutes,
        "seconds": round(sum(one.seconds for one in outcomes.values()), 1),
        "parts": {name: asdict(one) | {"holds": one.holds} for name, one in outcomes.items()},
    }


def write_json(file: Path, record: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps(record, indent=2) + "\n")
    beside.replace(file)


def table(outcomes: Mapping[str, Outcome]) -> str:
    """One Markdown table of all parts; a part's first line says how it ended."""
    lines = ["| part | | figure | compared with | ratio | holds |", "| --- | --- | ---: | --- | ---: | --- |"]
    for name, outcome in outcomes.items():
        ended = outcome.status if outcome.status == SKIPPED else f"{outcome.status}, {outcome.seconds:.0f} s"
        ended += f": {outcome.why}" if outcome.why else ""
        lines.append(f"| **{name}** | {PARTS[name].about} | {_cell(ended)} | | | {_word(outcome.holds)} |")
        lines += [_line(row) for row in outcome.rows]
    return "\n".join(lines)


def _line(row: Row) -> str:
    if row.value is None:
        return f"| | {_cell(row.name)} | {_cell(row.note)} | | | {_word(row.holds)} |"
    against = "" if row.against_value is None else f"{row.against} {_number(row.against_value)}"
    ratio = row.ratio()
    cells = (f"{_number(row.value)} {row.unit}".strip(), against, "" if ratio is None else f"{ratio:.3f}")
    name = f"{row.name} ({row.note})" if row.note else row.name
    return f"| | {_cell(name)} | {' | '.join(map(_cell, cells))} | {_word(row.holds)} |"


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _word(holds: bool | None) -> str:
    return "" if holds is None else "yes" if holds else "**no**"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
