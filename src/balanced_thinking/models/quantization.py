"""Bases in 4 or 8 bits, by bitsandbytes: how they are loaded, remembered beside an adapter, and made dense again.

Only linear layers of the language model are quantized. Torch is imported only where a model is loaded.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.models.dtypes import dtype_name

if TYPE_CHECKING:
    import torch

QUANTIZATIONS = ("nf4", "int8")
BITS = {"nf4": 4, "int8": 8}
# In an adapter's folder: how its base was quantized when it was trained, and the number type of its weights.
QUANTIZATION_FILE = "base_quantization.json"
_DTYPE = "base_dtype"


def check_quantization(name: str | None) -> None:
    """Raises RecipeError for a name that is not one of `QUANTIZATIONS`, and where bitsandbytes is not installed."""
    if name is None:
        return
    if name not in QUANTIZATIONS:
        suggestion = did_you_mean(str(name), QUANTIZATIONS)
        raise RecipeError(f"quantization is {name!r}{suggestion}; known: {', '.join(QUANTIZATIONS)}, or null for none")
    if find_spec("bitsandbytes") is None:
        raise RecipeError(
            f"quantization is {name!r}, but bitsandbytes is not installed: pip install "
            "'balanced-thinking[quantization]', or leave quantization out"
        )


def quantization_config(name: str, dtype: torch.dtype, kept: Sequence[str] = ()) -> Any:
    """transformers' configuration for one of `QUANTIZATIONS`.

    nf4 quantizes its own scales, too (double quantization), and computes in `dtype`. int8 is LLM.int8: it rounds what
    goes into a layer as well. Modules below the names `kept` stay as they are; without names, transformers decides.
    """
    from transformers import BitsAndBytesConfig

    check_quantization(name)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # int8 would warn at every layer of every forward
    common: dict[str, Any] = {"llm_int8_skip_modules": list(kept)} if kept else {}
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, **common)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        **common,
    )


def quantization_of(model: str | Path | Mapping[str, Any] | Any) -> str | None:
    """How a model, or the base of an adapter, is quantized: one of `QUANTIZATIONS`, `fp4`, or None.

    `model` is a folder (of an adapter or of a model), a configuration, or a quantization's own mapping.
    """
    if isinstance(model, str | Path):
        found = read_base_quantization(model) or _read_json(Path(model) / "config.json").get("quantization_config")
    elif isinstance(model, Mapping):
        found = model.get("quantization_config", model)
    else:
        found = getattr(getattr(model, "config", model), "quantization_config", None)
    if found is not None and not isinstance(found, Mapping):
        found = found.to_dict()
    method = (found or {}).get("quant_method", "bitsandbytes")
    if not found or getattr(method, "value", method) != "bitsandbytes":
        return None
    if found.get("load_in_8bit") or found.get("_load_in_8bit"):
        return "int8"
    is_4bit = found.get("load_in_4bit") or found.get("_load_in_4bit")
    return str(found.get("bnb_4bit_quant_type", "fp4")) if is_4bit else None


def read_base_quantization(adapter: str | Path) -> dict[str, Any] | None:
    """What `write_base_quantization` wrote into an adapter's folder; None where its base was not quantized."""
    return _read_json(Path(adapter) / QUANTIZATION_FILE) or None


def write_base_quantization(model: Any, folder: Path) -> None:
    """Beside an adapter: how its base is quantized, so that whoever loads it can load the base as it was trained."""
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    if config is None or not (folder / "adapter_config.json").is_file():
        return
    known = config if isinstance(config, Mapping) else config.to_dict()
    text = json.dumps({_DTYPE: dtype_name(model.dtype), **known}, indent=1, default=str)
    (folder / QUANTIZATION_FILE).write_text(text + "\n", encoding="utf-8")


def as_it_was_trained(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for the base of an adapter, from `read_base_quantization`."""
    import torch
    from transformers import BitsAndBytesConfig

    check_quantization(quantization_of(stored))
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # as above
    known = {key: value for key, value in stored.items() if key != _DTYPE}
    return {"quantization_config": BitsAndBytesConfig.from_dict(known), "dtype": getattr(torch, stored[_DTYPE])}


def use_one_product(model: Any) -> None:
    """Let a 4-bit layer compute the same in training and in evaluation.

    On CPUs with AVX512-BF16 bitsandbytes repacks the weights at the first evaluation and computes in bfloat16 from then
    on, and transformers makes wrong dense weights of repacked ones.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def dequantize(model: Any, dtype: torch.dtype | None = None) -> Any:
    """The model with dense weights of the values that the quantized ones stand for, all in `dtype` (None: its own)."""
    if getattr(model, "hf_quantizer", None) is None:
        return model if dtype is None else _cast_weights(model, dtype)
    dense = model.dequantize(dtype=dtype)
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit"):  # which transformers leaves
        if hasattr(dense, name):
            setattr(dense, name, False)
    return dense if dtype is None else _cast_weights(dense, dtype)


def _cast_weights(model: Any, dtype: torch.dtype) -> Any:
    """What a file holds, in `dtype`. Other buffers, such as the frequencies of rotary positions, keep their precision,
    as when a model is loaded in this dtype."""
    stored = model.state_dict().keys()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in stored and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    return model


def _read_json(file: Path) -> dict[str, Any]:
    found = read_json_file(file) if file.is_file() else {}
    return found if isinstance(found, dict) else {}
