"""Which half of a model an adapter belongs to: a server may leave out what an adapter adds to the vision tower."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from safetensors import safe_open

logger = logging.getLogger(__name__)
_PICTURE_HALF = re.compile(
    r"\.(?:visual|vision\w*|embed_vision|image_\w+|multi_modal_\w+|mm_\w+|\w*projector|connector)\."
)
_WEIGHTS = "adapter_model.safetensors"


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
