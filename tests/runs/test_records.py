"""The files of a run: one class writes and reads each, older ones are read, unknown ones are refused by name."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.runs import paths
from balanced_thinking.runs.directory import create_run, finish_run, is_finished, read_provenance
from balanced_thinking.runs.evaluations import read_predictions, read_summary
from balanced_thinking.runs.ledger import append_ledger_entry, read_ledger
from balanced_thinking.runs.load import load_run
from balanced_thinking.runs.paths import EvaluationFiles, RunFiles, StudyFiles
from balanced_thinking.runs.records import (
    SCHEMA,
    LedgerEntry,
    MetricsRow,
    Prediction,
    Provenance,
    RecordError,
    Summary,
    UnknownSchemaError,
    read_metrics_row,
    read_record,
    record_values,
)
from tests.conftest import REPOSITORY
from tests.sources import nodes_of

COMPLETE: list[Any] = [
    Prediction(id="1", question="Q", gold="red", prediction=None, correct=False, problems=["no_answer"], score=0.5),
    Summary(data="world", split="test", n=3, correct=2, accuracy=2 / 3, max_new_tokens=None),
    Provenance(arm="sft", seed=0, versions={"torch": "2"}, earlier=[{"command": "balanced sft"}], train_seconds=1.5),
    LedgerEntry(run="sft/seed-0", part="train", wall_seconds=2.0),
]


@pytest.mark.parametrize("record", COMPLETE, ids=lambda record: type(record).__name__)
def test_what_is_written_is_read_back(record: Any) -> None:
    stored = json.loads(json.dumps(record_values(record)))
    assert read_record(type(record), stored, "here") == record


@pytest.mark.parametrize("record", COMPLETE[1:], ids=lambda record: type(record).__name__)
def test_a_file_without_a_schema_is_the_first_one_and_an_unknown_schema_is_refused_by_name(record: Any) -> None:
    stored = record_values(record)
    assert stored["schema"] == SCHEMA
    assert read_record(type(record), {k: v for k, v in stored.items() if k != "schema"}, "here") == record
    for unknown in (SCHEMA + 1, "2", None, True):
        with pytest.raises(
            UnknownSchemaError, match=rf"here has schema {unknown!r}; .* reads 1 to {SCHEMA}: .*upgrade"
        ):
            read_record(type(record), stored | {"schema": unknown}, "here")


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Prediction, {"correct": True}, "here has no id; expected a complete Prediction"),
        (Prediction, {"id": 7, "correct": True}, "here: id is 7; expected str"),
        (Prediction, {"id": "7", "correct": 1}, "here: correct is 1; expected bool"),
        (Prediction, {"id": "7", "correct": True, "think_tokens": True}, "think_tokens is True; expected int"),
        (Prediction, {"id": "7", "correct": True, "images": "a.png"}, "images is 'a.png'; expected list"),
        (Summary, {"n": 2, "correct": 3}, "here: n is 2 and correct 3; expected 0 <= correct <= n"),
        (Summary, {"n": 2, "correct": -1}, "expected 0 <= correct <= n"),
        (Summary, {"n": 2, "correct": 1, "accuracy": float("nan")}, "accuracy is nan"),
        (Summary, {"n": 10**400, "correct": 1}, "n is 1000"),  # JSON has integers of any size
        (Provenance, {"seed": "0"}, "seed is '0'; expected NoneType or int"),
        (LedgerEntry, {"run": "a"}, "here has no part"),
    ],
)
def test_a_record_that_lacks_a_field_or_has_another_type_is_refused_by_name(
    kind: type, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(kind, values, "here")
    assert said in str(caught.value)


def test_an_integer_is_a_number_of_seconds_and_later_fields_are_ignored() -> None:
    entry = read_record(LedgerEntry, {"run": "a", "part": "train", "wall_seconds": 3, "carbon": 1}, "here")
    assert entry.wall_seconds == 3


def test_a_row_of_metrics_is_a_step_and_what_was_logged() -> None:
    row = MetricsRow(4, {"loss": 1.5})
    assert read_metrics_row(json.loads(row.to_json()), "here") == row
    with pytest.raises(RecordError, match="step is None; expected an integer"):
        read_metrics_row({"loss": 1.5}, "here")


def test_a_run_of_before_there_were_schemas_is_read(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    files.provenance.write_text(
        '{"arm": "sft", "seed": 3, "finished": "2026", "train_seconds": 2.5, "device": "cuda:0"}'
    )
    files.metrics.write_text('{"step": 1, "loss": 2.0}\n{"loss": 2.0}\n')
    done = files.evaluation("world-test")
    done.folder.mkdir(parents=True)
    done.predictions.write_text('{"id": "a", "correct": true}\n{"id": "b"}\n{"id": "c", "correct": false}\n')
    done.summary.write_text('{"n": 2, "correct": 1, "data": "world", "split": "test"}')
    run = load_run(tmp_path)
    assert is_finished(tmp_path)
    assert (run.arm, run.seed, run.train_cost_seconds) == ("sft", 3, 2.5)
    assert [row.step for row in run.metrics] == [1]
    assert run.evaluations["world-test"].correct == {"a": True, "c": False}
    assert any("1 rows without an id or a verdict" in note for note in run.notes)
    assert read_summary(done).data == "world"
    assert [row.id for row in read_predictions(done.folder, [])] == ["a", "c"]


@pytest.mark.parametrize("file", ["provenance", "summary"])
def test_a_run_of_a_newer_version_is_refused_by_name(file: str, tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    done = files.evaluation("world-test")
    done.folder.mkdir(parents=True)
    place = {"provenance": files.provenance, "summary": done.summary}[file]
    files.provenance.write_text("{}")
    place.write_text('{"schema": 99, "n": 1, "correct": 1}')
    with pytest.raises(UnknownSchemaError, match=rf"{place.name} has schema 99"):
        load_run(tmp_path)


def test_a_run_is_created_and_finished_by_one_record(tmp_path: Path) -> None:
    create_run(tmp_path, "stage: sft\n", {"arm": "sft", "seed": 1})
    begun = read_provenance(tmp_path)
    assert begun is not None
    assert (begun.arm, begun.finished, begun.steps) == ("sft", None, None)
    finish_run(tmp_path, steps=5, train_seconds=1.0)
    done = read_provenance(tmp_path)
    assert done == replace(begun, steps=5, train_seconds=1.0, finished=done.finished if done else "")
    create_run(tmp_path, "stage: sft\n", {"arm": "sft", "seed": 1}, resume=True)
    again = read_provenance(tmp_path)
    assert again is not None
    assert [start["finished"] for start in again.earlier] == [done.finished if done else None]
    with pytest.raises(TypeError, match="unexpected keyword"):
        finish_run(tmp_path, stepps=5)


def test_a_ledger_s_rows_are_records_and_one_that_a_kill_cut_short_is_noted(tmp_path: Path) -> None:
    with append_ledger_entry(tmp_path, "sft/seed-0", "train") as entry:
        entry.update(device="cpu", wall_seconds=2.0, cpu_seconds=1.5, steps=4)
    with StudyFiles(tmp_path).ledger.open("a") as file:
        file.write('{"run": "sft/seed-0"}\n{"run": "sft/se')
    with append_ledger_entry(tmp_path, "sft/seed-1", "train") as entry:  # on a line of its own
        entry.update(device="cpu", wall_seconds=2.0)
    notes: list[str] = []
    row, after = read_ledger(tmp_path, notes)
    assert after.run == "sft/seed-1"
    assert (row.run, row.part, row.steps, row.gpu_seconds) == ("sft/seed-0", "train", 4, None)
    assert row.peak_mib is not None
    assert len(notes) == 2


def test_results_are_complete_where_their_summary_is(tmp_path: Path) -> None:
    files = EvaluationFiles(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_summary(files)


def test_nobody_else_spells_the_names_of_a_run_s_files() -> None:
    names = {paths.CONFIG, paths.PROVENANCE, paths.METRICS, paths.PREDICTIONS, paths.SUMMARY, paths.LEDGER, paths.PLAN}
    package = REPOSITORY / "src" / "balanced_thinking"
    spelled = []
    for path in package.rglob("*.py"):
        if path.name == "paths.py" or "recipes" in path.parts:
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.Constant) and node.value in {*names, "log.txt", "report.html"}:
                spelled.append(f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.value}")
    assert not spelled, "\n".join(spelled)
