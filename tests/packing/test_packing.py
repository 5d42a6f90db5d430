"""Packing: bins, layouts, and a sample's loss and gradient, which are the same packed and alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    TrainerCallback,
)
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from balanced_thinking.batch.collator import Packing, ScaleCollator
from balanced_thinking.batch.sampling import LengthSampler
from balanced_thinking.cpu.attention import fast_matmuls_and_attention
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.data.world import load
from balanced_thinking.loss.variants import NORMALIZE
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.packing import attention
from balanced_thinking.packing.attention import use_packed_rows, use_per_sample_attention
from balanced_thinking.packing.layout import PackingLayout, best_fit_decreasing, pack_into_rows, unpack_to_samples
from balanced_thinking.packing.masks import bidirectional_image_masks
from balanced_thinking.packing.positions import RopeIndex
from balanced_thinking.packing.probe import isolates_samples
from balanced_thinking.training.sft import ScaleSFTTrainer
from tests.conftest import ARCHITECTURES, EACH_ONCE, some_now
from tests.tiny_training import GradNorms, config, losses, model_inputs, trainer

EVERY = (*ARCHITECTURES, "qwen2")


@pytest.fixture(scope="module")
def ragged_rows() -> Dataset:
    """Eight rows of very different lengths, one with two pictures of different sizes and two with none."""
    examples = [next(load(n=1, seed=seed, ratio=ratio)) for seed, ratio in enumerate((5, 40, 10, 60, 20, 5, 80, 15))]
    examples[2] = replace(examples[2], images=(*examples[2].images, examples[3].images[0].resize((140, 56))))
    examples[4], examples[7] = (replace(examples[i], images=()) for i in (4, 7))
    return to_dataset(examples)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 120))
def test_bins_hold_every_sample_once_and_no_more_than_fits(lengths: list[int], capacity: int) -> None:
    bins = best_fit_decreasing(lengths, capacity)
    assert sorted(index for one in bins for index in one) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in one) <= capacity or len(one) == 1 for one in bins)
    # Best fit is at most 1.7 times the optimum and one more; the sum is a lower bound of the optimum.
    if max(lengths) <= capacity:
        assert len(bins) <= 1.7 * -(-sum(lengths) // capacity) + 1


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 3))
def test_unpacking_undoes_packing(lengths: list[int], extra: int) -> None:
    layout = PackingLayout(best_fit_decreasing(lengths, max(lengths) + 3), lengths)
    width = layout.row_width + extra
    places = layout.token_indices(width)
    values = torch.arange(1, places.numel() + 1).view(places.shape).masked_fill(places < 0, 0)
    like = torch.zeros(len(layout.rows), width - 1)
    packed = pack_into_rows(values, places, like)
    assert torch.equal(unpack_to_samples(packed, places), values)
    assert packed.sum() == values.sum()


@pytest.mark.parametrize("architecture", EVERY)
@pytest.mark.parametrize("kind", ["sdpa", "eager", "sdpa_by_sample"])
def test_hidden_states_packed_and_alone_agree_to_float64(architecture: str, kind: str, ragged_rows: Dataset) -> None:
    model, processor = build_tiny(architecture)
    model.set_attn_implementation(kind)
    model = model.double().eval()
    for parameter in model.parameters():
        if not parameter.any():  # Gemma's projector begins at zero, which would hide its pictures
            torch.nn.init.normal_(parameter, std=0.05)
    rows = [row if architecture != "qwen2" else {**row, "images": []} for row in ragged_rows]
    batch = ScaleCollator(processor, packing=Packing(rope_index=RopeIndex.from_model(model)))(rows)
    places = batch["batch_info"].token_indices
    hidden = hidden_states(model, batch)[:, :-1].flatten(0, 1)
    for sample, row in enumerate(rows):
        alone = hidden_states(model, ScaleCollator(processor)([row]))[0, :-1]
        assert torch.allclose(hidden[places[sample, : len(alone)]], alone, rtol=0, atol=1e-9), sample


@pytest.mark.parametrize("architecture", EVERY)
def test_each_sample_is_attended_to_by_itself_once_a_layer(
    architecture: str, ragged_rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = build_tiny(architecture)
    rows = [row if architecture != "qwen2" else {**row, "images": []} for row in ragged_rows]
    batch = ScaleCollator(processor, packing=Packing(rope_index=RopeIndex.from_model(model)))(rows)
    seen: list[int] = []
    alone = attention.run_without_onednn
    monkeypatch.setattr(
        attention, "run_without_onednn", lambda length, attend: seen.append(length) or alone(length, attend)
    )
    with use_per_sample_attention(model) as by_sample:
        assert by_sample
        hidden_states(model, batch, torch.float32)
    assert sorted(seen) == sorted(
        2 * [length for row in batch["batch_info"].lengths_by_row for length in row]
    )  # two layers


@pytest.mark.parametrize("length", [40, 1100])
@pytest.mark.parametrize("window", [None, 16])
def test_attention_of_a_sample_is_that_of_its_own_row(length: int, window: int | None) -> None:
    rng = torch.Generator().manual_seed(0)
    rows = [[length, 24], [30, length]]
    query, key, value = (
        torch.randn(2, heads, length + 30, 8, generator=rng, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    )
    found, _ = attention.per_sample_attention(torch.nn.Module(), query, key, value, attention.PackedMask(rows, window))
    for row, span in attention.PackedMask(rows).sample_spans():
        n = span.stop - span.start
        seen = torch.ones(n, n, dtype=torch.bool).tril().triu(1 - (window or n))
        q, k, v = query[row, :, span], key[row, :, span].repeat_interleave(2, 0), value[row, :, span]
        scores = (q @ k.transpose(1, 2) * 8**-0.5).masked_fill(~seen, float("-inf"))
        expected = scores.softmax(-1) @ v.repeat_interleave(2, 0)
        assert torch.allclose(found[row, span].transpose(0, 1), expected, rtol=0, atol=1e-12)
    assert not found[0, length + 24 :].any()
    found.sum().backward()
    assert torch.isfinite(query.grad).all()


class Written(TorchDispatchMode):
    """Counts the elements of all that operations make anew; views are free."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view and isinstance(made, torch.Tensor):
            self.elements += made.numel()
        return made


def test_shorter_samples_in_a_row_cost_no_more_in_the_backward() -> None:
    written = {}
    for samples in (8, 64):
        query, key, value = torch.randn(3, 2, 2, 512, 4).requires_grad_()
        rows = [[512 // samples] * samples, [512 // samples] * (samples - 1)]
        found, _ = attention.per_sample_attention(torch.nn.Module(), query, key, value, attention.PackedMask(rows))
        with Written() as count:
            found.sum().backward()
        written[samples] = count.elements
    assert written[64] < written[8]


def hidden_states(model: Any, batch: dict[str, Any], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    inputs = {k: v for k, v in model_inputs(batch).items() if k not in ("segment_ids", "labels")}
    rows = batch["batch_info"].lengths_by_row
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    if rows is not None and "token_type_ids" in inputs:
        config, types = model.config.get_text_config(), inputs["token_type_ids"]
        inputs["attention_mask"] = bidirectional_image_masks(config, rows, types, dtype)
    with torch.no_grad(), use_packed_rows(rows):
        return model.base_model(**inputs, use_cache=False).last_hidden_state


def step(architecture: str, rows: Dataset, out: Path, **options: Any) -> tuple[float, dict[str, torch.Tensor], Any]:
    """Loss and gradients of one optimizer step over all rows."""
    run = trainer(architecture, rows, config(out, max_length=None, **options))
    gradients: dict[str, torch.Tensor] = {}
    norms = GradNorms()
    norms.on_pre_optimizer_step = lambda *a, model=None, **k: gradients.update(  # type: ignore[method-assign]
        {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    )
    run.add_callback(norms)
    run.train()
    return losses(run)[0], gradients, run


@pytest.mark.parametrize(
    ("architecture", "normalize"),
    some_now(lambda *case: case in EACH_ONCE, ARCHITECTURES, NORMALIZE),
)
def test_packed_and_alone_have_the_same_loss_and_gradient(
    architecture: str, normalize: str, ragged_rows: Dataset, tmp_path: Path
) -> None:
    alone = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "normalize": normalize}
    loss, gradients, _ = step(architecture, ragged_rows, tmp_path, **alone)
    halves = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    for options in ({}, {"pack_tokens": 700}, halves) if normalize == "example" else ({},):
        packed, found, run = step(
            architecture, ragged_rows, tmp_path, normalize=normalize, **({"packing": True} | options)
        )
        assert run.data_collator.packing
        assert packed == pytest.approx(loss, rel=1e-5)
        # Some gradients are zero except for rounding, such as those of a key's bias: compare these with the total norm.
        total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
        for name, gradient in gradients.items():
            assert (found[name] - gradient).norm() <= 1e-5 * max(gradient.norm(), 0.01 * total), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_rows_hold_every_token_and_little_padding(architecture: str, ragged_rows: Dataset) -> None:
    model, processor = build_tiny(architecture)
    plain = ScaleCollator(processor)(list(ragged_rows))
    packed = ScaleCollator(processor, packing=Packing(rope_index=RopeIndex.from_model(model)))(list(ragged_rows))
    assert int((packed["segment_ids"] > 0).sum()) == int((plain["segment_ids"] > 0).sum())
    tokens = int(plain["attention_mask"].sum())
    assert tokens < packed["input_ids"].numel() < 0.7 * plain["input_ids"].numel()
    assert sorted(packed["pixel_values"].flatten().tolist()) == sorted(plain["pixel_values"].flatten().tolist())
    assert "attention_mask" not in packed


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("kind", "pack_tokens"), [("sdpa", None), ("sdpa", 700), ("eager", None)])
def test_only_dense_masks_and_a_bound_ask_for_several_rows(
    architecture: str, kind: str, pack_tokens: int | None, ragged_rows: Dataset, tmp_path: Path
) -> None:
    model, processor = build_tiny(architecture)
    model.set_attn_implementation(kind)
    args = config(tmp_path, packing=True, pack_tokens=pack_tokens, max_length=None)
    run = ScaleSFTTrainer(model, args, train_dataset=ragged_rows, processing_class=processor)
    batch = run.data_collator(list(ragged_rows))
    rows = batch["batch_info"].lengths_by_row
    places, tokens = batch["input_ids"].numel(), sum(map(sum, rows))
    several = pack_tokens is not None or kind == "eager"
    assert (len(rows) > 1, places > tokens) == (several, several)


@pytest.mark.parametrize("architecture", EVERY)
def test_what_precedes_a_sample_in_its_row_does_not_change_it(architecture: str) -> None:
    assert isolates_samples(build_tiny(architecture)[0])


def test_a_model_that_attends_in_chunks_is_not_packed() -> None:
    """A chunk would begin where the row has it, and not where the sample has it."""
    small = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "intermediate_size_mlp": 32, "head_dim": 8}
    small |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
    config = AutoConfig.for_model("llama4_text", **small, attention_chunk_size=4)
    assert not isolates_samples(AutoModelForCausalLM.from_config(config))


def varlen_attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
    """What FlashAttention computes from the samples' edges, and a record of what it was passed."""
    passed = {name: kwargs[name] for name in ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")}
    GIVEN.append(passed | {"mask": mask})
    key, value = (repeat_kv(x, query.shape[1] // key.shape[1]) for x in (key, value))
    spans = [slice(start, stop) for start, stop in pairwise(passed["cu_seq_lens_q"].tolist())]
    pieces = [
        F.scaled_dot_product_attention(
            *(x[:, :, span] for x in (query, key, value)), is_causal=True, scale=kwargs["scaling"]
        )
        for span in spans
    ]
    return torch.cat(pieces, 2).transpose(1, 2), None


GIVEN: list[dict[str, Any]] = []


@pytest.fixture
def flash_stub() -> str:
    GIVEN.clear()
    AttentionInterface.register("flash_stub", varlen_attention)
    AttentionMaskInterface.register("flash_stub", flash_attention_mask)
    return "flash_stub"


@pytest.mark.parametrize(
    ("architecture", "batch", "multiple"),
    some_now(
        lambda *case: case in {("gemma3", 8, 64), ("qwen2_5_vl", 8, None), ("gemma3", 1, None)},
        ARCHITECTURES,
        [8, 1],
        [None, 64],
    ),
)
def test_flash_attention_learns_where_samples_begin(
    architecture: str, batch: int, multiple: int | None, flash_stub: str, world_rows: Dataset, tmp_path: Path
) -> None:
    options = {"packing": True, "per_device_train_batch_size": batch, "pad_to_multiple_of": multiple}
    plain = trainer(architecture, world_rows, config(tmp_path, **options))
    model, processor = build_tiny(architecture)
    model.config.get_text_config()._attn_implementation = flash_stub
    run = ScaleSFTTrainer(model, config(tmp_path, **options), train_dataset=world_rows, processing_class=processor)
    run.train()
    lengths = {int(ScaleCollator(processor)([row])["attention_mask"].sum()) for row in world_rows}
    assert len(GIVEN) == 2  # layers, of one micro-batch
    for passed in GIVEN:
        found = passed["cu_seq_lens_q"].diff().tolist()
        assert set(found[:batch]) <= lengths
        assert len(found) - batch in ((0,) if multiple is None else (0, 1))  # a filler
        assert sum(found) % (multiple or 1) == 0
        assert passed["mask"] is None
        assert passed["cu_seq_lens_q"].dtype == torch.int32
        assert passed["cu_seq_lens_k"] is passed["cu_seq_lens_q"]
        assert passed["max_length_q"] == passed["max_length_k"] == max(found)
        assert type(passed["max_length_q"]) is int  # else it would have to come from the device
    plain.train()
    if architecture != "gemma3":  # FlashAttention reads its pictures one way
        assert losses(run) == pytest.approx(losses(plain), rel=1e-6)


def test_a_model_that_mixes_samples_is_padded_in_groups_of_like_length(
    world_rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.mistral import modeling_mistral

    # As an architecture whose masks know nothing of packing.
    create = modeling_mistral.create_causal_mask
    monkeypatch.setattr(
        modeling_mistral, "create_causal_mask", lambda *a, **k: create(*a, **{**k, "position_ids": None})
    )
    model, processor = build_tiny("llava_next")
    model.set_attn_implementation("eager")  # else we attend sample by sample, whatever the masks
    assert not isolates_samples(model)
    args = config(tmp_path, packing=True, per_device_train_batch_size=2)
    run = ScaleSFTTrainer(model, args, train_dataset=world_rows, processing_class=processor)
    assert not run.data_collator.packing
    assert "packing is off, because LlavaNext" in caplog.text
    assert isinstance(run._get_train_sampler(run.train_dataset), LengthSampler)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packing_leaves_the_model_s_attention_as_it_was(
    checkpointing: bool, ragged_rows: Dataset, tmp_path: Path
) -> None:
    """Gradient checkpointing runs the layers once more in the backward: then, too, sample by sample."""
    seen: list[str] = []

    class Attention(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            seen.append(model.config.get_text_config()._attn_implementation)

        on_prediction_step = on_step_end

    args = config(tmp_path, packing=True, max_length=None, gradient_checkpointing=checkpointing)
    run = trainer("gemma3", ragged_rows, args, eval_dataset=ragged_rows, callbacks=[Attention()])
    model = run.model.config.get_text_config()
    assert model._attn_implementation == "sdpa"
    run.train()
    assert model._attn_implementation == "sdpa"
    run.evaluate()
    assert model._attn_implementation == "sdpa"
    assert seen == ["sdpa_by_sample"] * 2
    undisturbed = trainer("gemma3", ragged_rows, config(tmp_path, max_length=None))
    undisturbed.train()
    assert losses(run) == pytest.approx(losses(undisturbed), rel=1e-5)


def test_packing_leaves_a_user_s_own_attention_alone() -> None:
    model, _ = build_tiny("qwen2")
    ALL_ATTENTION_FUNCTIONS["sdpa"] = partial(sdpa_attention_forward)
    try:
        with fast_matmuls_and_attention(), use_per_sample_attention(model) as by_sample:
            assert not by_sample
            assert model.config._attn_implementation == "sdpa"
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    with fast_matmuls_and_attention(), use_per_sample_attention(model) as by_sample:
        assert by_sample


def test_a_config_serves_two_trainers(ragged_rows: Dataset, tmp_path: Path) -> None:
    args = config(tmp_path, packing=True, max_length=None)
    model, processor = build_tiny("qwen2_5_vl")
    with pytest.raises(ValueError, match="train_dataset"):
        ScaleSFTTrainer(model, args, processing_class=processor)
    for _ in range(2):
        assert args.packing
        assert trainer("qwen2_5_vl", ragged_rows, args).data_collator.packing


def test_packed_training_resumes_exactly(ragged_rows: Dataset, tmp_path: Path) -> None:
    options = {"max_steps": 4, "per_device_train_batch_size": 3, "packing": True, "max_length": None}
    undisturbed = trainer("qwen2_5_vl", ragged_rows, config(tmp_path, **options, save_strategy="steps", save_steps=2))
    undisturbed.train()
    resumed = trainer("qwen2_5_vl", ragged_rows, config(tmp_path / "again", **options))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert losses(resumed)[-2:] == losses(undisturbed)[-2:]


def test_evaluation_packs_too_and_finds_the_same(ragged_rows: Dataset, tmp_path: Path) -> None:
    found = [
        trainer(
            "gemma3",
            ragged_rows,
            config(tmp_path, packing=packing, max_length=None, per_device_eval_batch_size=5),
            eval_dataset=ragged_rows,
        ).evaluate()
        for packing in (False, True)
    ]
    for name in ("eval_loss", "eval_think_nll", "eval_answer_nll", "eval_answer_accuracy"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-5), name
