"""LoRA by a recipe: which layers get an adapter, by part of the model or by PEFT's own names."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.models.find import read_json_mapping
from balanced_thinking.models.part_names import ALL_LINEAR, LORA_TARGETS, PARTS
from balanced_thinking.models.parts import ModelParts

logger = logging.getLogger(__name__)


def make_lora_config(model: Any, lora: Mapping[str, Any], checkpoint: str | None = None) -> LoraConfig:
    """PEFT's configuration of a recipe's `lora` for this model.

    Where the recipe names neither layers nor parts, a `checkpoint` to continue from says which layers it has: earlier
    versions took PEFT's own choice then. Raises RecipeError if no layer of the model would get an adapter, or if it
    lacks a part that is named.
    """
    _check_target_modules(model, lora)
    _check_saved_modules(model, lora)
    arguments = {name: value for name, value in lora.items() if name != "targets"}
    if names_layers(lora):
        return LoraConfig(task_type="CAUSAL_LM", **arguments)
    if checkpoint is not None and not lora.get("targets") and (kept := _layers_of_checkpoint(checkpoint)):
        return LoraConfig(task_type="CAUSAL_LM", **{**arguments, **kept})
    found = _layers_of_parts(model, lora.get("targets") or "language")
    patterns = [_as_pattern(one) for one in (lora.get("exclude_modules"), found.get("exclude_modules")) if one]
    if patterns:
        arguments["exclude_modules"] = "|".join(patterns)
    return LoraConfig(task_type="CAUSAL_LM", **arguments, target_modules=found["target_modules"])


def names_layers(lora: Mapping[str, Any]) -> bool:
    """Whether the recipe names layers or parameters itself, in PEFT's way; else `targets` chooses them by part."""
    return bool(lora.get("target_modules") or (lora.get("target_parameters") and not lora.get("targets")))


def describe_lora(lora: Mapping[str, Any], config: LoraConfig) -> str:
    """One line: rank, and where the adapter is."""
    layers = config.target_modules or config.target_parameters
    shown = layers if isinstance(layers, str) else ", ".join(sorted(layers or ()))
    part = "" if names_layers(lora) else f"{lora.get('targets') or 'language'}: "
    return f"rank {config.r}, alpha {config.lora_alpha:g}, on {part}{shown}"


def _layers_of_checkpoint(checkpoint: str) -> dict[str, Any]:
    file = Path(checkpoint) / "adapter_config.json"
    stored = read_json_mapping(file) if file.is_file() else {}
    names = ("target_modules", "exclude_modules")
    return {name: stored[name] for name in names if stored.get(name)} if stored.get("target_modules") else {}


def _layers_of_parts(model: Any, targets: str) -> dict[str, Any]:
    parts = ModelParts(model)
    counts = parts.count_parameters()
    named = () if targets == "all" else LORA_TARGETS[targets]
    if missing := [part for part in named if part not in counts]:
        raise RecipeError(
            f"lora.targets is {targets!r}, but the model has no {missing[0]} part; expected language or all, because "
            f"it has: {', '.join(counts)}"
        )
    return parts.lora_layers(targets)


def _as_pattern(excluded: str | list[str]) -> str:
    """An expression for complete names, with the meaning that PEFT gives to `exclude_modules`."""
    if isinstance(excluded, str):
        return excluded
    return rf"(.*\.)?({'|'.join(map(re.escape, excluded))})"


def _check_target_modules(model: Any, lora: Mapping[str, Any]) -> None:
    """Raises RecipeError if `target_modules` matches no layer of the model; warns of names that match none."""
    targets = lora.get("target_modules")
    if targets == ALL_LINEAR:
        _warn_of_picture_half(model)
    if targets is None or targets == ALL_LINEAR:
        return
    names = [name for name, _ in model.named_modules()]
    if isinstance(targets, str):
        missing = [] if any(re.fullmatch(targets, name) for name in names) else [targets]
    else:
        missing = [one for one in targets if not any(name == one or name.endswith(f".{one}") for name in names)]
    if not missing:
        return
    layers = _layer_names(model)
    found = f"lora.target_modules has {missing[0]!r}{did_you_mean(missing[0], layers)}, but no layer has this name"
    if isinstance(targets, str) or len(missing) == len(targets):
        raise RecipeError(f"{found}; known: {ALL_LINEAR}, {', '.join(layers)}; or set lora.targets: language instead")
    logger.warning("%s; it is ignored", found)


def _check_saved_modules(model: Any, lora: Mapping[str, Any]) -> None:
    """Raises RecipeError for a name in `modules_to_save` that no module has: PEFT would train nothing there."""
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    wanted = lora.get("modules_to_save") or []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if not any(one.endswith(name) for one in names):  # as PEFT compares them
            known = sorted({last for one in names if not (last := one.rpartition(".")[2]).isdecimal()})
            raise RecipeError(
                f"lora.modules_to_save has {name!r}{did_you_mean(name, known)}, but no module has this name, "
                f"so nothing would be trained; known: {', '.join(known)}"
            )


def _warn_of_picture_half(model: Any) -> None:
    counts = ModelParts(model).count_parameters()
    if len(counts) > 1:
        logger.warning(
            "lora.target_modules all-linear trains %s, too; a vLLM server leaves these parts of an adapter out. For "
            "one that is served completely set lora.targets: language instead; to merge it, this is fine",
            " and ".join(part for part in counts if part != "language"),
        )


def _layer_names(model: Any) -> list[str]:
    """Last parts of the names of all linear layers except the head."""
    layers = ModelParts(model).linear_layers(PARTS)
    return sorted({last for name in layers if not (last := name.rpartition(".")[2]).isdecimal()})
