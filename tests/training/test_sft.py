"""The trainer: what it logs, what it refuses, and that a resumed run is the undisturbed one."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig
from transformers import AutoConfig, AutoModelForCausalLM, TrainingArguments
from trl import SFTTrainer

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.data.world import load
from balanced_thinking.loss.schedules import Schedule
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.segments import ANSWER, THINK
from balanced_thinking.training import head, loading
from balanced_thinking.training import run as training_run
from balanced_thinking.training.callbacks import show_progress
from balanced_thinking.training.head import attach_weighted_head, check_weighted_head
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.sharded import refuse_save_without_weights
from tests.conftest import ARCHITECTURES, some_now
from tests.tiny_training import config, logged, losses, trainer

LOGGED = {
    "num_tokens",
    "think_nll",
    "answer_nll",
    "think_accuracy",
    "answer_accuracy",
    "w_think",
    "w_answer",
    "tokens_per_second",
}


def test_both_segments_learn_and_every_metric_is_logged(world_rows: Dataset, tmp_path: Path) -> None:
    run = trainer("qwen2_5_vl", world_rows, config(tmp_path, max_steps=12, learning_rate=5e-3))
    run.train()
    assert run.state.log_history[0].keys() >= LOGGED
    for name in ("think_nll", "answer_nll"):
        assert logged(run, name)[-1] < 0.7 * logged(run, name)[0]


def test_weights_follow_the_schedule_step_by_step(world_rows: Dataset, tmp_path: Path) -> None:
    run = trainer("qwen2", world_rows.remove_columns("images"), config(tmp_path, max_steps=5, think_weight_start=0.8))
    run.train()
    schedule = Schedule("cosine", 0.8, 0.5)
    assert logged(run, "w_think") == pytest.approx([schedule.think_weight(step / 4) for step in range(5)])
    assert logged(run, "w_answer") == pytest.approx([1 - w for w in logged(run, "w_think")])


def test_adaptive_schedule_moves_late_arrives_and_resumes_with_its_state(world_rows: Dataset, tmp_path: Path) -> None:
    options = {"schedule": "adaptive", "max_steps": 12, "adaptive_latest": 0.7, "adaptive_tolerance": 0.01}
    options |= {"think_weight_start": 0.9, "think_weight_end": 0.5}
    rows, saving = world_rows.remove_columns("images"), {"save_strategy": "steps", "save_steps": 9}
    undisturbed = trainer("qwen2", rows, config(tmp_path, **options, **saving))
    undisturbed.train()
    weights = logged(undisturbed, "w_think")
    moved = next(step for step, weight in enumerate(weights) if weight < 0.9)
    assert weights[:moved] == pytest.approx([0.9] * moved)
    assert moved >= 8  # the loss fell until then
    assert weights[-1] == pytest.approx(0.5)
    resumed = trainer("qwen2", rows, config(tmp_path / "again", **options, **saving))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))
    assert logged(resumed, "w_think")[-3:] == weights[-3:]
    assert losses(resumed)[-3:] == losses(undisturbed)[-3:]


def test_adaptive_schedule_does_not_depend_on_how_the_batch_was_cut(world_rows: Dataset, tmp_path: Path) -> None:
    found = []
    for batch in (8, 2):
        args = config(
            tmp_path,
            schedule="adaptive",
            max_steps=8,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=8 // batch,
        )
        run = trainer("qwen2", world_rows.remove_columns("images"), args)
        run.train()
        found.append((logged(run, "w_think"), run.state.stateful_callbacks["adaptive_schedule"]))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


def test_loss_is_the_weighted_sum_of_the_logged_segment_means(world_rows: Dataset, tmp_path: Path) -> None:
    run = trainer("qwen2_5_vl", world_rows, config(tmp_path, normalize="batch", think_weight_start=0.7))
    run.train()
    entry = run.state.log_history[0]
    assert entry["loss"] == pytest.approx(0.7 * entry["think_nll"] + 0.3 * entry["answer_nll"], rel=1e-5)


@pytest.mark.parametrize("packing", some_now(bool, [False, True]))
def test_entropy_is_logged_where_it_is_asked_for(packing: bool, world_rows: Dataset, tmp_path: Path) -> None:
    model, processor = build_tiny("qwen2_5_vl")
    batch = ScaleCollator(processor)(list(world_rows))
    segments = batch.pop("segment_ids")[:, 1:]
    batch.pop("batch_info")
    with torch.no_grad():
        logits = model.eval()(**batch).logits[:, :-1]
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    expected = {"entropy": segments > 0, "think_entropy": segments == THINK, "answer_entropy": segments == ANSWER}
    run = trainer(
        "qwen2_5_vl", world_rows, config(tmp_path, log_entropy=True, packing=packing), eval_dataset=world_rows
    )
    run.train()
    found = run.state.log_history[0] | run.evaluate()
    for name, of_segment in expected.items():
        assert found[name] == pytest.approx(float(entropy[of_segment].mean()), rel=1e-5)
        assert 0 < found[f"eval_{name}"] < math.log(logits.shape[-1])
    plain = trainer("qwen2_5_vl", world_rows, config(tmp_path))
    plain.train()
    assert not any("entropy" in name for name in plain.state.log_history[0])


def test_plain_sft_logs_the_share_that_each_segment_gets_by_its_length(world_rows: Dataset, tmp_path: Path) -> None:
    run = trainer("qwen2_5_vl", world_rows, config(tmp_path, weighting="uniform"))
    run.train()
    entry = run.state.log_history[0]
    assert entry["loss"] == pytest.approx(
        entry["w_think"] * entry["think_nll"] + entry["w_answer"] * entry["answer_nll"], rel=1e-5
    )
    assert entry["w_think"] > 0.7


@pytest.mark.parametrize("packing", [False, True])
def test_the_head_knows_its_counts_unless_a_collator_left_labels_out(
    packing: bool, world_rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts_given, original = [], head.weighted_linear_cross_entropy

    def listening(*tensors: Any, counts: Any, **options: Any) -> Any:
        counts_given.append(counts)
        return original(*tensors, counts=counts, **options)

    monkeypatch.setattr(head, "weighted_linear_cross_entropy", listening)
    rows = world_rows.remove_columns("images")
    unmasked = trainer("qwen2", rows, config(tmp_path, packing=packing))
    collator = unmasked.data_collator

    def masking(rows: Any) -> Any:
        batch = collator(rows)
        batch["labels"][:, ::2] = -100
        return batch

    masked = trainer("qwen2", rows, config(tmp_path), data_collator=masking)
    counts_given.clear()  # of the forward that checks the head
    for run in (unmasked, masked):
        run.train()
    supervised = int((collator(list(rows))["labels"] != -100).sum())
    assert counts_given == [(supervised, supervised), None]
    assert 0 < losses(masked)[0] < losses(unmasked)[0]


def test_metrics_cost_one_transfer_per_logging_step(
    world_rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfers = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: transfers.append(tensor.shape) or original(tensor))
    args = config(tmp_path, max_steps=4, logging_steps=2, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    run = trainer("qwen2", world_rows.remove_columns("images"), args)
    original_log = run.log
    counts: list[int] = []

    def log(*arguments: Any) -> None:
        before = len(transfers)
        original_log(*arguments)
        counts.append(len(transfers) - before)

    monkeypatch.setattr(run, "log", log)
    run.train()
    assert counts == [1, 1, 0]  # two logging steps and the closing summary


def test_trained_models_carry_the_tag_of_this_package(world_rows: Dataset, tmp_path: Path) -> None:
    run = trainer("qwen2", world_rows.remove_columns("images"), config(tmp_path))
    assert {"trl", "sft", "balanced-thinking"} <= set(run.model.model_tags)


def test_evaluation_loss_does_not_follow_the_schedule(world_rows: Dataset, tmp_path: Path) -> None:
    args = config(tmp_path, learning_rate=0.0, max_steps=3, eval_strategy="steps", eval_steps=1)
    run = trainer("qwen2_5_vl", world_rows, args, eval_dataset=world_rows)
    run.train()
    found = logged(run, "eval_loss")
    assert len(found) == 3
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)
    assert logged(run, "eval_answer_nll")


@pytest.mark.parametrize("normalize", ["example", "batch", "token"])
def test_evaluation_loss_depends_neither_on_batches_nor_on_dropped_samples(
    normalize: str, world_rows: Dataset, tmp_path: Path
) -> None:
    """Three of the eight rows are too long: in any micro-batch, the loss is that of the others."""
    found = []
    for batch in (1, 2, 8):
        args = config(tmp_path, normalize=normalize, overflow="drop", max_length=120, per_device_eval_batch_size=batch)
        run = trainer("qwen2_5_vl", world_rows, args, eval_dataset=world_rows)
        metrics = run.evaluate()
        assert metrics["eval_dropped"] >= 2
        found.append(metrics["eval_loss"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_tokens_are_counted_packed_as_padded_and_on_after_a_resume(world_rows: Dataset, tmp_path: Path) -> None:
    options = {"max_steps": 4, "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 2}
    padded = trainer("qwen2_5_vl", world_rows, config(tmp_path / "padded", **options))
    padded.train()
    tokens = logged(padded, "num_tokens")
    assert len(set(tokens)) == 4
    assert tokens == sorted(tokens)
    packed = trainer("qwen2_5_vl", world_rows, config(tmp_path / "packed", packing=True, **options))
    packed.train()
    assert logged(packed, "num_tokens") == tokens
    again = trainer("qwen2_5_vl", world_rows, config(tmp_path / "padded", **options))
    again.train(resume_from_checkpoint=str(tmp_path / "padded" / "checkpoint-2"))
    assert logged(again, "num_tokens") == tokens


def test_tokens_of_an_open_logging_period_are_counted_on_after_a_resume(world_rows: Dataset, tmp_path: Path) -> None:
    options = {"max_steps": 8, "per_device_train_batch_size": 2, "logging_steps": 4, "save_strategy": "steps"}
    undisturbed = trainer("qwen2", world_rows.remove_columns("images"), config(tmp_path, save_steps=3, **options))
    undisturbed.train()
    again = trainer("qwen2", world_rows.remove_columns("images"), config(tmp_path, save_steps=3, **options))
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert len(logged(undisturbed, "num_tokens")) == 2
    assert logged(again, "num_tokens") == logged(undisturbed, "num_tokens")


@pytest.mark.parametrize("architecture", some_now("gemma3".__eq__, ARCHITECTURES))
def test_a_wrapper_around_a_tied_head_trains(architecture: str, world_rows: Dataset, tmp_path: Path) -> None:
    peft = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], trainable_token_indices=[5, 6, 7])
    run = trainer(architecture, world_rows, config(tmp_path), peft_config=peft)
    run.train()
    plain = trainer(architecture, world_rows, config(tmp_path))
    plain.train()
    assert losses(run) == pytest.approx(losses(plain), rel=1e-6)  # the first step's, before anything was learned
    assert logged(run, "grad_norm")[0] > 0


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("cohere", {"logit_scale": 0.25}),
        ("gemma2", {"final_logit_softcapping": 3.0}),
        ("granite", {"logits_scaling": 4.0}),
        ("falcon_h1", {"lm_head_multiplier": 0.25}),
        ("recurrent_gemma", {"logits_soft_cap": 3.0}),
        ("xlstm", {"output_logit_soft_cap": 3.0}),
    ],
)
def test_the_loss_is_the_model_s_own_whatever_it_does_to_its_logits(model_type: str, options: dict[str, float]) -> None:
    small = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    small |= {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "mamba_n_heads": 4}
    small |= {"mamba_d_head": 8, "mamba_d_ssm": 32, "mamba_d_state": 8}
    small |= {"num_heads": 2, "qk_dim_factor": 1.0} if model_type == "xlstm" else {}
    config = AutoConfig.for_model(model_type, **{**small, **options})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(30)  # logits large enough for a cap to matter
    ids = torch.randint(1, 64, (2, 9))
    with torch.no_grad():
        own = model(input_ids=ids, labels=ids, use_cache=False).loss
        attach_weighted_head(model)
        check_weighted_head(model)
        ours = model(input_ids=ids, labels=ids, token_weights=torch.full((2, 8), 1 / 16), use_cache=False).loss
        assert float(ours) == pytest.approx(float(own), rel=1e-5)
        neutral = {name: 1e6 if "cap" in name else 1.0 for name in options}
        model.config.get_text_config().update(neutral)  # and it matters here
        attach_weighted_head(model)
        plain = model(input_ids=ids, labels=ids, token_weights=torch.full((2, 8), 1 / 16), use_cache=False).loss
        assert abs(float(plain) - float(own)) > 0.01


@pytest.mark.parametrize("vocabulary", [151_936, 262_144])
def test_a_large_vocabulary_is_not_taken_for_another_loss(vocabulary: int) -> None:
    """Torch's own loss in float32 is more than 1e-4 nats off for so many logits on a CPU."""
    model, _ = build_tiny("qwen2_5_vl")
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    torch.manual_seed(0)
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(std=0.25)
    attach_weighted_head(model)
    check_weighted_head(model)


def test_a_model_that_does_more_to_its_logits_is_refused(world_rows: Dataset, tmp_path: Path) -> None:
    rows = world_rows.remove_columns("images")
    model, processor = build_tiny("qwen2")
    own = model.forward

    def double(*args: Any, **kwargs: Any) -> Any:
        output = own(*args, **kwargs)
        output.logits = 2 * output.logits
        return output

    model.forward = double
    with pytest.raises(ValueError, match=r"loss of Qwen2ForCausalLM is .*that of the weighted head"):
        ScaleSFTTrainer(model, config(tmp_path), train_dataset=rows, processing_class=processor)


def test_a_row_with_tools_reaches_its_refusal(world_rows: Dataset, tmp_path: Path) -> None:
    """The trainer removes columns that nothing reads."""
    rows = world_rows.remove_columns("images").select(range(2)).add_column("tools", ['[{"type": "function"}]'] * 2)
    with pytest.raises(RowError, match="has tools"):
        trainer("qwen2", rows, config(tmp_path)).train()


def test_speed_counts_training_alone(world_rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause between the construction and the training, or while evaluating, is not part of tokens per second."""
    clock = {"now": 0.0}
    monkeypatch.setattr("balanced_thinking.training.metrics.time.perf_counter", lambda: clock["now"])
    run = trainer("qwen2", world_rows.remove_columns("images"), config(tmp_path, max_steps=3))
    clock["now"] = 1000.0
    step = run.training_step

    def one_second(*arguments: Any, **options: Any) -> Any:
        loss = step(*arguments, **options)
        clock["now"] += 1.0
        return loss

    log = run.log

    def pause(*arguments: Any, **options: Any) -> None:
        log(*arguments, **options)
        clock["now"] += 500.0

    monkeypatch.setattr(run, "training_step", one_second)
    monkeypatch.setattr(run, "log", pause)
    run.train()
    speeds = logged(run, "tokens_per_second")
    assert len(speeds) == 3
    assert speeds == pytest.approx([speeds[0]] * 3)
    assert speeds[0] > 100  # eight rows in one second


def test_best_checkpoint_is_loaded_completely_at_the_end(world_rows: Dataset, tmp_path: Path) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    args = config(tmp_path, load_best_model_at_end=True, learning_rate=0.5, **options)  # every step makes it worse
    run = trainer("llava_next", world_rows, args, eval_dataset=world_rows)
    run.train()
    best = min(logged(run, "eval_loss"))
    assert run.state.best_metric == pytest.approx(best)
    assert run.evaluate()["eval_loss"] == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("architecture", some_now("gemma3".__eq__, ARCHITECTURES))
def test_gradient_checkpointing_changes_nothing(architecture: str, world_rows: Dataset, tmp_path: Path) -> None:
    plain, thrifty = (
        trainer(architecture, world_rows, config(tmp_path, max_steps=2, gradient_checkpointing=thrift))
        for thrift in (False, True)
    )
    plain.train()
    thrifty.train()
    assert losses(thrifty) == pytest.approx(losses(plain), rel=1e-6)


@pytest.mark.parametrize(
    ("architecture", "lora"), some_now(lambda name, lora: lora == (name == "gemma3"), ARCHITECTURES, [False, True])
)
def test_resumed_run_equals_the_undisturbed_one(
    architecture: str, lora: bool, world_rows: Dataset, tmp_path: Path
) -> None:
    # Two passes over the data and a save in the middle of one, so that the sampler's place is restored as well.
    options = {"max_steps": 6, "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 3}
    peft = {"peft_config": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])} if lora else {}
    undisturbed = trainer(architecture, world_rows, config(tmp_path, **options), **peft)
    undisturbed.train()
    resumed = trainer(architecture, world_rows, config(tmp_path / "again", **options), **peft)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert losses(resumed)[-3:] == losses(undisturbed)[-3:]
    for (name, a), (_, b) in zip(
        undisturbed.model.state_dict().items(), resumed.model.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_of_a_full_checkpoint_is_loaded(
    architecture: str, world_rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_checked_model", lambda *_: pytest.fail("a second copy of the weights was read"))
    saved = trainer(architecture, world_rows, config(tmp_path, save_strategy="steps", save_steps=1))
    saved.train()
    fresh = trainer(architecture, world_rows, config(tmp_path))
    before = {name: value.clone() for name, value in fresh.model.state_dict().items()}
    fresh._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
    after = fresh.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in saved.model.state_dict().items())
    assert any(not torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("label_smoothing_factor", 0.1),
        ("loss_type", "dft"),
        ("eval_packing", True),
        ("padding_free", True),
        ("assistant_only_loss", True),
        ("use_liger_kernel", True),
        ("router_aux_loss_coef", 0.01),
        ("weighting", "scaled"),
        ("normalize", "sample"),
        ("overflow", "cut"),
        ("schedule", "cosin"),
        ("think_weight_start", 1.5),
        ("schedule_hold_start", 1.0),
        ("schedule_hold_start", float("nan")),
    ],
)
def test_what_cannot_be_exact_is_refused_by_name(option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=option):
        config(tmp_path, **{option: value})


@pytest.mark.parametrize("kind", ["cp", "sp", "tp"])
def test_context_and_sequence_parallelism_are_refused(
    kind: str, world_rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plan:
        cp_enabled = sp_enabled = tp_enabled = False

    plan = Plan()
    setattr(plan, f"{kind}_enabled", True)
    start = SFTTrainer.__init__

    def start_with_plan(self: Any, *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **options)
        self.accelerator.state.parallelism_config = plan

    monkeypatch.setattr(SFTTrainer, "__init__", start_with_plan)
    with pytest.raises(ValueError, match=f"{kind}_size"):
        trainer("qwen2", world_rows.remove_columns("images"), config(tmp_path))


def test_virtual_tokens_and_foreign_losses_are_refused(world_rows: Dataset, tmp_path: Path) -> None:
    rows, args = world_rows.remove_columns("images"), config(tmp_path)
    with pytest.raises(ValueError, match="peft_config"):
        trainer("qwen2", rows, args, peft_config=PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    for name in ("compute_loss_func", "formatting_func"):
        with pytest.raises(ValueError, match=name):
            trainer("qwen2", rows, args, **{name: lambda *_: 0.0})


def test_run_stops_before_an_update_that_is_not_finite(world_rows: Dataset, tmp_path: Path) -> None:
    run = trainer("qwen2", world_rows.remove_columns("images"), config(tmp_path))
    with torch.no_grad():
        next(run.model.parameters())[0, 0] = float("nan")
        run.model.model.norm.weight[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"optimizer step 1: model\.embed_tokens\.weight, model\.norm\.weight"):
        run.train()


def test_frozen_vision_tower_and_head_train_the_rest(world_rows: Dataset, tmp_path: Path) -> None:
    run = trainer("llava_next", world_rows, config(tmp_path, weighting="uniform", max_steps=3, learning_rate=5e-3))
    for name, parameter in run.model.named_parameters():
        parameter.requires_grad_("vision" not in name and "lm_head" not in name)
    head = run.model.lm_head.weight.clone()
    run.train()
    assert torch.equal(run.model.lm_head.weight, head)
    assert losses(run)[-1] < losses(run)[0]


def test_rows_without_a_picture_train_beside_rows_with_several(tmp_path: Path) -> None:
    examples = list(load(n=4, ratio=5))
    rows = [
        {"prompt": [{"role": "user", "content": e.question}], "completion": _completion(e), "images": list(images)}
        for e, images in zip(examples, ((), examples[0].images, examples[1].images * 2, ()), strict=True)
    ]
    for architecture in ARCHITECTURES:
        run = trainer(architecture, _as_dataset(rows), config(tmp_path, per_device_train_batch_size=4))
        run.train()
        assert losses(run)[0] > 0


def _completion(example: Any) -> list[dict[str, str]]:
    return to_dataset([example])[0]["completion"]


def _as_dataset(rows: list[dict[str, Any]]) -> Dataset:
    from balanced_thinking.data.rows import FEATURES, image_cell

    return Dataset.from_list(
        [{**row, "id": str(i), "images": [image_cell(image) for image in row["images"]]} for i, row in enumerate(rows)],
        features=FEATURES,
    )


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `TrainingArguments` finds them in a process that was not started by `accelerate launch`."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda _: 2))


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_several_gpus_of_one_process_are_refused_before_data_is_read(
    stage: str, two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "load_checked_data", lambda *_: pytest.fail("data was read"))
    with pytest.raises(ValueError, match=r"2 GPUs are visible to one process.*accelerate launch.*CUDA_VISIBLE_DEVICES"):
        training_run.train(Recipe(stage=stage), tmp_path)
    split = Recipe(stage=stage, model_options={"device_map": "auto"})  # one model on all of them is not replicated
    assert training_run.training_arguments(split, tmp_path).n_gpu == 2


def test_a_trainer_of_ones_own_refuses_several_gpus_too(two_gpus: None, world_rows: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accelerate launch"):
        trainer("qwen2", world_rows.remove_columns("images"), config(tmp_path))


@pytest.mark.parametrize(("mode", "reason"), [("server", "by NCCL"), ("colocate", "vLLM packs its weights")])
def test_a_vllm_that_no_weights_can_reach_is_refused_before_data_is_read(
    mode: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "load_checked_data", lambda *_: pytest.fail("data was read"))
    monkeypatch.setattr("balanced_thinking.training.checks.find_spec", lambda name: name)  # as if vLLM were installed
    recipe = Recipe(stage="grpo", training={"use_vllm": True, "vllm_mode": mode, "use_cpu": True})
    with pytest.raises(ValueError, match=f"use_vllm is true, but the device here is a CPU.*{reason}"):
        training_run.train(recipe, tmp_path)


def test_offloading_activations_is_refused_without_a_gpu(
    world_rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "load_checked_data", lambda *_: pytest.fail("data was read"))
    said = "activation_offloading is true, but .* here is a CPU; leave it out"
    with pytest.raises(RecipeError, match=said):
        training_run.train(Recipe(training={"activation_offloading": True, "use_cpu": True}), tmp_path)
    with pytest.raises(ValueError, match=said):
        trainer("qwen2", world_rows.remove_columns("images"), config(tmp_path, activation_offloading=True))


def test_the_clock_counts_what_was_spent_before_a_resume() -> None:
    from transformers import TrainerState

    from balanced_thinking.training.callbacks import TrainingClock

    state, clock = TrainerState(), TrainingClock()
    clock.on_train_begin(None, state, None)
    sum(i * i for i in range(10_000))
    clock.on_step_end(None, state, None)
    first = state.stateful_callbacks[TrainingClock.KEY]["spent"]
    assert min(first) > 0
    state.stateful_callbacks[TrainingClock.KEY]["spent"] = [100.0, 50.0]  # as a checkpoint gives it back
    resumed = TrainingClock()
    resumed.on_train_begin(None, state, None)
    assert resumed.time_spent().wall_seconds > 100.0 > 60.0 > resumed.time_spent().cpu_seconds > 50.0


def test_a_row_cut_short_by_a_kill_is_no_obstacle_to_resuming(tmp_path: Path) -> None:
    from transformers import TrainerState

    from balanced_thinking.training.callbacks import MetricsFile

    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    MetricsFile(path).on_train_begin(None, TrainerState(global_step=1), None)
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n'


def test_rows_with_the_speed_of_their_period_stay_when_a_run_is_resumed(tmp_path: Path) -> None:
    """`include_num_input_tokens_seen` adds `train_runtime` to each; only the last row of a training has its loss."""
    from transformers import TrainerState

    from balanced_thinking.training.callbacks import MetricsFile

    path = tmp_path / "metrics.jsonl"
    period = '{"step": 1, "loss": 2.0, "train_runtime": 3.0, "train_tokens_per_second": 9.0}\n'
    path.write_text(period + '{"step": 1, "train_runtime": 4.0, "train_loss": 2.0}\n')
    MetricsFile(path).on_train_begin(None, TrainerState(global_step=1), None)
    assert path.read_text() == period


def test_a_logging_step_reads_as_one_line() -> None:
    from balanced_thinking.training.callbacks import format_log_line

    entry = {"loss": 0.25, "think_nll": 0.5, "answer_nll": 0.125, "w_think": 0.9, "w_answer": 0.1}
    entry |= {"tokens_per_second": 12345.6}
    assert format_log_line(7, entry | {"epoch": 1.0}) == (
        "step 7: loss 0.25, think 0.5, answer 0.125 nats per token, weight on thinking 0.90, on the answer 0.10, "
        "12,346 tokens/s"
    )
    assert format_log_line(7, {"train_runtime": 3.0}) is None


@pytest.mark.parametrize(("stage", "gathers", "refused"), [(3, False, True), (3, True, False), (2, False, False)])
def test_zero_3_that_would_save_no_weights_is_refused(stage: int, gathers: bool, refused: bool) -> None:
    zero = {"stage3_gather_16bit_weights_on_model_save": gathers}
    plugin = SimpleNamespace(zero_stage=stage, deepspeed_config={"zero_optimization": zero})
    expected = pytest.raises(ValueError, match=r"stage3_gather_16bit_weights_on_model_save.*set it to true")
    with expected if refused else nullcontext():
        refuse_save_without_weights(plugin)
    refuse_save_without_weights(None)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_ours_on_a_terminal_and_elsewhere(
    terminal: bool,
    world_rows: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, processor = build_tiny("qwen2_5_vl")
    args = config(tmp_path, max_steps=2, logging_steps=1, disable_tqdm=False)
    run = ScaleSFTTrainer(model, args, train_dataset=world_rows, processing_class=processor)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    caplog.set_level("INFO")
    show_progress(run)
    run.train()
    out, err = capsys.readouterr()
    assert [message[:7] for message in caplog.messages if message.startswith("step")] == ["step 1:", "step 2:"]
    assert "{" not in out + err  # no dictionary
    assert ("2/2" in err) == terminal
