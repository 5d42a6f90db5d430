"""Accuracy on validation rows during a training: greedy answers, scored as in evaluation."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch
from datasets import Dataset

from balanced_thinking.batch.answering import RowAnswerer
from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.messages import to_prompt_completion
from balanced_thinking.batch.rendering import RowRenderer
from balanced_thinking.models.parts import without_adapter
from balanced_thinking.scoring.completion import Completion, is_answer_complete
from balanced_thinking.scoring.scorers import score_against_all
from balanced_thinking.segments import parse


def check_validation_rows(trainer: Any) -> None:
    """Raises ValueError where a trainer cannot generate answers, before it takes a step."""
    asked = f"validation_generate is {trainer.args.validation_generate}"
    if not isinstance(trainer.eval_dataset, Dataset):
        raise ValueError(f"{asked}, but there is no eval_dataset of known length to answer; pass one, or leave it out")
    if not isinstance(trainer.data_collator, ScaleCollator):
        raise ValueError(f"{asked}, which needs our own collator; leave data_collator or validation_generate out")
    if trainer._is_sharded():
        raise ValueError(f"{asked}, but a model that FSDP or ZeRO-3 has sharded does not generate here; leave it out")


def score_validation_answers(trainer: Any, rows: Dataset) -> dict[str, float]:
    """`accuracy` and `malformed`, as shares of the answered rows, which are the same at every evaluation.

    Ranks share the rows. Nothing is drawn at random while answering, so that a resumed training goes on as it was.
    """
    args = trainer.args
    chosen = sorted(random.Random(0).sample(range(len(rows)), min(len(rows), args.validation_generate)))
    own = chosen[args.process_index :: args.world_size]
    model = trainer.accelerator.unwrap_model(trainer.model)
    base = without_adapter(model)
    answerer = RowAnswerer(base, trainer.data_collator, args.validation_max_new_tokens)
    sums = torch.zeros(3, device=args.device)
    for start in range(0, len(own), args.per_device_eval_batch_size):
        batch = [_as_prompt(rows[index]) for index in own[start : start + args.per_device_eval_batch_size]]
        with trainer.compute_loss_context_manager():
            answers = answerer.answer_rows(batch)
        for row, answer in zip(batch, answers, strict=True):
            correct = _is_correct(row, answer, trainer.data_collator.renderer, args.validation_scorer)
            sums += torch.tensor([correct, answer.parsed.answer is None, 1.0], device=args.device)
        trainer.control = trainer.callback_handler.on_prediction_step(args, trainer.state, trainer.control)
    right, malformed, count = trainer.accelerator.reduce(sums, "sum").tolist()
    return {"accuracy": right / count, "malformed": malformed / count}


def _as_prompt(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it is trained on, with the columns that its answer is scored with."""
    return {**row, **to_prompt_completion(row)}


def _is_correct(row: Mapping[str, Any], found: Completion, renderer: RowRenderer, scorer: str) -> bool:
    """Whether it is the row's answer: of its columns where it has them, else that of its completion."""
    if found.parsed.answer is None or not is_answer_complete(found.parsed, found.stopped):
        return False
    answers = [row.get("answer") or _read_answer(row, renderer), *(row.get("alternatives") or [])]
    return score_against_all(scorer, found.parsed.answer, answers, row.get("choices") or []) >= 1.0


def _read_answer(row: Mapping[str, Any], renderer: RowRenderer) -> str:
    """The answer in the text that is trained on; "" where that has none."""
    rendered = renderer.render_row(row)
    text = rendered.completion.removesuffix(rendered.end or "")
    return parse(text, renderer.format, opened=rendered.opened).answer or ""
