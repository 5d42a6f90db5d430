"""The parts of a model by their common names: language model, vision tower, projector.

What is frozen, what gets an adapter and what is quantized are said by part, and mean the same in all three places.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch

from balanced_thinking.models.part_names import ALL_LINEAR, LORA_TARGETS, PARTS

# What joins tower and language model is called the projector, also where a family keeps it inside the tower: the
# mergers of Qwen-VL and GLM-4V.
_MERGER = re.compile(r"(?:^|\.)(?:deepstack_)?merger(?:_list)?(?:\.|$)")


class ModelParts:
    """Which part each module and parameter of a transformers model belongs to. A text model has one: language."""

    def __init__(self, model: Any) -> None:
        self._model = model
        names = {id(module): name for name, module in model.named_modules()}

        def name_of(module: Any) -> str | None:
            return names.get(id(module)) or None  # the model itself stands for "there is none"

        self._language = [
            name for one in (model.get_decoder(), model.get_output_embeddings()) if (name := name_of(one))
        ]
        self._vision = name_of(model.get_encoder(modality="image"))
        self._is_text_only = not any(name_of(model.get_encoder(modality=one)) for one in ("image", "audio"))

    def find_part(self, name: str) -> str:
        """The part of a module's or parameter's complete name, such as `model.visual.blocks.0.attn.qkv`."""
        if self._is_text_only or any(_is_inside(name, one) for one in self._language):
            return "language"
        if "audio" in name:
            return "audio"
        if self._vision is not None and _is_inside(name, self._vision):
            return "projector" if _MERGER.search(name.removeprefix(self._vision)) else "vision"
        return "projector"

    def count_parameters(self) -> dict[str, int]:
        """Parameters of each part that the model has, in the order of `PARTS`."""
        counts = dict.fromkeys(PARTS, 0)
        for name, parameter in self._model.named_parameters():
            counts[self.find_part(name)] += count_numbers(parameter)
        return {part: count for part, count in counts.items() if count}

    def linear_layers(self, parts: Collection[str]) -> list[str]:
        """Complete names of the linear layers of these parts, without the head that predicts tokens."""
        return [name for name in _linear_layers(self._model) if self.find_part(name) in parts]

    def unquantized_modules(self) -> list[str]:
        """The modules, by name, that stay as they are in a quantized model: all but the language model's layers."""
        language = {prefix for name in self.linear_layers(["language"]) for prefix in _prefixes(name)}
        others = set(_linear_layers(self._model)) - {*self.linear_layers(["language"])}
        kept = {next(one for one in _prefixes(name) if one not in language) for name in others}
        head = self._model.get_output_embeddings()
        return sorted({*kept, *(name for name, module in self._model.named_modules() if module is head)})

    def lora_layers(self, targets: str) -> dict[str, Any]:
        """Arguments of PEFT's LoraConfig for one of `LORA_TARGETS`.

        Layers are listed by the last part of their names, which is what servers read. Where other modules have such
        names, too, `exclude_modules` is an expression for them.
        """
        if targets == "all":
            return {"target_modules": ALL_LINEAR}
        chosen = self.linear_layers(LORA_TARGETS[targets])
        lasts = sorted({_last_name(name) for name in chosen})
        above = {prefix for name in chosen for prefix in _prefixes(name)}
        others = [
            name
            for name, _ in self._model.named_modules()
            if name not in above and any(f".{name}".endswith(f".{last}") for last in lasts)
        ]
        containers = [name for name in above - {*chosen} if any(f".{name}".endswith(f".{last}") for last in lasts)]
        excluded = {re.escape(next(one for one in _prefixes(name) if one not in above)) + r"(\..*)?" for name in others}
        excluded |= {_with_any_number(name, chosen) for name in containers}
        return {"target_modules": lasts} | ({"exclude_modules": "|".join(sorted(excluded))} if excluded else {})


def count_numbers(parameter: Any) -> int:
    """A parameter's numbers, also where ZeRO-3 has sharded it, or several are packed into a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(getattr(parameter, "ds_numel", parameter.numel() if state is None else state.shape.numel()))


def short_count(number: int) -> str:
    """950, 12.3 thousand, 3.09 billion."""
    for size, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return str(number)


def _linear_layers(model: Any) -> list[str]:
    head = model.get_output_embeddings()
    layers = ((name, one) for name, one in model.named_modules() if isinstance(one, torch.nn.Linear))
    return [name for name, module in layers if module is not head]


def _is_inside(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _last_name(name: str) -> str:
    """`q_proj` of `layers.0.self_attn.q_proj`; of a layer in a list, such as `mlp.0`, the last two parts."""
    *_, before, last = ["", *name.split(".")]
    return f"{before}.{last}" if last.isdecimal() and before else last


def _with_any_number(name: str, chosen: Collection[str]) -> str:
    """An expression for a name in every layer; for this name alone, where it would match one of `chosen`."""
    pattern = re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", exact := re.escape(name))
    return exact if any(re.fullmatch(pattern, one) for one in chosen) else pattern


def _prefixes(name: str) -> list[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def without_adapter(model: Any) -> Any:
    """The model inside PEFT's wrapper, or the model itself where there is none. An adapter's layers stay in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
