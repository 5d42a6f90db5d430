"""Unfinished and damaged runs: each makes a report that names what is missing."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import pytest

from balanced_thinking.report import write_report
from balanced_thinking.report.compare.tables import make_tables
from balanced_thinking.runs.load import load_runs
from tests.report.helpers import report_of
from tests.report.synthetic import write_run


@pytest.mark.parametrize(
    "missing",
    [
        "config.yaml",
        "provenance.json",
        "metrics.jsonl",
        "eval/world-test/summary.json",
        "eval/world-test/predictions.jsonl",
    ],
)
def test_an_unfinished_run_is_a_note_and_not_an_error(study: Path, missing: str) -> None:
    (study / "scale-sft/seed-0" / missing).unlink()
    assert f"scale-sft, seed 0: {missing} is missing" in report_of(study)


def test_without_predictions_the_summary_is_counted(study: Path) -> None:
    (study / "sft/seed-0/eval/world-test/predictions.jsonl").unlink()
    tables = make_tables(load_runs(study))
    assert tables.splits["world-test"][0].accuracy == pytest.approx(0.31)
    assert tables.contrasts == ()


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("metrics.jsonl", '{"step": 0, "think_nll": 1.0}\n{"step": 1, "thi', "metrics.jsonl: 1 lines are not JSON"),
        ("metrics.jsonl", '{"step": 0}\n[1]\n\n"cut', "metrics.jsonl: 2 lines are not JSON objects"),
        ("provenance.json", '{"arm": ', "provenance.json cannot be read"),
        ("config.yaml", "a: [", "config.yaml cannot be read"),
        ("config.yaml", "- a", "config.yaml holds list; expected a mapping"),
        ("provenance.json", '{"arm": "sft", "finished": null}', "the run has not finished"),
        ("eval/world-test/summary.json", '{"n": 100, "correct": 77}', "summary.json says 77 of 100 correct"),
        (
            "eval/world-test/predictions.jsonl",
            '{"id": "a", "correct": true}\n{"id": "b"}\n',
            "1 rows without an id or a verdict",
        ),
        ("eval/world-test/predictions.jsonl", '{"id": "a", "correct": true}\n' * 2, "1 rows repeat an id"),
        ("eval/world-test/predictions.jsonl", "", "eval/world-test: no usable prediction; the report uses the counts"),
    ],
)
def test_damage_is_a_note(study: Path, file: str, content: str, note: str) -> None:
    (study / "sft/seed-0" / file).write_text(content)
    assert note in report_of(study)


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        (
            "ledger.jsonl",
            '{"run": "sft/seed-0", "part": ["train"], "wall_seconds": 1}\n',
            "ledger.jsonl: 1 rows lack a run or a part, or have values of another type",
        ),
        (
            "sft/seed-0/eval/world-test/summary.json",
            '{"n": -5, "correct": -1}',
            "sft, seed 0: eval/world-test/summary.json: n is -5 and correct -1",
        ),
        (
            "sft/seed-0/eval/world-test/predictions.jsonl",
            f'{{"id": "a", "correct": true, "think_tokens": 1{"0" * 400}}}\n',
            "sft, seed 0: eval/world-test/predictions.jsonl: 1 rows without an id or a verdict",
        ),
    ],
)
def test_impossible_values_still_make_a_page_that_names_their_file(
    study: Path, file: str, content: str, note: str
) -> None:
    if file.endswith("summary.json"):
        (study / file).with_name("predictions.jsonl").unlink()
    (study / file).write_text(content)
    text = report_of(study)
    assert "<html" in text
    assert note in text


def test_runs_without_evaluation_or_metrics_make_a_page(tmp_path: Path) -> None:
    for arm in ("sft", "scale-sft"):
        (tmp_path / "runs" / arm).mkdir(parents=True)
        (tmp_path / "runs" / arm / "config.yaml").write_text("seed: 0\n")
    text = report_of(tmp_path / "runs")
    assert "Nothing to compare yet." in text
    assert "No run has logged metrics yet." in text


def test_contrasts_of_another_split_are_there_where_the_main_one_has_none(study: Path) -> None:
    for arm in ("sft", "scale-sft"):
        write_run(study / arm / "seed-0", [arm == "sft"] * 40, split="world-longer")
    shutil.rmtree(study / "sft/seed-0/eval/world-test")
    for place in study.glob("*/seed-0/eval/*/summary.json"):
        split = place.parent.name.rpartition("-")[2]
        place.write_text(json.dumps(json.loads(place.read_text()) | {"split": split}))
    (study / "study.yaml").write_text("evaluate: {world: {splits: [test, longer]}}")
    write_report(study, study / "report.html", study / "report.md")
    for text in (html.unescape((study / "report.html").read_text()), (study / "report.md").read_text()):
        assert "needs two arms with predictions of the same items of world-test." in text
        assert "Contrasts on world-longer" in text
        assert "Paired counts on world-longer" in text
        assert "A difference is significant when" in text


def test_a_split_whose_evaluation_has_just_begun_makes_a_page(study: Path) -> None:
    place = study / "sft/seed-0/eval/world-longer"
    place.mkdir()
    (place / ".resume-0.jsonl").write_text("")  # as a study leaves it while it answers
    text = report_of(study)
    assert "No arm has results on this split yet." in text
    assert "Items: 100 of world-test. Seeds per arm: 1." in text


def test_a_folder_without_runs_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong/photos").mkdir(parents=True)
    for name, found in (("absent", "does not exist"), ("empty", "it is empty"), ("wrong", "found photos")):
        with pytest.raises(ValueError, match=f"{found}; expected .*balanced demo") as error:
            write_report(tmp_path / name, tmp_path / "report.html")
        assert name in str(error.value)
    assert not (tmp_path / "report.html").exists()
