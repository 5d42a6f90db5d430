"""Bases in 4 and 8 bits: what is quantized, what an adapter remembers, and dense weights of the same values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.evaluation.engines.start import EngineOptions, describe_weights
from balanced_thinking.models import quantization
from balanced_thinking.models.load import LoadedModel, load_model
from balanced_thinking.models.parts import ModelParts
from balanced_thinking.models.quantization import (
    QUANTIZATION_FILE,
    check_quantization,
    dequantize,
    quantization_config,
    quantization_of,
    write_base_quantization,
)
from balanced_thinking.models.tiny import build_tiny

IDS = torch.arange(5, 25)[None]
KINDS = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three small bases."""
    folder = tmp_path_factory.mktemp("bases")
    for architecture in ("qwen2_5_vl", "llava_next", "qwen2"):
        for part in build_tiny(architecture):
            part.save_pretrained(folder / architecture)
    return folder


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


def adapt(loaded: LoadedModel, folder: Path) -> Any:
    """A random adapter on the model, saved to `folder`."""
    torch.manual_seed(0)
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=4, init_lora_weights=False, **ModelParts(loaded.model).lora_layers("language")
    )
    adapted = get_peft_model(loaded.model, lora)
    adapted.save_pretrained(folder)
    write_base_quantization(loaded.model, folder)
    return adapted


def test_dense_weights_of_16_bits_are_those_that_are_loaded_again(bases: Path, tmp_path: Path) -> None:
    """The frequencies of the positions keep their precision, as in any model that is loaded in 16 bits."""
    dense = dequantize(load_model(str(bases / "qwen2"), quantization="nf4").model, torch.bfloat16)
    dense.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(dense))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava_next", "qwen2"])
def test_only_linear_layers_of_the_language_model_are_quantized(name: str, architecture: str, bases: Path) -> None:
    model = load_model(str(bases / architecture), quantization=name).model
    kinds = {path: type(module).__name__ for path, module in model.named_modules() if "Linear" in type(module).__name__}
    language = set(ModelParts(build_tiny(architecture)[0]).linear_layers(["language"]))
    assert {path for path, kind in kinds.items() if kind == KINDS[name]} == language
    assert all(kinds[path] == "Linear" for path in kinds.keys() - language)
    assert ModelParts(model).count_parameters() == ModelParts(build_tiny(architecture)[0]).count_parameters()
    assert quantization_of(model) == quantization_of(model.config) == name


def test_the_dense_weights_are_those_that_nf4_computes_with(bases: Path) -> None:
    """In training, in evaluation and made dense: one and the same, also on CPUs for which bitsandbytes repacks."""
    model = load_model(str(bases / "qwen2_5_vl"), quantization="nf4").model
    trained = model.train()(input_ids=IDS).logits.detach()
    evaluated = logits(model)
    dense = dequantize(model, torch.float32)
    assert torch.equal(trained, evaluated)
    assert torch.allclose(logits(dense), evaluated, atol=1e-5)
    assert quantization_of(dense) is None
    assert {type(module).__name__ for module in dense.modules() if "Linear" in type(module).__name__} == {"Linear"}
    original = logits(load_model(str(bases / "qwen2_5_vl")).model)
    assert (original - evaluated).abs().max() > 1e-3  # it did round


@pytest.mark.parametrize("name", KINDS)
def test_an_adapter_is_loaded_on_the_base_that_it_was_trained_on(name: str, bases: Path, tmp_path: Path) -> None:
    adapted = adapt(load_model(str(bases / "qwen2"), quantization=name), tmp_path / "model")
    expected = logits(adapted)
    assert quantization_of(tmp_path / "model") == name
    merged = load_model(str(tmp_path / "model")).model
    assert quantization_of(merged) is None
    # int8 rounds what goes into a layer, too, so that dense weights compute something else.
    assert torch.allclose(logits(merged), expected, atol=1e-4 if name == "nf4" else 0.2)
    beside = load_model(str(tmp_path / "model"), quantization=name).model
    assert torch.equal(logits(beside), expected)
    plain = tmp_path / "plain"
    (tmp_path / "model").rename(plain)
    (plain / QUANTIZATION_FILE).unlink()
    assert quantization_of(plain) is None
    assert not torch.allclose(logits(load_model(str(plain)).model), expected, atol=1e-4)


def test_the_number_type_of_the_base_is_remembered(bases: Path, tmp_path: Path) -> None:
    adapt(load_model(str(bases / "qwen2"), quantization="nf4", dtype=torch.bfloat16), tmp_path)
    stored = json.loads((tmp_path / QUANTIZATION_FILE).read_text())
    assert (stored["base_dtype"], stored["bnb_4bit_compute_dtype"]) == ("bfloat16", "bfloat16")
    assert stored["bnb_4bit_use_double_quant"] is True
    merged = load_model(str(tmp_path)).model
    assert {value.dtype for value in merged.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "fp4"),  # its default
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}, "int8"),
        ({"quant_method": "gptq", "bits": 4}, None),
        ({}, None),
    ],
)
def test_the_quantization_of_a_configuration(config: dict[str, Any], found: str | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
    assert (
        quantization_of(tmp_path)
        == quantization_of(config)
        == quantization_of({"quantization_config": config})
        == found
    )


def test_without_bitsandbytes_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=re.escape("pip install 'balanced-thinking[quantization]'")):
        quantization_config("nf4", torch.float32)
    check_quantization(None)


def test_what_cannot_be_quantized_is_refused(bases: Path) -> None:
    with pytest.raises(RecipeError, match=r"quantization is 'fn4' \(did you mean 'nf4'\?\); known: nf4, int8"):
        check_quantization("fn4")
    with pytest.raises(ValueError, match="has no stored weights"):
        load_model("tiny:qwen2", quantization="nf4")
    with pytest.raises(RecipeError, match="leave --quantization nf4 out"):
        EngineOptions("vllm", quantization="nf4")
    assert describe_weights(EngineOptions(dtype="float32", quantization="nf4")) == "float32/nf4"
