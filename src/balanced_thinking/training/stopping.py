"""A training that is asked to stop ends its optimizer step, saves a checkpoint, and stops there.

SIGINT, SIGTERM and the time budget `max_hours` ask for it. All ranks stop after the same step. The run that continues
is the undisturbed one, metrics included: a checkpoint holds the open logging period, and an evaluation that the stop
left out is made first.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from balanced_thinking.runs.checkpoints import list_checkpoints
from balanced_thinking.system.process import process_rank
from balanced_thinking.system.signals import GracefulStop, StoppedEarly, shield_worker
from balanced_thinking.training.agreement import Agreement
from balanced_thinking.training.logging_period import restore_period, save_period
from balanced_thinking.training.peers import PeerWatch

logger = logging.getLogger(__name__)
_DUE = "evaluation_due"  # in the trainer's state: the evaluation after this step is still to be made


class EvaluationCutError(Exception):
    """Leaves an evaluation that a signal has met."""


class StopRequests(TrainerCallback):
    """Who has asked the training to stop: a signal, or the time budget.

    The budget counts from `began`, and keeps the time of the longest step, evaluation and save so far in reserve.
    """

    def __init__(self, max_hours: float | None) -> None:
        self.began = time.monotonic()
        self.hint = "continue with train(resume_from_checkpoint=True)"
        self.signals: GracefulStop | None = None  # None: signals do what they do elsewhere
        self.at_epoch_end = False
        self.saved_at: int | None = None  # the step of the last checkpoint of this process
        self.longest = {"step": 0.0, "evaluation": 0.0, "save": 0.0}
        self._seconds = None if max_hours is None else 3600 * max_hours
        self._step_began = 0.0

    @property
    def number(self) -> int | None:
        """The signal that asked."""
        return self.signals.number if self.signals else None

    def is_asked(self, *, evaluation: bool) -> bool:
        """Whether to stop now. `evaluation`: one would come before the next chance to stop."""
        return self.number is not None or self._is_time_over(evaluation)

    def _is_time_over(self, evaluation: bool) -> bool:
        if self._seconds is None:
            return False
        save = self.longest["save"] or self.longest["step"]  # before the first one nobody knows
        reserve = self.longest["step"] + save + (self.longest["evaluation"] if evaluation else 0.0)
        return time.monotonic() - self.began + reserve > self._seconds

    def note_seconds(self, what: str, began: float) -> None:
        self.longest[what] = max(self.longest[what], time.monotonic() - began)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.signals is not None:
            self.signals.start()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at_epoch_end = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at_epoch_end = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.note_seconds("step", self._step_began)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved_at = state.global_step

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Several ranks would have to agree at every batch: they finish the evaluation.
        if self.number is not None and args.world_size == 1 and 0 < state.global_step < state.max_steps:
            raise EvaluationCutError


class StoppingTrainer:
    """A mixin for a `Trainer`: stops where `stopping` says so, and raises StoppedEarly once everything is saved."""

    args: Any
    state: Any
    control: Any
    model: Any
    accelerator: Any
    callback_handler: Any
    eval_dataset: Any
    _evaluate: Any
    _determine_best_metric: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agreement = Agreement(self)
        self.peers = PeerWatch(self.args, self._advise_after_loss)
        self.stopping = StopRequests(getattr(self.args, "max_hours", None))
        self._resumed_from: str | None = None
        self.add_callback(self.stopping)  # type: ignore[attr-defined]
        self.add_callback(_PeriodRestorer(self))  # type: ignore[attr-defined]

    @contextmanager
    def stop_on_signals(self, began: float, hint: str) -> Iterator[None]:
        """Inside this context the first SIGINT or SIGTERM, once the training has begun, stops it after its step.

        It covers what comes after the last step, too, which is then completed. `began` is where the time budget starts
        (`time.monotonic`), and `hint` says how to continue. Raises StoppedEarly.
        """
        stopping, rank = self.stopping, process_rank()
        last_words = "" if rank else "ended at once by a second signal; the checkpoints are complete"
        stopping.signals = GracefulStop(self._report_signal, last_words)
        stopping.began, stopping.hint = began, hint
        try:
            with self.peers.watching_peers():
                yield
        finally:
            if self.peers.lost is None:  # else a launcher sends SIGTERM while this rank ends by itself
                stopping.signals.close()
        if (number := stopping.number) is not None:
            raise StoppedEarly("all steps were taken and the model is saved: the run is complete", number)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with self.peers.watching_peers():
            return super().train(*args, **kwargs)  # type: ignore[misc]

    def _advise_after_loss(self) -> str:
        """What there is to continue from, after a rank was lost."""
        newest = next(iter(list_checkpoints(Path(self.args.output_dir)).values()), None)
        if newest is None:
            return f"there is no checkpoint yet; {self.stopping.hint}"
        return f"the newest checkpoint is {newest.name} in {self.args.output_dir}; {self.stopping.hint}"

    def _report_signal(self, name: str) -> None:
        if self.peers.lost is not None:
            return
        where = "saves a checkpoint and stops" if self.state.global_step < self.state.max_steps else "saves the model"
        logger.warning("%s: training ends this step, %s; a second signal ends the process at once", name, where)

    def _stops_here(self, *, evaluation: bool = False) -> bool:
        """Whether the training stops after this step: the same on all ranks."""
        state = self.state
        if self.control.should_training_stop or state.global_step >= state.max_steps:
            return False
        if state.epoch == int(state.epoch) and not self.stopping.at_epoch_end:
            return False  # what comes at the end of an epoch comes first
        return self.agreement.any(self.stopping.is_asked(evaluation=evaluation))

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        evaluates, saves = self.control.should_evaluate, self.control.should_save
        stops = self._stops_here(evaluation=evaluates)
        if stops:
            self._put_off_evaluation()
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)  # type: ignore[misc]
        except EvaluationCutError:
            stops = True
            self._put_off_evaluation()
        if not stops and (evaluates or saves):  # they take long, and a signal does not interrupt them
            stops = self._stops_here()
        if stops:
            self._save_and_stop(model, trial)

    def _put_off_evaluation(self) -> None:
        if self.control.should_evaluate:
            self.control.should_evaluate = False
            self.state.stateful_callbacks[_DUE] = {"step": self.state.global_step}

    def _save_and_stop(self, model: Any, trial: Any) -> None:
        """Save a checkpoint, except where this step has one. Raises StoppedEarly."""
        stopping, step = self.stopping, self.state.global_step
        if stopping.saved_at != step or _DUE in self.state.stateful_callbacks:
            self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        number = stopping.number
        raise StoppedEarly(
            f"stopped after step {step} of {self.state.max_steps}; checkpoint-{step} in {self.args.output_dir} is "
            f"saved; {stopping.hint}",
            number or signal.SIGTERM,
            by_signal=number is not None,
        )

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        began = time.monotonic()
        super()._save_checkpoint(*args, **kwargs)  # type: ignore[misc]
        self.stopping.note_seconds("save", began)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        save_period(self, output_dir)

    def _load_scaler(self, checkpoint: str | None) -> None:
        super()._load_scaler(checkpoint)  # type: ignore[misc]
        self._resumed_from = checkpoint

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)  # type: ignore[misc]
        due = self.state.stateful_callbacks.pop(_DUE, None)
        if due and self.eval_dataset is not None and due["step"] == self.state.global_step:
            self._determine_best_metric(metrics=self._evaluate(None, None), trial=None)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        found = super().evaluate(*args, **kwargs)  # type: ignore[misc]
        self.stopping.note_seconds("evaluation", began)
        return found

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        loader = super()._get_dataloader(*args, **kwargs)  # type: ignore[misc]
        base = getattr(loader, "base_dataloader", loader)  # accelerate wraps it
        if getattr(base, "num_workers", 0):
            base.worker_init_fn = partial(shield_worker, base.worker_init_fn)
        return loader


class _PeriodRestorer(TrainerCallback):
    """transformers begins a logging period of its own in `train`; only then may that of the checkpoint replace it."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer._resumed_from is not None:
            restore_period(self.trainer, self.trainer._resumed_from)
