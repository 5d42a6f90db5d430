"""Raw figures of `make test-ranks` -> errors relative to one plain process, and what is not as it should be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.ranks.cases import EXACT, FEATURES, KINDS, RANKS
from tests.ranks.program import RESUMED, find_case

# Relative, under DeepSpeed: blank pictures let its optimizer move the picture tower by its momentum.
_BLANK_PICTURES = 1e-2
Found = Mapping[str, Mapping[str, Any]]  # start -> case -> figures


class Errors(NamedTuple):
    """Largest relative errors: of the first step's loss and gradient norm, and of all steps'."""

    loss: float
    norm: float
    trajectory: float

    @property
    def largest(self) -> float:
        return _largest(self)


def compare(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Errors:
    pairs = {name: list(zip(found[name], expected[name], strict=True)) for name in ("losses", "norms")}
    relative = {name: [abs(a - b) / abs(b) for a, b in values] for name, values in pairs.items()}
    trajectory = _largest([*relative["losses"], *relative["norms"]])
    return Errors(relative["losses"][0], relative["norms"][0], trajectory)


def _largest(errors: Sequence[float]) -> float:
    """NaN where one is NaN."""
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def describe_cell(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """The errors of a training, or the words of its refusal."""
    for one in (found, expected):
        if "refused" in one:
            return {"refused": one["refused"]}
    errors = compare(found, expected)
    return {**errors._asdict(), "largest": errors.largest}


def summarize(found: Found, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """The errors of every row and start. A start that `found` lacks is in no table."""
    plain = found["plain"]
    exact = {name: _describe_row(name, found, [f"{k}-{r}" for k in kinds for r in RANKS]) for name in EXACT}
    features = {name: _describe_feature(name, found) for name in FEATURES if name in plain}
    resumed = {kind: _describe_resume(kind, found) for kind in kinds}
    rounding = {name: describe_cell(plain[name], one) for name, one in found["float64"].items()}
    summary: dict[str, Any] = {"exact": exact, "features": features, "resumed": resumed, "float64": rounding}
    return summary | {"failed": find_failures(summary)}


def _describe_row(name: str, found: Found, starts: Sequence[str]) -> dict[str, Any]:
    there = {start: found[start][name] for start in starts if name in found.get(start, {})}
    return {start: describe_cell(one, found["plain"][name]) for start, one in there.items()}


def _describe_feature(name: str, found: Found) -> dict[str, Any]:
    """One process with it against one without it, and two ranks with it against one process with it."""
    plain = found["plain"]
    without = {"pictures": "full, padded", "one picture": "a picture in one row only"}[FEATURES[name].data]
    cells = {"plain": describe_cell(plain[name], plain[without])}
    return cells | _describe_row(name, found, [start for start in found if start.endswith("-2")])


def _describe_resume(kind: str, found: Found) -> dict[str, Any]:
    """What four ranks have saved, against these four undisturbed; and what one process has saved, on two ranks."""
    name, cells = f"{RESUMED}{kind}-4", {}
    for start in (*(f"{kind}-{ranks}" for ranks in RANKS), "plain"):
        if name in found.get(start, {}):
            cells[start] = describe_cell(found[start][name], found[f"{kind}-4"]["saved"])
    if (of_plain := f"{RESUMED}plain-1") in found.get(f"{kind}-2", {}):
        cells["from plain, on 2"] = describe_cell(found[f"{kind}-2"][of_plain], found["plain"]["saved"])
    return cells


def find_failures(summary: Mapping[str, Any]) -> list[str]:
    """Cells that are not within their tolerance, or not refused where they must be, or the other way round."""
    failed = []
    for table in ("exact", "features", "resumed"):
        for row, cells in summary[table].items():
            for start, cell in cells.items():
                allowed = 1e-5 if table == "resumed" else find_case(row).tolerance
                if row == "steps without a picture" and start.startswith("zero"):
                    allowed = _BLANK_PICTURES
                expected = is_expected_refusal(table, row, start)
                if "refused" in cell:
                    said = "" if expected else cell["refused"][:300]
                elif expected:
                    said = "was not refused"
                else:
                    said = "" if cell["largest"] <= allowed else f"{cell['largest']:.1e} is above {allowed:g}"
                if said:
                    failed.append(f"{table}: {row}, {start}: {said}")
    return failed


def is_expected_refusal(table: str, row: str, start: str) -> bool:
    if table == "resumed":  # DeepSpeed's shards are for as many ranks; what one process has saved is for no sharded run
        return (row.startswith("zero") and start != f"{row}-4") or (row != "ddp" and start == "from plain, on 2")
    return row == "a matched gradient norm" and start.startswith("zero")
