"""torch's fused attention at its usual speed while other matmuls run with oneDNN.

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

from balanced_thinking.cpu.products import are_matmuls_fast, fast_matmuls, plain_matmuls

# Up to this length torch's fused attention, whose matmuls are small, takes 1.1 to 4.5 times as long with oneDNN.
_SLOWED_LENGTH = 1024
_RESHAPES = 5  # at most so many nodes lie between what transformers returns and the fused attention
_Found = TypeVar("_Found", Tensor, tuple[Tensor, Any])


@contextmanager
def fast_matmuls_and_attention() -> Iterator[None]:
    """`fast_matmuls` for a complete model: short "sdpa" attention keeps its usual speed within this context.

    Whatever is registered as "sdpa", also a user's own function, does the work and is restored afterwards.
    """
    with fast_matmuls():
        found = ALL_ATTENTION_FUNCTIONS["sdpa"]
        if not are_matmuls_fast() or _is_wrapped(found):
            yield
            return
        registered = AttentionInterface()["sdpa"]  # for all instances; this instance's own entry hides it
        ours = ALL_ATTENTION_FUNCTIONS["sdpa"] = partial(_attend_without_onednn, found)
        try:
            yield
        finally:
            if ALL_ATTENTION_FUNCTIONS["sdpa"] is ours:  # else somebody has set another one in the meantime
                del ALL_ATTENTION_FUNCTIONS["sdpa"]
                if found is not registered:
                    ALL_ATTENTION_FUNCTIONS["sdpa"] = found


def is_sdpa_original() -> bool:
    """Whether "sdpa" is transformers' own function, not one that a user has registered."""
    found = ALL_ATTENTION_FUNCTIONS["sdpa"]
    return (found.args[0] if _is_wrapped(found) else found) is sdpa_attention_forward


def _is_wrapped(function: Any) -> bool:
    return isinstance(function, partial) and function.func is _attend_without_onednn


def _attend_without_onednn(
    attention: Callable[..., tuple[Tensor, Any]],
    module: torch.nn.Module,
    query_RHLD: Tensor,
    key_RHLD: Tensor,
    *rest: Any,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """transformers' attention interface: calls `attention`, at its usual speed within `fast_matmuls`."""
    return run_without_onednn(key_RHLD.shape[2], partial(attention, module, query_RHLD, key_RHLD, *rest, **kwargs))


def run_without_onednn(length: int, attend: Callable[[], _Found]) -> _Found:
    """Call `attend`, without oneDNN's matmuls where those would slow it down; the same holds for its backward.

    `attend` returns the attention's output, or a tuple that begins with it.
    """
    if torch.compiler.is_compiling() or length > _SLOWED_LENGTH or not are_matmuls_fast():
        return attend()
    with plain_matmuls():
        found = attend()
    output = found if isinstance(found, Tensor) else found[0]
    if (node := _find_fused_backward(output.grad_fn)) is not None:
        hooks = _PlainBackward()
        node.register_prehook(hooks.use_plain_matmuls)
        node.register_hook(hooks.restore_matmuls)
    return found


def _find_fused_backward(node: Any) -> Any:
    """The backward node of the fused attention behind `node`; None if it is not within a few steps."""
    for _ in range(_RESHAPES):
        if node is None or "ScaledDotProduct" in node.name():
            return node
        node = node.next_functions[0][0] if node.next_functions else None
    return None


class _PlainBackward:
    """Hooks that run a node's backward within `plain_matmuls`."""

    def __init__(self) -> None:
        self.entered = ExitStack()

    def use_plain_matmuls(self, _: Any) -> None:
        self.entered.enter_context(plain_matmuls())

    def restore_matmuls(self, *_: Any) -> None:
        self.entered.close()
