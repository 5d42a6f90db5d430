"""The studies for large machines: every plan resolves and every option is valid, without weights or a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from balanced_thinking.cli import main
from tests.conftest import REPOSITORY
from tests.recipes.twins import FAMILY

LARGE = sorted((REPOSITORY / "recipes").glob("*/study.yaml"))
LARGE = [path for path in LARGE if path.parent.name in FAMILY]
TEXT = [REPOSITORY / "recipes" / "text" / f"{name}.yaml" for name in ("gsm8k", "think-scienceqa", "one-gpu")]

_ROWS = 40


def _write(file: Path, text: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text if isinstance(text, str) else json.dumps(text))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the recipes read, with few rows of each data set."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("scienceqa/images/test/7/image.png", "iconqa/fill_in_blank/1/image.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    said = "<think>Two sides.</think><answer>C</answer>"
    turns = [{"from": "human", "value": "<image>Which?"}, {"from": "gpt", "value": said}]
    (folder / "vision-r1-cold").mkdir()
    for number in range(_ROWS):  # a hash of each picture splits them
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"vision-r1-cold/{number}.png")
    rows = [{"id": str(number), "image": f"{number}.png", "conversations": turns} for number in range(_ROWS)]
    _write(folder / "vision-r1-cold/vision_r1_llava_cot_full.json", rows)
    item = {"question": "Which?", "choices": ["dog", "cat"], "answer": 1, "image": "image.png", "lecture": "Cats purr."}
    _write(folder / "scienceqa/problems.json", {"7": item})
    _write(folder / "scienceqa/pid_splits.json", {"test": ["7"]})
    _write(folder / "iconqa/fill_in_blank/1/data.json", {"question": "How many?", "answer": "2"})
    splits = ("train", "val", "test")
    _write(folder / "cot/think_scienceqa.json", {split: item | {"image": None, "split": split} for split in splits})
    _write(folder / "cot/gsm8k.tsv", "".join(f"How many {k}?\t{k}\tIt is {k}.\n" for k in range(60)))
    return folder


# The stages of all models are those of their recipes (tests/recipes), so one is enough here.
NOW = [path if path in (*LARGE[:1], *TEXT) else pytest.param(path, marks=pytest.mark.slow) for path in [*LARGE, *TEXT]]


@pytest.mark.parametrize("recipe", NOW, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_dry_run_finds_no_fault(
    recipe: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BALANCED_THINKING_DATA", str(published))
    monkeypatch.setenv("BALANCED_THINKING_MODEL", "models/gemma-3-270m")
    assert main(["study", str(recipe), "--out", str(tmp_path / "study"), "--dry-run"]) == 0
    assert not (tmp_path / "study").exists()
    plan = capsys.readouterr().out
    arms = ("sft", "scale-sft", "sft+grpo", "scale-sft+grpo") if recipe in LARGE else ("sft", "two-weights")
    assert all(f"{arm}/seed-2 " in plan for arm in arms)


def test_a_folder_that_is_not_named_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BALANCED_THINKING_DATA", raising=False)
    with pytest.raises(SystemExit, match="2"):
        main(["study", str(LARGE[0]), "--out", str(tmp_path), "--dry-run"])
