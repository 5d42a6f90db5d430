"""Evaluate one model on one split of one data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from balanced_thinking.data import DATASETS, load_data
from balanced_thinking.evaluation.generate import Generator, Summary, evaluate
from balanced_thinking.evaluation.scorers import get_scorer
from balanced_thinking.models.load import load_model
from balanced_thinking.segments import get_format
from balanced_thinking.training.recipe import read_yaml


def evaluate_model(
    model: str,
    data: str,
    *,
    split: str = "test",
    out: Path | None = None,
    format: str | Mapping[str, Any] | None = None,
    scorer: str = "exact",
    batch_size: int = 64,
    max_new_tokens: int = 512,
    limit: int | None = None,
    on_bad_row: str = "error",
    options: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write predictions and summary to `out` and return it.

    Args:
        out: the folder; default: `eval/<label>` inside the run directory that `model` names, else inside `runs`.
        format: of the outputs, and of completions in the data; default: what the run was trained with, else
            think-answer (and the data's own).

    Raises:
        FileExistsError: the folder already holds results. ValueError: an unknown name, or nothing to evaluate.
    """
    get_scorer(scorer)
    folder, run = _model_folder(model)
    format = format or _trained_format(run)
    reasoning_format = get_format(format or "think-answer")
    out = _free(out or (run or Path("runs")) / "eval" / label(data, split), overwrite)
    loaded_data = load_data(
        data, split=split, format=format or "auto", limit=limit, on_bad_row=on_bad_row, options=options
    )
    if n := loaded_data.dropped:
        print(f"{n} bad {'row was' if n == 1 else 'rows were'} left out")
    examples = loaded_data.examples
    loaded = load_model(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    summary = evaluate(
        Generator(loaded.model.to(device), loaded.processor, reasoning_format, max_new_tokens),
        examples,
        out,
        data=data,
        split=split,
        model_name=model,
        batch_size=batch_size,
        scorer=scorer,
        dropped=loaded_data.dropped,
        progress=lambda predictions: _progress(predictions, split, len(examples)),
    )
    print(describe(summary))
    return out


def label(data: str, split: str) -> str:
    """The name of a result's folder, `<data>-<split>`: two data sets never share one just for the split's name.

    A named data set goes by its name, a path by its file's stem, or its folder's name where the stem is the split.
    """
    name, _, path = data.partition(":")
    if name in DATASETS and name != "jsonl":
        return f"{name}-{split}"
    place = Path(path if name == "jsonl" and path else data).expanduser().resolve()
    stem = place.name if place.is_dir() else place.stem
    return f"{place.parent.name if stem == split else stem}-{split}"


def _free(out: Path, overwrite: bool) -> Path:
    if (out / "summary.json").exists() and not overwrite:
        raise FileExistsError(f"{out} already holds results; add --overwrite to replace them, or choose another --out")
    return out


def _progress(predictions: Iterable[Any], split: str, total: int) -> Iterable[Any]:
    return track(predictions, description=f"{split:>20}", total=total)


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


def _trained_format(run: Path | None) -> str | dict[str, Any] | None:
    """The reasoning format that a run's `config.yaml` gives; None where it gives none."""
    if run is None or not (run / "config.yaml").is_file():
        return None
    config = read_yaml((run / "config.yaml").read_text(), str(run / "config.yaml"))
    training = config.get("training") if isinstance(config, dict) else None
    return training.get("reasoning_format") if isinstance(training, dict) else None
