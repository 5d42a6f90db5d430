"""What an adapter's folder says of its base, and which half of the model it belongs to.

A server may leave out what an adapter adds to the vision tower.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

from safetensors import safe_open

from balanced_thinking.models.find import read_json_mapping
from balanced_thinking.system.files import expand_home, write_atomically

logger = logging.getLogger(__name__)
_PICTURE_HALF = re.compile(
    r"\.(?:visual|vision\w*|embed_vision|image_\w+|multi_modal_\w+|mm_\w+|\w*projector|connector)\."
)
_WEIGHTS = "adapter_model.safetensors"
_CONFIG, BASE_KEY = "adapter_config.json", "base_model_name_or_path"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def is_hub_name(base: str) -> bool:
    """Whether an adapter's base is on the hub: OWNER/NAME or NAME, and no folder here."""
    return _HUB_NAME.fullmatch(base) is not None and not base.startswith(".") and not expand_home(base).is_dir()


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


def picture_half_keys(folder: str) -> list[str]:
    """Names of an adapter's tensors that belong to the vision tower or its connector; [] for anything else."""
    return [key for key in _adapter_keys(folder) if _PICTURE_HALF.search(key)]


def warn_of_served_adapter(folder: str) -> None:
    """Warn where a server of the base may answer without a part of this adapter."""
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
