"""Tiny versions of real architectures, built offline from their transformers configurations.

    model, processor = build_tiny("qwen2_5_vl")

They use the same code path as real checkpoints. Processor, chat template and model class are those of Qwen2.5-VL,
LLaVA-NeXT and Gemma 3 (and Qwen2 for text only); only the sizes are small.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import trl
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from balanced_thinking.models.find import TINY_PATCH_SIDE, TinySize, check_architecture
from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.models.tokenizer import make_tokenizer


class ImageOnlyQwen2_5_VLProcessor(Qwen2_5_VLProcessor):  # noqa: N801 (the name says which class it narrows)
    """Qwen2.5-VL's processor without its video half, which needs torchvision.

    transformers reads the parts of a processor from this signature.
    """

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):  # type: ignore[no-untyped-def]
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)


def _read_chat_template(name: str) -> str:
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def _build_qwen2_5_vl(size: TinySize) -> tuple[PreTrainedModel, Any]:
    tokenizer = make_tokenizer(
        ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="right",
    )
    tokenizer.chat_template = _read_chat_template("qwen2_5_vl")
    pixels = (2 * TINY_PATCH_SIDE) ** 2
    images = Qwen2VLImageProcessorPil(min_pixels=pixels, max_pixels=pixels * size.max_image_tokens)
    processor = ImageOnlyQwen2_5_VLProcessor(images, tokenizer, chat_template=tokenizer.chat_template)
    token = tokenizer.convert_tokens_to_ids
    half = size.head_dim // 2
    section = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    config = Qwen2_5_VLConfig(
        text_config={
            **size.text_config(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": section},
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "num_heads": 4,
            "out_hidden_size": size.hidden,
            "fullatt_block_indexes": [size.vision_layers - 1],
            "patch_size": TINY_PATCH_SIDE,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 8 * TINY_PATCH_SIDE,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _build_llava_next(size: TinySize) -> tuple[PreTrainedModel, Any]:
    side = size.image_side
    tokenizer = make_tokenizer(
        ["<image>"], bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", padding_side="right"
    )
    tokenizer.chat_template = _read_chat_template("llava_next")
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=[[side, 2 * side], [2 * side, side], [side, side]],
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=TINY_PATCH_SIDE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**size.vision_config(), image_size=side, projection_dim=size.vision_hidden),
        text_config=MistralConfig(**size.text_config(tokenizer), sliding_window=None),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_grid_pinpoints=images.image_grid_pinpoints,
        tie_word_embeddings=False,
    )
    return LlavaNextForConditionalGeneration(config), processor


def _build_gemma3(size: TinySize) -> tuple[PreTrainedModel, Any]:
    side = size.image_side
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = make_tokenizer(
        ["<start_of_turn>", "<end_of_turn>"],
        names,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
    )
    tokenizer.chat_template = _read_chat_template("gemma3")
    tokens_per_image = (side // TINY_PATCH_SIDE // 2) ** 2
    images = Gemma3ImageProcessorPil(size={"height": side, "width": side})
    processor = Gemma3Processor(
        images, tokenizer, chat_template=tokenizer.chat_template, image_seq_length=tokens_per_image
    )
    config = Gemma3Config(
        text_config={
            **size.text_config(tokenizer),
            "head_dim": size.head_dim,
            "query_pre_attn_scalar": size.head_dim,
            "sliding_window": 512,
        },
        vision_config={**size.vision_config(), "image_size": side, "vision_use_head": False},
        mm_tokens_per_image=tokens_per_image,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )
    return Gemma3ForConditionalGeneration(config), processor


def _build_qwen2(size: TinySize) -> tuple[PreTrainedModel, Any]:
    tokenizer = make_tokenizer(["<|im_start|>"], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    # transformers reads every tokenizer of a Qwen2 as its class, which splits and normalizes texts in its own way.
    own, read = tokenizer.backend_tokenizer, Qwen2Tokenizer().backend_tokenizer
    own.pre_tokenizer, own.normalizer = read.pre_tokenizer, read.normalizer
    tokenizer.chat_template = _read_chat_template("qwen2_5")
    return Qwen2ForCausalLM(Qwen2Config(**size.text_config(tokenizer), tie_word_embeddings=True)), tokenizer


# Named in `find.TINY_ARCHITECTURES`, too, which needs no torch.
ARCHITECTURES: dict[str, Callable[[TinySize], tuple[PreTrainedModel, Any]]] = {
    "qwen2_5_vl": _build_qwen2_5_vl,
    "llava_next": _build_llava_next,
    "gemma3": _build_gemma3,
    "qwen2": _build_qwen2,
}


def build_tiny(architecture: str, *, size: TinySize | None = None, seed: int = 0) -> tuple[PreTrainedModel, Any]:
    """A randomly initialised float32 model and its processor (its tokenizer for the text-only `qwen2`).

    Raises ModelNotFoundError for an unknown architecture.
    """
    check_architecture(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = ARCHITECTURES[architecture](size or TinySize())
    tokenizer = tokenizer_of(processor)
    model.generation_config.eos_token_id = _stop_token_ids(tokenizer)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, processor


def _stop_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of all tokens that end a turn. Gemma's end of a turn is not its end of sequence."""
    turn = [t for t in ("<end_of_turn>",) if t in tokenizer.get_vocab()]
    return [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(turn)]
