"""torch's fused attention at its usual speed beside oneDNN's products.

Shapes: R rows, L positions of a row, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from balanced_thinking.cpu.products import fast_products, faster_now, plain_products

# Up to this length torch's fused attention, whose products are small, takes 1.1 to 4.5 times as long with oneDNN's.
_SLOWED_LENGTH = 1024
_RESHAPES = 5  # more do not lie between what transformers returns and the fused attention


def attend_fused(
    module: torch.nn.Module, query_RHLD: Tensor, key_RHLD: Tensor, value_RHLD: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' own scaled-dot-product attention, at its usual speed within `fast_products`."""
    forward = partial(sdpa_attention_forward, module, query_RHLD, key_RHLD, value_RHLD, *args, **kwargs)
    return _unhurried(key_RHLD.shape[2], lambda: forward()[0]), None


@contextmanager
def fast_model() -> Iterator[None]:
    """`fast_products` for all of a model: within it every model's "sdpa" is `attend_fused`."""
    with fast_products():
        if ALL_ATTENTION_FUNCTIONS["sdpa"] is attend_fused:
            yield
            return
        ALL_ATTENTION_FUNCTIONS["sdpa"] = attend_fused
        try:
            yield
        finally:
            del ALL_ATTENTION_FUNCTIONS["sdpa"]


def _unhurried(length: int, attend: Callable[[], Tensor]) -> Tensor:
    """What `attend` returns, made without oneDNN's products where they are slower there, and so in its backward."""
    if torch.compiler.is_compiling() or length > _SLOWED_LENGTH or not faster_now():
        return attend()
    with plain_products():
        output = attend()
    if (node := _fused(output.grad_fn)) is not None:
        within = _Within()
        node.register_prehook(within.begin)
        node.register_hook(within.end)
    return output


def _fused(node: Any) -> Any:
    """The backward of the fused attention that led to this one, if it is not far."""
    for _ in range(_RESHAPES):
        if node is None or "ScaledDotProduct" in node.name():
            return node
        node = node.next_functions[0][0] if node.next_functions else None
    return None


class _Within:
    """Hooks that keep a node's backward within `plain_products`."""

    def __init__(self) -> None:
        self.entered = ExitStack()

    def begin(self, _: Any) -> None:
        self.entered.enter_context(plain_products())

    def end(self, *_: Any) -> None:
        self.entered.close()
