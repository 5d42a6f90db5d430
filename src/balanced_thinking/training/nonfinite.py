"""No update, no checkpoint and no final model with a NaN or an infinity: the trainers' part that looks for them.

On a CPU every step is read before its update. A GPU would have to wait for that, so there a step's numbers are read at
the same place of the next step, when the GPU has that step's work queued; at each logging step and before each save
everything is read. With `on_nonfinite: skip` every step is read on every device.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from torch import Tensor
from transformers import TrainerCallback

from balanced_thinking.batch.info import BatchInfo
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.training.finite_tensors import (
    DelayedRead,
    GradientNorms,
    find_nonfinite,
    may_hold_nonfinite,
    measure_gradients,
    optimizer_tensors,
)
from balanced_thinking.training.inspect_checkpoint import newest_valid_checkpoint
from balanced_thinking.training.nonfinite_error import (
    BadStep,
    MicroBatch,
    NonFiniteError,
    describe_stop,
)

logger = logging.getLogger(__name__)
KEY = "nonfinite"  # in the trainer's state
# Steps in a row that float16's gradient scaler may skip: its scale falls from 65,536 to 0.00006 in them.
_SCALER_PATIENCE = 30


@dataclass
class StepNotes:
    """What is kept of one optimizer step until its numbers were read. Nothing here makes a GPU wait.

    rows: for each micro-batch what gives the ids of its rows. segments: for each the mean losses (nats per token) of
    its rows, as a tensor per segment.
    """

    step: int
    losses: list[Tensor] = field(default_factory=list)
    rows: list[Callable[[], Sequence[str]]] = field(default_factory=list)
    segments: list[Sequence[Tensor]] = field(default_factory=list)
    gradients: GradientNorms = field(default_factory=GradientNorms)

    def numbers(self, norm: Tensor | None) -> Tensor:
        """The losses and, last, the norm: (M,) or (M + 1,) float32."""
        found = [*self.losses, *([] if norm is None else [norm])]
        return torch.stack([value.detach().float().reshape(()).to(found[0].device) for value in found])

    def micro_batches(self, losses: Sequence[float]) -> list[MicroBatch]:
        found = []
        for place, loss in enumerate(losses):
            rows = tuple(self.rows[place]()) if place < len(self.rows) else ()
            parts = [part.float().tolist() for part in self.segments[place]] if place < len(self.segments) else []
            found.append(MicroBatch(place + 1, len(losses), loss, rows, tuple(zip(*parts, strict=True))[: len(rows)]))
        return found


class FiniteUpdates:
    """A mixin for a `Trainer` that stops at, or skips, a step that is not finite. See the module's text."""

    args: Any
    model: Any
    state: Any
    accelerator: Any
    optimizer: Any
    control: Any
    is_deepspeed_enabled: bool
    _tr_loss: Any
    _globalstep_last_logged: int
    _initial_global_step: int
    _has_mixed_mesh_grads: Callable[[Any], bool]
    _loss_before: Tensor | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._notes = StepNotes(0)
        self._pending: tuple[StepNotes, DelayedRead] | None = None
        # Whether a step is read one step later.
        self.reads_later = self.args.device.type != "cpu" and not self.skips_bad_steps
        if self.skips_bad_steps and self.is_deepspeed_enabled:
            raise RecipeError(
                "on_nonfinite is skip, but DeepSpeed updates the weights before its loss and norm can be looked at; "
                "set on_nonfinite to stop"
            )
        self.add_callback(FiniteWatch(self))  # type: ignore[attr-defined]

    @property
    def skips_bad_steps(self) -> bool:
        return getattr(self.args, "on_nonfinite", "stop") == "skip"

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        self._notes = StepNotes(self.state.global_step + 1)
        if self.skips_bad_steps:
            self._loss_before = self._tr_loss.clone()
            self.remember_metrics()
        return super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(inputs, dict):
            ids = BatchInfo.from_batch(inputs).ids
            self._notes.rows.append(lambda: ids)
        loss = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        self._notes.losses.append(loss)
        return loss

    def remember_metrics(self) -> None:
        """Note the sums of the logging period before a step; a trainer that has some overrides it."""

    def forget_step_metrics(self) -> None:
        """Set these sums back to what they were before the step."""

    def _clip_grad_norm(self, model: Any) -> Any:
        if not self._can_measure(model):
            return super()._clip_grad_norm(model)  # type: ignore[misc]
        # What `clip_grad_norm_` does, in its two halves: the norms of the parts are known only in between.
        self.accelerator.unscale_gradients()
        self._notes.gradients = measure_gradients(model.named_parameters())
        torch.nn.utils.clip_grads_with_norm_(
            list(model.parameters()), self.args.max_grad_norm, self._notes.gradients.total
        )
        return self._notes.gradients.total

    def _can_measure(self, model: Any) -> bool:
        plain = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
        return self.accelerator.distributed_type in plain and not self._has_mixed_mesh_grads(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None and self._can_measure(model):
            self.accelerator.unscale_gradients()
            self._notes.gradients = measure_gradients(model.named_parameters())
            grad_norm = self._notes.gradients.total
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        # float16 overflows now and then, and its gradient scaler skips such a step.
        if not self.args.fp16:
            self._watch_step(model, norm)
        return norm

    def _watch_step(self, model: Any, norm: Any) -> None:
        notes, norm = self._notes, norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if not notes.losses and norm is None:
            return
        numbers = notes.numbers(None if norm is None else torch.as_tensor(norm))
        if self.accelerator.num_processes > 1:  # so that all ranks decide alike
            flag = (~torch.isfinite(numbers)).any().float()
            anywhere = 1 / (1 - self.accelerator.reduce(flag, "sum").clamp(max=1))  # 1, or infinite
            numbers = torch.cat([numbers, anywhere.reshape(1)])
        self.read_pending()
        if self.reads_later:
            self._pending = notes, DelayedRead(numbers)
            return
        found = numbers.tolist()
        if all(map(math.isfinite, found)):
            return
        weights = find_nonfinite(self._trained_tensors())
        bad = self._describe_step(notes, found, weights, updated=self.is_deepspeed_enabled)
        if not self.skips_bad_steps or bad.weights:
            raise self._stop(bad)
        self._skip_step(model, bad)

    def read_pending(self) -> None:
        """Raises NonFiniteError for the step before, if it was not finite. Waits for no later one."""
        if self._pending is None:
            return
        (notes, read), self._pending = self._pending, None
        found = read.finish()
        if not all(map(math.isfinite, found)):
            raise self._stop(self._describe_step(notes, found, None, updated=True))

    def _describe_step(
        self, notes: StepNotes, numbers: Sequence[float], weights: Sequence[str] | None, *, updated: bool
    ) -> BadStep:
        """The same on all ranks: each gives its micro-batches."""
        losses, rest = numbers[: len(notes.losses)], numbers[len(notes.losses) :]
        own = notes.micro_batches(losses)
        batches = gather_object(own) if self.accelerator.num_processes > 1 else own
        names = gather_object(list(weights or ())) if self.accelerator.num_processes > 1 else list(weights or ())
        norm = rest[0] if len(rest) > (self.accelerator.num_processes > 1) else None
        known = None if weights is None else sorted(set(names))
        return BadStep(notes.step, norm, batches, notes.gradients.by_module(), known, updated)

    def _stop(self, bad: BadStep) -> NonFiniteError:
        kept = newest_valid_checkpoint(Path(self.args.output_dir))
        return NonFiniteError(describe_stop(bad, kept, may_skip=not (self.skips_bad_steps or bad.weights)))

    def _skip_step(self, model: Any, bad: BadStep) -> None:
        """Leave the update out: without gradients the optimizer changes neither weights nor its own state."""
        skipped = skipped_updates(self.state) + 1
        self.state.stateful_callbacks[KEY] = {"skipped": skipped}
        text = "\n".join([f"{bad.headline()}; its update is left out ({skipped} so far)", *bad.facts()])
        limit = self.args.nonfinite_limit
        if skipped > limit:
            raise NonFiniteError(
                f"{text}\n  {skipped} steps were not finite, and nonfinite_limit is {limit}. Training stopped before "
                "this update: look at these rows, or lower learning_rate"
            )
        if self.accelerator.is_main_process:
            logger.warning("%s", text)
        model.zero_grad(set_to_none=True)
        assert self._loss_before is not None
        self._tr_loss = self._loss_before
        self._globalstep_last_logged += 1  # mean losses are those of the updates that were made
        self._initial_global_step += 1
        self.forget_step_metrics()

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self.control.should_log or self.control.should_evaluate:
            self.read_pending()
            self.refuse_nonfinite_weights(f"after optimizer step {self.state.global_step}")
        super()._maybe_log_save_evaluate(*args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.read_pending()
        self.refuse_nonfinite_weights("before a checkpoint was saved", optimizer=True)
        super()._save_checkpoint(*args, **kwargs)  # type: ignore[misc]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not _internal_call:
            self.read_pending()
            self.refuse_nonfinite_weights("before the model was saved")
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if skipped := skipped_updates(self.state):
            logs["skipped_updates"] = skipped  # so far, with those before a resume
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _trained_tensors(self) -> list[tuple[str, Any]]:
        return [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]

    def refuse_nonfinite_weights(self, when: str, *, optimizer: bool = False) -> None:
        """Raises NonFiniteError, on all ranks, where trained weights (or the optimizer's state) are not finite."""
        tensors = self._trained_tensors()
        tensors += list(optimizer_tensors(self.optimizer)) if optimizer else []
        names = find_nonfinite(tensors) if may_hold_nonfinite(tensors) else []
        if self.accelerator.num_processes > 1:
            mine = torch.tensor(float(len(names)), device=self.accelerator.device)
            if not self.accelerator.reduce(mine, "sum"):
                return
            names = sorted(set(gather_object(names)))
        if names:
            bad = BadStep(self.state.global_step + 1, None, (), weights=names)
            kept = newest_valid_checkpoint(Path(self.args.output_dir))
            raise NonFiniteError(f"{describe_stop(bad, kept, may_skip=False)}\n  found {when}")


def skipped_updates(state: Any) -> int:
    """How many updates a run has left out so far, with those before a resume."""
    return (state.stateful_callbacks or {}).get(KEY, {}).get("skipped", 0)


class FiniteWatch(TrainerCallback):
    """Watches float16's gradient scaler, and says where an evaluation's loss is not finite."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.skipped = trainer, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises NonFiniteError where the scaler skips step after step, or has no scale left."""
        accelerator = self.trainer.accelerator
        if not args.fp16 or getattr(accelerator, "scaler", None) is None:
            return
        self.skipped = self.skipped + 1 if accelerator.optimizer_step_was_skipped else 0
        if not self.skipped:
            return
        scale = accelerator.scaler.get_scale()
        if self.skipped > _SCALER_PATIENCE or scale == 0:
            raise NonFiniteError(
                f"float16's gradient scaler skipped {self.skipped} steps in a row, up to step {state.global_step}, and "
                f"its scale is {scale:g}: nothing is learned any more. Use bf16 instead of fp16, or a lower "
                "learning_rate"
            )

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        for name, value in (metrics or {}).items():
            if isinstance(value, float) and not math.isfinite(value) and state.is_world_process_zero:
                logger.warning(
                    "the evaluation after step %d gave %s = %s: it is logged as it is, and this step is never the "
                    "best; look at the rows of the validation split",
                    state.global_step,
                    name,
                    value,
                )
