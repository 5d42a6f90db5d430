"""Seconds of a micro-batch on this machine's CPU: its heaviest operations are run and timed, at their own shapes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from balanced_thinking.cpu.attention import run_without_onednn
from balanced_thinking.cpu.products import fast_matmuls
from balanced_thinking.estimate.trace import Operation, Trace

_SECONDS = 3.0  # of timing, for one estimate
_FLOPS_OF_A_CALL = 4e9  # a product with more is timed with fewer rows
_TIMED_SHARE = 0.97  # of the products' FLOPs
_BYTES_OF_A_CALL = 64 * 2**20
# In a training an operation finds its operands outside the caches, and memory that was given back. Set from 20 pairs of
# benchmarks/estimate.py, whose trainings took 0.92 to 1.47 times as long as their operations alone.
_SLOWER_TOGETHER = 1.15
_OPERATION_SECONDS = 12e-6  # to dispatch one, with autograd's part
_ROUNDS, _SECONDS_OF_A_ROUND = 3, 0.01
_NUMBERS = 2**22  # of the tensor with which an optimizer is timed


class CpuRates:
    """Rates of this machine, measured when they are first asked for."""

    def __init__(self) -> None:
        self._products: dict[Any, float] = {}  # FLOP/s by shapes
        self._attention: dict[Any, tuple[float, float]] = {}  # FLOP/s forward and backward
        self._moves: dict[tuple[str, int], float] = {}  # bytes/s by kind of work and size

    def micro_batch_seconds(self, trace: Trace) -> float:
        with fast_matmuls():
            self._time_products(trace)
            found = sum(count * self._seconds(one) for one, count in trace.operations.items())
        return _SLOWER_TOGETHER * found + _OPERATION_SECONDS * sum(trace.operations.values())

    def _time_products(self, trace: Trace) -> None:
        """The products with the most FLOPs, until they make up nearly all of them."""
        work: Counter[Any] = Counter()
        for one, count in trace.operations.items():
            if one.kind == "product":
                work[_product_key(one)] += one.flops * count
        total, timed, began = sum(work.values()), 0, time.perf_counter()
        for key, flops in work.most_common():
            if key not in self._products:
                if timed > _TIMED_SHARE * total or time.perf_counter() - began > _SECONDS:
                    break
                self._products[key] = _time_product(key)
            timed += flops

    def _seconds(self, one: Operation) -> float:
        if one.kind == "product":
            rate = self._products.get(_product_key(one)) or self._nearest_product(one)
            return one.flops / rate
        if one.kind == "attention":
            return one.flops / self._attention_rate(one)
        return one.bytes_moved / self._move_rate(one)

    def _nearest_product(self, one: Operation) -> float:
        size = one.flops
        near = min(self._products, key=lambda key: abs(_log(_key_flops(key)) - _log(size)), default=None)
        return self._products[near] if near is not None else 1e10

    def _attention_rate(self, one: Operation) -> float:
        """At the next power of two of the length, with the heads of one row."""
        backward = "backward" in one.name
        shapes = [shape for shape in one.shapes if len(shape) == 4][1 if backward else 0 :]
        _, heads, queries, width = shapes[0]
        length = 1 << max(4, (queries - 1).bit_length())
        name = (heads, length, width, one.causal)
        if name not in self._attention:
            self._attention[name] = _time_attention(*name)
        return self._attention[name][backward]

    def _move_rate(self, one: Operation) -> float:
        kind = _KINDS.get(one.name, "multiply")
        size = min(_BYTES_OF_A_CALL, 1 << max(16, int(one.bytes_moved).bit_length()))
        if (kind, size) not in self._moves:
            self._moves[kind, size] = _time_move(kind, size)
        return self._moves[kind, size]


def _log(value: float) -> int:
    return int(value).bit_length()


def _product_key(one: Operation) -> Any:
    pairs = zip(one.shapes, one.transposed or (False,) * len(one.shapes), strict=True)
    shapes, transposed = zip(*(pair for pair in pairs if len(pair[0]) > 1), strict=True)
    return one.name, shapes, one.dtype, transposed


def _key_flops(key: Any) -> float:
    _, shapes, *_ = key
    count = 2.0
    for length in (*shapes[0], shapes[-1][-1]):
        count *= length
    return count


def _time_product(key: Any) -> float:
    """FLOP/s of a matrix product of these shapes; of a convolution those of the product that it comes to.

    Of a larger product the longest dimension is cut. Factors are stored as the model's are: by a weight of 151,936 x
    512 an EPYC multiplies at 84 GFLOP/s as it is, and at 55 where it was turned.
    """
    name, shapes, dtype, transposed = key
    left, right = (shapes[-2], shapes[-1]) if len(shapes) > 1 else (shapes[0], shapes[0][::-1])
    rows, inner, columns = left[-2], left[-1], right[-1]
    if name.startswith("convolution") or len(left) > 3:
        rows, inner, columns = 512, 512, 512
    batch = left[0] if len(left) == 3 else 1
    while 2.0 * batch * rows * inner * columns > _FLOPS_OF_A_CALL and max(rows, inner, columns) > 256:
        if columns >= max(rows, inner):
            columns //= 2
        elif rows >= inner:
            rows //= 2
        else:
            inner //= 2
    one = _make_factor(batch, rows, inner, dtype, transposed[-2] if len(shapes) > 1 else False)
    other = _make_factor(batch, inner, columns, dtype, transposed[-1])
    return 2.0 * batch * rows * inner * columns / _time(lambda: one @ other)


def _make_factor(batch: int, rows: int, columns: int, dtype: torch.dtype, transposed: bool) -> torch.Tensor:
    stored = (batch, columns, rows) if transposed else (batch, rows, columns)
    made = torch.randn(stored, dtype=dtype)
    made = made.transpose(1, 2) if transposed else made
    return made[0] if batch == 1 else made


def _time_attention(heads: int, length: int, width: int, causal: bool) -> tuple[float, float]:
    query, key, value = (torch.randn(1, heads, length, width, requires_grad=True) for _ in range(3))

    def attend() -> Any:
        return run_without_onednn(length, lambda: F.scaled_dot_product_attention(query, key, value, is_causal=causal))

    flops = 4.0 * heads * length * length * width / (2 if causal else 1)
    forward = _time(attend)
    output = attend()
    both = _time(lambda: attend().backward(output.detach()))
    return flops / forward, 2.5 * flops / max(both - forward, 0.2 * both)


# What a kernel does to a number, where that takes longer than reading and writing it.
_KINDS = {
    "_softmax": "softmax",
    "_softmax_backward_data": "softmax",
    "silu": "silu",
    "silu_backward": "silu",
    "gelu": "gelu",
    "gelu_backward": "gelu",
    "tanh": "gelu",
    "tanh_": "gelu",
    "cos": "silu",
    "sin": "silu",
    "pow": "pow",
    "max": "max",
    "mean": "sum",
    "sum": "sum",
    "native_layer_norm": "norm",
    "native_layer_norm_backward": "norm",
    "cat": "copy",
    "_to_copy": "copy",
    "clone": "copy",
    "copy_": "copy",
    "constant_pad_nd": "copy",
}


def _time_move(kind: str, size: int) -> float:
    """Bytes/s, read and written, of an operation that moves `size` bytes."""
    rows = max(1, size // (3 * 4 * 1024))
    left, right = torch.randn(rows, 1024), torch.randn(rows, 1024)
    spread = torch.randn(1024, rows).t()
    calls: dict[str, tuple[Callable[[], Any], int]] = {
        "multiply": (lambda: left * right, 3),
        "copy": (lambda: spread.contiguous() if rows > 1 else left.clone(), 2),
        "softmax": (lambda: torch.softmax(left, -1), 2),
        "silu": (lambda: F.silu(left), 2),
        "gelu": (lambda: F.gelu(left, approximate="tanh"), 2),
        "pow": (lambda: left.pow(2), 2),
        "max": (lambda: left.max(dim=-1), 1),
        "sum": (lambda: left.mean(-1), 1),
        "norm": (lambda: F.layer_norm(left, (1024,)), 2),
    }
    call, tensors = calls[kind]
    return tensors * left.numel() * 4 / _time(call)


def _time(call: Callable[[], Any]) -> float:
    """Seconds of a call: the least of a few, after one that warms up.

    With one thread they are CPU seconds, which other processes on the machine disturb less.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    call()
    began = clock()
    call()
    repeats = max(1, min(50, int(_SECONDS_OF_A_ROUND / max(clock() - began, 1e-7))))
    spent = []
    for _ in range(_ROUNDS):
        began = clock()
        for _ in range(repeats):
            call()
        spent.append((clock() - began) / repeats)
    return max(min(spent), 1e-9)


def update_seconds(trained: int, optimizer: str) -> float:
    """Of an optimizer's step with the norm of its gradients, from one on a tensor of a few million numbers."""
    parameter = torch.nn.Parameter(torch.zeros(min(trained, _NUMBERS)))
    parameter.grad = torch.ones_like(parameter)
    made: Any = torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW
    stepper = made([parameter], lr=1e-3, fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_([parameter], 1e9)
        stepper.step()

    return _time(step) * trained / parameter.numel()
