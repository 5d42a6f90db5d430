"""The loss head: every implementation against float64 truth, under non-uniform weights.

Shapes: T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from balanced_thinking.loss import chunked, chunks
from balanced_thinking.loss.linear_cross_entropy import weighted_linear_cross_entropy

TOKENS, WIDTH, VOCABULARY = 37, 16, 101
SMALL = chunks.ChunkPolicy(chunk_bytes=1, min_rows=5, block_bytes=VOCABULARY * 4 * 2)  # chunks of 5, blocks of 2
IMPLS = ("reference", "chunked")


@dataclass(frozen=True)
class Case:
    hidden_TD: Tensor
    head_VD: Tensor
    labels_T: Tensor
    weights_T: Tensor
    bias_V: Tensor | None = None
    softcap: float | None = None
    logit_scale: float = 1.0

    def to(self, dtype: torch.dtype) -> Case:
        bias_V = None if self.bias_V is None else _leaf(self.bias_V, dtype)
        hidden_TD, head_VD = _leaf(self.hidden_TD, dtype), _leaf(self.head_VD, dtype)
        return replace(self, hidden_TD=hidden_TD, head_VD=head_VD, bias_V=bias_V)

    def run(self, impl: str, **more: Any) -> Any:
        options: dict[str, Any] = {"bias_V": self.bias_V, "softcap": self.softcap, "logit_scale": self.logit_scale}
        options |= more
        return weighted_linear_cross_entropy(
            self.hidden_TD, self.head_VD, self.labels_T, self.weights_T, impl=impl, **options
        )

    def grads(self) -> dict[str, Tensor]:
        named = {"hidden": self.hidden_TD, "head": self.head_VD, "bias": self.bias_V}
        return {name: tensor.grad for name, tensor in named.items() if tensor is not None and tensor.grad is not None}


def _leaf(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype, copy=True).requires_grad_()


def make_case(
    *,
    dtype: torch.dtype = torch.float32,
    tokens: int = TOKENS,
    ignored: float = 0.4,
    bias: bool = False,
    sharpness: float = 1.0,
    **options: Any,
) -> Case:
    rng = torch.Generator().manual_seed(0)
    hidden_TD = torch.randn(tokens, WIDTH, generator=rng) * sharpness
    head_VD = torch.randn(VOCABULARY, WIDTH, generator=rng) / 2
    labels_T = torch.randint(0, VOCABULARY, (tokens,), generator=rng)
    labels_T[torch.rand(tokens, generator=rng) < ignored] = -100
    weights_T = torch.rand(tokens, generator=rng) * 2 - 0.5  # non-uniform, some negative
    weights_T[::4] = 0.0
    bias_V = torch.randn(VOCABULARY, generator=rng) if bias else None
    return Case(hidden_TD, head_VD, labels_T, weights_T, bias_V, **options).to(dtype)


def truth(case: Case, upstream: float = 1.0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss, nll and gradients in float64, written from the definition without any code of the package."""
    exact = case.to(torch.float64)
    logits_TV = exact.hidden_TD @ exact.head_VD.t()
    logits_TV = logits_TV if exact.bias_V is None else logits_TV + exact.bias_V
    logits_TV = logits_TV * case.logit_scale
    if case.softcap is not None:
        logits_TV = case.softcap * torch.tanh(logits_TV / case.softcap)
    nll_T = F.cross_entropy(logits_TV, case.labels_T, reduction="none")
    loss = (nll_T * case.weights_T.double()).sum()
    (loss * upstream).backward()
    return loss.detach(), nll_T.detach(), exact.grads()


def worst(found: Tensor, expected: Tensor) -> float:
    """Largest error as a share of the largest expected value."""
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-300)).item()


def errors(case: Case, impl: str, upstream: float = 1.0) -> dict[str, float]:
    loss, nll_T, grads = truth(case, upstream)
    run = case.to(case.hidden_TD.dtype)
    out = run.run(impl)
    (out.loss * upstream).backward()
    found = {"loss": worst(out.loss, loss), "nll": worst(out.nll_T, nll_T)}
    return found | {name: worst(run.grads()[name], grad) for name, grad in grads.items()}


@pytest.fixture(params=["one chunk", "many chunks"])
def chunking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many chunks":
        monkeypatch.setattr(chunks, "CPU_POLICY", SMALL)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "softcap": {"softcap": 3.0},
    "scaled": {"logit_scale": 0.3},
    "everything": {"bias": True, "softcap": 3.0, "logit_scale": 1.7},  # order: bias, scale, softcap
    "all supervised": {"ignored": 0.0},
    "few supervised": {"ignored": 0.9},
    "one row": {"tokens": 1, "ignored": 0.0, "weights": [0.7]},
    "exactly one small chunk": {"tokens": 5, "ignored": 0.0},
    "one row past a small chunk": {"tokens": 6, "ignored": 0.0},
    "no weight at all but targets": {"weights": [0.0] * TOKENS, "bias": True},
    "sharp rows, underflowing targets": {"sharpness": 40.0, "bias": True},
    "sharp and capped": {"sharpness": 40.0, "softcap": 30.0},
}


def case_named(name: str, dtype: torch.dtype) -> Case:
    options = dict(CASES[name])
    weights = options.pop("weights", None)
    case = make_case(dtype=dtype, **options)
    return case if weights is None else replace(case, weights_T=torch.tensor(weights))


@pytest.mark.parametrize("upstream", [1.0, 0.37])
@pytest.mark.parametrize(("dtype", "roundings"), [(torch.float32, 6), (torch.bfloat16, 1), (torch.float64, 8)])
@pytest.mark.parametrize("name", CASES)
def test_fast_is_no_worse_than_naive_against_float64(
    name: str, dtype: torch.dtype, roundings: int, upstream: float, chunking: None
) -> None:
    case = case_named(name, dtype)
    naive, fast = errors(case, "reference", upstream), errors(case, "chunked", upstream)
    assert fast.keys() == naive.keys()
    for field, error in fast.items():
        assert error <= naive[field] + roundings * torch.finfo(dtype).eps, (field, error, naive[field])


@pytest.mark.parametrize("name", CASES)
def test_reference_is_the_definition(name: str) -> None:
    assert max(errors(case_named(name, torch.float64), "reference").values()) < 1e-14


@pytest.mark.parametrize("name", CASES)
def test_metrics_agree_with_the_reference(name: str, chunking: None) -> None:
    case = case_named(name, torch.float32)
    fast, slow = case.run("chunked"), case.run("reference")
    torch.testing.assert_close(fast.nll_T, slow.nll_T, rtol=1e-5, atol=1e-5)
    assert torch.equal(fast.correct_T, slow.correct_T)
    unsupervised = case.labels_T == -100
    for out in (fast, slow):
        assert not out.nll_T[unsupervised].any()
        assert not out.correct_T[unsupervised].any()
        assert (out.nll_T.dtype, out.correct_T.dtype) == (torch.float32, torch.bool)
        assert not out.nll_T.requires_grad


def entropy_error(case: Case, impl: str) -> float:
    """Against float64, as a share of the most there can be."""
    found = case.run(impl, entropy=True)
    exact = case.to(torch.float64)
    logits_TV = torch.nn.functional.linear(exact.hidden_TD, exact.head_VD, exact.bias_V) * case.logit_scale
    if case.softcap is not None:
        logits_TV = case.softcap * torch.tanh(logits_TV / case.softcap)
    expected_T = torch.distributions.Categorical(logits=logits_TV).entropy().masked_fill(case.labels_T == -100, 0.0)
    assert not found.entropy_T.requires_grad
    return float((found.entropy_T.double() - expected_T.detach()).abs().max() / math.log(VOCABULARY))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", CASES)
def test_entropy_is_returned_where_it_is_asked_for(name: str, impl: str, chunking: None) -> None:
    case = case_named(name, torch.float32)
    assert entropy_error(case, impl) < 2e-6
    assert entropy_error(case.to(torch.float64), impl) < 1e-14
    assert len(case.run(impl)) == 3  # the contract: three, unless it is asked for


@pytest.mark.parametrize("impl", IMPLS)
def test_asking_for_the_entropy_changes_nothing_else(impl: str, chunking: None) -> None:
    plain, asked = make_case(bias=True, softcap=3.0), make_case(bias=True, softcap=3.0)
    found = (plain.run(impl), asked.run(impl, entropy=True))
    for out in found:
        out.loss.backward()
    for one, other in zip(found[0], found[1][:3], strict=True):
        assert torch.equal(one, other)
    assert all(torch.equal(grad, asked.grads()[name]) for name, grad in plain.grads().items())


def test_a_gradient_is_written_before_it_is_read(chunking: None) -> None:
    """torch fills what it leaves uninitialised with NaN where only deterministic algorithms are allowed."""
    torch.use_deterministic_algorithms(True)
    try:
        for dtype in (torch.float32, torch.bfloat16):
            assert max(errors(make_case(dtype=dtype, bias=True), "chunked").values()) < 0.02
        assert max(errors(make_case(ignored=0.0, bias=True), "chunked").values()) < 2e-6
        test_a_batch_without_a_target_gives_zero_gradients("chunked")
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_right_prediction_counts_and_a_tie_goes_to_the_first(impl: str) -> None:
    head_VD = torch.eye(3)[:, [0, 1, 1]]  # rows: token 0 -> (1,0,0), 1 -> (0,1,1), 2 -> (0,0,0)
    hidden_TD = torch.tensor([[2.0, 0, 0], [2.0, 0, 0], [1.0, 0.5, 0.5], [1.0, 0.5, 0.5]])
    labels_T = torch.tensor([0, 1, 0, 1])  # right, wrong, first of a tie, second of a tie
    out = weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, torch.ones(4), impl=impl)
    assert out.correct_T.tolist() == [True, False, True, False]


@pytest.mark.parametrize("impl", IMPLS)
def test_a_batch_without_a_target_gives_zero_gradients(impl: str) -> None:
    case = make_case(ignored=1.1, bias=True)
    out = case.run(impl)
    out.loss.backward()
    assert out.loss.item() == 0.0
    grads = case.grads()
    assert grads.keys() == {"hidden", "head", "bias"}
    assert not any(grad.any() for grad in grads.values())


@pytest.mark.parametrize("impl", IMPLS)
def test_unsupervised_tokens_have_no_influence(impl: str) -> None:
    case = make_case()
    poisoned = case.to(torch.float32)
    unsupervised = case.labels_T == -100
    with torch.no_grad():
        poisoned.hidden_TD[unsupervised] = torch.nan
    poisoned = replace(poisoned, weights_T=case.weights_T.masked_fill(unsupervised, torch.inf))
    for run in (case, poisoned):
        run.run(impl).loss.backward()
    for name, grad in case.grads().items():
        assert torch.equal(grad, poisoned.grads()[name])


@pytest.mark.parametrize("impl", IMPLS)
def test_the_loss_is_linear_in_the_weights(impl: str) -> None:
    case = make_case(dtype=torch.float64, bias=True, softcap=3.0)
    other_T = torch.rand(TOKENS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for weights_T in (case.weights_T.double(), other_T, 2.0 * case.weights_T.double() - 3.0 * other_T):
        run = replace(case.to(torch.float64), weights_T=weights_T)
        loss = run.run(impl).loss
        loss.backward()
        results.append([loss.detach(), *run.grads().values()])
    for first, second, combined in zip(*results, strict=True):
        torch.testing.assert_close(2.0 * first - 3.0 * second, combined, rtol=1e-12, atol=1e-12)


class Recomputed(torch.autograd.Function):
    """The chunked head run anew in each backward: gradcheck wants several, a loss of ours gives one."""

    @staticmethod
    def forward(ctx: Any, case: Case, *tensors: Tensor) -> Tensor:
        ctx.case = replace(case, hidden_TD=tensors[0], head_VD=tensors[1], bias_V=tensors[2]).to(torch.float64)
        with torch.enable_grad():
            return ctx.case.run("chunked").loss.detach()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        case = ctx.case.to(torch.float64)
        with torch.enable_grad():
            case.run("chunked").loss.backward(upstream)
        return None, *case.grads().values()


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0, "logit_scale": 0.5}], ids=["plain", "capped"])
def test_gradcheck(options: dict[str, float], chunking: None) -> None:
    case = make_case(dtype=torch.float64, tokens=12, bias=True, **options)
    width, vocabulary = 4, 11  # gradcheck costs two losses an element
    case = replace(
        case,
        hidden_TD=_leaf(case.hidden_TD[:, :width], torch.float64),
        head_VD=_leaf(case.head_VD[:vocabulary, :width], torch.float64),
        bias_V=_leaf(case.bias_V[:vocabulary], torch.float64),
        labels_T=case.labels_T.where(case.labels_T == -100, case.labels_T % vocabulary),
    )
    assert torch.autograd.gradcheck(Recomputed.apply, (case, case.hidden_TD, case.head_VD, case.bias_V))


class ProductCounter(TorchDispatchMode):
    """Counts the matrix products whose size involves the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "matmul", "linear"):
            self.count += any(isinstance(x, Tensor) and VOCABULARY in x.shape for x in args)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [
        ((), 3),
        (("head_VD",), 2),
        (("hidden_TD",), 2),
        (("hidden_TD", "head_VD"), 1),  # nothing trains: evaluation
    ],
)
def test_frozen_inputs_save_products(frozen: tuple[str, ...], expected: int) -> None:
    case = make_case(ignored=0.0)
    case = replace(case, weights_T=case.weights_T + 1.0, **{name: getattr(case, name).detach() for name in frozen})
    with ProductCounter() as counter:
        out = case.run("chunked")
        if out.loss.requires_grad:
            out.loss.backward()
    assert counter.count == expected
    _, _, grads = truth(case)
    for name, grad in case.grads().items():
        assert worst(grad, grads[name]) < 1e-6


def test_evaluation_of_a_trainable_model_costs_one_product() -> None:
    with torch.no_grad(), ProductCounter() as counter:
        make_case().run("chunked")
    assert counter.count == 1


def test_tokens_of_weight_zero_are_scored_but_not_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CPU_POLICY", SMALL)
    case = make_case(tokens=20, ignored=0.0)
    case = replace(case, weights_T=torch.cat([torch.ones(5), torch.zeros(15)]))
    with ProductCounter() as counter:
        case.run("chunked").loss.backward()
    assert counter.count == 4 + 2  # four chunks of five are projected, one gets two gradients


def test_gradients_add_to_existing_ones() -> None:
    case = make_case(bias=True)
    for factor in (1.0, 0.37):
        (case.run("chunked").loss * factor).backward()
    _, _, expected = truth(case, upstream=1.37)
    assert case.grads().keys() == expected.keys()
    for name, grad in case.grads().items():
        assert worst(grad, expected[name]) < 1e-6


def test_the_head_gradient_is_taken_over_without_a_copy() -> None:
    case = make_case()
    out = case.run("chunked")
    address = out.loss.grad_fn.grads.head_VD.data_ptr()
    out.loss.backward()
    assert case.head_VD.grad.data_ptr() == address


def test_a_second_backward_is_refused() -> None:
    loss = make_case().run("chunked").loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward ran twice"):
        loss.backward()


def test_views_and_non_leaves_train_like_plain_tensors(chunking: None) -> None:
    case = make_case(bias=True)
    wide_TD = torch.cat([case.hidden_TD, case.hidden_TD], 1).detach().requires_grad_()
    tall_DV = case.head_VD.detach().t().contiguous().requires_grad_()
    strided = replace(case, hidden_TD=(wide_TD * 1.0)[:, :WIDTH], head_VD=tall_DV.t())
    strided.run("chunked").loss.backward()
    _, _, expected = truth(case)
    assert worst(wide_TD.grad[:, :WIDTH], expected["hidden"]) < 1e-6
    assert worst(tall_DV.grad.t(), expected["head"]) < 1e-6


@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_autocast_runs_the_products_in_its_dtype(hidden_dtype: torch.dtype, chunking: None) -> None:
    case = make_case(bias=True)
    case = replace(case, hidden_TD=_leaf(case.hidden_TD, hidden_dtype))
    found = {}
    for impl in IMPLS:
        run = replace(case.to(torch.float32), hidden_TD=_leaf(case.hidden_TD, hidden_dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = run.run(impl)
        out.loss.backward()
        assert out.loss.dtype == torch.float32
        assert run.head_VD.grad.dtype == torch.float32
        _, _, grads = truth(case)
        found[impl] = {name: worst(grad, grads[name]) for name, grad in run.grads().items()}
    assert found["chunked"]["head"] > 1e-5  # bfloat16 was used
    for name, error in found["chunked"].items():
        assert error <= found["reference"][name] + 3e-3


@pytest.mark.parametrize("head_dtype", [torch.float32, torch.bfloat16])
def test_autocast_rounds_the_head_gradient_to_what_the_head_has(head_dtype: torch.dtype, chunking: None) -> None:
    """One chunk or many: a sum of low-precision products keeps float32 where the parameter does."""
    case = make_case(dtype=torch.float32)
    case = replace(case, head_VD=_leaf(case.head_VD, head_dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = case.run("chunked")
    out.loss.backward()
    grad_VD = case.head_VD.grad
    assert grad_VD is not None
    assert grad_VD.dtype == head_dtype
    assert torch.equal(grad_VD.bfloat16().float(), grad_VD.float()) == (head_dtype == torch.bfloat16)


def test_tiny_weights_survive_float16(chunking: None) -> None:
    case = make_case(dtype=torch.float16, bias=True)
    case = replace(case, weights_T=case.weights_T * 1e-6)
    found = errors(case, "chunked", upstream=65536.0)  # a loss scaler's factor
    assert max(found.values()) < 3e-3, found


def test_many_low_precision_chunks_do_not_round_between(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(dtype=torch.bfloat16, tokens=400, ignored=0.0)
    one_chunk = errors(case, "chunked")["head"]
    monkeypatch.setattr(chunks, "CPU_POLICY", SMALL)
    assert errors(case, "chunked")["head"] <= one_chunk + 1e-4


def test_chunks_are_balanced_and_within_the_policy() -> None:
    for count, most in [(0, 5), (1, 5), (5, 5), (6, 5), (37, 5), (1024, 1000)]:
        spans = list(chunks.balanced_spans(3, 3 + count, most))
        sizes = [rows for _, rows in spans]
        assert sum(sizes) == count
        assert len(sizes) == -(-count // most)
        assert not sizes or max(sizes) - min(sizes) <= 1
        assert [start for start, _ in spans] == [3 + sum(sizes[:i]) for i in range(len(sizes))]


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "labels int32": ({"labels_T": torch.zeros(4, dtype=torch.int32)}, TypeError, r"labels_T is torch.int32.*int64"),
    "labels float": ({"labels_T": torch.zeros(4)}, TypeError, r"labels_T is torch.float32.*int64"),
    "labels too long": ({"labels_T": torch.zeros(5).long()}, ValueError, r"labels_T has shape \(5,\): expected \(4,\)"),
    "weights too short": ({"weights_T": torch.ones(3)}, ValueError, r"weights_T has shape \(3,\): expected \(4,\)"),
    "weights of integers": ({"weights_T": torch.ones(4).long()}, TypeError, "weights_T is torch.int64.*floating"),
    "weights with gradient": ({"weights_T": torch.ones(4, requires_grad=True)}, ValueError, "weights_T requires grad"),
    "widths differ": ({"head_VD": torch.ones(7, 2)}, ValueError, r"head_VD has shape \(7, 2\): expected \(7, 3\)"),
    "hidden of a batch": ({"hidden_TD": torch.ones(2, 2, 3)}, ValueError, r"hidden_TD has shape \(2, 2, 3\).*flatten"),
    "bias too long": ({"bias_V": torch.ones(8)}, ValueError, r"bias_V has shape \(8,\): expected \(7,\)"),
    "two devices": ({"head_VD": torch.ones(7, 3, device="meta")}, ValueError, "head_VD is on meta: expected cpu"),
    "softcap zero": ({"softcap": 0.0}, ValueError, "softcap is 0.0: expected a number above 0"),
    "misspelt impl": ({"impl": "chunkd"}, ValueError, r"impl is 'chunkd' \(did you mean 'chunked'\?\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_say_what_was_found_and_expected(name: str) -> None:
    change, error, message = WRONG[name]
    arguments: dict[str, Any] = {"hidden_TD": torch.ones(4, 3), "head_VD": torch.ones(7, 3)}
    arguments |= {"labels_T": torch.zeros(4).long(), "weights_T": torch.ones(4)} | change
    with pytest.raises(error, match=message):
        weighted_linear_cross_entropy(**arguments)


def test_with_known_counts_nothing_is_read_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device "meta" tensors have no values: reading one is an error."""
    monkeypatch.setattr(chunked, "_matmul_dtype", lambda hidden_TD: hidden_TD.dtype)  # autocast knows no "meta"
    hidden_TD, head_VD = (torch.randn(n, 16, device="meta", requires_grad=True) for n in (64, 40))
    labels_T, weights_T = torch.zeros(64, dtype=torch.int64, device="meta"), torch.ones(64, device="meta")
    about: dict[str, Any] = {"impl": "chunked", "softcap": 30.0, "entropy": True}
    with pytest.raises(RuntimeError, match="meta"):
        weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, weights_T, **about)
    found = weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, weights_T, counts=(40, 30), **about)
    found.loss.backward()
    assert hidden_TD.grad is not None
    assert found.nll_T.shape == (64,)


@pytest.mark.parametrize("counts", [(3, 2), (4, 1), (4, 3)])
def test_counts_change_nothing_and_are_checked(counts: tuple[int, int], chunking: None) -> None:
    hidden_TD, head_VD = torch.randn(6, 4), torch.randn(5, 4)
    labels_T, weights_T = torch.tensor([1, -100, 2, 0, -100, 3]), torch.tensor([0.5, 0.1, 0.0, 0.2, 0.0, 0.0])
    counted = weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, weights_T, impl="chunked", counts=(4, 2))
    without = weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, weights_T, impl="chunked")
    assert all(torch.equal(a, b) for a, b in zip(counted, without, strict=True))
    with pytest.raises(RuntimeError, match=r"counts is \(\d, \d\), but labels_T and weights_T have other"):
        weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, weights_T, impl="chunked", counts=counts)
