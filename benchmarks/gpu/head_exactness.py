"""The Triton head against float64: every option, in three dtypes, no worse than the naive head of the same dtype.

The truth is the eager reference in float64, which the tests hold to the definition. The naive head is the eager
reference in the dtype itself. On a CPU the kernel runs under Triton's interpreter; without Triton the head in plain
torch is checked in its place, and the rows say so.

Shapes: T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from balanced_thinking.loss import chunks
from balanced_thinking.loss.linear_cross_entropy import weighted_linear_cross_entropy
from gpu.rows import Emit, Row, Setting, contestant, why

# What the fast head's error may be: a factor of the naive one's, and some roundings. In float32 both are a matter of
# chance: in 60 draws of "sharp and capped" their ratio had a median of 1.00 and went from 0.54 to 2.45. The interpreter
# cuts bits off where a GPU rounds.
FACTORS = {torch.float32: 4.0, torch.bfloat16: 1.0, torch.float16: 1.0}
ROUNDINGS = {torch.float32: 6, torch.bfloat16: 3, torch.float16: 2}
UPSTREAM = 0.37  # the gradient of the loss that comes from above


@dataclass(frozen=True)
class Size:
    tokens: int
    width: int
    vocabulary: int


@dataclass(frozen=True)
class Case:
    """`head` are options of the head; `frozen` names inputs without gradient."""

    head: dict[str, Any] = field(default_factory=dict)
    ignored: float = 0.4
    bias: bool = False
    sharpness: float = 1.0
    size: Size | None = None  # else that of the device
    strided: bool = False  # every input is a view with gaps
    frozen: tuple[str, ...] = ()
    weightless: bool = False
    small_chunks: bool = False
    autocast: bool = False
    gated: bool = False


SMALL_SIZE = Size(7, 24, 101)
EVERYTHING: dict[str, Any] = {"softcap": 3.0, "logit_scale": 1.7}
CASES: dict[str, Case] = {
    "plain": Case(),
    "bias": Case(bias=True),
    "softcap": Case({"softcap": 3.0}),
    "logit_scale": Case({"logit_scale": 0.3}),
    "bias, scale and cap": Case(EVERYTHING, bias=True),
    "all supervised": Case(ignored=0.0),
    "few supervised": Case(ignored=0.9),
    "none supervised": Case(ignored=1.0, bias=True),
    "no token at all": Case(size=Size(0, 24, 101)),
    "one token": Case(size=Size(1, 24, 101), ignored=0.0),
    "no weight": Case(weightless=True, bias=True),
    "odd sizes": Case(EVERYTHING, bias=True, size=Size(5, 37, 4099)),
    "views with gaps": Case(EVERYTHING, bias=True, strided=True),
    "several chunks": Case(EVERYTHING, bias=True, small_chunks=True),
    "head frozen": Case(frozen=("head",)),
    "hidden states frozen": Case(frozen=("hidden",), bias=True),
    "targets that underflow": Case(sharpness=40.0, bias=True),
    "sharp and capped": Case({"softcap": 30.0}, sharpness=40.0),
    "entropy": Case(EVERYTHING | {"entropy": True}, bias=True),
    "dft": Case(EVERYTHING | {"gate": "dft"}, bias=True),
    "eaft, of some tokens": Case(EVERYTHING | {"gate": "eaft"}, bias=True, gated=True),
    "autocast of a float32 head": Case(EVERYTHING, bias=True, autocast=True),
}
REAL = Case(EVERYTHING, bias=True, size=Size(513, 2048, 151_937))  # on a GPU only


@dataclass(frozen=True)
class Inputs:
    hidden_TD: Tensor
    head_VD: Tensor
    bias_V: Tensor | None
    labels_T: Tensor
    weights_T: Tensor
    gated_T: Tensor | None

    def run(self, case: Case, impl: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Loss, nll, entropy where it is asked for, and the gradients, from leaves of this dtype."""
        leaves = {"hidden": self.hidden_TD, "head": self.head_VD, "bias": self.bias_V}
        leaves = {
            name: _strided(tensor.to(dtype), case.strided).requires_grad_(name not in case.frozen)
            for name, tensor in leaves.items()
            if tensor is not None
        }
        labels_T, weights_T = (_strided(x, case.strided) for x in (self.labels_T, self.weights_T))
        options = case.head | {"bias_V": leaves.get("bias"), "gated_T": self.gated_T}
        lower = case.autocast and dtype != torch.float64
        with torch.autocast(self.hidden_TD.device.type, torch.bfloat16) if lower else nullcontext():
            out = weighted_linear_cross_entropy(
                leaves["hidden"], leaves["head"], labels_T, weights_T, impl=impl, **options
            )
        (out.loss * UPSTREAM).backward()
        found = {"loss": out.loss, "nll": out.nll_T}
        if case.head.get("entropy"):
            found["entropy"] = out.entropy_T
        found = {name: tensor.detach() for name, tensor in found.items()}
        return found | {f"gradient of {name}": leaf.grad for name, leaf in leaves.items() if leaf.requires_grad}


def _strided(tensor: Tensor, wanted: bool) -> Tensor:
    """A detached copy; where wanted, a view of every second element along the last axis of a larger tensor."""
    if not wanted:
        return tensor.detach().clone()
    larger = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1])
    larger[..., ::2] = tensor.detach()
    return larger[..., ::2]


def make_inputs(case: Case, size: Size, device: str) -> Inputs:
    """Drawn on a CPU, so that all machines check the same numbers."""
    rng, size = torch.Generator().manual_seed(0), case.size or size
    hidden_TD = torch.randn(size.tokens, size.width, generator=rng) * case.sharpness
    head_VD = torch.randn(size.vocabulary, size.width, generator=rng) * (2 / size.width**0.5)
    labels_T = torch.randint(0, size.vocabulary, (size.tokens,), generator=rng)
    labels_T[torch.rand(size.tokens, generator=rng) < case.ignored] = -100
    weights_T = torch.rand(size.tokens, generator=rng) * 2 - 0.5  # not uniform, some negative
    weights_T[3::4] = 0.0
    weights_T *= not case.weightless
    bias_V = torch.randn(size.vocabulary, generator=rng) if case.bias else None
    gated_T = torch.rand(size.tokens, generator=rng) < 0.5 if case.gated else None
    drawn = (hidden_TD, head_VD, bias_V, labels_T, weights_T, gated_T)
    return Inputs(*(None if tensor is None else tensor.to(device) for tensor in drawn))


def rounded(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """The same numbers as the dtype holds them: the truth starts from these."""
    bias_V = None if inputs.bias_V is None else inputs.bias_V.to(dtype)
    return Inputs(inputs.hidden_TD.to(dtype), inputs.head_VD.to(dtype), bias_V, *list(vars(inputs).values())[3:])


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest error as a share of the largest expected value; what must be zero is judged as it is."""
    if not expected.numel():
        return 0.0
    largest = expected.abs().max()
    error = (found.double() - expected).abs().max() / (largest if largest > 0 else 1.0)
    return error.item() if torch.isfinite(error) else float("inf")


@contextmanager
def chunk_rows(rows: int | None) -> Iterator[None]:
    """Within it a chunk has so many rows, whatever the device's memory."""
    found = chunks.chunk_policy
    if rows is not None:
        chunks.chunk_policy = lambda _: chunks.ChunkPolicy(chunk_bytes=1, min_rows=rows, block_bytes=1)
    try:
        yield
    finally:
        chunks.chunk_policy = found


def check(case: Case, size: Size, device: str, dtype: torch.dtype, impl: str) -> dict[str, tuple[float, float]]:
    """For each output its error and the largest that is allowed."""
    dtype = torch.float32 if case.autocast else dtype
    inputs = rounded(make_inputs(case, size, device), dtype)
    truth, naive = (inputs.run(case, "reference", kind) for kind in (torch.float64, dtype))
    with chunk_rows(3 if case.small_chunks else None):
        fast = inputs.run(case, impl, dtype)
    assert fast.keys() == truth.keys()
    products = torch.bfloat16 if case.autocast else dtype
    factor, slack = FACTORS[products], ROUNDINGS[products] * torch.finfo(products).eps
    errors = {
        name: (relative_error(fast[name], truth[name]), relative_error(naive[name], truth[name])) for name in fast
    }
    return {name: (error, factor * of_naive + slack) for name, (error, of_naive) in errors.items()}


def implementation(setting: Setting) -> tuple[str, str]:
    """The head to check, and what to say about it."""
    if find_spec("triton") is None:
        return "chunked", "Triton is not installed: the head in plain torch"
    if not setting.small:
        return "triton", "the compiled kernel"
    try:
        check(CASES["one token"], SMALL_SIZE, setting.device, torch.float32, "triton")
    except Exception as error:  # the interpreter of Triton 3.6 fails with NumPy 2.5; a GPU does not use it
        return "chunked", f"Triton's interpreter does not run here ({why(error)}): the head in plain torch"
    return "triton", "Triton's interpreter"


def measure(setting: Setting, emit: Emit) -> None:
    """A row for each dtype, the case that comes nearest to its limit, and one for each case that exceeds it."""
    impl, said = implementation(setting)
    size = SMALL_SIZE if setting.small else Size(257, 192, 32_003)
    for number, dtype in enumerate(ROUNDINGS):
        cases = CASES | {"a real vocabulary, odd": REAL}
        if setting.small:  # some cases in each dtype; the tests of the head run them all
            cases = dict(list(CASES.items())[number :: 2 * len(ROUNDINGS)])
        worst: tuple[float, str, float, float] = (-1.0, "", 0.0, 0.0)
        kind, failed = str(dtype).removeprefix("torch."), 0
        for name, case in cases.items():
            if case.autocast and dtype != torch.bfloat16 and not setting.small:
                continue  # it is the same in all three
            with contestant(emit, f"{kind}, {name}", holds=False):
                for output, (error, allowed) in check(case, size, setting.device, dtype, impl).items():
                    worst = max(worst, (error / allowed, f"{name}, {output}", error, allowed))
                    if not error <= allowed:
                        failed += 1
                        emit(Row(f"{kind}, {name}, {output}", error, "", "allowed", allowed, False))
        _, name, error, allowed = worst
        emit(Row(f"{kind}: {name}", error, "", "allowed", allowed, failed == 0, f"nearest to its limit; {said}"))
