"""Adapters of the language model alone, which every server serves completely; a warning for the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.evaluation.engines import start
from balanced_thinking.evaluation.engines.start import EngineOptions, start_engine
from balanced_thinking.models.adapters import picture_half_keys, unserved_settings
from balanced_thinking.models.tiny import build_tiny

BEFORE, AFTER = "base_model.model.model", "lora_A.weight"


@pytest.mark.parametrize(
    ("layer", "picture"),
    [
        ("visual.blocks.0.attn.qkv", True),  # Qwen-VL, GLM-4V
        ("visual.merger.mlp.0", True),
        ("vision_tower.encoder.layers.0.self_attn.q_proj", True),  # LLaVA, Gemma 3
        ("vision_model.encoder.layers.0.mlp.fc1", True),  # Idefics 3
        ("multi_modal_projector.linear_1", True),
        ("connector.modality_projection.proj", True),
        ("embed_vision.embedding_projection", True),  # Gemma 4
        ("mm_projector.linear", True),
        ("language_model.layers.0.self_attn.q_proj", False),
        ("text_model.layers.0.mlp.down_proj", False),
        ("layers.0.self_attn.q_proj", False),  # a text model
        ("language_model.layers.0.linear_attn.in_proj_qkv", False),  # Qwen3.5
    ],
)
def test_tensors_of_the_picture_half_are_known_by_their_names(layer: str, picture: bool, tmp_path: Path) -> None:
    key = f"{BEFORE}.{layer}.{AFTER}"
    save_file({key: torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    assert picture_half_keys(str(tmp_path)) == [key] * picture


@pytest.mark.parametrize(("layer", "warned"), [("visual.blocks.0.attn.qkv", True), ("language_model.layers.0", False)])
def test_a_served_adapter_with_a_vision_tower_is_warned_of(
    layer: str, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = {f"{BEFORE}.{layer}.{AFTER}": torch.zeros(1), f"{BEFORE}.language_model.layers.1.{AFTER}": torch.zeros(1)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    monkeypatch.setattr(start, "load_processor", lambda model: build_tiny("qwen2_5_vl")[1])
    start_engine(EngineOptions(server="http://127.0.0.1:1/v1", served_model="mine"), str(tmp_path))
    assert ("--enable-tower-connector-lora" in caplog.text) == warned
    assert ("1 of 2 tensors" in caplog.text) == warned


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, ["use_dora (vLLM refuses it)"]),
        ({"modules_to_save": ["lm_head"]}, ["modules_to_save (vLLM refuses it)"]),
        ({"bias": "lora_only", "lora_bias": True}, ["bias (vLLM refuses it)", "lora_bias (vLLM refuses it)"]),
        ({"trainable_token_indices": [5]}, ["trainable_token_indices (vLLM refuses it)"]),
        ({"alpha_pattern": {"q_proj": 4}}, ["alpha_pattern (vLLM ignores it, so that another model answers)"]),
        ({"r": 1024}, ["r 1024 (vLLM refuses more than 512)"]),
        ({"r": 512, "use_rslora": True, "use_dora": False, "bias": "none", "alpha_pattern": {}}, []),
    ],
)
def test_an_adapter_that_vllm_does_not_serve_as_it_was_trained(
    settings: dict[str, Any],
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base", **settings}))
    assert unserved_settings(str(tmp_path)) == said
    monkeypatch.setattr(start, "load_processor", lambda model: build_tiny("qwen2_5_vl")[1])
    start_engine(EngineOptions(server="http://127.0.0.1:1/v1", served_model="mine"), str(tmp_path))
    assert all(one in caplog.text for one in said)
    assert ("balanced export" in caplog.text) == bool(said)


@pytest.mark.parametrize("named", ["owner/base", "{place}/base", "base"])
def test_a_server_of_the_base_does_not_answer_for_its_adapter(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    base = "owner/base" if "owner" in named else str(tmp_path / "base")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "load_processor", lambda model: build_tiny("qwen2_5_vl")[1])
    options = EngineOptions(server="http://127.0.0.1:1/v1", served_model=named.format(place=tmp_path))
    with pytest.raises(RecipeError, match=r"is the base of the adapter .*run.*--lora-modules mine="):
        start_engine(options, str(tmp_path / "run"))


def test_a_folder_without_an_adapter_has_no_such_tensors(tmp_path: Path) -> None:
    assert picture_half_keys(str(tmp_path)) == []
    assert picture_half_keys("someone/some-model") == []
    assert unserved_settings("someone/some-model") == []
