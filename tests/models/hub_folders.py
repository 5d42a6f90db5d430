"""Checkpoints in the hub's own layout, small and built offline: what a download of each family looks like.

    folder = write_hub_folder("qwen2_5_vl", tmp_path / "model")

`config.json`, the processor's files and the chat template are where the hub has them, and in its structure: flat or
nested, legacy or current. Only sizes and the tokenizer are ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import trl
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from balanced_thinking.models.tokenizer import make_tokenizer

Json = dict[str, Any]
_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_COMMON = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 3}
_PINPOINTS = [[56, 112], [112, 56], [56, 56]]


@dataclass(frozen=True)
class HubFamily:
    """How a family's checkpoints look.

    Attributes:
        config: token ids by name -> config.json. `T` is the tokenizer.
        specials: the special tokens that the processor expects.
        processor: file name -> its content.
        template: the chat template; `template_file` says where the hub has it, or `tokenizer` for inside
            tokenizer_config.json.
        shard: largest size of a weight file.
        tokenizer: arguments of the tokenizer: its end, its named extra tokens.
    """

    config: Callable[[Any], Json]
    specials: Sequence[str]
    processor: dict[str, Json]
    template: str
    template_file: str = "chat_template.jinja"
    shard: str = "5GB"
    tokenizer: Json = field(default_factory=dict)
    extra: Json = field(default_factory=dict)
    eos: tuple[str, ...] = ()
    pictures: bool = True


class TokenIds:
    """The ids of tokens by their text, and sizes that the configurations share."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.rows = (len(tokenizer) + 15) // 8 * 8

    def __call__(self, token: str) -> int:
        number = self.tokenizer.convert_tokens_to_ids(token)
        assert number is not None, token
        return int(number)

    def text(self, **more: Any) -> Json:
        return {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            "initializer_range": 0.05,
            "rms_norm_eps": 1e-6,
            "vocab_size": self.rows,
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        } | more


def _vision(**more: Any) -> Json:
    return {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "patch_size": 14,
        "image_size": 56,
    } | more


def _template(name: str) -> str:
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def _turns(start: str, end: str, image: str, prompt: str, before: str = "", roles: str = "message.role") -> str:
    """A chat template of turns, whose contents are texts or lists of parts."""
    return (
        before
        + "{% for message in messages %}{{ '"
        + start
        + "'.replace('ROLE', "
        + roles
        + ") }}{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
        "{% if part.type == 'image' %}{{ '" + image + "' }}{% elif part.type == 'text' %}{{ part.text }}{% endif %}"
        "{% endfor %}{% endif %}{{ '" + end + "' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + prompt + "' }}{% endif %}"
    )


_QWEN_TOKENS = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_TOKENIZER = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer"}


def _qwen_ids(token: TokenIds) -> Json:
    return {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }


def _qwen2_vl(token: TokenIds) -> Json:
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        **token.text(tie_word_embeddings=True, rope_theta=1e6),
        **_qwen_ids(token),
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "use_sliding_window": False,
        "vision_config": {
            "depth": 2,
            "embed_dim": 64,
            "mlp_ratio": 2,
            "num_heads": 4,
            "in_chans": 3,
            "hidden_size": 64,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
    }


def _qwen2_5_vl(token: TokenIds) -> Json:
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **token.text(tie_word_embeddings=True, rope_theta=1e6),
        **_qwen_ids(token),
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "use_sliding_window": False,
        "vision_config": {
            "depth": 2,
            "hidden_act": "silu",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "in_chans": 3,
            "out_hidden_size": 64,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
    }


def _qwen3_vision() -> Json:
    return {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "in_channels": 3,
        "out_hidden_size": 64,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 64,
    }


def _qwen3_vl(token: TokenIds) -> Json:
    rope = {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"}
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        **_qwen_ids(token),
        "text_config": token.text(model_type="qwen3_vl_text", head_dim=16, rope_scaling=rope, rope_theta=5e6),
        "tie_word_embeddings": False,
        "vision_config": {**_qwen3_vision(), "deepstack_visual_indexes": [0], "model_type": "qwen3_vl"},
    }


def _qwen3_5(token: TokenIds) -> Json:
    text = token.text(
        model_type="qwen3_5_text",
        head_dim=16,
        layer_types=["linear_attention", "full_attention"],
        full_attention_interval=2,
        linear_conv_kernel_dim=4,
        linear_key_head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_value_head_dim=16,
        attn_output_gate=True,
        rope_parameters={
            "mrope_interleaved": True,
            "mrope_section": [4, 2, 2],
            "rope_type": "default",
            "rope_theta": 1e7,
            "partial_rotary_factor": 1.0,
        },
    )
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        **_qwen_ids(token),
        "text_config": text,
        "tie_word_embeddings": False,
        "vision_config": {**_qwen3_vision(), "model_type": "qwen3_5"},
    }


def _llama(token: TokenIds, **more: Any) -> Json:
    return token.text(model_type="llama", head_dim=16, **more)


def _llava(token: TokenIds) -> Json:
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_token_index": token("<image>"),
        "model_type": "llava",
        "pad_token_id": token.tokenizer.pad_token_id,
        "projector_hidden_act": "gelu",
        "text_config": _llama(token),
        "tie_word_embeddings": False,
        "vision_config": _vision(model_type="clip_vision_model", projection_dim=64),
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "image_seq_length": 16,
    }


def _llava_next(token: TokenIds) -> Json:
    return {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "ignore_index": -100,
        "image_grid_pinpoints": _PINPOINTS,
        "image_token_index": token("<image>"),
        "model_type": "llava_next",
        "projector_hidden_act": "gelu",
        "text_config": token.text(model_type="mistral", sliding_window=None, head_dim=16),
        "tie_word_embeddings": False,
        "use_image_newline_parameter": True,
        "vision_config": _vision(model_type="clip_vision_model", projection_dim=64),
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }


def _llava_onevision(token: TokenIds) -> Json:
    return {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "ignore_index": -100,
        "image_grid_pinpoints": _PINPOINTS,
        "image_token_index": token("<image>"),
        "model_type": "llava_onevision",
        "projector_hidden_act": "gelu",
        "text_config": token.text(model_type="qwen2", tie_word_embeddings=True),
        "tie_word_embeddings": True,
        "use_image_newline_parameter": True,
        "video_token_index": token("<video>"),
        "vision_aspect_ratio": "anyres_max_9",
        "vision_config": _vision(model_type="siglip_vision_model", vision_use_head=False),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }


def _gemma3_text(token: TokenIds) -> Json:
    return token.text(
        model_type="gemma3_text",
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=64,
        rope_scaling={"factor": 8.0, "rope_type": "linear"},
        layer_types=["sliding_attention", "full_attention"],
    )


def _gemma3(token: TokenIds) -> Json:
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": token("<start_of_image>"),
        "eoi_token_index": token("<end_of_image>"),
        "eos_token_id": [token("<eos>"), token("<end_of_turn>")],
        "image_token_index": token("<image_soft_token>"),
        "initializer_range": 0.02,
        "mm_tokens_per_image": 4,
        "model_type": "gemma3",
        "text_config": _gemma3_text(token),
        "vision_config": _vision(model_type="siglip_vision_model", vision_use_head=False),
    }


def _gemma3_of_text(token: TokenIds) -> Json:
    """As Gemma 3 1B: the tokenizer's picture token is one beyond the embedding."""
    config = _gemma3_text(token)
    assert token("<image_soft_token>") == len(token.tokenizer) - 1
    return config | {"architectures": ["Gemma3ForCausalLM"], "vocab_size": len(token.tokenizer) - 1}


def _gemma4(token: TokenIds) -> Json:
    text = token.text(
        model_type="gemma4_text",
        head_dim=16,
        global_head_dim=16,
        sliding_window=64,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=token.rows,
        layer_types=["sliding_attention", "full_attention"],
        use_bidirectional_attention=None,
        final_logit_softcapping=30.0,
    )
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "audio_config": None,
        "boi_token_id": token("<|image>"),
        "eoi_token_id": token("<image|>"),
        "image_token_id": token("<|image|>"),
        "video_token_id": token("<|video|>"),
        "boa_token_id": token("<|audio>"),
        "eoa_token_index": token("<audio|>"),
        "audio_token_id": token("<|audio|>"),
        "eos_token_id": [token("<eos>"), token("<turn|>")],
        "model_type": "gemma4",
        "text_config": text,
        "tie_word_embeddings": True,
        "vision_config": {
            **_vision(model_type="gemma4_vision", patch_size=16, head_dim=16),
            "num_key_value_heads": 4,
            "pooling_kernel_size": 2,
            "position_embedding_size": 64,
        },
    }


def _internvl(token: TokenIds) -> Json:
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "downsample_ratio": 0.5,
        "image_seq_length": 4,
        "image_token_id": token("<IMG_CONTEXT>"),
        "model_type": "internvl",
        "projector_hidden_act": "gelu",
        "text_config": token.text(model_type="qwen2", tie_word_embeddings=False),
        "tie_word_embeddings": False,
        "vision_config": _vision(
            model_type="internvl_vision", image_size=[56, 56], patch_size=[14, 14], use_mean_pooling=True
        ),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    }


def _smolvlm(token: TokenIds) -> Json:
    return {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "image_token_id": token("<image>"),
        "model_type": "smolvlm",
        "scale_factor": 2,
        "text_config": _llama(token),
        "tie_word_embeddings": False,
        "vision_config": {
            **_vision(model_type="smolvlm_vision", patch_size=16, image_size=64),
            "max_image_size": {"longest_edge": 64},
        },
    }


def _idefics3(token: TokenIds) -> Json:
    config = _smolvlm(token)
    config["vision_config"]["model_type"] = "idefics3_vision"
    return config | {"architectures": ["Idefics3ForConditionalGeneration"], "model_type": "idefics3"}


def _pixtral_vision() -> Json:
    return _vision(model_type="pixtral", image_size=112, head_dim=16, rope_theta=10000.0, num_channels=3)


def _pixtral(token: TokenIds) -> Json:
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_seq_length": 1,
        "image_token_index": token("[IMG]"),
        "model_type": "llava",
        "projector_hidden_act": "gelu",
        "text_config": token.text(model_type="mistral", sliding_window=None, head_dim=16),
        "tie_word_embeddings": False,
        "vision_config": _pixtral_vision(),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }


def _mistral3(token: TokenIds) -> Json:
    return {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "image_token_index": token("[IMG]"),
        "model_type": "mistral3",
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "spatial_merge_size": 2,
        "text_config": token.text(model_type="mistral", sliding_window=None, head_dim=16),
        "tie_word_embeddings": False,
        "vision_config": _pixtral_vision(),
        "vision_feature_layer": -1,
    }


def _glm4v(token: TokenIds) -> Json:
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5, "rope_theta": 10000.0}
    return {
        "architectures": ["Glm4vForConditionalGeneration"],
        "model_type": "glm4v",
        "image_token_id": token("<|image|>"),
        "video_token_id": token("<|video|>"),
        "image_start_token_id": token("<|begin_of_image|>"),
        "image_end_token_id": token("<|end_of_image|>"),
        "video_start_token_id": token("<|begin_of_video|>"),
        "video_end_token_id": token("<|end_of_video|>"),
        "text_config": token.text(model_type="glm4v_text", rope_parameters=rope),
        "tie_word_embeddings": False,
        "vision_config": {
            "model_type": "glm4v",
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "in_channels": 3,
            "image_size": 56,
            "patch_size": 14,
            "out_hidden_size": 64,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def _glm46v(token: TokenIds) -> Json:
    config = _glm4v(token)
    config["vision_config"]["model_type"] = "glm4v_vision"
    return config | {"architectures": ["Glm46VForConditionalGeneration"], "model_type": "glm46v"}


def _qwen_pictures(patch: int, pixels: tuple[int, int], processor: str, **more: Any) -> Json:
    return {
        **_COMMON,
        **_CLIP,
        "min_pixels": pixels[0],
        "max_pixels": pixels[1],
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": processor,
    } | more


def _qwen3_files(video: Json) -> dict[str, Json]:
    size = {"longest_edge": 16 * 32 * 32, "shortest_edge": 32 * 32}
    shared = {
        **_HALF,
        "size": size,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "processor_class": "Qwen3VLProcessor",
    }
    return {
        "preprocessor_config.json": shared | {"image_processor_type": "Qwen2VLImageProcessorFast"},
        "video_preprocessor_config.json": shared | {"video_processor_type": "Qwen3VLVideoProcessor"} | video,
    }


def _clip_pictures(kind: str, processor: str, **more: Any) -> Json:
    return {
        **_COMMON,
        **_CLIP,
        "crop_size": {"height": 56, "width": 56},
        "do_center_crop": True,
        "image_processor_type": kind,
        "processor_class": processor,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 56},
    } | more


def _pixtral_files(merge: int) -> dict[str, Json]:
    return {
        "preprocessor_config.json": {
            **_COMMON,
            **_CLIP,
            "image_processor_type": "PixtralImageProcessorFast",
            "patch_size": 14,
            "processor_class": "PixtralProcessor",
            "size": {"longest_edge": 112},
        },
        "processor_config.json": {
            "image_break_token": "[IMG_BREAK]",
            "image_end_token": "[IMG_END]",
            "image_token": "[IMG]",
            "patch_size": 14,
            "processor_class": "PixtralProcessor",
            "spatial_merge_size": merge,
        },
    }


def _smol_files(kind: str, **more: Any) -> dict[str, Json]:
    return {
        "preprocessor_config.json": {
            **_COMMON,
            **_HALF,
            "do_image_splitting": True,
            "do_pad": True,
            "image_processor_type": f"{kind}ImageProcessor",
            "max_image_size": {"longest_edge": 64},
            "processor_class": f"{kind}Processor",
            "resample": 1,
            "size": {"longest_edge": 128},
        }
        | more,
        "processor_config.json": {"image_seq_len": 4, "processor_class": f"{kind}Processor"},
    }


def _glm_files(kind: str) -> dict[str, Json]:
    shared = {
        **_COMMON,
        **_CLIP,
        "size": {"shortest_edge": 28 * 28, "longest_edge": 2 * 16 * 28 * 28},
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "processor_class": f"{kind}Processor",
    }
    return {
        "preprocessor_config.json": shared | {"image_processor_type": f"{kind}ImageProcessor"},
        "video_preprocessor_config.json": shared | {"video_processor_type": f"{kind}VideoProcessor"},
    }


_GEMMA_TOKENIZER = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
_GEMMA3_EXTRA = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
_LLAMA_TOKENIZER = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_CHATML = _turns("<|im_start|>ROLE\\n", "<|im_end|>\\n", "<image>\\n", "<|im_start|>assistant\\n")
_MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %}"
    "{% if message.content is string %}{{ message.content }}{% else %}{{ message.content[0].text }}{% endif %}"
    "{{ eos_token }}{% else %}{{ '[INST]' }}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% else %}{{ '[IMG]' }}{% endif %}"
    "{% endfor %}{% endif %}{{ '[/INST]' }}{% endif %}{% endfor %}"
)
_GLM = _turns(
    "<|ROLE|>\\n",
    "",
    "<|begin_of_image|><|image|><|end_of_image|>",
    "<|assistant|>\\n",
    before="[gMASK]<sop>",
)
_GLM_TOKENS = (
    *("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|begin_of_image|>", "<|image|>"),
    *("<|end_of_image|>", "<|begin_of_video|>", "<|video|>", "<|end_of_video|>"),
)
_MISTRAL_TOKENS = ("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
_SMOL_TOKENS = (
    *("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
    *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
)

FAMILIES: dict[str, HubFamily] = {
    "qwen2_vl": HubFamily(
        _qwen2_vl,
        _QWEN_TOKENS,
        {"preprocessor_config.json": _qwen_pictures(14, (784, 784 * 16), "Qwen2VLProcessor")},
        _template("qwen2_5_vl"),
        "chat_template.json",
        tokenizer=_QWEN_TOKENIZER,
    ),
    "qwen2_5_vl": HubFamily(
        _qwen2_5_vl,
        _QWEN_TOKENS,
        {"preprocessor_config.json": _qwen_pictures(14, (784, 784 * 16), "Qwen2_5_VLProcessor")},
        _template("qwen2_5_vl"),
        "chat_template.json",
        shard="300KB",
        tokenizer=_QWEN_TOKENIZER,
    ),
    "qwen3_vl": HubFamily(
        _qwen3_vl,
        _QWEN_TOKENS,
        _qwen3_files({"size": {"longest_edge": 25165824, "shortest_edge": 4096}}),
        _template("qwen3_vl"),
        "chat_template.json",
        tokenizer=_QWEN_TOKENIZER,
    ),
    "qwen3_5": HubFamily(
        _qwen3_5,
        _QWEN_TOKENS,
        _qwen3_files({"size": {"longest_edge": 25165824, "shortest_edge": 4096}}),
        _template("qwen3_5_think"),
        tokenizer=_QWEN_TOKENIZER,
    ),
    "llava": HubFamily(
        _llava,
        ("<image>",),
        {
            "preprocessor_config.json": _clip_pictures("CLIPImageProcessor", "LlavaProcessor"),
            "processor_config.json": {
                "image_token": "<image>",
                "num_additional_image_tokens": 1,
                "patch_size": 14,
                "processor_class": "LlavaProcessor",
                "vision_feature_select_strategy": "default",
            },
        },
        _turns("ROLE: ", " ", "<image>\\n", "ASSISTANT:", roles="message.role.upper()"),
        tokenizer=_LLAMA_TOKENIZER,
    ),
    "llava_next": HubFamily(
        _llava_next,
        ("<image>",),
        {
            "preprocessor_config.json": _clip_pictures(
                "LlavaNextImageProcessor",
                "LlavaNextProcessor",
                aspect_ratio_setting="anyres",
                do_pad=True,
                image_grid_pinpoints=_PINPOINTS,
            ),
            "processor_config.json": {
                "image_token": "<image>",
                "num_additional_image_tokens": 1,
                "patch_size": 14,
                "processor_class": "LlavaNextProcessor",
                "vision_feature_select_strategy": "default",
            },
        },
        _template("llava_next"),
        "tokenizer",
        tokenizer=_LLAMA_TOKENIZER,
    ),
    "llava_onevision": HubFamily(
        _llava_onevision,
        ("<|im_start|>", "<image>", "<video>"),
        {
            "preprocessor_config.json": {
                **_COMMON,
                **_HALF,
                "do_pad": True,
                "image_grid_pinpoints": _PINPOINTS,
                "image_processor_type": "LlavaOnevisionImageProcessor",
                "processor_class": "LlavaOnevisionProcessor",
                "size": {"height": 56, "width": 56},
            },
            "video_preprocessor_config.json": {
                **_COMMON,
                **_HALF,
                "processor_class": "LlavaOnevisionProcessor",
                "size": {"height": 56, "width": 56},
                "video_processor_type": "LlavaOnevisionVideoProcessor",
            },
            "processor_config.json": {
                "image_token": "<image>",
                "num_image_tokens": 16,
                "processor_class": "LlavaOnevisionProcessor",
                "video_token": "<video>",
                "vision_aspect_ratio": "anyres_max_9",
                "vision_feature_select_strategy": "full",
            },
        },
        _CHATML,
        "chat_template.json",
        tokenizer=_QWEN_TOKENIZER,
    ),
    "gemma3": HubFamily(
        _gemma3,
        ("<start_of_turn>", "<end_of_turn>"),
        {
            "preprocessor_config.json": {
                **_COMMON,
                **_HALF,
                "do_pan_and_scan": None,
                "image_processor_type": "Gemma3ImageProcessor",
                "image_seq_length": 4,
                "processor_class": "Gemma3Processor",
                "resample": 2,
                "size": {"height": 56, "width": 56},
            },
            "processor_config.json": {"image_seq_length": 4, "processor_class": "Gemma3Processor"},
        },
        _template("gemma3"),
        "chat_template.json",
        shard="300KB",
        tokenizer=_GEMMA_TOKENIZER,
        extra=_GEMMA3_EXTRA,
        eos=("<end_of_turn>",),
    ),
    "gemma3_text": HubFamily(
        _gemma3_of_text,
        ("<start_of_turn>", "<end_of_turn>", "<image_soft_token>"),
        {},
        _template("gemma3"),
        "tokenizer",
        tokenizer=_GEMMA_TOKENIZER,
        eos=("<end_of_turn>",),
        pictures=False,
    ),
    "gemma4": HubFamily(
        _gemma4,
        ("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>", "<|tool>", "<tool|>", '<|"|>'),
        {
            "processor_config.json": {
                "audio_ms_per_token": 40,
                "audio_seq_length": 750,
                "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
                "image_processor": {
                    **_COMMON,
                    "do_normalize": False,
                    "image_mean": [0.0, 0.0, 0.0],
                    "image_std": [1.0, 1.0, 1.0],
                    "image_processor_type": "Gemma4ImageProcessor",
                    "image_seq_length": 70,
                    "max_soft_tokens": 70,
                    "patch_size": 16,
                    "pooling_kernel_size": 2,
                },
                "image_seq_length": 70,
                "processor_class": "Gemma4Processor",
                "video_processor": {"max_soft_tokens": 70, "video_processor_type": "Gemma4VideoProcessor"},
            },
        },
        _template("gemma4"),
        tokenizer=_GEMMA_TOKENIZER,
        extra={
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "image_token": "<|image|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
            "audio_token": "<|audio|>",
            "video_token": "<|video|>",
        },
        eos=("<turn|>",),
    ),
    "internvl": HubFamily(
        _internvl,
        ("<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        {
            "preprocessor_config.json": {
                **_COMMON,
                **_CLIP,
                "crop_to_patches": False,
                "image_processor_type": "GotOcr2ImageProcessorFast",
                "max_patches": 4,
                "min_patches": 1,
                "processor_class": "InternVLProcessor",
                "size": {"height": 56, "width": 56},
            },
            "video_preprocessor_config.json": {
                **_COMMON,
                **_CLIP,
                "processor_class": "InternVLProcessor",
                "size": {"height": 56, "width": 56},
                "video_processor_type": "InternVLVideoProcessor",
            },
            "processor_config.json": {"image_seq_length": 4, "processor_class": "InternVLProcessor"},
        },
        _turns("<|im_start|>ROLE\\n", "<|im_end|>\\n", "<IMG_CONTEXT>\\n", "<|im_start|>assistant\\n"),
        tokenizer=_QWEN_TOKENIZER,
        extra={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "smolvlm": HubFamily(
        _smolvlm,
        (*_SMOL_TOKENS, "<|im_start|>"),
        _smol_files("SmolVLM", video_sampling={"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 64}}),
        _template("smolvlm"),
        "chat_template.json",
        tokenizer={"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"},
        extra={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "global_image_token": "<global-img>",
        },
    ),
    "idefics3": HubFamily(
        _idefics3,
        (*_SMOL_TOKENS, "<|begin_of_text|>"),
        _smol_files("Idefics3"),
        _template("idefics3"),
        tokenizer={
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<end_of_utterance>",
            "pad_token": "<|finetune_right_pad_id|>",
        },
    ),
    "pixtral": HubFamily(
        _pixtral, _MISTRAL_TOKENS, _pixtral_files(1), _MISTRAL, "chat_template.json", tokenizer=_LLAMA_TOKENIZER
    ),
    "mistral3": HubFamily(
        _mistral3,
        _MISTRAL_TOKENS,
        _pixtral_files(2),
        _MISTRAL,
        "chat_template.json",
        shard="300KB",
        tokenizer=_LLAMA_TOKENIZER,
    ),
    "glm4v": HubFamily(
        _glm4v,
        _GLM_TOKENS,
        _glm_files("Glm4v"),
        _GLM,
        tokenizer={"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        eos=("<|user|>",),
    ),
    "glm46v": HubFamily(
        _glm46v,
        _GLM_TOKENS,
        _glm_files("Glm46V"),
        _GLM,
        tokenizer={"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        eos=("<|user|>",),
    ),
}


def write_hub_folder(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint of the family with random float32 weights; returns `folder`."""
    kind = FAMILIES[family]
    write_processor(family, folder)
    token = TokenIds(AutoTokenizer.from_pretrained(folder))
    config = kind.config(token) | {"torch_dtype": "float32", "transformers_version": "4.50.0"}
    auto = AutoModelForImageTextToText if kind.pictures else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    stops = [token.tokenizer.eos_token, *kind.eos]
    model.generation_config.eos_token_id = [token(stop) for stop in stops]
    model.generation_config.pad_token_id = token.tokenizer.pad_token_id
    model.save_pretrained(folder, max_shard_size=kind.shard)
    _write_json(folder / "config.json", config)  # as the hub has it, not as this version of transformers writes it
    return folder


def write_processor(family: str, folder: Path) -> Path:
    """Everything but the weights."""
    kind = FAMILIES[family]
    token = TokenIds(_write_tokenizer(kind, folder))
    _write_json(folder / "config.json", kind.config(token))
    for name, content in kind.processor.items():
        _write_json(folder / name, content)
    return folder


def _write_tokenizer(kind: HubFamily, folder: Path) -> PreTrainedTokenizerFast:
    named = {name: value for name, value in kind.tokenizer.items() if name != "tokenizer_class"}
    tokenizer = make_tokenizer(kind.specials, kind.extra, **named)
    tokenizer.save_pretrained(folder)
    about = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    about["tokenizer_class"] = kind.tokenizer.get("tokenizer_class", "PreTrainedTokenizerFast")
    processor = next((file["processor_class"] for file in kind.processor.values() if "processor_class" in file), None)
    about |= {} if processor is None else {"processor_class": processor}
    if kind.template_file == "tokenizer":
        about["chat_template"] = kind.template
    elif kind.template_file == "chat_template.json":
        _write_json(folder / "chat_template.json", {"chat_template": kind.template})
    else:
        (folder / kind.template_file).write_text(kind.template, encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", about)
    return tokenizer


def _write_json(file: Path, content: Json) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")
