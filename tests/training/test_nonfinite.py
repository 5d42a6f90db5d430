"""No update, checkpoint or final model that is not finite: what stops, what is skipped and what is said."""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn

from balanced_thinking.training import nonfinite
from balanced_thinking.training.finite_tensors import (
    DelayedRead,
    find_nonfinite,
    may_hold_nonfinite,
    measure_gradients,
    name_of_module,
    optimizer_tensors,
)
from balanced_thinking.training.inspect_checkpoint import newest_valid_checkpoint
from balanced_thinking.training.nonfinite import KEY, FiniteWatch
from balanced_thinking.training.nonfinite_error import (
    BadStep,
    MicroBatch,
    NonFiniteError,
    describe_stop,
)
from balanced_thinking.training.reward_watch import RewardWatch, refuse_nonfinite_generation
from tests.tiny_training import config, logged, trainer

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *((dtype, NAN) for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn)),
        *((dtype, INF) for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2)),
        (torch.float32, -INF),
    ],
)
def test_a_value_that_is_not_finite_is_found_in_every_type(dtype: torch.dtype, value: float) -> None:
    clean = torch.tensor([[1.0, -2.0], [0.5, 240.0]])
    broken = clean.clone()
    broken[1, 0] = value
    tensors = [("clean", clean.to(dtype)), ("broken", broken.to(dtype)), ("count", torch.ones(2, dtype=torch.int64))]
    assert may_hold_nonfinite(tensors)
    assert find_nonfinite(tensors) == ["broken"]
    assert not may_hold_nonfinite([tensors[0], tensors[2], ("empty", torch.empty(0, dtype=dtype))])


def test_huge_finite_weights_are_finite() -> None:
    tensors = [("huge", torch.full((4,), torch.finfo(torch.float32).max))]  # their norm is infinite
    assert may_hold_nonfinite(tensors)
    assert find_nonfinite(tensors) == []


def test_the_part_of_a_shard_that_a_rank_has_is_looked_at() -> None:
    shard = SimpleNamespace(ds_tensor=torch.tensor([1.0, NAN]))  # as ZeRO-3 keeps it
    local = SimpleNamespace(to_local=lambda: torch.tensor([INF]))  # as FSDP2 does
    assert find_nonfinite([("zero", shard), ("fsdp", local)]) == ["zero", "fsdp"]


def test_norms_by_module_add_up_to_torch_s_own_total() -> None:
    model = nn.ModuleDict({"embed": nn.Linear(9, 7), "layers": nn.ModuleList([nn.Linear(7, 7), nn.Linear(7, 3)])})
    model["layers"][1](model["layers"][0](model["embed"](torch.randn(4, 9)))).square().sum().backward()
    found = measure_gradients(model.named_parameters())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert torch.equal(found.total, torch.nn.utils.get_total_norm(gradients))
    parts = found.by_module()
    assert list(parts) == ["embed", "layers.0", "layers.1"]
    assert math.isclose(sum(v * v for v in parts.values()), float(found.total) ** 2, rel_tol=1e-5)
    gradients[0] = gradients[0].double()  # two types: torch alone knows the order
    mixed = measure_gradients([("embed.weight", SimpleNamespace(grad=gradient)) for gradient in gradients])
    assert mixed.by_module() == {}
    assert torch.isclose(mixed.total.double(), found.total.double())


@pytest.mark.parametrize(
    ("parameter", "module"),
    [
        ("model.language_model.layers.11.mlp.up_proj.weight", "model.language_model.layers.11"),
        ("module.model.visual.blocks.0.norm1.weight", "model.visual.blocks.0"),  # DDP's wrapper
        ("base_model.model.model.layers.3.self_attn.q_proj.lora_A.default.weight", "model.layers.3"),
        ("lm_head.weight", "lm_head"),
        ("weight", "weight"),
    ],
)
def test_a_module_is_named_down_to_its_layer(parameter: str, module: str) -> None:
    assert name_of_module(parameter) == module


class Fault:
    """Makes the hidden states, or the gradient of the first norm, of one micro-batch NaN."""

    def __init__(self, run: Any, kind: str, calls: tuple[int, ...]) -> None:
        self.kind, self.calls, self.count = kind, calls, 0
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.run = run
        run.model.model.norm.register_forward_hook(self)

    def __call__(self, module: Any, inputs: Any, output: Tensor) -> Tensor:
        self.count += 1
        if self.count not in self.calls:
            return output
        self.weights[self.count] = {name: value.clone() for name, value in self.run.model.state_dict().items()}
        if self.kind == "gradient":
            output.register_hook(lambda gradient: gradient * NAN)
            return output
        factors = torch.ones(len(output), 1, 1)
        factors[1] = NAN
        return output * factors


def _text_run(rows: Dataset, folder: Path, **options: Any) -> Any:
    defaults: dict[str, Any] = {"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    return trainer("qwen2", rows.remove_columns("images"), config(folder, **(defaults | options)))


@pytest.mark.parametrize(("kind", "clipping"), [("loss", 1.0), ("gradient", 0.0), ("gradient", 1.0)])
def test_a_step_that_is_not_finite_changes_nothing(
    kind: str, clipping: float, world_rows: Dataset, tmp_path: Path
) -> None:
    run = _text_run(world_rows, tmp_path, max_grad_norm=clipping, save_strategy="steps", save_steps=1)
    fault = Fault(run, kind, (4,))  # the second micro-batch of step 2
    with pytest.raises(NonFiniteError) as caught:
        run.train()
    said = str(caught.value)
    first = "the loss is nan" if kind == "loss" else "the gradient norm is nan"
    assert said.startswith(first)
    assert "at optimizer step 2" in said
    assert "the weights were finite" in said
    assert f"{tmp_path / 'checkpoint-1'} is usable" in said
    assert "micro-batch 2 of 2" in said
    assert ("micro-batch 1 of 2" in said) is (kind == "gradient")
    assert "gradient norm by module: " in said
    assert "model.layers.0 nan" in said
    assert "on_nonfinite: skip" in said
    if kind == "loss":  # one row of two, which comes first
        row = said.partition("2 rows (nats per token): ")[2].partition(" (")[0]
        assert row in world_rows["id"]
        assert f"{row} (think nan, answer nan)" in said
        assert said.count("think nan") == 1
    assert run.state.global_step == 1
    after = run.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in fault.weights[4].items())
    assert find_nonfinite(optimizer_tensors(run.optimizer)) == []


def test_a_gpu_s_step_is_read_at_the_next_one_and_never_saved(world_rows: Dataset, tmp_path: Path) -> None:
    run = _text_run(world_rows, tmp_path, save_strategy="steps", save_steps=1, logging_steps=100)
    run.reads_later = True
    read_at = []
    real = DelayedRead.finish

    def finish(read: DelayedRead) -> list[float]:
        read_at.append(run.state.global_step)
        return real(read)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DelayedRead, "finish", finish)
        Fault(run, "loss", (4,))
        with pytest.raises(
            NonFiniteError, match=r"the loss is nan at optimizer step 2\. Its update was made"
        ) as caught:
            run.train()
    assert "model.layers.0 nan" in str(caught.value)
    assert "on_nonfinite: skip" in str(caught.value)
    assert read_at == [1, 2]  # before each save; without one, at the next step
    assert newest_valid_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    assert not (tmp_path / "checkpoint-2").exists()


def test_without_a_save_the_next_step_reads_it(world_rows: Dataset, tmp_path: Path) -> None:
    run = _text_run(world_rows, tmp_path, logging_steps=100)
    run.reads_later = True
    fault = Fault(run, "gradient", (3,))
    with pytest.raises(NonFiniteError, match=r"norm is nan at optimizer step 2, while the loss is finite\. Its update"):
        run.train()
    assert run.state.global_step == 2
    assert fault.count == 6


def test_the_last_step_is_read_before_the_model_is_saved(world_rows: Dataset, tmp_path: Path) -> None:
    run = _text_run(world_rows, tmp_path, logging_steps=100, max_steps=1)
    run.reads_later = True
    Fault(run, "loss", (2,))
    run.train()
    with pytest.raises(NonFiniteError, match="the loss is nan at optimizer step 1"):
        run.save_model(str(tmp_path / "model"))
    run.reads_later = False
    with pytest.raises(
        NonFiniteError, match=r"weights are not finite before optimizer step 2: .*\n.*\n.*model was sav"
    ):
        run.save_model(str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_a_skipped_step_leaves_weights_and_moments_and_counts(
    world_rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = {"lr_scheduler_type": "linear", "learning_rate": 1e-3}
    run = _text_run(world_rows, tmp_path, on_nonfinite="skip", nonfinite_limit=1, **schedule)
    fault = Fault(run, "loss", (3, 6))
    with caplog.at_level(logging.WARNING), pytest.raises(NonFiniteError, match="nonfinite_limit is 1") as caught:
        run.train()
    assert "optimizer step 3" in str(caught.value)
    warned = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(warned) == 1
    assert "micro-batch 1 of 2" in warned[0]
    assert "(1 so far)" in warned[0]
    assert run.state.stateful_callbacks[KEY] == {"skipped": 2}
    before, after = fault.weights[3], fault.weights[6]  # nothing was learned from step 2
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {int(state["step"]) for state in run.optimizer.state.values()} == {1}
    assert logged(run, "learning_rate") == [1e-3]
    assert all(map(math.isfinite, logged(run, "loss")))


def test_a_run_goes_on_after_a_skipped_step(world_rows: Dataset, tmp_path: Path) -> None:
    run = _text_run(world_rows, tmp_path, on_nonfinite="skip", logging_steps=2, max_steps=4, lr_scheduler_type="linear")
    Fault(run, "gradient", (3,))
    run.train()
    assert run.state.global_step == 4
    assert logged(run, "skipped_updates") == [1, 1, 1]
    assert logged(run, "train_loss") == [pytest.approx((logged(run, "loss")[0] + 2 * logged(run, "loss")[1]) / 3)]
    assert all(map(math.isfinite, [*logged(run, "loss"), *logged(run, "think_nll")]))
    assert logged(run, "learning_rate") == [pytest.approx(0.75e-3), pytest.approx(0.25e-3)]  # the schedule went on
    assert {int(state["step"]) for state in run.optimizer.state.values()} == {3}
    assert find_nonfinite(run.model.named_parameters()) == []


def test_weights_that_an_update_breaks_are_neither_logged_nor_saved(world_rows: Dataset, tmp_path: Path) -> None:
    run = _text_run(world_rows, tmp_path, save_strategy="steps", save_steps=1, adam_epsilon=1e-8)
    run.args.learning_rate = 1e38  # which no config accepts
    with pytest.raises(NonFiniteError, match="weights are not finite before optimizer step 2"):
        run.train()
    assert newest_valid_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("skipped", "scale", "stops"), [(3, 8192.0, False), (31, 3e-5, True), (1, 0.0, True), (0, 0.0, False)]
)
def test_float16_s_scaler_stops_a_run_that_learns_nothing(skipped: int, scale: float, stops: bool) -> None:
    accelerator = SimpleNamespace(optimizer_step_was_skipped=True, scaler=SimpleNamespace(get_scale=lambda: scale))
    watch = FiniteWatch(SimpleNamespace(accelerator=accelerator))
    args, state = SimpleNamespace(fp16=True), SimpleNamespace(global_step=40)

    def take_steps() -> None:
        for _ in range(skipped):
            watch.on_step_end(args, state, None)
        accelerator.optimizer_step_was_skipped = False
        watch.on_step_end(args, state, None)

    if not stops:
        take_steps()
        assert watch.skipped == 0
        return
    with pytest.raises(NonFiniteError, match=f"skipped {skipped} steps in a row, up to step 40, and its scale is"):
        take_steps()


def test_an_evaluation_that_is_not_finite_is_said_and_never_the_best(caplog: pytest.LogCaptureFixture) -> None:
    state = SimpleNamespace(global_step=5, is_world_process_zero=True, best_metric=None, best_global_step=None)
    with caplog.at_level(logging.WARNING, logger=nonfinite.__name__):
        FiniteWatch(None).on_evaluate(None, state, None, metrics={"eval_loss": NAN, "epoch": 1.0})
    assert [record.getMessage()[:52] for record in caplog.records] == [
        "the evaluation after step 5 gave eval_loss = nan: it"
    ]
    args = SimpleNamespace(metric_for_best_model="loss", greater_is_better=False, save_strategy="steps")
    judge = SimpleNamespace(args=args, state=state)
    found = []
    for value in (NAN, 2.0, NAN, 1.5, INF):
        from transformers import Trainer

        found.append(Trainer._determine_best_metric(judge, {"eval_loss": value}, None))
    assert found == [False, True, False, True, False]
    assert state.best_metric == 1.5


async def _later(**columns: Any) -> list[float | None]:
    return [1.0, NAN]


class _Later:
    async def __call__(self, **columns: Any) -> list[float | None]:
        return await _later()


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (lambda **columns: [0.5, None], None),  # None: it does not apply
        (lambda **columns: [0.5, NAN], "own gave nan for row b"),
        (lambda **columns: [INF, 1], "own gave inf for row a"),
        (lambda **columns: [torch.tensor(-INF), torch.tensor(1.0)], "own gave -inf for row a"),
        (_later, "own gave nan for row b"),
        (partial(_Later()), "own gave nan for row b"),
        (lambda **columns: (one for one in [0.5, INF]), "own gave inf for row b"),  # TRL reads a generator, too
        (lambda **columns: (one for one in [0.5, None]), None),
    ],
)
def test_a_reward_that_is_not_finite_is_named_with_its_row(reward: Any, said: str | None) -> None:
    import asyncio
    import inspect

    watch = RewardWatch([reward], ["own"], ["a", "b"])
    (watched,) = watch.functions
    given = asyncio.run(watched()) if inspect.iscoroutinefunction(watched) else watched()
    assert len(list(given)) == 2
    if said is None:
        watch.refuse_found(3, 1)
        return
    with pytest.raises(NonFiniteError, match=f"at optimizer step 3: {said}"):
        watch.refuse_found(3, 1)


def test_a_reward_model_that_gives_nan_is_named() -> None:
    model = nn.Linear(1, 1)
    watch = RewardWatch([model, len], ["judge", "own"], ["a"])
    watch.note_models(["judge", "own"], torch.tensor([[NAN, NAN]]), [model, len])  # the second may have been None
    with pytest.raises(NonFiniteError, match="judge gave 1 rewards"):
        watch.refuse_found(1, 1)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"advantages": torch.tensor([0.0, NAN])}, "the advantages of b are not finite"),
        ({"advantages": torch.tensor([[0.0, 1.0], [INF, 1.0]])}, "the advantages of b"),
        ({"ref_per_token_logps": torch.tensor([[NAN, 0.0], [0.0, 0.0]])}, "the reference model gives to a"),
        ({"old_per_token_logps": torch.tensor([[0.0, 0.0], [0.0, -INF]])}, None),  # a masked token
        ({"advantages": None, "ref_per_token_logps": None}, None),
    ],
)
def test_what_a_generation_gives_is_finite(output: dict[str, Any], said: str | None) -> None:
    accelerator = SimpleNamespace(num_processes=1)
    output["completion_mask"] = torch.tensor([[1, 1], [1, 0]])
    if said is None:
        refuse_nonfinite_generation(output, ["a", "b"], 7, accelerator)
        return
    with pytest.raises(NonFiniteError, match=said):
        refuse_nonfinite_generation(output, ["a", "b"], 7, accelerator)


def test_a_long_list_is_cut_with_its_count() -> None:
    rows = tuple(f"row-{i}" for i in range(100))
    segments = tuple((1.0, NAN if i == 57 else 2.0) for i in range(100))
    bad = BadStep(9, NAN, [MicroBatch(1, 1, NAN, rows, segments)], {f"layers.{i}": float(i) for i in range(40)}, [])
    said = describe_stop(bad, None, may_skip=True)
    assert "100 rows (nats per token): row-57 (think 1, answer nan), row-0" in said
    assert "and 92 more" in said
    assert "layers.39 39, layers.38 38" in said
    assert "and 35 more" in said
    assert len(said) < 1000
