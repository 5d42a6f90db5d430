"""How an evaluation draws tokens: greedy, or at random in a way that can be repeated. No torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from balanced_thinking.config.errors import RecipeError

_COLDEST, _HOTTEST = 0.01, 100.0  # vLLM raises what is colder; far below, logits divided by it are infinite
_MOST_TOKENS, _LARGEST_SEED = 10**7, 2**32 - 1
_ITEM_SEEDS = 2**31 - 1  # what every server takes


@dataclass(frozen=True)
class Sampling:
    """How each token of an answer is chosen.

    Attributes:
        temperature: 0 takes the most probable token, always (greedy). Else logits are divided by it, and a token is
            drawn from their softmax.
        top_p: draw from the most probable tokens that together have this probability; 1: from all.
        top_k: draw from so many most probable tokens; 0: from all.
        seed: other answers come with another one. Those of an item depend on it and on the item's id, not on the batch.

    Raises RecipeError for a value outside its range, and for one that greedy answers would not use.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.is_greedy or _COLDEST <= self.temperature <= _HOTTEST):
            raise RecipeError(
                f"temperature is {self.temperature}; expected 0 (greedy), or {_COLDEST:g} to {_HOTTEST:g}"
            )
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"top_p is {self.top_p}; expected more than 0, and at most 1 (all tokens)")
        if not 0 <= self.top_k <= _MOST_TOKENS:
            raise RecipeError(f"top_k is {self.top_k}; expected 0 (all tokens) to {_MOST_TOKENS}")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise RecipeError(f"sampling_seed is {self.seed}; expected 0 to {_LARGEST_SEED}")
        unused = {"top_p": self.top_p != 1, "top_k": self.top_k, "sampling_seed": self.seed}
        if self.is_greedy and (names := [name for name, given in unused.items() if given]):
            raise RecipeError(
                f"greedy answers (temperature 0) do not use {' and '.join(names)}; expected a temperature above 0, too"
            )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def __str__(self) -> str:
        """As results name it."""
        if self.is_greedy:
            return "greedy"
        shares = [f"top_p {self.top_p:g}"] if self.top_p < 1 else []
        counts = [f"top_k {self.top_k}"] if self.top_k else []
        return ", ".join([f"temperature {self.temperature:g}", *shares, *counts, f"seed {self.seed}"])

    def seed_of(self, item: str) -> int:
        """The seed of an item's answer, which is the same in every batch and for every model."""
        digest = hashlib.sha256(f"{self.seed} {item}".encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % _ITEM_SEEDS

    def request_fields(self, item: str) -> dict[str, Any]:
        """As vLLM and OpenAI-compatible servers take them. What is not limited is named, too: else a checkpoint's or a
        server's own limits would apply."""
        if self.is_greedy:
            return {"temperature": 0.0}
        limits = {"top_p": self.top_p, "top_k": self.top_k or -1, "min_p": 0.0}
        return {"temperature": self.temperature, **limits, "seed": self.seed_of(item)}
