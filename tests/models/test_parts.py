"""What language model, vision tower and projector are, in every family: LoRA, freezing and quantization rely on it."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from balanced_thinking.models.adapters import picture_half_keys
from balanced_thinking.models.part_names import LORA_TARGETS
from balanced_thinking.models.parts import ModelParts
from balanced_thinking.models.tiny import build_tiny
from tests.models.hub_folders import FAMILIES, write_processor

PICTURED = [name for name, kind in FAMILIES.items() if kind.pictures]
TINY = ["tiny:qwen2_5_vl", "tiny:llava_next", "tiny:gemma3", "tiny:qwen2"]


@cache
def model_of(family: str, folder: Path) -> Any:
    """Without memory for weights: only names and shapes are looked at."""
    with torch.device("meta"):
        if family.startswith("tiny:"):
            return build_tiny(family.removeprefix("tiny:"))[0]
        config = AutoConfig.from_pretrained(write_processor(family, folder / family))
        return AutoModelForImageTextToText.from_config(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def adapted_layers(model: Any, targets: str) -> dict[str, Any]:
    """Complete names of the layers that PEFT gives an adapter -> their weights in it."""
    with torch.device("meta"):
        lora = LoraConfig(r=2, **ModelParts(model).lora_layers(targets))
        adapted = get_peft_model(copy.deepcopy(model), lora)
    weights = {name: value for name, value in adapted.named_parameters() if "lora_A" in name}
    return {name.removeprefix("base_model.model.").partition(".lora_A")[0]: value for name, value in weights.items()}


@pytest.mark.parametrize("family", [*TINY, *PICTURED])
def test_language_targets_touch_no_tensor_of_the_picture_half(family: str, folder: Path, tmp_path: Path) -> None:
    model = model_of(family, folder)
    layers = adapted_layers(model, "language")
    file = tmp_path / "adapter_model.safetensors"
    save_file({f"base_model.model.{name}.lora_A.weight": torch.zeros(1) for name in layers}, file)
    assert picture_half_keys(str(tmp_path)) == []
    language = {name for name, module in model.get_decoder().named_modules() if isinstance(module, torch.nn.Linear)}
    assert len(layers) == len(language) >= 12  # and no layer of the language model is left out


@pytest.mark.parametrize("family", [*TINY[:3], "gemma4", "mistral3", "glm4v", "qwen3_vl"])
def test_vision_and_language_are_every_linear_layer_but_those_of_the_projector(family: str, folder: Path) -> None:
    model = model_of(family, folder)
    parts, layers = ModelParts(model), adapted_layers(model, "vision+language")
    assert layers.keys() == set(parts.linear_layers(LORA_TARGETS["vision+language"]))
    assert {parts.find_part(name) for name in layers} == {"vision", "language"}
    every = adapted_layers(model, "all")
    assert layers.keys() < every.keys() or family == "tiny:gemma3"  # whose projector is one matrix
    assert {parts.find_part(name) for name in every.keys() - layers.keys()} <= {"projector"}


@pytest.mark.parametrize("family", [*TINY[:3], *PICTURED])
def test_every_model_with_pictures_has_three_parts(family: str, folder: Path) -> None:
    model = model_of(family, folder)
    counts = ModelParts(model).count_parameters()
    assert list(counts) == ["language", "vision", "projector"]
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())


def test_a_text_model_is_language_alone(folder: Path) -> None:
    model = model_of("tiny:qwen2", folder)
    assert ModelParts(model).count_parameters() == {"language": sum(p.numel() for p in model.parameters())}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.visual.patch_embed.proj", "vision"),
        ("model.visual.blocks.0.attn.qkv", "vision"),
        ("model.visual.merger.mlp.0", "projector"),  # inside the tower of Qwen-VL
        ("model.visual.merger", "projector"),
        ("model.language_model.embed_tokens.weight", "language"),
        ("lm_head.weight", "language"),
        ("model.audio_tower.conv", "audio"),
        ("model.image_newline", "projector"),  # of LLaVA-NeXT
    ],
)
def test_the_part_of_a_name(name: str, part: str, folder: Path) -> None:
    assert ModelParts(model_of("tiny:qwen2_5_vl", folder)).find_part(name) == part


class Nested(torch.nn.Module):
    """A tower whose layers wrap a linear layer under a name that the language model has, as Gemma 4's do."""

    def __init__(self) -> None:
        super().__init__()

        def layer(**inner: Any) -> torch.nn.Module:
            return torch.nn.ModuleDict(inner)

        linear = torch.nn.Linear
        wrapped = [layer(q_proj=layer(linear=linear(2, 2))) for _ in range(2)]
        self.vision_tower = layer(layers=torch.nn.ModuleList(wrapped))
        self.language_model = layer(layers=torch.nn.ModuleList([layer(q_proj=linear(2, 2)) for _ in range(2)]))
        self.projector = layer(mlp=torch.nn.ModuleList([linear(2, 2)]))
        self.config = SimpleNamespace(model_type="nested")

    def get_decoder(self) -> Any:
        return self.language_model

    def get_output_embeddings(self) -> None:
        return None

    def get_encoder(self, modality: str) -> Any:
        return self.vision_tower if modality == "image" else self


def test_a_container_with_the_name_of_a_layer_is_excluded_in_every_layer() -> None:
    found = ModelParts(Nested()).lora_layers("vision+language")
    assert found["target_modules"] == ["linear", "q_proj"]
    assert found["exclude_modules"] == r"vision_tower\.layers\.\d+\.q_proj"
    assert set(adapted_layers(Nested(), "vision+language")) == {
        *(f"vision_tower.layers.{k}.q_proj.linear" for k in range(2)),
        *(f"language_model.layers.{k}.q_proj" for k in range(2)),
    }
