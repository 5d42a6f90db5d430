"""A folded adapter computes what base and adapter do side by side, in memory and after it was saved."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from balanced_thinking.models.fold import fold_adapter
from balanced_thinking.models.load import load_model
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.models.weights import WeightsError, refuse_unmergeable

IDS = torch.arange(40).reshape(2, 20)
# Layers and options of adapters; tiny Qwen2's head is its embedding.
ADAPTERS: dict[str, dict[str, Any]] = {
    "layers": {"target_modules": ["q_proj", "down_proj"]},
    "dora": {"target_modules": ["q_proj"], "use_dora": True},
    "rank-stabilized": {"target_modules": "all-linear", "use_rslora": True},
    "embedding-of-a-tied-head": {"target_modules": ["q_proj", "embed_tokens"]},
    "tied-head": {"target_modules": ["q_proj", "lm_head"]},
    "own-head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "own-embedding-of-a-tied-head": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "own-tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 5]},
}


def make_adapter(options: dict[str, Any], dtype: torch.dtype = torch.float32) -> PeftModel:
    """With weights that change what the model computes."""
    model = build_tiny("qwen2")[0].to(dtype)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, **options))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if value.requires_grad and "magnitude" not in name:
                value += 0.05 * torch.randn_like(value)
    return adapted.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS).logits.double()


@pytest.mark.filterwarnings("ignore:Model")  # PEFT's, of tied layers
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_folded_adapter_is_the_base_with_the_adapter(name: str, tmp_path: Path) -> None:
    adapted = make_adapter(ADAPTERS[name])
    with_adapter = logits(adapted)
    with adapted.disable_adapter():
        assert (logits(adapted) - with_adapter).abs().max() > 0.01
    folded = fold_adapter(adapted)
    assert not any(isinstance(part, PeftModel) or "lora" in key for key, part in folded.named_modules())
    assert all(parameter.requires_grad for parameter in folded.parameters())  # so that it can be trained further
    torch.testing.assert_close(logits(folded), with_adapter, rtol=1e-5, atol=1e-5)
    tied = folded.get_input_embeddings().weight is folded.get_output_embeddings().weight
    assert {one.tie_word_embeddings for one in (folded.config, folded.config.get_text_config())} == {tied}
    folded.save_pretrained(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(read), logits(folded))


@pytest.mark.filterwarnings("ignore:Model")
@pytest.mark.parametrize("name", ["dora", "embedding-of-a-tied-head"])
def test_in_16_bits_every_weight_is_rounded_once(name: str) -> None:
    adapted = make_adapter(ADAPTERS[name], torch.bfloat16)
    exact = copy.deepcopy(adapted).float()
    expected = fold_adapter(exact).state_dict()
    folded = fold_adapter(adapted).state_dict()
    assert {value.dtype for value in folded.values()} == {torch.bfloat16}
    assert all(torch.equal(folded[name], expected[name].bfloat16()) for name in folded)


def test_an_adapter_is_loaded_as_one_model_in_a_dtype(tmp_path: Path) -> None:
    model, tokenizer = build_tiny("qwen2")
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = load_model(str(tmp_path / "base"))
    get_peft_model(base.model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    for dtype in (torch.float32, torch.bfloat16):
        merged = load_model(str(tmp_path / "adapter"), dtype=dtype).model
        assert merged.dtype == dtype
        assert type(merged) is type(model)
        assert all(parameter.requires_grad for parameter in merged.parameters())


@pytest.mark.filterwarnings("ignore:Model")
def test_both_configurations_say_that_a_saved_embedding_is_no_longer_the_head() -> None:
    """PEFT changes the outer one alone; a reader of the inner one would drop the head."""
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    folded = fold_adapter(get_peft_model(build_tiny("qwen2_5_vl")[0], lora))
    assert folded.get_input_embeddings().weight is not folded.get_output_embeddings().weight
    assert not folded.config.tie_word_embeddings
    assert not folded.config.get_text_config().tie_word_embeddings


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "LORA", "alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        *(
            ({"peft_type": kind}, f"the type {kind}")
            for kind in ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "XLORA")
        ),
        ({"peft_type": "MINE"}, "the type 'MINE'"),
        ({}, "the type 'None'"),
        *(({"peft_type": kind}, None) for kind in ("LORA", "IA3", "LOHA", "LOKR", "OFT", "VERA", "LN_TUNING")),
        ({"peft_type": "ADALORA"}, None),
        ({"peft_type": "LORA", "alora_invocation_tokens": None}, None),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused_by_its_kind(
    config: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "world-base"} | config))
    if said is None:
        refuse_unmergeable(str(tmp_path))
        return
    with pytest.raises(WeightsError, match=f"the adapter {tmp_path} has {said}.* cannot be merged into the weights"):
        load_model(str(tmp_path))
