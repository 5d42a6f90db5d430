"""What is trained in `make test-ranks`: data sets, and the cases by the name of their row in docs/scale.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from datasets import Dataset

from balanced_thinking.data.rows import to_dataset
from balanced_thinking.data.world import load
from balanced_thinking.segments import get_format

STEPS, SAMPLES = 10, 8  # optimizer steps, and samples of each, over all ranks
KEPT = 5  # the step whose checkpoint others continue from
KINDS = ("ddp", "fsdp2", "zero2", "zero3")
RANKS = (4, 2, 1)  # in this order: what four ranks have saved, two and one continue
# Reasoning that a row may lack.
OPTIONAL: dict[str, Any] = {
    "name": "optional-think",
    "think_open": "<think>",
    "think_close": "</think>",
    "answer_open": "<answer>",
    "answer_close": "</answer>",
    "think_required": False,
}


class Case(NamedTuple):
    """A training of STEPS steps. `data` is a key of `make_data`; `options` are of the trainer's config."""

    options: dict[str, Any]
    data: str = "pictures"
    architecture: str = "qwen2_5_vl"
    lora: bool = False
    offload: bool = False  # activations, by torch's own hooks: TRL's need a GPU
    tolerance: float = 1e-5  # relative, of every loss and gradient norm


PACKED = {"packing": True}
OWN_WEIGHTS = {"closing_tag_factor": 4.0, "token_gate": "eaft", "token_gate_on": "think"}
OWN_WEIGHTS |= {"schedule": "adaptive", "answer_weight_start": 0.5, "answer_weight_end": 1.5}
DFT: dict[str, Any] = {"weighting": "example-mean", "token_gate": "dft"}
SFTKEY: dict[str, Any] = {"weighting": "sftkey"}
# On any number of ranks.
COMMON: dict[str, Case] = {
    "full, padded": Case({}),
    "full, packed": Case(PACKED),
    "LoRA, padded": Case({}, lora=True),
    "LoRA, packed": Case(PACKED, lora=True),
}
# Where one rank has what another has not, so on two and on four. What is not about pictures is trained on text.
UNEVEN: dict[str, Case] = {
    "LLaVA-NeXT, a head of its own, packed": Case(PACKED, architecture="llava_next"),
    "Gemma 3, two-way masks, packed": Case(PACKED, architecture="gemma3"),
    "factors, a gate, two weights, adaptive": Case(OWN_WEIGHTS, "texts", "qwen2"),
    "example means, dft": Case(DFT, "texts", "qwen2"),
    "sftkey": Case(SFTKEY, "texts", "qwen2"),
    "a last step of 3 samples, plain SFT": Case({"weighting": "uniform"}, "eleven texts", "qwen2"),
    "a last step of 3 samples, packed": Case(PACKED, "eleven"),
    "the same, `group_by_length`": Case({"train_sampling_strategy": "group_by_length"}, "eleven texts", "qwen2"),
    "rows without thinking": Case({"reasoning_format": OPTIONAL}, "half without thinking", "qwen2"),
    "rows left out, `overflow: drop`": Case({"overflow": "drop", "max_length": 200}),
    "a picture in one row only": Case({}, "one picture"),
    "steps without a picture": Case({}, "few pictures"),
    "a matched gradient norm": Case({"match_gradient_norm": 0.3}, "texts", "qwen2"),
}
EXACT = COMMON | UNEVEN
# What changes how a step is computed; the first column compares it with one plain process without it.
FEATURES: dict[str, Case] = {
    "gradient checkpointing": Case({"gradient_checkpointing": True}),
    "the same, a picture in one row only": Case({"gradient_checkpointing": True}, data="one picture"),
    "activation offloading": Case({}, offload=True),
    "`torch.compile`": Case({"torch_compile": True}),
    "bfloat16 autocast": Case({"bf16": True}, tolerance=2e-2),
}
SAVED = Case({"save_strategy": "steps", "save_steps": KEPT, "save_total_limit": 2})


def make_data() -> dict[str, Dataset]:
    """Rows of lengths that differ, so that padding and denominators matter."""
    examples = [next(load(n=1, seed=seed, ratio=ratio)) for seed, ratio in enumerate((5, 10, 20, 40) * 4)]
    blind = [replace(one, images=()) for one in examples]
    half = [replace(one, think=None) if i % 2 else one for i, one in enumerate(blind[:SAMPLES])]
    return {
        "pictures": to_dataset(examples[:SAMPLES]),
        "texts": to_dataset(blind[:SAMPLES]),
        "eleven": to_dataset(examples[: SAMPLES + 3]),
        "eleven texts": to_dataset(blind[: SAMPLES + 3]),
        "half without thinking": to_dataset(half, get_format(OPTIONAL)),
        "one picture": to_dataset([*blind[:2], examples[2], *blind[3:SAMPLES]]),
        "few pictures": to_dataset([*blind[:2], examples[2], *blind[3:]]),
    }
