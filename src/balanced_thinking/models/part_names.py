"""Names of a model's parts, as recipes write them. No torch."""

from __future__ import annotations

PARTS = ("language", "vision", "projector", "audio")
ALL_LINEAR = "all-linear"  # PEFT's name for every linear layer
# Values of `lora.targets`, and the parts whose linear layers get an adapter.
LORA_TARGETS = {"language": ("language",), "all": PARTS, "vision+language": ("vision", "language")}
