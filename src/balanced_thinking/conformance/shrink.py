"""A configuration with the architecture of another one, small enough for a CPU.

Kinds of layers, of attention, of rotary positions and of experts stay; widths, depths and counts shrink. The vocabulary
stays, because the tokenizer is the real one. Rules are by the names that configurations share; `_FAMILIES` holds what
a single family needs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

_Values = dict[str, Any]
# Lists with one entry per layer have no common name: they are those that are as long as the stack of layers.
_DEPTHS = ("num_hidden_layers", "depth")
_WIDTHS = ("hidden_size", "embed_dim", "d_model")
_HEADS = ("num_attention_heads", "num_heads")
# Numbers that no other one depends on, with the largest that a copy has.
_LIMITS = {
    **dict.fromkeys(("intermediate_size", "ffn_dim", "hidden_dim", "shared_expert_intermediate_size"), 128),
    **dict.fromkeys(("moe_intermediate_size", "expert_dim", "projection_dim"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "top_k_experts", "moe_topk"), 2),
    "hidden_size_per_layer_input": 8,
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 16),
}
# The sections of rotary positions that a family's code takes where its configuration has none.
_SECTIONS = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), (16, 24, 24)),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe"), (24, 20, 20)),
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v"), (8, 12, 12)),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), (11, 11, 10)),
}
# What makes two equal steps differ: dropout of every kind, noise of routers.
_RANDOM = ("dropout", "pdrop", "drop_path", "layerdrop", "jitter_noise")
# Tokens that a layer attends back to: fewer than the samples have, so that it matters.
_WINDOWS, _WINDOW = ("sliding_window", "attention_chunk_size"), 32
_LEAST_ROTARY = 8  # dimensions of a head that rotate: four frequencies, for up to three axes
# Indexes of layers of the same part.
_INDEXES = ("fullatt_block_indexes", "deepstack_visual_indexes", "mlp_only_layers", "cross_attention_layers")


class ShrinkError(ValueError):
    """No small copy of this architecture could be made."""


@dataclass(frozen=True)
class SmallSizes:
    """The sizes of a copy. With `keep_widths` only layers are left out."""

    width: int = 32
    heads: int = 2
    head_dim: int = 16
    layers: int = 2
    keep_widths: bool = False


def shrink_config(config: PreTrainedConfig, sizes: SmallSizes) -> PreTrainedConfig:
    """The configuration of a small copy; `config` stays as it is.

    Raises ShrinkError for a configuration without a stack of layers.
    """
    values = copy.deepcopy(config.to_dict())
    parts = {name: part for name, part in values.items() if name.endswith("_config") and isinstance(part, dict)}
    text = parts.get("text_config", values)
    if not any(name in text for name in _DEPTHS):
        raise ShrinkError(f"the configuration {type(config).__name__} does not say how many layers it has")
    if config.model_type in _SECTIONS and isinstance(text.get("rope_parameters"), dict):
        text["rope_parameters"].setdefault("mrope_section", list(_SECTIONS[config.model_type]))
    for part in {id(part): part for part in (text, *parts.values())}.values():
        if any(name in part for name in _DEPTHS):
            _shrink_part(part, sizes)
    if config.model_type == "qwen2_vl" and not sizes.keep_widths:
        # Its vision part calls its own width `embed_dim`, and that of the language model `hidden_size`.
        values["vision_config"]["hidden_size"] = text["hidden_size"]
    _join_parts(values, text, sizes)
    values["initializer_range"] = _INITIALIZER_RANGE
    for name in ("transformers_version", "quantization_config"):  # random weights need none
        values.pop(name, None)
    return type(config).from_dict(values)


# Larger than usual: attention that is nearly uniform would hide a wrong mask or position.
_INITIALIZER_RANGE = 0.08


def _shrink_part(part: _Values, sizes: SmallSizes) -> None:
    _keep_few_layers(part, sizes.layers)
    for name, value in part.items():
        if isinstance(value, float) and any(word in name for word in _RANDOM):
            part[name] = 0.0
        elif isinstance(value, int) and name in _WINDOWS:
            part[name] = min(value, _WINDOW)
    if sizes.keep_widths:
        return
    _shrink_attention(part, sizes)
    for name, limit in _LIMITS.items():
        if isinstance(part.get(name), int) and part[name]:
            part[name] = min(part[name], limit)
    if "initializer_range" in part:
        part["initializer_range"] = _INITIALIZER_RANGE


def _keep_few_layers(part: _Values, least: int) -> None:
    """Keep the first layer of each kind, and at least `least` layers."""
    depth_name = next(name for name in _DEPTHS if name in part)
    depth = part[depth_name]
    by_layer = [name for name, value in part.items() if isinstance(value, list) and len(value) == depth > 1]
    special = part.get("per_layer_config") or {}
    own = [_of_layer(special, layer) for layer in range(depth)]
    kinds = [repr([own[layer], *(part[name][layer] for name in by_layer)]) for layer in range(depth)]
    kept = {kinds.index(kind) for kind in kinds}
    kept |= set(range(min(depth, least))) if len(kept) < least else set()
    layers = sorted(kept)
    for name in by_layer:
        part[name] = [part[name][layer] for layer in layers]
    if special:
        found = enumerate(own[layer] for layer in layers)
        part["per_layer_config"] = {str(new): value for new, value in found if value is not None}
    for name in _INDEXES:
        if isinstance(part.get(name), list) and name not in by_layer:
            part[name] = list(range(len(layers)))[-len(part[name]) :] if part[name] else []
    for name in ("num_kv_shared_layers", "max_window_layers"):
        if isinstance(part.get(name), int):
            part[name] = min(part[name], len(layers))
    part[depth_name] = len(layers)


def _of_layer(special: _Values, layer: int) -> Any:
    """What a mapping says of a layer, however it writes its number; None if nothing."""
    return next((special[key] for key in (layer, str(layer), f"{layer:02}") if key in special), None)


def _shrink_attention(part: _Values, sizes: SmallSizes) -> None:
    old_heads = next((part[name] for name in _HEADS if part.get(name)), 1)
    old_width = next((part[name] for name in _WIDTHS if part.get(name)), old_heads)
    old_head = part.get("head_dim") or old_width // old_heads
    heads = min(sizes.heads, old_heads)
    for name in _HEADS:
        if name in part:
            part[name] = heads
    if groups := part.get("num_key_value_heads"):
        part["num_key_value_heads"] = heads if groups == old_heads else 1 if groups == 1 else max(1, heads // 2)
    for name in _WIDTHS:
        if name in part:
            part[name] = sizes.width
    rotary_share = (part.get("rope_parameters") or {}).get("partial_rotary_factor") or 1.0
    head_dim = max(sizes.head_dim, round(_LEAST_ROTARY / rotary_share)) if part.get("head_dim") else sizes.head_dim
    for name in ("head_dim", "query_pre_attn_scalar"):
        if part.get(name):
            part[name] = head_dim
    if part.get("linear_num_key_heads"):
        part["linear_num_key_heads"], part["linear_num_value_heads"] = 2, 4
    for special in (part.get("per_layer_config") or {}).values():
        if special.get("head_dim"):
            special["head_dim"] = special["head_dim"] * head_dim // old_head
    _shrink_rotary(part, old_head, head_dim)


def _shrink_rotary(values: _Values, old_head: int, new_head: int) -> None:
    """Sections of the rotary positions, and factors per frequency, for the new width of a head."""
    share = values.get("partial_rotary_factor") or 1.0
    for name, value in values.items():
        if isinstance(value, dict) and ("rope" in name or "attention" in name):
            value.setdefault("partial_rotary_factor", share)
            _shrink_rotary(value, old_head, new_head)
        elif name == "mrope_section" and value:
            values[name] = split_sections(value, int(new_head * share) // 2)
        elif name in ("long_factor", "short_factor") and value:
            values[name] = value[: len(value) * new_head // old_head]


def split_sections(sections: list[int], total: int) -> list[int]:
    """`total` split as `sections` are: each at least 1, the first one takes what rounding leaves."""
    rest = [max(1, part * total // sum(sections)) for part in sections[1:]]
    return [total - sum(rest), *rest]


def _join_parts(values: _Values, text: _Values, sizes: SmallSizes) -> None:
    """What one part of a model says of another one."""
    vision = values.get("vision_config")
    if not isinstance(vision, dict):
        return
    if not sizes.keep_widths:
        for name in ("out_hidden_size", "text_hidden_size"):
            if name in vision:
                vision[name] = text["hidden_size"]
    depth = next((vision[name] for name in _DEPTHS if name in vision), 1)
    for owner in (values, vision):
        chosen = owner.get("vision_feature_layer")
        if isinstance(chosen, list):
            owner["vision_feature_layer"] = [max(layer, -depth) if layer < 0 else min(layer, depth) for layer in chosen]
        elif isinstance(chosen, int):
            owner["vision_feature_layer"] = max(chosen, -depth) if chosen < 0 else min(chosen, depth)
