"""Contrasts over all settings of a study: a grid of arms and settings, and how often each arm wins or loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.compare.pairing import adjust_contrasts

MOST_COLUMNS = 8  # side by side; more continue below


class Column(NamedTuple):
    """A setting, with its name inside its group."""

    setting: str
    label: str


class Group(NamedTuple):
    """Settings whose names begin alike. `title` is empty where the settings form no groups."""

    title: str
    columns: tuple[Column, ...]


class Pair(NamedTuple):
    """An arm and what it is compared with."""

    arm: str
    base: str


@dataclass(frozen=True)
class Grid:
    """One row for each pair of arms, one column for each setting; a cell is the contrast on the setting's main split.

    `bands` are the columns in their order, at most MOST_COLUMNS in one band.
    """

    pairs: tuple[Pair, ...]
    bands: tuple[tuple[Group, ...], ...]
    cells: Mapping[tuple[Pair, str], Contrast]

    @property
    def common_base(self) -> str | None:
        """What all arms are compared with; None where that differs."""
        bases = {pair.base for pair in self.pairs}
        return bases.pop() if len(bases) == 1 else None

    @property
    def columns(self) -> list[Column]:
        """The columns of all bands."""
        return [column for band in self.bands for group in band for column in group.columns]

    def row_label(self, pair: Pair) -> str:
        """The arm, with its baseline where the rows have different ones."""
        return pair.arm if self.common_base else f"{pair.arm} − {pair.base}"

    def row(self, pair: Pair) -> list[Contrast]:
        """The contrasts of a pair, in the order of the columns."""
        return [self.cells[pair, column.setting] for column in self.columns if (pair, column.setting) in self.cells]


@dataclass(frozen=True)
class SummaryRow:
    """One pair of arms over all settings: in how many its difference is what.

    `better` and `worse` are significant within their setting; `better_overall` and `worse_overall` also after Holm over
    all pairs and settings together. `non_inferior` is None without a margin. `undecided` are the rest: neither
    significant nor non-inferior. Points are a mean and a minimum over the settings.
    """

    arm: str
    base: str
    settings: int
    better: int
    worse: int
    better_overall: int
    worse_overall: int
    non_inferior: int | None
    undecided: int
    mean_points: float
    lowest_points: float
    lowest_setting: str


def make_grid(by_setting: Mapping[str, Sequence[Contrast]]) -> Grid | None:
    """The grid of the contrasts of each setting; None without any."""
    cells = {(Pair(c.arm, c.base), setting): c for setting, found in by_setting.items() for c in found}
    if not cells:
        return None
    pairs = tuple(dict.fromkeys(pair for pair, _ in cells))
    return Grid(pairs, tuple(_make_bands(group_settings(list(by_setting)))), cells)


def group_settings(names: Sequence[str]) -> tuple[Group, ...]:
    """Groups by the words with which the names begin: `base-plain`, `base-varied` | `reasoner-plain`, ...

    As few words as make several groups, each with two settings or more. Otherwise all settings are one group.
    """
    words = [name.split("-") for name in names]
    for count in range(1, max((len(one) for one in words), default=1)):
        groups: dict[str, list[Column]] = {}
        for name, one in zip(names, words, strict=True):
            groups.setdefault("-".join(one[:count]), []).append(Column(name, "-".join(one[count:])))
        labelled = all(column.label for columns in groups.values() for column in columns)
        if labelled and len(groups) > 1 and min(map(len, groups.values())) > 1:
            return tuple(Group(title, tuple(columns)) for title, columns in groups.items())
    return (Group("", tuple(Column(name, name) for name in names)),)


def _make_bands(groups: Sequence[Group]) -> Iterator[tuple[Group, ...]]:
    """The groups in bands; a group with too many columns is continued in the next band."""
    parts = [
        Group(group.title, group.columns[start : start + MOST_COLUMNS])
        for group in groups
        for start in range(0, len(group.columns), MOST_COLUMNS)
    ]
    band: list[Group] = []
    for part in parts:
        if band and sum(len(group.columns) for group in (*band, part)) > MOST_COLUMNS:
            yield tuple(band)
            band = []
        band.append(part)
    yield tuple(band)


def summarize_grid(grid: Grid) -> tuple[SummaryRow, ...]:
    """One row for each pair of arms."""
    overall = dict(zip(grid.cells, adjust_contrasts(list(grid.cells.values())), strict=True))
    return tuple(_summary_row(grid, pair, overall) for pair in grid.pairs)


def _summary_row(grid: Grid, pair: Pair, overall: Mapping[tuple[Pair, str], Contrast]) -> SummaryRow:
    found = {setting: contrast for (other, setting), contrast in grid.cells.items() if other == pair}
    adjusted = [overall[pair, setting] for setting in found]
    contrasts = list(found.values())
    lowest = min(found, key=lambda setting: found[setting].points)
    return SummaryRow(
        *pair,
        settings=len(found),
        better=_count_significant(contrasts, 1),
        worse=_count_significant(contrasts, -1),
        better_overall=_count_significant(adjusted, 1),
        worse_overall=_count_significant(adjusted, -1),
        non_inferior=None if contrasts[0].tost is None else sum(is_non_inferior(c) for c in contrasts),
        undecided=sum(not c.is_significant and not is_non_inferior(c) for c in contrasts),
        mean_points=fmean(c.points for c in contrasts),
        lowest_points=found[lowest].points,
        lowest_setting=lowest,
    )


def is_non_inferior(contrast: Contrast) -> bool:
    """Whether the arm is shown to be less than the margin worse."""
    return contrast.tost is not None and contrast.tost.non_inferior


def _count_significant(contrasts: Sequence[Contrast], sign: int) -> int:
    return sum(contrast.is_significant and sign * contrast.points > 0 for contrast in contrasts)
