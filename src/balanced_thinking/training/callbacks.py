"""What a run writes at each logging step: a readable line in the log, and a row of `metrics.jsonl`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.loss.schedules import FlatteningRule
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.runs.records import MetricsRow
from balanced_thinking.segments import THINK
from balanced_thinking.system.files import write_atomically
from balanced_thinking.system.process import Clock, read_clock
from balanced_thinking.system.progress import should_show_bars
from balanced_thinking.training.failed_saves import name_failed_save
from balanced_thinking.training.health import active_warnings
from balanced_thinking.training.space import advise_resuming

logger = logging.getLogger(__name__)
# What the readable line shows, in this order: key of the log, and its text.
_SHOWN = {
    "loss": "loss {:.4g}",
    "eval_loss": "held-out loss {:.4g}",
    "reward": "reward {:.3f}",
    "think_nll": "think {:.4g}",
    "answer_nll": "answer {:.4g} nats per token",
    "eval_think_nll": "think {:.4g}",
    "eval_answer_nll": "answer {:.4g} nats per token",
    "eval_accuracy": "{:.1%} of the answers right",
    "eval_malformed": "{:.1%} malformed",
    "w_think": "weight on thinking {:.2f}",
    "w_answer": "on the answer {:.2f}",
    "grad_norm": "gradient norm {:.3g}",
    "tokens_per_second": "{:,.0f} tokens/s",
}


def format_log_line(step: int, logs: Mapping[str, Any]) -> str | None:
    """The logging step in one line; `None` where it has nothing to show."""
    shown = [text.format(logs[name]) for name, text in _SHOWN.items() if isinstance(logs.get(name), (int, float))]
    return f"step {step}: {', '.join(shown)}" if shown else None


class LogLines(TrainerCallback):
    """`format_log_line` in the log, at every logging step of the first rank."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and (line := format_log_line(state.global_step, logs or {})):
            logger.info("%s", line)


class ProgressBar(ProgressCallback):
    """transformers' progress bar, without a dictionary at each logging step."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


def show_progress(trainer: Any) -> None:
    """Put our log lines, and on a terminal a bar below them, in the place of transformers' own progress.

    A notebook's table stays.
    """
    if not trainer.pop_callback(ProgressCallback) and not trainer.pop_callback(PrinterCallback):
        return
    trainer.add_callback(LogLines)
    if should_show_bars() and not trainer.args.disable_tqdm:
        trainer.add_callback(ProgressBar)


class MetricsFile(TrainerCallback):
    """Writes every logging step to `metrics.jsonl`. A resumed run first removes the steps that it will repeat."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        lines = self.path.read_text().splitlines() if self.path.is_file() and state.global_step else []
        kept = [line for line in lines if _step_of_line(line) <= state.global_step]
        with self._name_failure(state):
            write_atomically(self.path, "".join(f"{line}\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs:
            with self._name_failure(state), self.path.open("a", encoding="utf-8") as file:
                file.write(MetricsRow(state.global_step, logs, active_warnings(state)).to_json() + "\n")

    def _name_failure(self, state: Any) -> AbstractContextManager[None]:
        """Raises SaveFailedError where the disk is full or gone."""
        what = f"the metrics of step {state.global_step}"
        return name_failed_save(what, self.path, lambda: advise_resuming(RunFiles(self.path.parent).checkpoints))


class TrainingClock(TrainerCallback):
    """Time that the training has taken, including the time before a resume: every checkpoint holds it."""

    KEY = "training_clock"

    def __init__(self) -> None:
        self.before, self.began = Clock(), read_clock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before, self.began = Clock(*state.stateful_callbacks.get(self.KEY, {}).get("spent", ())), read_clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.stateful_callbacks[self.KEY] = {"spent": self.time_spent()}

    def time_spent(self) -> Clock:
        return self.before.plus(read_clock().since(self.began))


class ThinkLossMonitor(TrainerCallback):
    """Follows the think loss for the schedule `adaptive`, with one transfer from the device per optimizer step.

    Its state is part of the trainer's state, so that every checkpoint holds it. `reduce` sums a tensor over the ranks.
    """

    KEY = "adaptive_schedule"

    def __init__(self, rule: FlatteningRule, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.rule, self.reduce = rule, reduce
        self.sums: torch.Tensor | None = None

    def add_think_loss(self, nll: torch.Tensor, segments: torch.Tensor) -> None:
        """Add the nll (nats) of a micro-batch's think tokens."""
        mask = segments == THINK
        sums = torch.stack([(nll * mask).sum(), mask.sum().to(nll.dtype)])
        self.sums = sums if self.sums is None else self.sums + sums

    def moved_at(self, state: Any) -> float | None:
        """The progress at which the weight began to move; None before that."""
        return state.stateful_callbacks.get(self.KEY, {}).get("moved_at")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.sums is None:
            return
        total, tokens = self.reduce(self.sums).tolist()
        self.sums = None
        before, progress = state.stateful_callbacks.get(self.KEY, {}), state.global_step / max(1, state.max_steps - 1)
        if tokens:
            after = self.rule.advance_state(before, total / tokens, progress, state.max_steps)
            state.stateful_callbacks[self.KEY] = after


def _step_of_line(line: str) -> float:
    """The step of a row. Infinity for a row to remove: one that a kill cut short, and the last row of a training, which
    a run that was killed while its model was saved writes again."""
    try:
        row = parse_json(line)
    except ValueError:
        return math.inf
    return math.inf if "train_loss" in row else row["step"]
