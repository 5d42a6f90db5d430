"""What a user of TRL would try first: it works, or is refused in one sentence before the first step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import AdaLoraConfig, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import BitsAndBytesConfig, SchedulerType, set_seed
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.segments import label_segments
from balanced_thinking.training.best_checks import higher_is_better, refuse_no_evaluation
from balanced_thinking.training.config_checks import check_schedule
from balanced_thinking.training.lora import make_lora_config
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.stages import training_arguments
from tests.tiny_training import QUIET, config, logged, losses, trainer


@pytest.fixture(scope="module")
def text_rows(world_rows: Dataset) -> Dataset:
    return world_rows.remove_columns("images")


def test_a_config_of_trl_is_refused_by_name(text_rows: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="args is a SFTConfig; expected a ScaleSFTConfig"):
        trainer("qwen2", text_rows, SFTConfig(str(tmp_path), **QUIET))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"auto_find_batch_size": True}, "auto_find_batch_size=True cannot be exact"),
        ({"shuffle_dataset": True}, "shuffle_dataset=True cannot be exact.*the sampler shuffles"),
    ],
)
def test_what_would_do_nothing_or_change_a_step_is_refused(option: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        config(tmp_path, **option)


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig])
def test_a_model_with_virtual_tokens_is_refused(kind: type, text_rows: Dataset, tmp_path: Path) -> None:
    model, tokenizer = build_tiny("qwen2")
    adapted = get_peft_model(model, kind(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="model adds virtual tokens to the prompt, which have no segment"):
        ScaleSFTTrainer(adapted, config(tmp_path), train_dataset=text_rows, processing_class=tokenizer)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"alora_invocation_tokens": [5]}, "peft_config.alora_invocation_tokens"),
        ({"lora_bias": True}, "lora_bias is true, but .*o_proj has no bias"),
    ],
)
def test_an_adapter_that_cannot_be_trained_is_refused(
    adapter: dict[str, Any], said: str, text_rows: Dataset, tmp_path: Path
) -> None:
    peft = LoraConfig(task_type="CAUSAL_LM", target_modules=["o_proj"], **adapter)
    with pytest.raises(RecipeError, match=said):
        trainer("qwen2", text_rows, config(tmp_path), peft_config=peft)


def test_a_term_that_an_adapter_adds_to_the_loss_is_refused(text_rows: Dataset, tmp_path: Path) -> None:
    adapter = partial(AdaLoraConfig, task_type="CAUSAL_LM", target_modules=["q_proj"], total_step=10, tinit=1, tfinal=1)
    with pytest.raises(ValueError, match=r"orth_reg_weight of peft_config is 0.5: .*set orth_reg_weight=0"):
        trainer("qwen2", text_rows, config(tmp_path), peft_config=adapter())
    found = []
    for split in ({"per_device_train_batch_size": 8}, {"per_device_train_batch_size": 4}):
        args = config(tmp_path, **split, gradient_accumulation_steps=8 // split["per_device_train_batch_size"])
        run = trainer("qwen2", text_rows, args, peft_config=adapter(orth_reg_weight=0.0))
        run.train()
        found += losses(run)
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_a_frozen_model_is_evaluated_but_not_trained(text_rows: Dataset, tmp_path: Path) -> None:
    model, tokenizer = build_tiny("qwen2")
    model.requires_grad_(False)
    sets: dict[str, Any] = {"train_dataset": text_rows, "eval_dataset": text_rows}
    run = ScaleSFTTrainer(model, config(tmp_path), processing_class=tokenizer, **sets)
    assert run.evaluate()["eval_loss"] > 0
    with pytest.raises(RecipeError, match="no parameter of the model is trained"):
        run.train()


def test_a_tokenizer_without_a_padding_token_trains_as_with_one(text_rows: Dataset, tmp_path: Path) -> None:
    found = []
    for pad in (None, "<|endoftext|>"):
        model, tokenizer = build_tiny("qwen2")
        tokenizer.pad_token = pad
        run = ScaleSFTTrainer(model, config(tmp_path), train_dataset=text_rows, processing_class=tokenizer)
        run.train()
        found.append(logged(run, "loss"))
        assert tokenizer.pad_token == pad or pad is None
    assert found[0] == found[1]


def test_the_padding_token_of_the_config_is_used(text_rows: Dataset, tmp_path: Path) -> None:
    run = trainer("qwen2", text_rows, config(tmp_path, pad_token="<|im_start|>"))
    assert run.processing_class.pad_token == "<|im_start|>"
    with pytest.raises(ValueError, match="pad_token is '<none>', which the tokenizer does not have"):
        trainer("qwen2", text_rows, config(tmp_path, pad_token="<none>"))


def test_a_training_that_used_no_sample_is_an_error(text_rows: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sample was used for training: each is longer than max_length=8"):
        trainer("qwen2", text_rows, config(tmp_path, max_length=8, overflow="drop")).train()


def test_a_collator_without_segments_is_named(text_rows: Dataset, tmp_path: Path) -> None:
    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = run.own(rows)
        batch.pop("segment_ids")
        return batch

    run = trainer("qwen2", text_rows, config(tmp_path))
    run.own, run.data_collator = run.data_collator, collate
    with pytest.raises(ValueError, match=r"the batch has no segment_ids \(it has input_ids, .*label_segments gives"):
        run.train()


def test_pictures_in_messages_without_their_column_are_a_row_error(world_rows: Dataset, tmp_path: Path) -> None:
    parts = [{"type": "image", "text": None}, {"type": "text", "text": "What is it?"}]
    reply = [{"type": "text", "text": "<think>A dot.</think><answer>dot</answer>"}]
    rows = Dataset.from_list(
        [{"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": reply}], "id": "r1"}] * 8
    )
    with pytest.raises(ValueError, match="sample r1 has 1 places for pictures in its messages and 0 pictures"):
        trainer("qwen2_5_vl", rows, config(tmp_path)).train()


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        ("eval_answer_nll", False),
        ("a_answer_nll", False),
        ("eval_easy_set_think_nll", False),
        ("a_answer_accuracy", True),
        ("a_accuracy", True),
        ("hard_malformed", False),
        ("a_loss", False),
        ("eval_kl", False),  # of GRPO
        ("completions/clipped_ratio", False),
        ("eval_reward", None),  # transformers takes it for better when it is higher
        ("bleu", None),
        (None, None),
    ],
)
def test_the_better_direction_of_a_metric_of_one_set(metric: str | None, higher: bool | None) -> None:
    assert higher_is_better(metric) is higher


def test_a_metric_that_several_sets_have_is_refused(text_rows: Dataset, tmp_path: Path) -> None:
    args = config(tmp_path, eval_strategy="steps", eval_steps=1, metric_for_best_model="answer_nll")
    with pytest.raises(ValueError, match=r"there are 2 validation sets.*a_answer_nll, b_answer_nll"):
        trainer("qwen2", text_rows, args, eval_dataset={"a": text_rows, "b": text_rows})
    with pytest.raises(RecipeError, match=r"'answer_nll'.*an evaluation measures: a_loss"):  # of one set, too
        trainer("qwen2", text_rows, args, eval_dataset={"a": text_rows})


def test_a_resumed_step_of_another_size_is_refused(text_rows: Dataset, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    trainer("qwen2", text_rows, config(tmp_path, per_device_train_batch_size=2, **saving)).train()
    again = trainer("qwen2", text_rows, config(tmp_path, per_device_train_batch_size=4, **saving | {"max_steps": 3}))
    with pytest.raises(RecipeError, match="checkpoint-2 has steps of 2 samples, and now a step has 4"):
        again.train(resume_from_checkpoint=True)
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    trainer("qwen2", text_rows, config(tmp_path, **saving | {"max_steps": 3} | split)).train(
        resume_from_checkpoint=True
    )


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"optim": "schedule_free_adamw"}, "schedulefree is not installed: pip install schedulefree"),
        ({"optim": "galore_adamw"}, "galore_torch is not installed: pip install galore-torch"),
        ({"optim": "galore_adamw_8bit"}, "galore_torch is not installed"),
        ({"optim": "apollo_adamw"}, "apollo_torch is not installed"),
        ({"optim": "lomo"}, "lomo_optim is not installed: pip install lomo-optim"),
        ({"optim": "stable_adamw"}, "optimi is not installed: pip install torch-optimi"),
        ({"optim": "grokadamw"}, "grokadamw is not installed"),
        ({"optim": "adamw_torch_npu_fused"}, "torch_npu is not installed"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "needs min_lr_rate; set --lr_scheduler_kwargs.min_lr_rate VALUE"),
        ({"lr_scheduler_type": "cosine_warmup_with_min_lr"}, "needs min_lr_rate"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "needs num_decay_steps"),
    ],
)
def test_what_an_optimizer_or_a_schedule_lacks_is_said_at_once(
    training: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        training_arguments(Recipe(training={"max_steps": 2, **training}), tmp_path)


@pytest.mark.parametrize("value", ["1e-6", "1.0E-6", 1e-6])
def test_a_number_with_an_exponent_is_one_in_a_mapping_too(value: Any, tmp_path: Path) -> None:
    options = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": value}}
    found = training_arguments(Recipe(training=options), tmp_path)
    assert found.lr_scheduler_kwargs == {"min_lr": 1e-6}


def test_a_module_to_save_that_does_not_exist_is_named() -> None:
    model = build_tiny("qwen2")[0]
    assert make_lora_config(model, {"r": 4, "modules_to_save": ["lm_head"]}).modules_to_save == ["lm_head"]
    with pytest.raises(RecipeError, match=r"modules_to_save has 'lm_haed' \(did you mean 'lm_head'\?\)"):
        make_lora_config(model, {"r": 4, "modules_to_save": ["lm_haed"]})


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy", "linear", "polynomial", "inverse_sqrt"])
def test_schedules_that_need_nothing_are_accepted(schedule: str, tmp_path: Path) -> None:
    args = training_arguments(Recipe(training={"max_steps": 2}), tmp_path)
    args.lr_scheduler_type = SchedulerType(schedule)
    check_schedule(args)


_TWICE: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4}


def test_a_stream_that_ends_within_a_step_trains_as_its_rows_do(text_rows: Dataset, tmp_path: Path) -> None:
    five, found = text_rows.select(range(5)), []
    for rows in (five, five.to_iterable_dataset()):  # two passes of two and a half micro-batches
        run = trainer("qwen2", rows, config(tmp_path, train_sampling_strategy="sequential", **_TWICE))
        run.train()
        found.append((losses(run), logged(run, "grad_norm")))
    assert found[0] == found[1]


@pytest.mark.parametrize(("stopped", "planned"), [(1, 1), (2, 2), (2, 5), (3, 5), (3, 3)])
def test_a_stream_that_has_begun_anew_continues_at_its_place(
    stopped: int, planned: int, text_rows: Dataset, tmp_path: Path
) -> None:
    stream = text_rows.select(range(5)).to_iterable_dataset().shuffle(seed=1, buffer_size=5)  # a pass has two steps

    def make(folder: str, steps: int, **saving: Any) -> ScaleSFTTrainer:
        options = {**_TWICE, "max_steps": steps, "weighting": "uniform"}
        return trainer("qwen2", stream, config(tmp_path / folder, **options, **saving))

    complete, first, second = make("a", 5), make("b", planned, save_strategy="steps", save_steps=stopped), make("c", 5)
    complete.train()
    first.train()
    second.train(resume_from_checkpoint=str(tmp_path / "b" / f"checkpoint-{stopped}"))
    assert losses(second) == losses(complete)


def test_the_end_of_a_stream_is_left_out_where_a_collator_takes_no_empty_batch(
    text_rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = []
    for count in (5, 4):
        run = trainer("qwen2", text_rows.select(range(count)).to_iterable_dataset(), config(tmp_path, **_TWICE))
        run.data_collator = partial(ScaleCollator.__call__, run.data_collator)
        run.train()
        found.append((losses(run), logged(run, "grad_norm")))
    assert found[0] == found[1]
    assert "the stream ended after 1 of the 2 micro-batches of a step, which are left out" in caplog.text


def test_an_evaluation_has_all_rows_where_the_last_ones_are_dropped(text_rows: Dataset, tmp_path: Path) -> None:
    args = config(tmp_path, per_device_eval_batch_size=5, dataloader_drop_last=True)
    run = trainer("qwen2", text_rows, args, eval_dataset=text_rows)
    assert [len(run.get_eval_dataloader()), len(run.get_test_dataloader(text_rows.select(range(3))))] == [2, 1]
    assert len(trainer("qwen2", text_rows, config(tmp_path, dataloader_drop_last=True)).get_train_dataloader()) == 1
    assert args.dataloader_drop_last


@pytest.mark.parametrize(
    ("options", "rows", "said"),
    [
        ({"per_device_train_batch_size": 9}, range(8), "the 8 rows of the data are fewer than the 9 of a batch"),
        ({"train_sampling_strategy": "sequential"}, range(7), "the 7 rows of the data are fewer than the 8"),
        ({"dataloader_drop_last": False}, range(0), "train_dataset has no rows"),
        ({}, None, "the training data is a stream, of which upstream drops nothing"),
    ],
)
def test_a_training_without_a_step_is_refused(
    options: dict[str, Any], rows: range | None, said: str, text_rows: Dataset, tmp_path: Path
) -> None:
    data = text_rows.to_iterable_dataset() if rows is None else text_rows.select(rows)
    with pytest.raises(ValueError, match=said):
        trainer("qwen2", data, config(tmp_path, **{"dataloader_drop_last": True, **options}))


def test_a_stream_that_ends_before_the_first_step_is_an_error(text_rows: Dataset, tmp_path: Path) -> None:
    def nothing() -> Iterator[dict[str, Any]]:
        yield from ()

    with pytest.raises(ValueError, match="train_dataset has no rows"):
        trainer("qwen2", IterableDataset.from_generator(nothing), config(tmp_path))
    run = trainer("qwen2", text_rows.select(range(2)).to_iterable_dataset(), config(tmp_path, **_TWICE))
    run.data_collator = partial(ScaleCollator.__call__, run.data_collator)
    with pytest.raises(ValueError, match="the stream of the training data ended before the first step"):
        run.train()


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_the_order_follows_the_seed_of_the_data(strategy: str, text_rows: Dataset, tmp_path: Path) -> None:
    def order(**seeds: int) -> list[Any]:
        options: dict[str, Any] = {"train_sampling_strategy": strategy, "per_device_train_batch_size": 2}
        run = trainer("qwen2", text_rows, config(tmp_path, **options, **seeds))
        set_seed(0)
        return [batch["input_ids"].tolist() for batch in run.get_train_dataloader()]

    assert order(seed=1, data_seed=7) == order(seed=2, data_seed=7) != order(seed=1, data_seed=8)


_MEASURES: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 2}


@pytest.mark.parametrize(
    ("options", "sets", "said"),
    [
        (
            {"metric_for_best_model": "answr_nll"},
            None,
            "'answr_nll' (did you mean 'answer_nll'?); an evaluation measures",
        ),
        ({"metric_for_best_model": "eval_answer_nll"}, None, None),
        ({"metric_for_best_model": "mean_token_accuracy"}, None, None),  # TRL's
        ({"metric_for_best_model": "accuracy"}, None, "metric_for_best_model is 'accuracy'"),
        ({"metric_for_best_model": "entropy"}, None, "metric_for_best_model is 'entropy'"),
        ({"metric_for_best_model": "entropy", "log_entropy": True}, None, None),
        ({"metric_for_best_model": "c_answer_nll"}, "ab", "an evaluation measures: a_loss, a_think_nll"),
        ({"metric_for_best_model": "b_answer_nll"}, "ab", None),
    ],
)
def test_a_metric_that_no_evaluation_measures_is_refused(
    options: dict[str, Any], sets: str | None, said: str | None, text_rows: Dataset, tmp_path: Path
) -> None:
    rows = text_rows if sets is None else dict.fromkeys(sets, text_rows)
    with pytest.raises(RecipeError, match=re.escape(said)) if said else nullcontext():
        trainer("qwen2", text_rows, config(tmp_path, **_MEASURES | options), eval_dataset=rows)


def test_a_metric_of_the_user_s_own_is_accepted(text_rows: Dataset, tmp_path: Path) -> None:
    args = config(tmp_path, **_MEASURES, metric_for_best_model="bleu")
    trainer("qwen2", text_rows, args, eval_dataset=text_rows, compute_metrics=lambda _: {"bleu": 1.0})


_BEST: dict[str, Any] = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "max_steps": 4}


@pytest.mark.parametrize(
    ("options", "steps", "epochs", "said"),
    [
        ({"eval_steps": 2, "eval_delay": 5, **_BEST}, 4, 1.0, "no evaluation comes before step 5"),
        ({"eval_steps": 2, "eval_delay": 4, **_BEST}, 4, 1.0, None),
        ({"eval_steps": 8, **_BEST}, 4, 1.0, None),
        ({"eval_delay": 5, "early_stopping_patience": 1, "metric_for_best_model": "loss"}, 4, 1.0, "early_stopping"),
        ({"eval_delay": 8}, 4, 1.0, None),
        ({"eval_strategy": "epoch", "eval_delay": 2, **_BEST}, 4, 1.5, "no evaluation comes before epoch 2"),
        ({"eval_strategy": "epoch", "eval_delay": 1, **_BEST}, 4, 1.5, None),
    ],
)
def test_a_training_without_the_evaluation_that_it_needs_is_refused(
    options: dict[str, Any], steps: int, epochs: float, said: str | None, tmp_path: Path
) -> None:
    needed = {"eval_strategy": "steps", **options}
    saving = {"save_strategy": needed["eval_strategy"], "save_steps": needed.get("eval_steps", 500)}
    args = config(tmp_path, **needed, **saving)
    with pytest.raises(RecipeError, match=said) if said else nullcontext():
        refuse_no_evaluation(args, steps, epochs)


def test_a_late_evaluation_is_known_before_the_first_step(text_rows: Dataset, tmp_path: Path) -> None:
    args = config(tmp_path, **_MEASURES, eval_delay=3, early_stopping_patience=1, metric_for_best_model="loss")
    run = trainer("qwen2", text_rows, args, eval_dataset=text_rows)
    with pytest.raises(RecipeError, match="no evaluation comes before step 3"):
        run.train()
    assert run.state.global_step == 0


def test_the_best_may_be_chosen_by_what_trl_measures(text_rows: Dataset, tmp_path: Path) -> None:
    best = {"save_strategy": "best", "metric_for_best_model": "mean_token_accuracy"}
    run = trainer("qwen2", text_rows, config(tmp_path, **_MEASURES, **best), eval_dataset=text_rows)
    run.train()
    assert run.state.best_metric == max(logged(run, "eval_mean_token_accuracy"))


def test_a_training_shorter_than_an_interval_keeps_its_only_evaluation_as_the_best(
    text_rows: Dataset, tmp_path: Path
) -> None:
    often = {"eval_steps": 8, "save_steps": 8, "save_strategy": "steps", **_BEST, "max_steps": 2}
    run = trainer("qwen2", text_rows, config(tmp_path, **_MEASURES | often), eval_dataset=text_rows)
    run.train()
    assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")


def test_options_of_a_model_that_is_loaded_are_refused(text_rows: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model_init_kwargs is set, but would do nothing: the model is loaded already"):
        trainer("qwen2", text_rows, config(tmp_path, model_init_kwargs={"dtype": "bfloat16"}))
    with pytest.raises(ValueError, match="quantization_config is set, but would do nothing"):
        trainer("qwen2", text_rows, config(tmp_path), quantization_config=BitsAndBytesConfig(load_in_4bit=True))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"text": "a b"}, "text"),
        ({"input_ids": [1, 2], "labels": [1, 2]}, "input_ids, labels"),
        ({"prompt": "a", "answer": "b"}, "prompt, answer"),
        ({"texts": ["a"], "images": []}, "texts, images"),
    ],
)
def test_data_without_a_completion_are_refused_by_their_columns(
    row: dict[str, Any], columns: str, text_rows: Dataset, tmp_path: Path
) -> None:
    args, other = config(tmp_path), Dataset.from_list([row])
    with pytest.raises(ValueError, match=f"train_dataset has the columns {columns}; expected `prompt` and"):
        trainer("qwen2_5_vl", other, args)
    stream = IterableDataset.from_generator(lambda: iter([row]))
    for sets, name in ((stream, "eval_dataset"), ({"a": text_rows, "b": other}, "eval_dataset b")):
        with pytest.raises(ValueError, match=f"{name} has the columns {columns}"):
            trainer("qwen2_5_vl", text_rows, args, eval_dataset=sets)


def test_a_collator_of_ones_own_reads_token_ids_and_adds_segments(text_rows: Dataset, tmp_path: Path) -> None:
    model, tokenizer = build_tiny("qwen2")
    ready = [ScaleCollator(tokenizer)([row]) for row in text_rows]
    ids = [{name: batch[name][0].tolist() for name in ("input_ids", "labels")} for batch in ready]

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        return batch | {"segment_ids": label_segments(batch["labels"], tokenizer)}

    sets: dict[str, Any] = {"train_dataset": Dataset.from_list(ids), "eval_dataset": Dataset.from_list(ids)}
    args = config(tmp_path, per_device_train_batch_size=1, per_device_eval_batch_size=1)
    run = ScaleSFTTrainer(model, args, collate, **sets, processing_class=tokenizer)
    usual = trainer("qwen2", text_rows, args, eval_dataset=text_rows)
    assert run.evaluate()["eval_loss"] == usual.evaluate()["eval_loss"]
    run.train()


def test_the_arguments_have_the_order_of_trl(text_rows: Dataset, tmp_path: Path) -> None:
    model, tokenizer = build_tiny("qwen2")
    run = ScaleSFTTrainer(model, config(tmp_path), None, text_rows, text_rows, tokenizer)
    assert run.evaluate()["eval_loss"] > 0
    ours, theirs = (list(signature(kind.__init__).parameters) for kind in (ScaleSFTTrainer, SFTTrainer))
    assert ours[:-1] == theirs[: len(ours) - 1]


def test_a_collator_of_trl_is_refused(text_rows: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a DataCollatorForLanguageModeling, whose batches have no segment_ids"):
        trainer("qwen2", text_rows, config(tmp_path), data_collator=DataCollatorForLanguageModeling(0))
