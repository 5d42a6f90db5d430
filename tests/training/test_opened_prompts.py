"""A chat template that opens the thinking, in GRPO; and the stop that a training adds to its model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, GenerationConfig

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.example import Example
from balanced_thinking.data.rows import prompt_messages, to_dataset, to_prompts_dataset
from balanced_thinking.data.world import load
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.scoring.completion import Completion
from balanced_thinking.training.grpo import ScaleGRPOTrainer
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from balanced_thinking.training.rewards import make_rewards
from balanced_thinking.training.sft import ScaleSFTTrainer
from tests.tiny_training import QUIET, config

CLOSED = "red it is .</think><answer>red</answer>"


def with_start(processor: Any, opens: str) -> Any:
    processor = copy.deepcopy(processor)
    processor.chat_template = processor.chat_template.rstrip() + f"{{% if add_generation_prompt %}}{opens}{{% endif %}}"
    return processor


def grpo(out: Path, architecture: str, opens: str, rows: Dataset, **options: Any) -> ScaleGRPOTrainer:
    model, processor = build_tiny(architecture)
    chosen = {"max_steps": 1, "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 6}
    args = ScaleGRPOConfig(**(QUIET | {"output_dir": str(out)} | chosen | options))
    return ScaleGRPOTrainer(model, None, args, rows, processing_class=with_start(processor, opens))


@pytest.mark.parametrize(
    ("opens", "text", "earned"),
    [
        ("<think>\n", CLOSED, 1.0),
        ("<think>", f"\n{CLOSED}", 1.0),
        ("<think>\n", f"<think>{CLOSED}", 0.0),  # opened twice
        ("", CLOSED, 0.0),
        ("", f"<think>{CLOSED}", 1.0),
        ("<think>\n\n</think>\n\n", f"<think>{CLOSED}", 1.0),
        ("<think>\n\n</think>\n\n", CLOSED, 0.0),  # the block is closed
        ("<think>\n", "red it is .", 0.0),
    ],
)
def test_the_format_reward_knows_what_the_prompt_opened(opens: str, text: str, earned: float) -> None:
    tokenizer = with_start(build_tiny("qwen2")[1], opens)
    (reward,) = make_rewards(["format"], tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    prompts = [prompt_messages(Example("one", "which color ?", (), None, "red"))]
    assert reward(completion_ids=[ids], prompts=prompts, answer=["red"]) == [earned]
    plain = reward(completion_ids=[ids], prompts=[f"which color ? {opens}"], answer=["red"])  # no template
    assert plain == [earned]


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava_next", "gemma3"])
def test_rewards_know_what_a_prompt_with_pictures_has_opened(architecture: str, tmp_path: Path) -> None:
    run = grpo(tmp_path, architecture, "<think>\n", to_prompts_dataset(list(load(n=4, ratio=5))))
    opened: list[str] = []

    def note(completions: Iterator[Completion]) -> Iterator[Completion]:
        for one in completions:
            opened.append(one.parsed.opened)
            yield one

    for reward in run.reward_funcs:
        parse = reward.parse_completions
        reward.parse_completions = lambda *given, parse=parse: note(parse(*given))
    run._generate_and_score_completions([row for row in run.train_dataset for _ in range(2)])
    assert set(opened) == {"<think>\n"}


@pytest.mark.parametrize("opens", ["", "<think>\n", "<think>\n\n</think>\n\n"])
@pytest.mark.parametrize("architecture", ["qwen2", "qwen2_5_vl", "llava_next"])
def test_prompt_ids_of_grpo_are_those_of_sft_and_evaluation(architecture: str, opens: str, tmp_path: Path) -> None:
    examples = list(load(n=4, ratio=5))
    if architecture == "qwen2":
        examples = [Example(one.id, one.question, (), one.think, one.answer) for one in examples]
    run = grpo(tmp_path, architecture, opens, to_prompts_dataset(examples))
    output = run._generate_and_score_completions([row for row in run.train_dataset for _ in range(2)])
    ids = [p[m.bool()].tolist() for p, m in zip(output["prompt_ids"], output["prompt_mask"], strict=True)]
    collator = ScaleCollator(run.processing_class)
    if opens:  # the tokens of this template that thinking is counted in
        assert run.renderer.find_opened(run.train_dataset[0]["prompt"]) == ("" if "</think>" in opens else opens)
    for position, example in enumerate(examples):
        row = {"id": example.id, "prompt": prompt_messages(example), "images": list(example.images)}
        fed = collator.collate_prompts([row])["input_ids"][0].tolist()
        assert ids[2 * position] == fed
        trained = collator([to_dataset([example])[0]])
        first = int((trained["labels"][0] != -100).int().argmax())
        assert trained["input_ids"][0, :first].tolist() == fed


def test_a_processor_that_would_add_a_token_of_its_own_adds_none_in_grpo(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    model, processor = build_tiny("llava_next")
    processor = copy.deepcopy(processor)
    tokenizer = processor.tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    assert processor(text=["a"])["input_ids"][0][0] == tokenizer.bos_token_id
    examples = list(load(n=4, ratio=5))
    args = ScaleGRPOConfig(
        **QUIET, output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=2, max_completion_length=4
    )
    run = ScaleGRPOTrainer(model, None, args, to_prompts_dataset(examples), processing_class=processor)
    output = run._generate_and_score_completions([row for row in run.train_dataset for _ in range(2)])
    fed = ScaleCollator(processor).collate_prompts(
        [{"id": "one", "prompt": prompt_messages(examples[0]), "images": list(examples[0].images)}]
    )
    assert output["prompt_ids"][0][output["prompt_mask"][0].bool()].tolist() == fed["input_ids"][0].tolist()


def test_a_special_token_in_a_prompt_stops_grpo_by_name(tmp_path: Path) -> None:
    examples = [Example(str(i), "What is <|im_end|> ?" if i == 3 else "which ?", (), None, "red") for i in range(4)]
    run = grpo(tmp_path, "qwen2", "", to_prompts_dataset(examples))
    with pytest.raises(RowError, match=r"sample 3\b.*special token '<\|im_end\|>'"):
        run._generate_and_score_completions([row for row in run.train_dataset for _ in range(2)])


def test_grpo_stops_where_the_template_ends_a_turn(tmp_path: Path) -> None:
    model, tokenizer = build_tiny("qwen2")
    tokenizer = copy.deepcopy(tokenizer)
    end, tokenizer.eos_token = tokenizer.eos_token_id, "<|endoftext|>"
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    rows = to_prompts_dataset([Example(str(i), "which ?", (), None, "red") for i in range(4)])
    args = ScaleGRPOConfig(**QUIET, output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=2)
    run = ScaleGRPOTrainer(model, None, args, rows, processing_class=tokenizer)
    assert end in run.eos_token_ids
    assert end in run.generation_config.eos_token_id
    assert all(end in reward.stops for reward in run.reward_funcs)


def test_the_trained_model_is_saved_with_the_stop_that_it_learned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, tokenizer = build_tiny("qwen2")
    tokenizer = copy.deepcopy(tokenizer)
    end, tokenizer.eos_token = tokenizer.eos_token_id, "<|endoftext|>"
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    rows = to_dataset([Example(str(i), "which ?", (), "red it is .", "red") for i in range(4)])
    args = config(tmp_path, max_steps=1, per_device_train_batch_size=4, save_strategy="steps", save_steps=1)
    with caplog.at_level(logging.INFO):
        run = ScaleSFTTrainer(model, args, train_dataset=rows, processing_class=tokenizer)
    assert "ends a turn with '<|im_end|>'" in caplog.text
    run.train()
    run.save_model(str(tmp_path / "model"))
    for folder in (tmp_path / "model", tmp_path / "checkpoint-1"):
        saved = AutoModelForCausalLM.from_pretrained(folder)
        assert set(saved.generation_config.eos_token_id) == {end, tokenizer.eos_token_id}
    batch = run.data_collator([rows[0]])
    assert (batch["input_ids"][0] == end).sum() == 3  # system, user, assistant
