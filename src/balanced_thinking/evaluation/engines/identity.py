"""What distinguishes the model that answers from one that has answered before, without reading its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache

from balanced_thinking.models.find import EMBEDDED, adapter_base_name, is_path, is_run_folder
from balanced_thinking.models.revisions import split_revision
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.system.files import expand_home

# Weights and configurations, then all that a tokenizer or a chat template may be in.
_MODEL_FILES = ("*.safetensors", "*.bin", "*config.json")
_TEXT_FILES = (
    *("*.jinja", "additional_chat_templates/*.jinja", "chat_template.json", "tokenizer.*", "*.model"),
    *("vocab.*", "merges.txt", "added_tokens.json", "special_tokens_map.json", "*.tiktoken"),
)
_HUB_FILES = ("config.json", "adapter_config.json")  # a model on the hub has one of them


def model_identity(model: str) -> str:
    """Of a folder: its files by name, size and time, and those of an adapter's base. Of a hub name: the commit that is
    in the cache; "" where there is none. The path is no part of it, so that a folder may move."""
    place = expand_home(model)
    if not place.is_dir():
        commit = "" if model in EMBEDDED or is_path(model) else _cached_commit(model)
        return f"commit:{commit}" if commit else ""
    place = RunFiles(place).model if is_run_folder(place) else place
    files = sorted({file for pattern in (*_MODEL_FILES, *_TEXT_FILES) for file in place.glob(pattern)})
    stamps = " ".join(_stamp(file, place) for file in files)
    base = adapter_base_name(str(place))
    if base is None:
        return stamps
    name = "" if expand_home(base).is_dir() else f"{base} "
    return f"{stamps} base({name}{model_identity(base)})"


def _stamp(file: Path, folder: Path) -> str:
    about = file.stat()
    return f"{file.relative_to(folder).as_posix()}:{about.st_size}:{about.st_mtime_ns}"


def _cached_commit(name: str) -> str:
    """The commit of a hub name's revision, or main branch, that is in the local cache: the folder of its snapshot."""
    source = split_revision(name)
    for file in _HUB_FILES:
        if isinstance(found := try_to_load_from_cache(source.name, file, **source.options), str):
            return Path(found).parent.name
    return ""


@torch.no_grad()
def loaded_weights_identity(model: Any) -> str:
    """The same for a model in memory: sums over its tensors, which any training step changes."""
    wide = ((name, value.double()) for name, value in model.named_parameters())
    return " ".join(f"{name}:{value.sum().item()}:{value.abs().sum().item()}" for name, value in wide)
