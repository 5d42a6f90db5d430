"""Gates on a token's loss: every head against the definitions in float64, written without any code of the package."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from balanced_thinking.loss import chunks
from balanced_thinking.loss.linear_cross_entropy import weighted_linear_cross_entropy
from tests.loss.test_linear_cross_entropy import SMALL, Case, make_case, worst

HAS_TRITON = importlib.util.find_spec("triton") is not None
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {"bias": True, "softcap": 3.0, "logit_scale": 1.7},
    "lower is likelier": {"logit_scale": -0.8},
    "sharp rows, underflowing targets": {"sharpness": 40.0},
}


def some_gated(case: Case) -> Tensor:
    return torch.rand(len(case.labels_T), generator=torch.Generator().manual_seed(2)) < 0.5


def truth(case: Case, gate: str, gated_T: Tensor | None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss, nll and gradients, token by token."""
    exact = case.to(torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    nll_T = torch.zeros(len(case.labels_T), dtype=torch.float64)
    for t, label in enumerate(case.labels_T.tolist()):
        if label == -100:
            continue
        logits_V = exact.head_VD @ exact.hidden_TD[t]
        logits_V = (logits_V if exact.bias_V is None else logits_V + exact.bias_V) * case.logit_scale
        logits_V = logits_V if case.softcap is None else case.softcap * torch.tanh(logits_V / case.softcap)
        nll = -logits_V.log_softmax(0)[label]
        factor = 1.0
        if gated_T is None or gated_T[t]:
            if gate == "dft":
                factor = math.exp(-float(nll.detach()))
            else:
                top = logits_V.detach().sort(descending=True).values[:20].softmax(0).tolist()
                factor = -sum(p * math.log(p) for p in top if p) / 3
        total = total + float(case.weights_T[t]) * factor * nll
        nll_T[t] = nll.detach()
    total.backward()
    return total.detach(), nll_T, exact.grads()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("gate", ["dft", "eaft"])
@pytest.mark.parametrize("name", CASES)
def test_every_head_has_the_gate_of_the_definition(
    name: str, gate: str, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(**CASES[name])
    gated_T = some_gated(case) if masked else None
    loss, nll_T, grads = truth(case, gate, gated_T)
    monkeypatch.setattr(chunks, "CPU_POLICY", SMALL)  # several chunks, of several blocks each

    def errors(impl: str, dtype: torch.dtype) -> dict[str, float]:
        run = case.to(dtype)
        out = run.run(impl, gate=gate, gated_T=gated_T)
        out.loss.backward()
        found = {"loss": worst(out.loss, loss), "nll": worst(out.nll_T, nll_T)}
        return found | {field: worst(run.grads()[field], grad) for field, grad in grads.items()}

    assert max(errors("reference", torch.float64).values()) < 1e-13
    assert max(errors("chunked", torch.float64).values()) < 1e-13
    naive = errors("reference", torch.float32)
    # Triton's interpreter is slow.
    for impl in ("chunked", "triton") if HAS_TRITON and masked and name == "everything" else ("chunked",):
        for field, error in errors(impl, torch.float32).items():
            assert error <= naive[field] + 6 * torch.finfo(torch.float32).eps, (impl, field)
    with torch.no_grad():
        out = case.run("chunked", gate=gate, gated_T=gated_T)
        assert float(out.loss) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_half_precision_gates_as_full_precision_does(impl: str) -> None:
    case = make_case(dtype=torch.bfloat16, softcap=3.0)
    full = case.to(torch.float32)
    for gate in ("dft", "eaft"):
        low, high = (float(one.run(impl, gate=gate).loss.detach()) for one in (case, full))
        assert low == pytest.approx(high, rel=0.02)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gate": "dtf"}, ValueError, "gate is 'dtf' .did you mean 'dft'"),
        ({"gate": "dft", "gated_T": torch.ones(37)}, TypeError, "gated_T is torch.float32: expected torch.bool"),
        ({"gate": "dft", "gated_T": torch.ones(3, dtype=torch.bool)}, ValueError, "gated_T has shape"),
    ],
)
def test_gates_that_cannot_be_meant_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_case().run("chunked", **options)


def test_a_vocabulary_of_fewer_than_twenty_tokens_has_an_entropy() -> None:
    tensors = torch.ones(1, 2), torch.zeros(4, 2), torch.tensor([1]), torch.ones(1)
    out = weighted_linear_cross_entropy(*tensors, gate="eaft")
    assert float(out.loss) == pytest.approx(math.log(4) / 3 * math.log(4))
