"""Load saved weights into a model that is there already, one tensor at a time: no second copy of them in memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.models.weights import check_weight_files, refuse_nonfinite

_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@torch.no_grad()
def load_in_place(model: Any, folder: Path) -> bool:
    """Copy every tensor of the safetensors files in `folder` into `model`.

    False, without changing the model, where that is not a plain copy: tensors that `save_pretrained` splits or joins,
    names or shapes that differ, quantized weights.

    Raises WeightsError for a file that cannot be read and for values that are not finite.
    """
    check_weight_files(str(folder))
    own = model.state_dict()
    names = _names_in_files(model, own)
    if names is None:
        return False
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, framework="pt")) for file in _list_shards(folder)]
        stored = {name: file for file in opened for name in file.keys()}  # noqa: SIM118
        if not _fits_exactly(names, stored, own):
            return False
        for name, file in stored.items():
            tensor = file.get_tensor(name)
            refuse_nonfinite({name: tensor}, str(folder))
            names[name].copy_(tensor)
    return True


def _list_shards(folder: Path) -> list[Path]:
    if (folder / _FILE).is_file():
        return [folder / _FILE]
    names = read_json_file(folder / _INDEX)["weight_map"].values()
    return [folder / name for name in sorted(set(names))]


def _names_in_files(model: Any, own: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The model's tensors by the names under which `save_pretrained` writes them; None where it changes them too."""
    if getattr(model, "hf_quantizer", None) is not None or any(one.device.type == "meta" for one in own.values()):
        return None
    known = {id(tensor) for tensor in own.values()}
    found = dict(revert_weight_conversion(model, dict(own)))
    unchanged = len(found) == len(own) and all(id(tensor) in known for tensor in found.values())
    return found if unchanged else None


def _fits_exactly(names: Mapping[str, Tensor], stored: Mapping[str, Any], own: Mapping[str, Tensor]) -> bool:
    """Whether each stored tensor has its place, and each of the model's is stored; tied ones are stored once."""
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in stored.items() if name in names}
    if shapes != {name: tuple(names[name].shape) for name in shapes} or len(shapes) != len(stored):
        return False
    filled = {(names[name].data_ptr(), names[name].shape) for name in stored}
    return all((tensor.data_ptr(), tensor.shape) in filled for tensor in own.values())
