"""What is measured of a family: its rows of `balanced check`, TRL's own first step, and what the saved folder holds."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image, List
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

from balanced_thinking import check_model_conformance
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.data.world import load
from balanced_thinking.models.load import load_model
from balanced_thinking.models.processor import why_no_torchvision
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.sft_config import ScaleSFTConfig
from tests.models.hub_folders import FAMILIES
from tests.tiny_training import QUIET, losses

WITHOUT = why_no_torchvision() is not None


@dataclass(frozen=True)
class Measured:
    """One row of docs/families.md. `checks` are status and figure of each row of `balanced check`."""

    family: str
    model_class: str
    processor_class: str
    torchvision: bool
    checks: dict[str, tuple[str, str]]
    trl: str
    reloads: str
    versions: str


def picture_rows(pictures: bool) -> Dataset:
    """Four rows with a picture each, of lengths that differ: what TRL takes, which wants no rows without pictures."""
    examples = [next(load(n=1, seed=seed, ratio=ratio)) for seed, ratio in enumerate((5, 20, 10, 15))]
    rows = to_dataset(examples)
    return rows if pictures else rows.remove_columns("images")


def first_losses(folder: Path, out: Path) -> tuple[float, float]:
    """The loss of one step on the same rows: ours with uniform weights, and TRL's."""
    rows = picture_rows(pictures := FAMILIES[folder.name].pictures)
    shared = {
        **QUIET,
        "output_dir": str(out),
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "max_length": None,
        "bf16": False,
    }
    one, other = load_model(str(folder)), load_model(str(folder))
    ours = ScaleSFTTrainer(
        one.model, ScaleSFTConfig(weighting="uniform", **shared), train_dataset=rows, processing_class=one.processor
    )
    ours.train()
    rows = rows.remove_columns("id")
    theirs = SFTTrainer(
        other.model,
        SFTConfig(completion_only_loss=True, **shared),
        train_dataset=rows.cast_column("images", List(Image())) if pictures else rows,
        processing_class=other.processor,
    )
    theirs.train()
    return losses(ours)[0], losses(theirs)[0]


def plain_reload(saved: Path, source: Path) -> str:
    """Reads a run's folder with transformers alone. Raises AssertionError where it is not what was saved."""
    pictures = FAMILIES[source.name].pictures
    auto: Any = AutoModelForImageTextToText if pictures else AutoModelForCausalLM
    model, found = auto.from_pretrained(saved, output_loading_info=True)
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(torch.isfinite(value).all() for value in model.parameters())
    try:
        plain = AutoProcessor.from_pretrained(saved)
    except ImportError as error:
        if not WITHOUT or "torchvision" not in str(error).lower():
            raise
        return "model; its processor needs torchvision there"
    if pictures:
        own, before = plain.to_dict(), AutoProcessor.from_pretrained(source).to_dict()
        assert own == before
    return "model and processor"


def measure_family(source: Path, saved: Path, out: Path) -> Measured:
    """`source` is the checkpoint, `saved` the model of a run on it."""
    conformance = check_model_conformance(str(source))
    checks = {row.name: (row.status, row.figure) for row in conformance.rows if row.name != "your data"}
    ours, theirs = first_losses(source, out)
    loaded = load_model(str(source))
    return Measured(
        source.name,
        type(loaded.model).__name__,
        type(loaded.processor).__name__,
        not WITHOUT,
        checks,
        f"{abs(ours - theirs) / theirs:.0e}",
        plain_reload(saved, source),
        describe_versions(),
    )


def describe_versions() -> str:
    names = ("torch", "transformers", "trl") if WITHOUT else ("torch", "torchvision", "transformers", "trl")
    return " ".join(f"{name} {version(name).partition('+')[0]}" for name in names).replace("trl", "TRL")


def write_measured(found: Measured, file: Path) -> None:
    """Put a family's row in the place of the one that was there."""
    rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    rows[found.family] = asdict(found)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.move(partial, file)
