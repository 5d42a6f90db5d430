"""Published configurations of models that recipes name, so that they can be estimated without a network.

Only sizes are here: those of their config.json, in the keys of transformers' configuration classes, which fill in the
rest. `parameters` is the number that the hub gives for their weights (the model's page, "Model size", from the index of
the safetensors files), and a test builds each model and compares. Two are not verified: their pages could not be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class KnownModel(NamedTuple):
    """`config` are the arguments of the configuration class of `model_type`; `parameters` the published number.

    `verified`: whether that number was compared with the published one, else it is that of the parts it is made of.
    """

    model_type: str
    config: Mapping[str, Any]
    parameters: int
    verified: bool = True

    @property
    def source(self) -> str:
        return "the table of published configurations" + ("" if self.verified else ", not verified for this model")


_QWEN2_5_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN_MROPE = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]}
_QWEN_TOKENS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
_QWEN3_TEXT = {
    "vocab_size": 151936,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000000.0, "mrope_section": [24, 20, 20]},
}
_QWEN3_VISION: dict[str, Any] = {"num_heads": 16, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}
_QWEN3_VISION |= {"num_position_embeddings": 2304, "in_channels": 3, "hidden_act": "gelu_pytorch_tanh"}


def _qwen2_5_vl(tied: bool, out_hidden: int, text: dict[str, Any]) -> dict[str, Any]:
    common = {"max_position_embeddings": 128000, "rope_parameters": _QWEN_MROPE, "tie_word_embeddings": tied}
    return {
        "text_config": {**common, **text},
        "vision_config": {**_QWEN2_5_VISION, "out_hidden_size": out_hidden},
        "tie_word_embeddings": tied,
        **_QWEN_TOKENS,
    }


KNOWN_MODELS: dict[str, KnownModel] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": KnownModel(
        "qwen2_5_vl",
        _qwen2_5_vl(
            True,
            2048,
            {
                "vocab_size": 151936,
                "hidden_size": 2048,
                "intermediate_size": 11008,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
            },
        ),
        3_754_622_976,
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": KnownModel(
        "qwen2_5_vl",
        _qwen2_5_vl(
            False,
            3584,
            {
                "vocab_size": 152064,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
            },
        ),
        8_292_166_656,
    ),
    "Qwen/Qwen3-VL-4B-Instruct": KnownModel(
        "qwen3_vl",
        {
            "text_config": {**_QWEN3_TEXT, "hidden_size": 2560, "intermediate_size": 9728},
            "vision_config": {
                **_QWEN3_VISION,
                "depth": 24,
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "out_hidden_size": 2560,
                "deepstack_visual_indexes": [5, 11, 17],
            },
            "tie_word_embeddings": True,
            **_QWEN_TOKENS,
        },
        4_437_815_808,
    ),
    "Qwen/Qwen3-VL-8B-Instruct": KnownModel(
        "qwen3_vl",
        {
            "text_config": {**_QWEN3_TEXT, "hidden_size": 4096, "intermediate_size": 12288},
            "vision_config": {
                **_QWEN3_VISION,
                "depth": 27,
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "out_hidden_size": 4096,
                "deepstack_visual_indexes": [8, 16, 24],
            },
            "tie_word_embeddings": False,
            **_QWEN_TOKENS,
        },
        8_767_123_696,
    ),
    "llava-hf/llava-v1.6-mistral-7b-hf": KnownModel(
        "llava_next",
        {
            "text_config": {
                "model_type": "mistral",
                "vocab_size": 32064,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "max_position_embeddings": 32768,
                "sliding_window": None,
            },
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "patch_size": 14,
                "image_size": 336,
                "projection_dim": 768,
                "vocab_size": 32000,
            },
            "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
            "image_token_index": 32000,
            "tie_word_embeddings": False,
        },
        7_566_747_648,  # Mistral 7B, 64 tokens more, CLIP's tower of 304 million and the projector
        verified=False,
    ),
    "google/gemma-3-4b-it": KnownModel(
        "gemma3",
        {
            "text_config": {
                "vocab_size": 262208,
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "query_pre_attn_scalar": 256,
                "sliding_window": 1024,
            },
            "vision_config": {
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "patch_size": 14,
                "image_size": 896,
                "vision_use_head": False,
            },
            "mm_tokens_per_image": 256,
            "boi_token_index": 255999,
            "eoi_token_index": 256000,
            "image_token_index": 262144,
        },
        4_300_079_472,
    ),
    "OpenGVLab/InternVL3-2B-hf": KnownModel(
        "internvl",
        {
            "text_config": {
                "model_type": "qwen2",
                "vocab_size": 151674,
                "hidden_size": 1536,
                "intermediate_size": 8960,
                "num_hidden_layers": 28,
                "num_attention_heads": 12,
                "num_key_value_heads": 2,
                "max_position_embeddings": 32768,
                "tie_word_embeddings": False,
            },
            "vision_config": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "patch_size": [14, 14],
                "image_size": [448, 448],
                "attention_bias": True,
                "norm_type": "layer_norm",
            },
            "image_token_id": 151667,
            "image_seq_length": 256,
            "downsample_ratio": 0.5,
            "tie_word_embeddings": False,
        },
        2_088_957_440,  # Qwen2.5-1.5B with a head of its own, InternViT-300M and the projector
        verified=False,
    ),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": KnownModel(
        "smolvlm",
        {
            "text_config": {
                "model_type": "llama",
                "vocab_size": 49280,
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 24,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "max_position_embeddings": 8192,
                "pad_token_id": 2,
                "tie_word_embeddings": False,
            },
            "vision_config": {
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "patch_size": 14,
                "image_size": 384,
            },
            "scale_factor": 3,
            "image_token_id": 49190,
            "pad_token_id": 2,
            "tie_word_embeddings": False,
        },
        2_246_784_880,
    ),
}
