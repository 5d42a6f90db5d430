"""The cost of training and evaluation, from a study's ledger and the runs' own records.

Times are seconds, memory is MiB.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from balanced_thinking.data.recorded_places import recorded_place
from balanced_thinking.runs.chain import follow_parents
from balanced_thinking.runs.load import Run, mean_of_known
from balanced_thinking.runs.records import LedgerEntry

TRAIN = "train"


@dataclass(frozen=True)
class CostRow:
    """Means over the runs of one arm; `peak_mib` is the maximum. `relative` is training time against the baseline's."""

    arm: str
    part: str
    runs: int
    wall_seconds: float | None
    cpu_seconds: float | None
    tokens: float | None
    peak_mib: float | None
    relative: float | None


def training_chain(run: Run, runs: Sequence[Run]) -> list[Run]:
    """The run and those it started from, itself last. A parent outside of `runs` is a base that all share: it ends the
    chain."""
    return follow_parents(run, lambda child: _find_parent(child, runs))


def chain_train_seconds(run: Run, runs: Sequence[Run]) -> float | None:
    """Training time of the complete chain; None where a part of it is not known."""
    parts = [part.train_cost_seconds for part in training_chain(run, runs)]
    known = [seconds for seconds in parts if seconds is not None]
    return sum(known) if len(known) == len(parts) else None


def _find_parent(run: Run, runs: Sequence[Run]) -> Run | None:
    """The run whose folder is the recipe's `model`. After a study was moved, the last two folders must match."""
    model = run.config.get("model")
    if not isinstance(model, str) or not model or "\0" in model:
        return None
    path = Path(recorded_place(model, run.folder))
    path = path.parent if path.name == "model" else path
    exact = (other for other in runs if other.folder.resolve() == path.resolve())
    moved = (other for other in runs if len(path.parts) > 2 and other.folder.parts[-2:] == path.parts[-2:])
    return next(exact, next(moved, None))


def describe_missing_parents(runs: Sequence[Run]) -> list[str]:
    """Notes on runs of a second stage whose first stage is not here, so that its time is not counted."""
    return [
        f"{run.label}: starts from {run.config.get('model')}, which is not among these runs; its time is not counted"
        for run in runs
        if run.stage != "sft" and _find_parent(run, runs) is None
    ]


def cost_rows(groups: Sequence[Sequence[Run]], ledger: Iterable[LedgerEntry], root: Path) -> tuple[CostRow, ...]:
    """The costs of each arm; the first group is the baseline. Without a ledger, from the runs' own records."""
    entries: dict[str, list[LedgerEntry]] = defaultdict(list)
    for row in ledger:
        entries[row.run].append(row)
    runs = [run for group in groups for run in group]
    base = mean_of_known(chain_train_seconds(run, runs) for run in groups[0]) if groups else None
    rows = []
    for group in groups:
        parts = [_entries_by_part(run, entries.get(_name_in_ledger(run, root), [])) for run in group]
        total = mean_of_known(chain_train_seconds(run, runs) for run in group)
        relative = total / base if total is not None and base else None
        names = dict.fromkeys(name for part in parts for name in part)
        rows += [_cost_row(group[0].arm, name, parts, relative if name.startswith("train") else None) for name in names]
    return tuple(rows)


def _name_in_ledger(run: Run, root: Path) -> str:
    """The run's name in the ledger: its folder below the study's."""
    folder, above = run.folder.resolve(), root.resolve()
    return folder.relative_to(above).as_posix() if folder.is_relative_to(above) else ""


def _entries_by_part(run: Run, entries: Sequence[LedgerEntry]) -> dict[str, list[LedgerEntry]]:
    """A run's entries by part: `training (grpo)`, `evaluation`. Of a part that was done again, the last entry counts,
    because an entry covers everything that its part took."""
    latest = {entry.part: entry for entry in entries}
    training = [latest.pop(TRAIN)] if TRAIN in latest else _entries_from_provenance(run)
    evaluation = list(latest.values())
    parts = {f"training ({run.stage})": training, "evaluation": evaluation}
    return {name: found for name, found in parts.items() if found}


def _entries_from_provenance(run: Run) -> list[LedgerEntry]:
    """The run's own record of its training, as a ledger entry."""
    known = run.provenance
    if known is None or run.train_cost_seconds is None:
        return []
    return [
        LedgerEntry(
            run=run.label,
            part=TRAIN,
            wall_seconds=known.train_seconds,
            cpu_seconds=known.train_cpu_seconds,
            tokens=known.tokens,
            peak_mib=known.peak_mib,
        )
    ]


def _cost_row(arm: str, part: str, parts: Sequence[dict[str, list[LedgerEntry]]], relative: float | None) -> CostRow:
    found = [run[part] for run in parts if part in run]
    peaks = [peak for entries in found for entry in entries if (peak := entry.peak_mib) is not None]
    wall, cpu, tokens = (
        mean_of_known(_sum_known(entries, key) for entries in found)
        for key in ("wall_seconds", "cpu_seconds", "tokens")
    )
    return CostRow(arm, part, len(found), wall, cpu, tokens, max(peaks, default=None), relative)


def _sum_known(entries: Sequence[LedgerEntry], key: str) -> float | None:
    """The sum over a run's entries; None where no entry has the value."""
    known = [value for entry in entries if (value := getattr(entry, key)) is not None]
    return sum(known) if known else None
