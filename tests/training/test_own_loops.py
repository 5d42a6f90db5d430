"""The loss in other people's loops is the trainer's, however a step is divided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.data.example import Example
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.loss import Schedule, count_segments, segment_weights, weighted_cross_entropy
from balanced_thinking.loss.weightings import Progress
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.segments import IGNORE, label_segments
from balanced_thinking.training.options import ScaleSFTOptions
from balanced_thinking.training.weighing import TokenWeigher
from tests.conftest import some_now
from tests.tiny_training import QUIET, GradNorms, config, logged, trainer

STEPS = 2


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Eight texts whose reasoning has 1 to 8 sentences, in an order of their own."""
    counts = (5, 1, 8, 3, 2, 7, 4, 6)
    return to_dataset([Example(str(n), f"How many of {n}?", (), "red tile . " * n, str(n)) for n in counts])


def batches_of(rows: Dataset, size: int) -> tuple[Any, Any, list[dict[str, torch.Tensor]]]:
    model, tokenizer = build_tiny("qwen2")
    collator = ScaleCollator(tokenizer)
    return model, tokenizer, [collator([rows[i] for i in range(at, at + size)]) for at in range(0, len(rows), size)]


def test_labels_have_the_segments_of_the_collator(rows: Dataset) -> None:
    _, tokenizer, (batch,) = batches_of(rows, 8)
    assert label_segments(batch["labels"], tokenizer) == batch["segment_ids"].tolist()
    assert label_segments(batch["labels"].tolist(), tokenizer) == batch["segment_ids"].tolist()


def test_a_completion_without_an_answer_is_refused_and_each_turn_is_one() -> None:
    _, tokenizer = build_tiny("qwen2")
    whole = tokenizer("<think>red</think><answer>4</answer>").input_ids
    cut = tokenizer("<think>red</think><answer>").input_ids[:-1]
    two = [-100, *whole, -100, -100, *whole]
    (found,) = label_segments([two], tokenizer)
    assert found == [IGNORE, *found[1 : 1 + len(whole)], IGNORE, IGNORE, *found[1 : 1 + len(whole)]]
    with pytest.raises(ValueError, match=r"row 1 of the batch has a completion without an answer.*no_answer"):
        label_segments([two, [-100, *cut]], tokenizer)


@pytest.mark.parametrize(
    ("normalize", "size"),
    some_now(lambda mode, size: size == 2 or mode == "example", ["example", "batch", "token"], [8, 2]),
)
def test_a_bare_loop_has_the_loss_and_the_gradient_of_the_trainer(
    rows: Dataset, size: int, normalize: str, tmp_path: Path
) -> None:
    norms, schedule = GradNorms(), Schedule("cosine", 0.8, 0.2)
    options: dict[str, Any] = {"think_weight_start": 0.8, "think_weight_end": 0.2, "normalize": normalize}
    theirs = trainer(
        "qwen2", rows, config(tmp_path, **options, train_sampling_strategy="sequential"), callbacks=[norms]
    )
    theirs.train()

    model, tokenizer, batches = batches_of(rows, size)
    segments = [label_segments(batch["labels"], tokenizer) for batch in batches]
    counts, loss = count_segments(segments), 0.0
    for batch, ids in zip(batches, segments, strict=True):
        weights = segment_weights(ids, 0, 1, schedule=schedule, normalize=normalize, counts=counts)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        part = weighted_cross_entropy(model(**inputs).logits, batch["labels"], weights)
        part.backward()
        loss += part.item()
    assert loss == pytest.approx(logged(theirs, "loss")[0], abs=1e-6)
    squares = [float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None]
    assert sum(squares) ** 0.5 == pytest.approx(norms.norms[0], rel=1e-5)


@pytest.mark.parametrize(("size", "accumulation"), [pytest.param(8, 1, marks=pytest.mark.slow), (2, 4)])
def test_transformers_own_trainer_follows_ours_step_by_step(
    rows: Dataset, size: int, accumulation: int, tmp_path: Path
) -> None:
    options = {"max_steps": STEPS, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_grad_norm": 1e9}
    weights, schedule = {"think_weight_start": 0.8, "think_weight_end": 0.2}, Schedule("cosine", 0.8, 0.2)
    ours = trainer("qwen2", rows, config(tmp_path, **options, **weights, train_sampling_strategy="sequential"))
    ours.train()
    model, tokenizer = build_tiny("qwen2")
    collator = ScaleCollator(tokenizer)

    class ScaleTrainer(Trainer):
        def _get_num_items_in_batch(self, batches: Any, device: Any) -> Any:
            return count_segments([label_segments(batch["labels"], tokenizer) for batch in batches])

    def scale_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        state = theirs.state
        segments = label_segments(labels, tokenizer)
        progress = (state.global_step, state.max_steps)
        of_tokens = segment_weights(segments, *progress, schedule=schedule, counts=num_items_in_batch)
        return weighted_cross_entropy(outputs.logits, labels, of_tokens)

    def collate(found: list[Any]) -> dict[str, Any]:
        return {
            name: value for name, value in collator(found).items() if name in ("input_ids", "labels", "attention_mask")
        }

    args = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        **QUIET | options,
    )
    theirs = ScaleTrainer(model, args, train_dataset=rows, data_collator=collate, compute_loss_func=scale_loss)
    theirs.train()
    assert logged(theirs, "loss") == pytest.approx(logged(ours, "loss"), abs=1e-6)
    assert theirs.evaluate(rows)["eval_loss"] < logged(theirs, "loss")[0]  # with the weights of the last step


def test_what_cannot_be_is_refused() -> None:
    assert segment_weights([[0, 1, 2]], 0, 1).tolist()[0] == pytest.approx([0.0, 1.0, 0.1])
    assert segment_weights([[0, 1, 2]], 2, 2).tolist() == segment_weights([[0, 1, 2]], 1, 2).tolist()
    assert segment_weights([[0, 1, 2]], 1, 2).tolist()[0] == pytest.approx([0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="normalize is 'examples'; known: example, batch, token"):
        segment_weights([[0, 1, 2]], 0, 1, normalize="examples")
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(B, L\)"):
        segment_weights([0, 1, 2], 0, 1)
    with pytest.raises(ValueError, match="step is 3 and total_steps 2"):
        segment_weights([[0, 1, 2]], 3, 2)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_defaults_of_a_bare_loop_are_those_of_the_trainer(step: int) -> None:
    ours = TokenWeigher(ScaleSFTOptions()).step_weights(Progress(step / 2))
    think, answer = segment_weights([[0, 1, 2]], step, 3).tolist()[0][1:]
    assert (think, answer) == pytest.approx((ours.think, ours.answer))
    assert ours.think == 1.0
