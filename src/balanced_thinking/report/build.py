"""Collects everything a report shows: one section for each setting of a study, and a comparison of all settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.compare.cost import cost_rows
from balanced_thinking.report.compare.grid import Grid, make_grid
from balanced_thinking.report.compare.plan import Plan, load_plan
from balanced_thinking.report.compare.samples import MAX_BYTES, SAMPLES, Samples, choose_samples
from balanced_thinking.report.compare.tables import Tables, group_by_arm, make_tables, order_arms
from balanced_thinking.report.draw.curves import MAX_POINTS, MIN_POINTS, PANELS, draw_curves
from balanced_thinking.report.draw.forest import draw_forest, forest_rows
from balanced_thinking.report.draw.grid import draw_grid
from balanced_thinking.report.draw.svg import Drawing
from balanced_thinking.report.draw.times import draw_times
from balanced_thinking.runs.find import SettingFolder, find_arms_with_own_run, find_runs, find_settings, list_folders
from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.runs.load import Run, load_runs
from balanced_thinking.runs.records import LedgerEntry
from balanced_thinking.system.progress import track_progress

# Of all curves of a page together.
POINTS = 60_000
MIN_SAMPLES = 8


@dataclass(frozen=True)
class Section:
    """One setting. `name` is None where the study has no settings. `key` is the prefix of its ids on the page."""

    name: str | None
    key: str
    tables: Tables
    forest: Drawing | None
    times: Drawing | None
    curves: tuple[Drawing, ...]
    samples: Samples


class SettingContrasts(NamedTuple):
    """The contrasts of one setting; its name is empty where the study has no settings."""

    name: str
    contrasts: tuple[Contrast, ...]


class NamedContrast(NamedTuple):
    """One contrast, with the setting or split it belongs to."""

    name: str
    contrast: Contrast


@dataclass(frozen=True)
class Report:
    """A complete report. `arms` of all settings fix the colours.

    `overall` (the differences line by line), `grid` and its drawing are None for a single setting, the drawing also
    where the grid is too large for one.
    """

    arms: tuple[str, ...]
    sections: tuple[Section, ...]
    margin: float | None
    overall: Drawing | None
    grid: Grid | None
    grid_drawing: Drawing | None
    notes: tuple[str, ...]

    @property
    def has_several_settings(self) -> bool:
        return len(self.sections) > 1

    @property
    def main_figure(self) -> Drawing | None:
        """The figure that says most: the grid of all settings, or else the paired differences."""
        return self.grid_drawing or self.overall or self.sections[0].forest

    @property
    def all_notes(self) -> list[str]:
        """The study's notes, and those of every section after the name of its setting."""
        named = [(section.name, note) for section in self.sections for note in section.tables.notes]
        return [*self.notes, *(f"{name}: {note}" if name else note for name, note in named)]

    @property
    def contrasts_by_setting(self) -> list[SettingContrasts]:
        """The contrasts on each setting's main split."""
        return [SettingContrasts(section.name or "", section.tables.contrasts) for section in self.sections]

    @property
    def contrasts_of_largest_setting(self) -> tuple[Contrast, ...]:
        """The contrasts of the setting that has most of them. The rule printed for them covers all settings."""
        return max((contrasts for _, contrasts in self.contrasts_by_setting), key=len)

    @property
    def contrasts(self) -> list[NamedContrast]:
        """Every contrast on each setting's main split."""
        return [
            NamedContrast(name, contrast) for name, contrasts in self.contrasts_by_setting for contrast in contrasts
        ]


@dataclass(frozen=True)
class _ReportContext:
    """What all sections of a report have in common."""

    root: Path
    plan: Plan
    arms: tuple[str, ...]
    ledger: Sequence[LedgerEntry]
    settings: int


def load_report(root: Path) -> Report:
    """Read the runs below `root`. Raises ValueError when there are none."""
    plan = load_plan(root)
    places = find_settings(root, plan.settings)
    runs = {name: load_runs(folder) for name, folder in places}
    notes = [*plan.notes, *_describe_left_out(root, plan, places)]
    arms = order_arms([run for found in runs.values() for run in found], plan)
    shared = _ReportContext(root, plan, arms, read_ledger(root, notes), len(runs))
    sections = _make_sections(runs, shared)
    overall = {section.name or "": section.tables.contrasts for section in sections}
    forest = draw_forest(forest_rows(overall, arms), plan.margin, "overall-forest") if len(sections) > 1 else None
    grid = make_grid(overall) if len(sections) > 1 else None
    drawing = draw_grid(grid, plan.margin, "overall-grid") if grid else None
    return Report(arms, sections, plan.margin, forest, grid, drawing, tuple(notes))


def _describe_left_out(root: Path, plan: Plan, places: Sequence[SettingFolder]) -> Iterator[str]:
    """Notes on runs and settings that the report does not show."""
    settings = [name for name, _ in places if name is not None]
    if absent := [name for name in plan.settings if settings and name not in settings]:
        yield f"settings of the study without a run yet: {', '.join(absent)}"
    if beside := [arm for _, arm in find_runs(root) if settings and arm is not None]:
        yield f"not shown, because they are beside the settings and not inside one: {', '.join(dict.fromkeys(beside))}"
    known = {folder for _, folder in places} | {root / arm for _, arm in find_runs(root) if arm is not None}
    if deeper := [folder.name for folder in list_folders(root) if folder not in known and find_runs(folder)]:
        shown_by = f"`balanced report {root / deeper[0]}` shows {'it' if len(deeper) == 1 else 'the first'}"
        yield f"other folders with runs, which are not shown: {', '.join(deeper)}; {shown_by}"
    for run in (folder / arm for _, folder in places for arm in find_arms_with_own_run(folder)):
        yield f"{run} is itself a run. It is not shown, because it contains seeds: move it to a folder of its own"


def _make_sections(runs: Mapping[str | None, Sequence[Run]], shared: _ReportContext) -> tuple[Section, ...]:
    steps = track_progress(runs.items(), "comparing")
    several = len(runs) > 1
    return tuple(
        _make_section(name, f"s{index}-" if several else "", found, shared) for index, (name, found) in enumerate(steps)
    )


def _make_section(name: str | None, key: str, runs: Sequence[Run], shared: _ReportContext) -> Section:
    """`key` is the prefix of the section's ids. All sections share the page's number of samples and points."""
    arms, root, margin = shared.arms, shared.root, shared.plan.margin
    tables = make_tables(runs, shared.plan, arms, lambda groups: cost_rows(groups, shared.ledger, root))
    main, limit = tables.main_split, max(MIN_SAMPLES, -(-SAMPLES // shared.settings))
    points = max(MIN_POINTS, min(MAX_POINTS, POINTS // (shared.settings * len(PANELS) * len(runs))))
    return Section(
        name=name,
        key=key,
        tables=tables,
        forest=draw_forest(forest_rows(tables.by_split, arms), margin, f"{key}forest"),
        times=draw_times(group_by_arm(runs), arms, main, f"{key}times") if main else None,
        curves=tuple(draw_curves(runs, arms, prefix=key, points=points)),
        samples=choose_samples(runs, arms, main, root, limit=limit, size=MAX_BYTES // shared.settings),
    )
