"""Checks of the arguments of an adapter, a recipe's or those of PEFT's configuration, before anything is loaded.

PEFT accepts all of them, but then trains nothing or something else, or no other command opens the result. No torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.types import format_value
from balanced_thinking.training.bounds import check_lora_bounds

# Argument -> why it is refused wherever it is set.
_REFUSED = {
    "inference_mode": "it freezes the adapter, so nothing would be trained",
    "alora_invocation_tokens": (
        "aLoRA looks for these tokens once per row, which packed samples share, and neither evaluation nor export can "
        "merge it"
    ),
    "use_qalora": "it is for bases in GPTQ only, and on any other it does nothing",
}
_DATA_FIRST = "PEFT passes data through the model first for it, and a training here does not"
# The first word of a way to initialize an adapter -> why it is refused.
_REFUSED_STARTS = {
    "eva": _DATA_FIRST,
    "corda": _DATA_FIRST,
    "lora_ga": _DATA_FIRST,
    "loftq": "it changes the base, on a CUDA GPU only, so that other machines could not open the trained adapter",
    "pissa_niter": (
        "it changes the base by a random decomposition, which PEFT repeats with other random numbers when the trained "
        "adapter is opened, so that it would be another model; pissa is the same without randomness"
    ),
}
# Configurations of these ways, which PEFT ignores with any other.
_CONFIGURATIONS = ("loftq_config", "eva_config", "corda_config", "lora_ga_config")


def check_adapter(values: Mapping[str, Any], prefix: str = "lora.", allowed: Collection[str] = ()) -> None:
    """Raises RecipeError for arguments of PEFT's LoraConfig with which a training would not be what it seems to be.

    Messages write `prefix` before a name. `allowed`: names that are right for this model.
    """
    check_lora_bounds(values, prefix)
    for name, why in _REFUSED.items():
        if values.get(name) not in (None, False) and name not in allowed:
            raise RecipeError(f"{prefix}{name} is {format_value(values[name])}: {why}; leave it out")
    start = values.get("init_lora_weights")
    for name, why in _REFUSED_STARTS.items():
        if isinstance(start, str) and start.startswith(name):
            raise RecipeError(
                f"{prefix}init_lora_weights is {start!r}: {why}; expected another one, such as true, pissa or olora"
            )
    for name in _CONFIGURATIONS:
        if values.get(name):
            found = format_value(values.get("init_lora_weights", True))
            raise RecipeError(
                f"{prefix}{name} is set, but PEFT does not read it with init_lora_weights {found}; leave it out"
            )
