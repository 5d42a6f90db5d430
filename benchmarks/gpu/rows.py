"""What a part finds: rows, each written when it is known, so that a part which is ended keeps those it had."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

_MESSAGE = 200  # characters of a failure's message
_HELD_MIB = 100.0


@dataclass(frozen=True)
class Row:
    """A figure, beside what it is compared with.

    Of a check, `value` is an error, `against_value` the largest that is allowed, and `holds` says whether it is
    within. Of a measurement `against_value` is the peer's figure of the same run. `value` is None where it failed or
    was left out; `note` says why.
    """

    name: str
    value: float | None
    unit: str = ""
    against: str = ""
    against_value: float | None = None
    holds: bool | None = None
    note: str = ""

    def ratio(self) -> float | None:
        """The figure as a multiple of the peer's; None where there is none, and of checks."""
        if self.value is None or not self.against_value or self.holds is not None:
            return None
        return self.value / self.against_value


Emit = Callable[[Row], None]


class Setting(NamedTuple):
    """How a part runs: on which device, and with sizes that take seconds on a CPU or fill a GPU."""

    device: str  # cpu or cuda
    threads: int

    @property
    def small(self) -> bool:
        return self.device == "cpu"


def write_row(file: Path, row: Row) -> None:
    with file.open("a") as out:
        out.write(json.dumps(asdict(row)) + "\n")


def read_rows(file: Path) -> list[Row]:
    """The rows of a part; the last line may be torn where the part was killed."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(Row(**json.loads(line)))
        except json.JSONDecodeError:
            break
    return rows


def why(error: BaseException) -> str:
    """The error's type and first line."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0] if said else ''}"[:_MESSAGE]


@contextmanager
def contestant(emit: Emit, name: str, holds: bool | None = None) -> Iterator[None]:
    """What fails within becomes a row of its own, and the part goes on. Its memory is given back."""
    try:
        yield
    except Exception as error:  # a peer may raise anything; the others are still measured
        emit(Row(name, None, holds=holds, note=f"failed: {why(error)}"))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        if (held := torch.cuda.memory_allocated() / 2**20) > _HELD_MIB:  # it would count in the next one's peak
            emit(Row(f"still held after {name}", held, "MiB"))
        torch.cuda.reset_peak_memory_stats()


def emit_figures(
    name: str,
    found: Mapping[str, float],
    of_baseline: Mapping[str, float],
    units: Mapping[str, str],
    peer: str,
    emit: Emit,
) -> dict[str, float]:
    """A row for each figure in `units`, beside the baseline's; returns the baseline's figures, if they are known."""
    if name == peer:
        of_baseline = {}
    for figure, unit in units.items():
        emit(Row(f"{name}, {unit}", found[figure], unit, peer if of_baseline else "", of_baseline.get(figure)))
    return dict(found if name == peer else of_baseline)
