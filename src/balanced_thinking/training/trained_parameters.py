"""Checks of a model that is ready to be trained: that something is trained, and that the result can be opened."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.models.parts import count_numbers
from balanced_thinking.training.adapter_checks import check_adapter


def refuse_nothing_to_train(model: Any) -> None:
    """Raises RecipeError for a model of which no parameter is trained: every step would leave it as it is."""
    if not any(parameter.requires_grad and count_numbers(parameter) for parameter in model.parameters()):
        adapter = "load it with is_trainable=True" if isinstance(model, PeftModel) else "set requires_grad"
        raise RecipeError(
            f"no parameter of the model is trained (requires_grad is false everywhere), so nothing would be learned; "
            f"{adapter} for the parameters to train, or leave what freezes them out"
        )


def refuse_bias_without_base(model: Any) -> None:
    """Raises RecipeError for an adapter with a bias on a layer without one: merging it, PEFT has no place for it."""
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if any(layer.lora_bias.values()) and getattr(layer.get_base_layer(), "bias", None) is None:
            raise RecipeError(
                f"lora_bias is true, but {name} has no bias, so the adapter could not be merged, and evaluation and "
                "export could not open it; leave lora_bias out, or name only layers with a bias in target_modules"
            )


def refuse_unusable_adapters(model: Any, config: Any) -> None:
    """Raises RecipeError for an adapter, the one to add or one of the model, that cannot be trained exactly.

    `config`: PEFT's configuration of the adapter to add; None without one.
    """
    base = getattr(model, "config", None)
    allowed = {"use_qalora"} if getattr(base, "quantization_config", None) else set()
    if isinstance(config, LoraConfig):
        check_adapter(vars(config), "peft_config.", allowed)
    own = model.active_peft_config if isinstance(model, PeftModel) else None
    if isinstance(own, LoraConfig):  # it was initialized elsewhere, and requires_grad says what it trains
        check_adapter({"alora_invocation_tokens": own.alora_invocation_tokens}, "the model's adapter: ")


def refuse_lost_parts(model: Any, args: Any, adapter: Any) -> None:
    """Raises RecipeError where TRL's GRPO would not find a part of a model: its reference model, or its embedding.

    `args`: of GRPO. `adapter`: PEFT's configuration of the adapter to add; None without one.
    """
    if not isinstance(model, PreTrainedModel):
        return
    if args.beta and adapter is None and not model.config._name_or_path:
        raise RecipeError(
            f"beta is {args.beta:g}, but the model was not loaded from a folder or the hub, where the reference model "
            "is found by its name; save it and load it again, or set beta=0"
        )
    plain = adapter is None and hasattr(getattr(model, "model", None), "embed_tokens")
    if args.cast_lm_head_to_fp32 and model.config.tie_word_embeddings and not plain:
        raise RecipeError(
            "cast_lm_head_to_fp32 is true, but the head of this model is its embedding, which TRL does not find in a "
            "model that sees pictures or has an adapter; leave cast_lm_head_to_fp32 out"
        )
