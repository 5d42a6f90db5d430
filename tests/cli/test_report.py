"""From training to the report, with the commands alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from balanced_thinking.cli import main
from tests.cli.tiny_commands import STEPS, TINY


def test_from_training_to_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arm, weighting in (("sft", "uniform"), ("scale-sft", "scale")):
        run = tmp_path / arm / "seed-0"
        assert main(["sft", *TINY, *STEPS, "--weighting", weighting, "--out", str(run)]) == 0
        about = json.loads((run / "provenance.json").read_text())
        assert about["arm"] == arm
        assert about["finished"]
        assert {"torch", "trl", "transformers"} <= about["versions"].keys()
        assert about["tokens"] > 100
        assert yaml.safe_load((run / "config.yaml").read_text())["training"]["weighting"] == weighting
        assert json.loads((run / "metrics.jsonl").read_text().splitlines()[1])["step"] == 2
        command = ["eval", "--model", str(run), "--data", "world", "--data_options.n", "3", "--max-new-tokens", "4"]
        assert main(command) == 0
        assert (run / "eval" / "world-test" / "predictions.jsonl").is_file()
    assert main(["report", str(tmp_path)]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert (tmp_path / "report.md").is_file()


def test_a_base_stands_in_the_report_beside_what_was_trained_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sft", *TINY, *STEPS, "--out", "runs/mine"]) == 0
    for model in ("runs/mine", "world-base"):
        command = ["eval", "--model", model, "--data", "world", "--data_options.n", "3", "--max-new-tokens", "4"]
        assert main(command) == 0
    assert json.loads(Path("runs/world-base/eval/world-test/summary.json").read_text())["n"] == 3
    assert main(["report", "runs"]) == 0
    (contrast,) = csv.DictReader(Path("runs/report-contrasts.csv").read_text().splitlines())
    assert {contrast["arm"], contrast["base"]} == {"mine", "world-base"}
