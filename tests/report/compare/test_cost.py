"""Chains of runs and what they cost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from balanced_thinking.report.compare.cost import chain_train_seconds, cost_rows, training_chain
from balanced_thinking.report.compare.tables import group_by_arm, make_tables
from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.runs.load import load_runs
from balanced_thinking.runs.records import LedgerEntry
from tests.report.synthetic import write_run


def test_a_chain_takes_its_own_time_and_its_parents_once(runs: Path) -> None:
    found = load_runs(runs / "ratio-10")
    by_label = {run.label: run for run in found}
    child, parent = by_label["sft+grpo, seed 1"], by_label["sft, seed 1"]
    assert training_chain(child, found) == [parent, child]
    assert chain_train_seconds(child, found) == child.train_cost_seconds + parent.train_cost_seconds
    assert chain_train_seconds(parent, found) == parent.train_cost_seconds
    rows = {row.arm: row for row in make_tables(found).splits["world-test"]}
    assert rows["sft"].relative_time == 1
    assert rows["sft+grpo"].relative_time > 5


def test_a_chain_is_followed_where_the_study_was_moved(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "ratio-10", tmp_path / "elsewhere")
    found = load_runs(tmp_path / "elsewhere")
    for run in found:
        assert len(training_chain(run, found)) == (2 if run.stage == "grpo" else 1)


def test_a_chain_is_followed_from_another_folder_than_the_one_where_it_was_started(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / "runs" / name, [True]) for name in ("mine", "mine-grpo"))
    (second / "config.yaml").write_text("stage: grpo\nmodel: runs/mine\n")
    about = json.loads((second / "provenance.json").read_text())
    (second / "provenance.json").write_text(json.dumps(about | {"working_folder": "../.."}))
    found = {run.folder: run for run in load_runs(tmp_path / "runs")}
    assert training_chain(found[second], list(found.values())) == [found[first], found[second]]


def test_a_chain_whose_start_is_absent_is_a_note(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "ratio-10/sft+grpo", tmp_path / "sft+grpo")
    shutil.copytree(runs / "ratio-10/scale-sft", tmp_path / "scale-sft")
    notes = make_tables(load_runs(tmp_path)).notes
    assert sum("which is not among these runs; its time is not counted" in note for note in notes) == 2


def test_runs_that_start_from_each_other_do_not_hang_the_report(tmp_path: Path) -> None:
    for arm, other in (("a", "b"), ("b", "a")):
        folder = write_run(tmp_path / arm / "seed-0", [True])
        (folder / "config.yaml").write_text(f"model: {tmp_path / other / 'seed-0'}\n")
    runs = load_runs(tmp_path)
    assert [chain_train_seconds(run, runs) for run in runs] == [240.0, 240.0]


def test_costs_are_means_of_the_ledger_and_of_a_part_done_again_the_last_counts(runs: Path, tmp_path: Path) -> None:
    groups = list(group_by_arm(load_runs(runs / "ratio-10")).values())
    ledger = read_ledger(runs, [])
    again = LedgerEntry(run="ratio-10/sft/seed-0", part="train", wall_seconds=1000.0, cpu_seconds=0, tokens=0)
    rows = {(row.arm, row.part): row for row in cost_rows(groups, [*ledger, again], runs)}
    walls = [r.wall_seconds for r in ledger if r.run.startswith("ratio-10/sft/") and r.part == "train"]
    assert rows["sft", "training (sft)"].wall_seconds == pytest.approx((walls[1] + 1000) / 2)
    assert rows["sft", "training (sft)"].peak_mib == 1500
    assert rows["sft", "evaluation"].wall_seconds == 12.5
    assert rows["sft+grpo", "training (grpo)"].relative > 5
    assert rows["sft+grpo", "evaluation"].relative is None


def test_without_a_ledger_costs_are_what_runs_recorded(tmp_path: Path) -> None:
    write_run(tmp_path / "sft/seed-0", [True], tokens=5000, peak_mib=900)
    (cost,) = cost_rows([load_runs(tmp_path)], [], tmp_path)
    assert (cost.wall_seconds, cost.cpu_seconds, cost.tokens, cost.peak_mib) == (120.0, None, 5000, 900)
    write_run(tmp_path / "sft/seed-0", [True], device="cpu", train_cpu_seconds=80.0)
    (cost,) = cost_rows([load_runs(tmp_path)], [], tmp_path)
    assert (cost.wall_seconds, cost.cpu_seconds) == (120.0, 80.0)
