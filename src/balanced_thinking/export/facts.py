"""What a model card says of a run, from the run's own files: whatever is not recorded there is not said."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from balanced_thinking.config.errors import BalancedThinkingError, RecipeError
from balanced_thinking.config.yaml import read_yaml_file
from balanced_thinking.data.mixture import list_parts
from balanced_thinking.evaluation.model import EvaluatedModel, locate_model
from balanced_thinking.models.adapters import is_hub_name
from balanced_thinking.models.find import TINY_PREFIX, adapter_base_name, is_path, is_run_folder
from balanced_thinking.models.revisions import pin_revision, split_revision
from balanced_thinking.runs.chain import follow_parents
from balanced_thinking.runs.evaluations import Evaluation
from balanced_thinking.runs.load import Run, load_run
from balanced_thinking.runs.paths import MODEL
from balanced_thinking.statistics.intervals import wilson_interval
from balanced_thinking.system.crash import SECRET_NAME
from balanced_thinking.system.files import expand_home

logger = logging.getLogger(__name__)
# Data that are part of this package, and their licence.
_OWN_DATA = {"world": "Apache-2.0", "world-text": "Apache-2.0"}
TO_FILL_IN = "to be filled in"
_OF_A_PLACE = ("run_name", "output_dir", "logging_dir")
_LONGEST_VALUE = 200  # characters of a setting on the card


class DataRow(NamedTuple):
    """A data set of the training, as the card names it."""

    name: str
    split: str
    licence: str
    hub: str | None


class Result(NamedTuple):
    """One evaluation: shares from 0 to 1, the interval of the accuracy at 95 % (Wilson).

    `is_held_out`: no item is known to be a row of the training.
    """

    data: str
    split: str
    n: int
    accuracy: float
    low: float
    high: float
    malformed: float
    truncated: float
    protocol: str
    is_held_out: bool


@dataclass(frozen=True)
class Facts:
    """Attributes:
    arms: of the run and its ancestors, the first ancestor first. base: the model that training began with, as text;
    base_hub its hub name, None where it has none. weights: how the segments were weighted, a sentence, or empty.
    """

    arms: tuple[str, ...]
    stages: tuple[str, ...]
    base: str
    base_hub: str | None
    data: tuple[DataRow, ...]
    examples: int | None
    dropped: int | None
    weights: str
    follows_scale: bool
    settings: tuple[tuple[str, str], ...]
    outcome: tuple[tuple[str, str], ...]
    results: tuple[Result, ...]
    versions: tuple[tuple[str, str], ...]
    format: Any


def read_config(file: Path | None) -> dict[str, Any]:
    """A run's recipe as it is stored; empty where there is none."""
    found = read_yaml_file(file) if file is not None and file.is_file() else None
    return found if isinstance(found, dict) else {}


def collect_facts(located: EvaluatedModel) -> Facts:
    """Of a run, a checkpoint in one, or a folder of which nothing but its base may be known."""
    config = read_config(located.config)
    run = load_run(located.config.parent) if located.config is not None and config else None
    chain = follow_parents((located.config, config), _parent_of) if config else []
    configs = [one for _, one in chain]
    base = _first_base(configs, located.folder)
    provenance = run.provenance if run else None
    return Facts(
        arms=tuple(_name_arm(one) for one in configs),
        stages=tuple(str(one.get("stage") or "sft") for one in configs),
        base=shorten_place(base),
        base_hub=split_revision(base).name if _is_on_hub(base) else None,
        data=tuple(_describe_parts(config)),
        examples=provenance.examples if provenance else None,
        dropped=provenance.dropped if provenance else None,
        weights=_describe_weights(config, run) if run else "",
        follows_scale=any(one.get("stage", "sft") == "sft" and _weighting_of(one) == "scale" for one in configs),
        settings=tuple(_flatten(config)),
        outcome=tuple(_describe_outcome(run)) if run else (),
        results=tuple(_describe_results(run)) if run and located.run is not None else (),
        versions=tuple((name, str(value)) for name, value in (provenance.versions if provenance else {}).items()),
        format=located.format or "think-answer",
    )


Chained = tuple[Path | None, dict[str, Any]]


def _parent_of(one: Chained) -> Chained | None:
    """The run that another one's recipe starts from, where it is still there."""
    name = one[1].get("model")
    file = locate_model(name).config if isinstance(name, str) and name else None
    config = read_config(file)
    return (file, config) if config else None


def _first_base(configs: Sequence[Mapping[str, Any]], folder: str) -> str:
    """What the first training began with: by the recipes, else by the adapter in `folder`."""
    if configs:
        options = configs[0].get("model_options")
        return _pinned(str(configs[0].get("model") or ""), options if isinstance(options, Mapping) else {})
    try:
        return adapter_base_name(folder) or ""
    except BalancedThinkingError:
        return ""


def _pinned(model: str, options: Mapping[str, Any]) -> str:
    try:
        return pin_revision(model, options.get("revision"))
    except RecipeError:  # a recipe that somebody changed
        return model


def _is_on_hub(base: str) -> bool:
    return is_hub_name(base) and not is_path(base) and not base.startswith(TINY_PREFIX)


def shorten_place(name: str) -> str:
    """A name as others may read it: of a path its last part, or the two last of a run's model."""
    if _is_on_hub(name) or "/" not in name or not name:
        return name
    parts = [part for part in Path(name).parts if part not in ("/", ".", "..", "~")]
    return "/".join(parts[-2:]) if parts[-1:] == [MODEL] or is_run_folder(Path(name)) else parts[-1]


def _name_arm(config: Mapping[str, Any]) -> str:
    if config.get("arm") or config.get("stage") == "grpo":
        return str(config.get("arm") or "grpo")
    weighting = _weighting_of(config)
    return {"scale": "scale-sft", "uniform": "sft"}.get(weighting, weighting)


def _weighting_of(config: Mapping[str, Any]) -> str:
    """That of an SFT run, and of an older one, which names none and was trained with `scale`."""
    return str((config.get("training") or {}).get("weighting") or "scale")


def _describe_parts(config: Mapping[str, Any]) -> Iterator[DataRow]:
    try:
        parts = list_parts(config.get("data") or "", config.get("split") or "train")
    except ValueError:  # a recipe that somebody changed
        return
    for part in parts:
        name, _, path = part.data.partition(":")
        hub = next((one for one in (path, part.data) if "/" in one and is_hub_name(one)), None)
        if hub is not None and (expand_home(hub).exists() or Path(hub).suffix):  # a file may be elsewhere by now
            hub = None
        shown = hub or (f"{name}:{shorten_place(path)}" if path else shorten_place(part.data))
        weight = "" if part.weight is None else f" (weight {part.weight:g})"
        yield DataRow(f"{shown}{weight}", part.split, _OWN_DATA.get(part.data, TO_FILL_IN), hub)


def _describe_weights(config: Mapping[str, Any], run: Run) -> str:
    """The weights of the two segments as the run logged them."""
    logged = [row for row in run.metrics if {"w_think", "w_answer"} <= row.values.keys()]
    if not logged:
        return ""
    training = config.get("training") or {}
    first, last = logged[0], logged[-1]
    how = ""
    if config.get("stage", "sft") == "sft" and _weighting_of(config) == "scale":
        how = f" The schedule is {training.get('schedule') or 'cosine'}."
    return (
        f"At step {first.step:,} thinking had the weight {first.values['w_think']:.3f} in the loss and the answer "
        f"{first.values['w_answer']:.3f}; at step {last.step:,}, {last.values['w_think']:.3f} and "
        f"{last.values['w_answer']:.3f}.{how}"
    )


def _flatten(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings that the recipe names. Places of files are left out: they say nothing elsewhere."""
    for key in ("lora", "quantization", "freeze", "model_options", "image_options", "limit", "on_bad_row", "training"):
        value = config.get(key)
        inner = value.items() if isinstance(value, Mapping) else [("", value)] if value is not None else ()
        for name, one in inner:
            full = name if key == "training" else f"{key}.{name}".rstrip(".")
            if one is not None and not _is_private(name) and not _is_place(one):
                yield full, str(_without_private(one))[:_LONGEST_VALUE]


def _is_private(name: str) -> bool:
    """Whether a setting may hold a secret, such as `hub_token`, or is about the place where a run was."""
    return SECRET_NAME.search(name) is not None or name.startswith(("hub_", "push_to_hub")) or name in _OF_A_PLACE


def _without_private(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _without_private(one) for name, one in value.items() if not _is_private(str(name))}
    return value


def _is_place(value: object) -> bool:
    return isinstance(value, str) and re.match(r"[/~.]|\w:\\", value) is not None


def _describe_outcome(run: Run) -> Iterator[tuple[str, str]]:
    about = run.provenance
    if about is None:
        return
    values = {
        "optimizer steps": about.steps,
        "tokens seen, prompts included": about.tokens,
        "training time (seconds)": about.train_seconds,
        "seed": about.seed,
        "device": about.device,
        "number type of the weights in training": about.dtype,
    }
    for name, value in values.items():
        if value is not None:
            yield name, f"{value:,}" if isinstance(value, int) and name != "seed" else str(value)


def _describe_results(run: Run) -> Iterator[Result]:
    for one in run.evaluations.values():
        if one.is_outdated:
            logger.warning("%s is left out of the card: the model was trained further since; evaluate again", one.split)
        elif one.total.n:
            yield _describe_result(one)


def _describe_result(one: Evaluation) -> Result:
    n, correct = one.total.n, one.total.correct
    interval = wilson_interval(correct, n)
    summary = one.summary
    data = shorten_place(summary.data) if summary and summary.data else one.split
    split = summary.split if summary and summary.split else ""
    return Result(
        data,
        split,
        n,
        correct / n,
        interval.low,
        interval.high,
        one.malformed / n,
        one.truncated / n,
        ", ".join(one.protocol.values()) + one.training_rows,
        is_held_out=not one.training_rows,
    )
