"""The tables of docs/scale.md from what `make test-ranks` measured: `python -m tests.ranks.table`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.conftest import REPOSITORY
from tests.export.table import replace_measured
from tests.ranks.cases import KINDS, RANKS
from tests.ranks.measure import MEASURED

PAGE = REPOSITORY / "docs" / "scale.md"
NAMES = {"ddp": "DDP", "fsdp2": "FSDP2", "zero2": "ZeRO-2", "zero3": "ZeRO-3"}
_HEAD = "| {} | " + " | ".join(NAMES.values()) + " |\n| --- " + "| ---: " * len(NAMES) + "|"
# Words of a refusal -> how the table calls it. The messages themselves are in the JSON file.
_REFUSALS = {
    "DeepSpeed keeps its gradients to itself": "refused (1)",
    "DeepSpeed loads it on as many only": "refused (2)",
    "which cannot load it": "refused (3)",
}
_NOTES = """(1) `match_gradient_norm`: DeepSpeed keeps its gradients to itself.
(2) DeepSpeed loads its shards on as many ranks only; its own `ds_to_universal` converts them.
(3) This kind of run cannot load what that kind has saved; the message says how to start it."""


def make_tables(summary: Mapping[str, Any]) -> str:
    parts = [_exact_table(summary), _feature_table(summary), _resume_table(summary), _NOTES, _describe_origin(summary)]
    return "\n\n".join(parts)


def _exact_table(summary: Mapping[str, Any]) -> str:
    lines = [_HEAD.format("largest relative error, ten steps")]
    for name, cells in summary["exact"].items():
        lines.append(_row(name, [_worst([cells[f"{k}-{r}"] for r in RANKS if f"{k}-{r}" in cells]) for k in NAMES]))
    return "\n".join(lines)


def _feature_table(summary: Mapping[str, Any]) -> str:
    lines = ["| with | one process, against without it | " + " | ".join(f"{n}, 2 ranks" for n in NAMES.values()) + " |"]
    lines.append("| --- " + "| ---: " * (1 + len(NAMES)) + "|")
    for name, cells in summary["features"].items():
        found = [
            _cell(cells[start]) if start in cells else "not run" for start in ("plain", *(f"{k}-2" for k in NAMES))
        ]
        lines.append(_row(name, found))
    return "\n".join(lines)


def _resume_table(summary: Mapping[str, Any]) -> str:
    lines = [_HEAD.format("a checkpoint of four ranks continues")]
    wanted = {f"on {'four' if r == 4 else 'two' if r == 2 else 'one'}": r for r in RANKS}
    for words, ranks in wanted.items():
        lines.append(_row(words, [_resumed(summary, kind, f"{kind}-{ranks}") for kind in KINDS]))
    lines.append(_row("in one process without it", [_resumed(summary, kind, "plain") for kind in KINDS]))
    lines.append(_row("of one process, on two", [_resumed(summary, kind, "from plain, on 2") for kind in KINDS]))
    return "\n".join(lines)


def _describe_origin(summary: Mapping[str, Any]) -> str:
    rounding = ", ".join(f"{name} {_cell(cell)}" for name, cell in summary["float64"].items())
    took = f"`make test-ranks` took {summary['cpu_minutes']} minutes of CPU time."
    partly = f"{summary['cpu_minutes']} minutes of CPU time so far; what says *not run* is still to be measured."
    return (
        f"One plain process against itself in float64, for scale:\n{rounding}.\n"
        f"Measured with torch {summary['torch']} on a CPU. {took if summary.get('complete', True) else partly}"
    )


def _resumed(summary: Mapping[str, Any], kind: str, start: str) -> str:
    return _cell(summary["resumed"].get(kind, {}).get(start))


def _worst(cells: list[Mapping[str, Any]]) -> str:
    refused = [cell for cell in cells if "refused" in cell]
    return _cell(refused[0] if refused else max(cells, key=lambda cell: cell["largest"], default=None))


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "not run"
    if "refused" in cell:
        return next((short for words, short in _REFUSALS.items() if words in cell["refused"]), "refused")
    largest = cell["largest"]
    return "0" if not largest else re.sub(r"e-0(\d)", r"e-\1", f"{largest:.1e}")


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    replace_measured(PAGE, make_tables(json.loads(MEASURED.read_text(encoding="utf-8"))), "ranks")
