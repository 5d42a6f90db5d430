"""What an adapter's folder says of its base, and which half of the model it belongs to.

A server may leave out what an adapter adds to the vision tower.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.yaml import read_yaml_file
from balanced_thinking.models.base_places import model_of, recipe_of
from balanced_thinking.models.base_record import ABOUT_BASE, describe_base
from balanced_thinking.models.find import EMBEDDED, adapter_base_name, find_model_source, read_json_mapping
from balanced_thinking.models.revisions import split_revision
from balanced_thinking.system.files import expand_home, write_atomically

logger = logging.getLogger(__name__)
_PICTURE_HALF = re.compile(
    r"\.(?:visual|vision\w*|embed_vision|image_\w+|multi_modal_\w+|mm_\w+|\w*projector|connector)\."
)
_WEIGHTS = "adapter_model.safetensors"
_CONFIG, BASE_KEY = "adapter_config.json", "base_model_name_or_path"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
# PEFT's settings that vLLM refuses, and those that it does not read: its adapters have one scale for all layers.
_REFUSED = ("use_dora", "modules_to_save", "bias", "lora_bias", "trainable_token_indices")
_NOT_READ = ("rank_pattern", "alpha_pattern")
_UNSET: tuple[Any, ...] = (None, False, "none", [], {})
SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank can be


def is_hub_name(base: str) -> bool:
    """Whether an adapter's base is on the hub: OWNER/NAME or NAME, with a revision or without, and no folder here."""
    name = split_revision(base).name
    return _HUB_NAME.fullmatch(name) is not None and not base.startswith(".") and not expand_home(base).is_dir()


def name_base_absolutely(folder: Path) -> None:
    """Let the adapter that was just saved in `folder` name a local base so that it is found from any folder.

    PEFT resolves a relative path from the working directory only, so a local base gets its absolute path; a hub name
    stays. Nothing happens in a folder without an adapter.
    """
    file = folder / _CONFIG
    values = read_json_mapping(file) if file.is_file() else {}
    base = values.get(BASE_KEY)
    if isinstance(base, str) and base and not Path(base).is_absolute() and expand_home(base).is_dir():
        values[BASE_KEY] = os.path.abspath(expand_home(base))
        write_atomically(file, json.dumps(values, indent=2, sort_keys=True) + "\n")


def record_base(folder: Path, base: str | None = None) -> dict[str, Any]:
    """What a manifest says of the base of the adapter in `folder`, for its `about`; {} where that is in no folder.

    `base` is where it was found; None: as the adapter names it.
    """
    file = folder / _CONFIG
    if base is None and file.is_file():
        base = read_json_mapping(file).get(BASE_KEY)
    place = model_of(expand_home(base)) if isinstance(base, str) and base else None
    described = describe_base(place) if place is not None and place.is_dir() else {}
    return {ABOUT_BASE: described} if described else {}


def picture_half_keys(folder: str) -> list[str]:
    """Names of an adapter's tensors that belong to the vision tower or its connector; [] for anything else."""
    return [key for key in _adapter_keys(folder) if _PICTURE_HALF.search(key)]


def unserved_settings(folder: str) -> list[str]:
    """Settings with which vLLM does not serve an adapter as it was trained, each with what happens; [] for others."""
    file = Path(folder) / _CONFIG
    values = read_json_mapping(file) if file.is_file() else {}
    found = [f"{name} (vLLM refuses it)" for name in _REFUSED if values.get(name) not in _UNSET]
    found += [f"{name} (vLLM ignores it, so that another model answers)" for name in _NOT_READ if values.get(name)]
    rank = values.get("r")
    if isinstance(rank, int) and rank > SERVED_RANKS[-1]:
        found.append(f"r {rank} (vLLM refuses more than {SERVED_RANKS[-1]})")
    return found


def served_rank(folder: str) -> int:
    """The least that vLLM's --max-lora-rank can be for an adapter."""
    rank = read_json_mapping(Path(folder) / _CONFIG).get("r")
    return next((one for one in SERVED_RANKS if isinstance(rank, int) and one >= rank), SERVED_RANKS[-1])


def refuse_served_base(folder: str, served_model: str) -> None:
    """Raises RecipeError where a server's model `served_model` is the base of the adapter in `folder`, or what the run
    of the model in `folder` started from: it would answer in its place."""
    served, base = _comparable(served_model), adapter_base_name(folder)
    if base is None:
        if served != _comparable(folder) and served in [_comparable(name) for name in _starts_of(Path(folder))]:
            raise RecipeError(
                f"the server's model {served_model} is the base of {folder}, which would not answer: start the server "
                f"with {folder}, or give the name of that model there as --served-model"
            )
        return
    names = (base, str(read_json_mapping(Path(folder) / _CONFIG)[BASE_KEY]))  # as it is found, and as it is written
    if served in [_comparable(name) for name in names]:
        raise RecipeError(
            f"the server's model {served_model} is the base of the adapter {folder}, which would not answer: start the "
            f"server with --enable-lora --max-lora-rank {served_rank(folder)} --lora-modules mine={folder}, and give "
            "--served-model mine"
        )


def _comparable(name: str) -> Path:
    """Equal for all names of a folder or of a built-in model. A hub name, without revision, counts as a path."""
    if name in EMBEDDED:
        return Path(find_model_source(name)).resolve()
    return model_of(expand_home(split_revision(name).name)).resolve()


def _starts_of(folder: Path) -> list[str]:
    """The models that the run of a model or a checkpoint in `folder` started from, itself and through other runs."""
    found: list[str] = []
    while (file := recipe_of(folder)) is not None:
        config = read_yaml_file(file)
        start = config.get("model") if isinstance(config, dict) else None
        if not isinstance(start, str) or start in found:
            break
        found.append(start)
        folder = model_of(expand_home(start))
    return found


def warn_of_served_adapter(folder: str) -> None:
    """Warn where a server of the base may answer without a part of this adapter, or not at all."""
    if settings := unserved_settings(folder):
        logger.warning(
            "%s cannot be served beside its base as it was trained: its adapter has %s. Merge it with `balanced "
            "export`, and serve the exported folder",
            folder,
            ", ".join(settings),
        )
    if found := picture_half_keys(folder):
        logger.warning(
            "%s: %d of %d tensors of this adapter are of the vision tower or its connector. vLLM leaves them out, so "
            "that another model answers, unless it was started with --enable-tower-connector-lora. To train an adapter "
            "of the language model alone, set --lora.targets language",
            folder,
            len(found),
            len(_adapter_keys(folder)),
        )


def _adapter_keys(folder: str) -> list[str]:
    file = Path(folder) / _WEIGHTS
    if not file.is_file():
        return []
    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())
