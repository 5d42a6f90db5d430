"""torch's fused attention at its usual speed beside oneDNN's products.

Shapes: R rows, L positions of a row, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from balanced_thinking.cpu.products import fast_products, faster_now, plain_products

# Up to this length torch's fused attention, whose products are small, takes 1.1 to 4.5 times as long with oneDNN's.
_SLOWED_LENGTH = 1024
_RESHAPES = 5  # more do not lie between what transformers returns and the fused attention
_Found = TypeVar("_Found", Tensor, tuple[Tensor, Any])


@contextmanager
def fast_model() -> Iterator[None]:
    """`fast_products` for all of a model: within it every model's "sdpa" keeps its usual speed where it is short.

    Whatever transformers has as "sdpa", a user's own function too, does the work, and is what it has afterwards.
    """
    with fast_products():
        found = ALL_ATTENTION_FUNCTIONS["sdpa"]
        if not faster_now() or _is_ours(found):
            yield
            return
        registered = AttentionInterface()["sdpa"]  # for all instances; this one's own entry hides it
        ours = ALL_ATTENTION_FUNCTIONS["sdpa"] = partial(_attend, found)
        try:
            yield
        finally:
            if ALL_ATTENTION_FUNCTIONS["sdpa"] is ours:  # else somebody has set another one meanwhile
                del ALL_ATTENTION_FUNCTIONS["sdpa"]
                if found is not registered:
                    ALL_ATTENTION_FUNCTIONS["sdpa"] = found


def has_own_attention() -> bool:
    """Whether "sdpa" is transformers' own function, and not one that a user has put there."""
    found = ALL_ATTENTION_FUNCTIONS["sdpa"]
    return (found.args[0] if _is_ours(found) else found) is sdpa_attention_forward


def _is_ours(function: Any) -> bool:
    return isinstance(function, partial) and function.func is _attend


def _attend(
    attention: Callable[..., tuple[Tensor, Any]],
    module: torch.nn.Module,
    query_RHLD: Tensor,
    key_RHLD: Tensor,
    *rest: Any,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """transformers' attention interface: what `attention` returns, at its usual speed within `fast_products`."""
    return at_usual_speed(key_RHLD.shape[2], partial(attention, module, query_RHLD, key_RHLD, *rest, **kwargs))


def at_usual_speed(length: int, attend: Callable[[], _Found]) -> _Found:
    """What `attend` returns, an output or a tuple that begins with one, made without oneDNN's products where they are
    slower there; and so in its backward."""
    if torch.compiler.is_compiling() or length > _SLOWED_LENGTH or not faster_now():
        return attend()
    with plain_products():
        found = attend()
    output = found if isinstance(found, Tensor) else found[0]
    if (node := _fused(output.grad_fn)) is not None:
        within = _Within()
        node.register_prehook(within.begin)
        node.register_hook(within.end)
    return found


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
