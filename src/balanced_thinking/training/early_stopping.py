"""Ends a training whose validation metric has stopped improving. Its state is in every checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import has_length

from balanced_thinking.training.best_checks import check_evaluated, refuse_no_evaluation

logger = logging.getLogger(__name__)
_KEY = "early_stopping"


class EarlyStopping(TrainerCallback):
    """As transformers' callback of that name, which begins to count anew when a training is resumed.

    An evaluation that is not better than the best one before it by more than the threshold counts as without
    improvement; `patience` of them in a row end the training.
    """

    def __init__(self, patience: int, threshold: float) -> None:
        self.patience, self.threshold = patience, threshold

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        value = (metrics or {}).get(name)
        if value is None:  # of another evaluation, such as one that the user calls
            return
        before = state.stateful_callbacks.get(_KEY, {})
        sign = 1.0 if args.greater_is_better else -1.0
        best = before.get("best")
        improved = math.isfinite(value) and (best is None or sign * (value - best) > self.threshold)
        if math.isfinite(value) and (best is None or sign * (value - best) > 0):
            best = value
        waited = 0 if improved else before.get("waited", 0) + 1
        state.stateful_callbacks[_KEY] = {"best": best, "waited": waited}
        if waited >= self.patience:
            control.should_training_stop = True
            if state.is_world_process_zero:
                logger.info(
                    "%s has not improved for %d %s (best %.4g): training ends after step %d of %d",
                    *(name, waited, "evaluation" if waited == 1 else "evaluations"),
                    *(math.nan if best is None else best, state.global_step, state.max_steps),
                )


def has_stopped_early(state: Any, patience: int | None) -> bool:
    """Whether the training of this state was ended so."""
    return patience is not None and state.stateful_callbacks.get(_KEY, {}).get("waited", 0) >= patience


class EvaluationCheck(TrainerCallback):
    """Refuses, before the first step, a training whose last step comes before an evaluation that it needs."""

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        batches = len(train_dataloader) if has_length(train_dataloader) else None
        if batches is None and args.eval_strategy == "epoch":
            return  # a stream has no length
        per_epoch = max(1, math.ceil((batches or 1) / args.gradient_accumulation_steps))
        refuse_no_evaluation(args, state.max_steps, state.max_steps / per_epoch)


def check_measured(trainer: Any, names: Iterable[str]) -> None:
    """Raises RecipeError for a `metric_for_best_model` that is not among the names. Own metrics are not known here."""
    if trainer.compute_metrics is None and trainer.eval_dataset is not None:
        sets = trainer.eval_dataset if isinstance(trainer.eval_dataset, Mapping) else ()
        check_evaluated(trainer.args.metric_for_best_model, tuple(sets), tuple(names))
