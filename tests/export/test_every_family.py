"""Every family, exported, answers alike in plain transformers when its run is gone: `make test-export`.

Each row of the table in docs/export.md is one test: a family, and a way to train and to export it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from balanced_thinking.cli import main
from balanced_thinking.export.facts import read_config
from balanced_thinking.export.quantized import compare_with_trained, load_as_trained
from balanced_thinking.export.samples import SampleOptions, answer_samples, open_samples
from balanced_thinking.export.verify import verify_folder
from balanced_thinking.models.find import TINY_ARCHITECTURES
from balanced_thinking.models.load import load_model
from balanced_thinking.models.tiny import build_tiny
from tests.conftest import named_output
from tests.export.table import Row, write_row
from tests.models.hub_folders import FAMILIES, write_hub_folder

SAMPLES = SampleOptions(20, max_new_tokens=12)
LORA = ["--lora.r", "4", "--lora.target_modules", "all-linear"]
NF4, INT8 = (["--lora.r", "4", "--quantization", name] for name in ("nf4", "int8"))
IN_16_BITS, BESIDE = ["--dtype", "bfloat16"], ["--adapter"]
# Name in the table -> the options of the training, and those of the export.
WAYS: dict[str, tuple[list[str], list[str]]] = {
    "full": ([], []),
    "LoRA, merged": (LORA, []),
    "LoRA, merged in bfloat16": (LORA, IN_16_BITS),
    "LoRA beside its base": (LORA, BESIDE),
    "LoRA of an older run": (LORA, []),
    "QLoRA (nf4), merged": (NF4, []),
    "QLoRA (nf4), merged in bfloat16": (NF4, IN_16_BITS),
    "QLoRA (nf4) beside its base": (NF4, BESIDE),
    "QLoRA (int8), merged": (INT8, []),
}
CASES = [(f"tiny:{name}", way) for name in TINY_ARCHITECTURES for way in WAYS]
CASES += [(name, "LoRA, merged") for name in FAMILIES]


@pytest.mark.families
@pytest.mark.parametrize(("family", "way"), CASES)
def test_an_exported_run_answers_alike_when_the_run_is_gone(
    family: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = family.startswith("tiny:")
    model = family if tiny else str(write_hub_folder(family, tmp_path / family))
    pictures = family != "tiny:qwen2" if tiny else FAMILIES[family].pictures
    how, options = WAYS[way]
    dtype = "bfloat16" if options == IN_16_BITS else "float32"
    if "--quantization" in how:  # of stored weights only
        for part in build_tiny(family.removeprefix("tiny:")):
            part.save_pretrained("stored")
        model = str(tmp_path / "stored")
    train(model, pictures, how)
    if "older" in way:
        make_older()
    as_trained = load_as_trained("runs/mine/model") if options == BESIDE else None
    loaded = as_trained or load_model("runs/mine", dtype=getattr(torch, dtype))
    config = read_config(Path("runs/mine/config.yaml"))
    answers = answer_samples(loaded, config, open_samples(config, SAMPLES, loaded.processor), SAMPLES)
    rounding = None if options == BESIDE else compare_with_trained("runs/mine/model", answers, config, SAMPLES)
    assert main(["export", "runs/mine", "--out", "out/mine", "--samples", "0", "--quiet", *options]) == 0
    shutil.rmtree("runs")
    moved = Path("out/mine")
    if options != BESIDE:  # of plain PEFT, only the path in its configuration is known
        shutil.rmtree(model, ignore_errors=True)
        moved = moved.rename(tmp_path / "elsewhere")
    about: dict[str, Any] = {"pictures": pictures, "device": "cpu", "dtype": dtype, "base": None}
    if options == BESIDE:
        about["base"] = json.loads((moved / "adapter_config.json").read_text())["base_model_name_or_path"]
    monkeypatch.chdir("/")
    moved = tmp_path / moved
    found = verify_folder(moved, answers, about | {"max_new_tokens": SAMPLES.max_new_tokens})
    assert load_model(str(moved)).model is not None
    if out := named_output("EXPORT_OUT"):
        near = sum(one.near for one in found.differences)
        write_row(
            Row(family, way, found.asked, found.equal, near, found.processor is None, rounding and rounding.equal),
            out,
        )
    assert found.asked == SAMPLES.count
    assert [str(one) for one in found.differences if not one.near] == []
    assert dtype == "bfloat16" or way == "QLoRA (nf4) beside its base" or not found.differences


def train(model: str, pictures: bool, how: list[str]) -> None:
    data = ["--data", "world" if pictures else "world-text", "--data_options.n", "24", "--data_options.ratio", "5"]
    steps = ["--max_steps", "2", "--per_device_train_batch_size", "2", "--learning_rate", "0.01", "--seed", "1"]
    command = ["sft", "--model", model, *data, *steps, *how, "--out", "runs/mine", "--quiet", "--use_cpu", "true"]
    assert main(command) == 0


def make_older() -> None:
    """As versions before the manifest wrote it, started from the folder above: a base by a relative path."""
    file = Path("runs/mine/model/adapter_config.json")
    values = json.loads(file.read_text()) | {"base_model_name_or_path": "runs/mine/base"}
    file.write_text(json.dumps(values))
    for folder in ("model", "base"):
        (Path("runs/mine") / folder / "manifest.json").unlink()
