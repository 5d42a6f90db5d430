"""Evaluate one model on one split of one data set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from balanced_thinking.data import load_data
from balanced_thinking.evaluation.generate import Generator, Summary, evaluate
from balanced_thinking.models.load import load_model


def evaluate_model(
    model: str,
    data: str,
    *,
    split: str = "test",
    out: Path | None = None,
    format: str = "think-answer",
    scorer: str = "exact",
    batch_size: int = 64,
    max_new_tokens: int = 512,
    limit: int | None = None,
    on_bad_row: str = "error",
    options: dict[str, Any] | None = None,
) -> Path:
    """Write predictions and summary to `out` (by default inside the run directory that `model` names) and return it."""
    loaded_data = load_data(data, split=split, limit=limit, on_bad_row=on_bad_row, options=options or {})
    folder, run = _model_folder(model)
    out = out or (run or Path("runs")) / "eval" / split
    loaded = load_model(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = Generator(loaded.model.to(device), loaded.processor, format, max_new_tokens)
    examples = loaded_data.examples

    def progress(predictions: Iterable[Any]) -> Iterable[Any]:
        return track(predictions, description=f"{split:>20}", total=len(examples))

    summary = evaluate(
        generator,
        examples,
        out,
        data=data,
        split=split,
        model_name=model,
        batch_size=batch_size,
        scorer=scorer,
        progress=progress,
    )
    print(describe(summary))
    return out


def describe(summary: Summary) -> str:
    """The result in one line."""
    n = summary.n
    return (
        f"{summary.split}: accuracy {summary.accuracy:.1%} (95 % interval {summary.wilson_low:.1%} to "
        f"{summary.wilson_high:.1%}, n = {n}), malformed {summary.malformed / n:.1%}, truncated "
        f"{summary.truncated / n:.1%}, {summary.think_tokens_mean:.0f} think tokens"
    )


def _model_folder(model: str) -> tuple[str, Path | None]:
    """(what to load, the run directory it lies in if it does)."""
    run = Path(model)
    trained = any((run / "model" / name).is_file() for name in ("config.json", "adapter_config.json"))
    return (str(run / "model"), run) if trained else (model, None)
