"""GRPO with every kind of processor: an update sees each row's own pictures, as generation did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from PIL import Image

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.data.example import Example
from balanced_thinking.data.rows import to_prompts_dataset
from balanced_thinking.models.load import load_model
from balanced_thinking.training.grpo import ScaleGRPOTrainer
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from tests.models.hub_folders import FAMILIES, write_hub_folder
from tests.tiny_training import QUIET

# Pictures counted by row; stored by row; a processor that makes tensors by default; one that pads by default.
SHORT = ("llava_onevision", "smolvlm", "mistral3", "gemma4")
FIELDS = ("num_images", "num_tiles", "image_grid_thw", "image_position_ids", "image_sizes", "mm_token_type_ids")
FIELDS += ("pixel_values", "pixel_attention_mask", "token_type_ids")


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Eight prompts with as many pictures: one each, except one without and one with two; prompts differ in length."""
    noise = [Image.effect_noise((56 + 14 * n, 84 - 7 * (n % 3)), 90).convert("RGB") for n in range(8)]
    pictures: list[list[Image.Image]] = [[image] for image in noise]
    pictures[2:4] = [[], noise[2:4]]
    asked = [f"How many dots are there in number {n}" + " of these" * (n % 3) + "?" for n in range(8)]
    return to_prompts_dataset(
        Example(str(n), asked[n], tuple(pictures[n]), think=None, answer=str(n)) for n in range(8)
    )


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.families) for name in FAMILIES]
)
def test_an_update_sees_each_row_with_its_own_pictures(name: str, rows: Dataset, tmp_path: Path) -> None:
    """Its log-probabilities are those of each sample alone, in every micro-batch of a shuffled generation."""
    if not FAMILIES[name].pictures:
        rows = rows.remove_columns("images")
    loaded = load_model(str(write_hub_folder(name, tmp_path / name)))
    args = ScaleGRPOConfig(
        **QUIET,
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        num_generations=2,
        max_completion_length=6,
        max_steps=1,
    )
    rewards = [lambda completions, **_: [float(number % 2) for number in range(len(completions))]]
    run = ScaleGRPOTrainer(loaded.model, rewards, args, rows, processing_class=loaded.processor)
    collator = ScaleCollator(loaded.processor, args.reasoning_format)
    run.model.train()
    run._prepare_inputs([rows[index] for index in range(8) for _ in range(2)])
    prompts = [collator.collate_prompts([{"images": [], **row}]) for row in rows]
    seen = set()
    for part in run._buffered_inputs:
        ids = torch.cat([part["prompt_ids"], part["completion_ids"]], 1)
        mask = torch.cat([part["prompt_mask"], part["completion_mask"]], 1)
        fields = {name: part[name] for name in FIELDS if name in part}
        with torch.no_grad():
            found, *_ = run._get_per_token_logps_and_entropies(
                run.model, ids, mask, part["completion_ids"].shape[1], batch_size=2, **fields
            )
        for row in range(len(ids)):
            prompt = part["prompt_ids"][row][part["prompt_mask"][row].bool()].tolist()
            index = next(i for i, one in enumerate(prompts) if one["input_ids"][0].tolist() == prompt)
            completion = part["completion_ids"][row][part["completion_mask"][row].bool()]
            expected = log_probabilities(run.model, prompts[index], completion)
            assert torch.allclose(found[row][: len(completion)], expected, atol=2e-5), (name, index)
            seen.add(index)
    assert seen == set(range(8))


def log_probabilities(model: Any, prompt: dict[str, Any], completion: torch.Tensor) -> torch.Tensor:
    """Of each token of a completion, with one plain forward of its sample alone."""
    inputs = dict(prompt)
    inputs["input_ids"] = torch.cat([prompt["input_ids"], completion[None]], 1)
    for types in ("token_type_ids", "mm_token_type_ids"):
        if types in prompt:
            inputs[types] = torch.cat([prompt[types], torch.zeros_like(completion[None])], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        scores = model(**inputs).logits[0, -len(completion) - 1 : -1].float().log_softmax(-1)
    return scores.gather(1, completion[:, None])[:, 0]
