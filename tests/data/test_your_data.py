"""The commands of `docs/your-data.md`, exactly as written, except for the model and a few steps."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest

from balanced_thinking.cli import main
from balanced_thinking.data.registry import DATASETS
from balanced_thinking.data.world import load
from balanced_thinking.scoring.scorers import SCORERS
from tests.conftest import REPOSITORY

GUIDE = REPOSITORY / "docs" / "your-data.md"
MODEL = "world-base"
FEW = {
    "sft": [
        *(
            "--model",
            MODEL,
            "--model_options.dtype",
            "float32",
            "--lora.r",
            "4",
            "--max_steps",
            "2",
            "--eval_steps",
            "2",
        ),
        *(
            "--per_device_train_batch_size",
            "4",
            "--gradient_accumulation_steps",
            "1",
            "--gradient_checkpointing",
            "false",
        ),
    ],
    "eval": ["--max-new-tokens", "16"],
}


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Own pictures, and two tables in the guide's columns."""
    columns = re.search(r"image,question,\S+", GUIDE.read_text())
    assert columns is not None
    (tmp_path / "photos").mkdir()
    for name, count, seed in (("train", 40, 1), ("test", 6, 2)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns[0].split(","))
            for i, example in enumerate(load(n=count, seed=seed, ratio=5)):
                picture = f"photos/{name}-{i}.png"
                example.images[0].save(tmp_path / picture)
                writer.writerow(
                    [picture, example.question, example.think if name == "train" else "", example.answer, ""]
                )
    return tmp_path


def commands() -> list[list[str]]:
    """The commands of the guide's first script as words, its loop unrolled."""
    script, *_ = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    lines = script.strip().replace("\\\n", " ").splitlines()
    assert len(lines) == 5
    found = []
    for line in lines:
        loop = re.fullmatch(r"for (\w+) in (.*?); do (.*); done", line)
        found += [loop[3].replace(f"${loop[1]}", value) for value in loop[2].split()] if loop else [line]
    return [shlex.split(line) for line in found]


def test_the_guide_leads_from_pictures_and_a_table_to_a_compared_model(
    tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tables)
    for program, command, *words in commands():
        assert program == "balanced"
        options = [MODEL if word == "Qwen/Qwen2.5-VL-3B-Instruct" else word for word in words]
        assert main([command, *options, *FEW.get(command, [])]) == 0, (command, capsys.readouterr().err)
    assert (tables / "data.html").is_file()
    assert "40 examples, 0 bad rows" in capsys.readouterr().out
    for arm in ("scale", "plain"):
        (summary,) = (tables / "runs" / arm).glob("eval/*/summary.json")
        assert json.loads(summary.read_text())["n"] == 6
    assert "scale" in (tables / "runs" / "report.md").read_text()


def test_rows_without_reasoning_are_not_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column `hints` is read by nobody: training on the answers alone must not go unnoticed."""
    path, out = tmp_path / "train.csv", tmp_path / "run"
    path.write_text("question,hints,answer\nHow many?,I count two.,2\n")
    words = ["--data", str(path), "--model", "tiny:qwen2_5_vl", "--out", str(out), "--max_steps", "1"]
    assert main(["sft", *words]) == 1
    assert "no_think (1)" in capsys.readouterr().err
    direct = ["--reasoning_format", "direct", "--weighting", "uniform", "--use_cpu", "true", "--report_to", "none"]
    assert main(["sft", *words, *direct]) == 0


def test_every_data_set_and_scorer_is_described() -> None:
    page = (REPOSITORY / "docs" / "data.md").read_text()
    assert [name for name in (*DATASETS, *SCORERS) if f"| `{name}` |" not in page] == []
