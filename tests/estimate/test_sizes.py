"""Parameters against the published counts, and memory against the sum over the tensors of a real model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import Linear, ReLU, Sequential
from transformers import AutoConfig, AutoModelForImageTextToText

from balanced_thinking.estimate import cpu_time
from balanced_thinking.estimate.devices import find_device
from balanced_thinking.estimate.known_models import KNOWN_MODELS
from balanced_thinking.estimate.memory import estimate_memory
from balanced_thinking.estimate.model import sketch_model
from balanced_thinking.estimate.plan import Plan, read_plan
from balanced_thinking.estimate.quantized import weight_bytes
from balanced_thinking.estimate.trace import Trace, Tracer
from balanced_thinking.loss.linear_cross_entropy import weighted_linear_cross_entropy
from balanced_thinking.models.tiny import build_tiny

_QUICK = ("Qwen/Qwen3-VL-4B-Instruct", "HuggingFaceTB/SmolVLM2-2.2B-Instruct")


def plan_of(folder: Path, gpu: str = "h100", count: int = 1, sharding: str | None = None, **keys: object) -> Plan:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"model": "tiny:qwen2_5_vl", "data": "world", **keys}))
    return read_plan([recipe], (), find_device(gpu), count=count, sharding=sharding)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=() if one in _QUICK else pytest.mark.slow) for one in KNOWN_MODELS]
)
def test_a_known_model_has_the_published_number_of_parameters(name: str) -> None:
    known = KNOWN_MODELS[name]
    config = AutoConfig.for_model(known.model_type, **known.config)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert sum(one.numel() for one in model.parameters()) == known.parameters


def test_weights_gradients_and_optimizer_are_those_of_a_real_model(tmp_path: Path) -> None:
    model, _ = build_tiny("qwen2_5_vl")
    for one in model.parameters():
        one.grad = torch.zeros_like(one)
    stepper = torch.optim.AdamW(model.parameters(), fused=True)
    stepper.step()
    states = [state[name] for state in stepper.state.values() for name in ("exp_avg", "exp_avg_sq")]
    plan = plan_of(tmp_path, gpu="cpu")
    sketch = sketch_model(plan)
    gradients = sum(one.grad.nbytes for one in model.parameters() if one.grad is not None)
    found = estimate_memory(plan, sketch.model, Trace(held_at_peak={"gradients": gradients}))
    tensors = {
        one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in (*model.parameters(), *model.buffers())
    }
    assert weight_bytes(sketch.model) == found.weights == sum(tensors.values())
    assert found.gradients == gradients
    assert found.optimizer == sum(one.nbytes for one in states)


@pytest.mark.parametrize(("gpu", "more"), [("cpu", 1181 * 262_145), ("h100", 0)])
def test_a_tokenizer_is_in_the_memory_of_a_cpu(gpu: str, more: int, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, gpu=gpu)
    model = sketch_model(plan).model
    without, with_it = (estimate_memory(plan, model, Trace(), vocabulary).total for vocabulary in (0, 262_145))
    assert with_it - without == more


def test_a_trace_holds_what_the_sum_over_tensors_says() -> None:
    """Of a linear layer with its activation, kept for the backward, by hand."""
    model = Sequential(Linear(8, 16), ReLU(), Linear(16, 4)).to("meta")
    inputs = torch.empty(32, 8, device="meta")
    with Tracer() as tracer:
        tracer.ignore([*model.parameters(), inputs])
        output = model(inputs)
        forward = sum(tracer._live.values())
        output.sum().backward()
    # The first layer's output is freed once its activation, which is kept for the second layer, was computed from it.
    assert forward == 4 * 32 * (16 + 4)
    assert tracer.trace.flops() == 2 * 32 * (8 * 16 + 16 * 4) * 2 + 2 * 32 * 16 * 4
    held = 4 * sum(one.numel() for one in model.parameters())
    assert tracer.trace.peak_bytes >= max(held, forward)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_traced_flops_are_those_that_torch_counts(checkpointing: bool) -> None:
    from torch.utils.checkpoint import checkpoint
    from torch.utils.flop_counter import FlopCounterMode

    def run(device: str) -> torch.Tensor:
        layer = Sequential(Linear(8, 32), ReLU(), Linear(32, 8)).to(device)
        inputs = torch.zeros(16, 8, device=device, requires_grad=True)
        return (checkpoint(layer, inputs, use_reentrant=False) if checkpointing else layer(inputs)).sum()

    with FlopCounterMode(display=False) as counted:
        run("cpu").backward()
    with Tracer() as tracer:
        run("meta").backward()
    assert tracer.trace.flops() == counted.get_total_flops()


@pytest.mark.parametrize("frozen", [False, True])
def test_the_head_is_traced_as_the_products_that_it_makes(frozen: bool) -> None:
    """Three for each supervised token with a trained head, two with a frozen one; none for the others."""
    tokens, supervised, width, vocabulary = 10, 6, 8, 32
    hidden = torch.empty(tokens, width, device="meta", requires_grad=True)
    head = torch.empty(vocabulary, width, device="meta", requires_grad=not frozen)
    labels, weights = torch.empty(tokens, dtype=torch.int64, device="meta"), torch.empty(tokens, device="meta")
    with Tracer() as tracer:
        counts = (supervised, supervised)
        weighted_linear_cross_entropy(hidden, head, labels, weights, impl="chunked", counts=counts).loss.backward()
    assert tracer.trace.flops() == (2 if frozen else 3) * 2 * supervised * width * vocabulary
    logits = [one for one in tracer.trace.operations if (tokens, vocabulary) in one.shapes]
    assert not logits


def test_a_product_is_timed_with_its_factors_as_they_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear layer's weight is read across its rows: turned, a product with a large vocabulary takes 1.5 times as
    long. Of a product that is too long to time, the longest dimension is cut."""
    with Tracer() as tracer:
        torch.empty(4, 8, device="meta") @ torch.empty(32, 8, device="meta").t()
    (product,) = (one for one in tracer.trace.operations if one.kind == "product")
    assert product.transposed == (False, True)
    made = []
    make_factor = cpu_time._make_factor
    monkeypatch.setattr(cpu_time, "_make_factor", lambda *how: made.append(make_factor(*how)) or made[-1])
    monkeypatch.setattr(cpu_time, "_time", lambda call: 1.0)
    name, _, dtype, transposed = cpu_time._product_key(product)
    cpu_time._time_product((name, ((256, 512), (512, 2**17)), dtype, transposed))
    left, right = made
    assert left.shape == (256, 512)
    assert left.is_contiguous()
    assert right.shape[0] == 512
    assert right.shape[1] < 2**17
    assert right.t().is_contiguous()
