"""The trainers' part that meets a lack of memory: it says what would fit, or prepares a smaller micro-batch.

With `auto_batch` a checkpoint of the last finished step is saved, as it was when that step ended, and
MicroBatchTooLargeError ends the training; `training.run` starts it again from there.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from balanced_thinking.batch.info import BatchInfo
from balanced_thinking.batch.sampling import LengthEstimator
from balanced_thinking.system.memory import describe_memory_error, free_device_memory
from balanced_thinking.training.auto_batch import Division, MicroBatchTooLargeError
from balanced_thinking.training.memory_shortage import BatchShape, FittedShapes, Shortage, TrainingMemoryError

_LACKS = (RuntimeError, MemoryError, OSError)
_UPDATING = "updating the weights"
_PICTURES = ("image_grid_thw", "image_sizes", "pixel_values")


class MemoryWatch:
    """A mixin for a `Trainer`. `auto_batch` is set by the run that starts it again."""

    args: Any
    model: Any
    state: Any
    accelerator: Any
    processing_class: Any
    train_dataset: Any
    _tr_loss: Any
    _globalstep_last_logged: int
    _initial_global_step: int
    _metrics: Any
    _totals: Any
    auto_batch = False
    # What the trainer is doing, and the micro-batch that it does it with. GRPO changes both within a step.
    _doing = "starting"
    _shape: BatchShape | None = None
    _other_cure = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fitted = FittedShapes()
        self._step_end: dict[str, Any] | None = None
        self._micro_batch = 0

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with self._name_shortage():
            return super().train(*args, **kwargs)  # type: ignore[misc]

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        size = self.args.per_device_eval_batch_size
        cure = f"Set per_device_eval_batch_size {max(1, size // 2)} (is {size}), which changes no metric"
        cure = cure if size > 1 else "A single sample does not fit: limit the length of the validation data"
        self._note(f"evaluating after step {self.state.global_step}", None, cure)
        with self._name_shortage():
            return super().evaluate(*args, **kwargs)  # type: ignore[misc]

    def _note(self, doing: str, shape: BatchShape | None = None, other_cure: str = "") -> None:
        """What is being done from now on. `other_cure`: what helps there in place of a smaller micro-batch."""
        self._doing, self._shape, self._other_cure = doing, shape, other_cure

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        self._micro_batch = 0
        self._note(
            f"preparing the rows of step {self.state.global_step + 1}",
            None,
            "Set a smaller dataloader_num_workers or image_options.max_pixels",
        )
        return super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._micro_batch += 1
        self._note(f"training in {self._place()}", shape_of_batch(inputs) if isinstance(inputs, dict) else None)
        lack = None
        try:
            loss = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        except _LACKS as error:  # its traceback holds the activations, so what follows comes after this block
            if isinstance(error, TrainingMemoryError) or (lack := describe_memory_error(error)) is None:
                raise
        if lack is not None:
            self._end_for_lack(lack, inputs)
        if self._shape is not None:
            self.fitted.add(self._shape)
        self._note(f"{_UPDATING} in step {self.state.global_step + 1}")
        return loss

    def _place(self) -> str:
        of = self.args.gradient_accumulation_steps
        return f"step {self.state.global_step + 1}, micro-batch {self._micro_batch} of {of}"

    def _end_for_lack(self, lack: str, inputs: Any) -> None:
        """Raises MicroBatchTooLargeError, or TrainingMemoryError where no smaller micro-batch can help."""
        free_device_memory()
        division = Division(self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps)
        shape = self._shape if not isinstance(inputs, dict) else shape_of_batch(inputs, samples=True)
        longer = self._count_longer(shape)
        option = "max_length" if hasattr(self.args, "max_length") else "max_completion_length"
        found = Shortage(lack, self._doing, shape, division, self.fitted, longer, self._other_cure, option)
        if not self.auto_batch or self._other_cure or division.smaller() is None:
            raise TrainingMemoryError(found.describe())
        self.model.zero_grad(set_to_none=True)
        self._save_step_end()
        raise MicroBatchTooLargeError(f"{lack} while {self._doing}: {shape.describe() if shape else 'no shape'}")

    @contextmanager
    def _name_shortage(self) -> Iterator[None]:
        """Raises TrainingMemoryError for a lack of memory outside of a micro-batch."""
        try:
            yield
        except _LACKS as error:
            lack = describe_memory_error(error)
            if lack is None or isinstance(error, TrainingMemoryError):
                raise
            division = Division(self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps)
            cure = self._cure_for_update() if self._doing.startswith(_UPDATING) else self._other_cure
            found = Shortage(lack, self._doing, self._shape, division, other_cure=cure)
            raise TrainingMemoryError(found.describe()) from error

    def _cure_for_update(self) -> str:
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return (
            f"An optimizer such as AdamW keeps {8 * trained / 2**30:,.2f} GiB for {trained:,} trained parameters: "
            "train an adapter (lora.r), or set optim to one that keeps less, such as adafactor"
        )

    def _count_longer(self, shape: BatchShape | None) -> Any:
        """What counts the rows of the data that have more tokens than a length, as far as their sizes say."""
        rows = self.train_dataset
        if shape is None or not shape.ids or not isinstance(rows, Dataset) or "id" not in rows.column_names:
            return None

        def count(length: int) -> str:
            ids, tokens = list(rows["id"]), LengthEstimator(rows, self.processing_class)(range(len(rows)))
            known = [(tokens[ids.index(one)], true) for one, true in zip(shape.ids, shape.lengths, strict=False)]
            factor = sum(true for _, true in known) / max(1, sum(estimate for estimate, _ in known))
            longer = sum(estimate * factor > length for estimate in tokens)
            return f"about {max(1, longer):,} of {len(rows):,} rows are longer"

        return count

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)  # type: ignore[misc]
        if self.auto_batch:
            self._step_end = self._copy_step_end()

    def _copy_step_end(self) -> dict[str, Any]:
        """What a step changes besides weights and optimizer, so that a checkpoint can be saved later."""
        totals = getattr(self, "_totals", None)  # of SFT
        return {
            "loss": self._tr_loss.clone(),
            "logged": (self._globalstep_last_logged, self._initial_global_step),
            "metrics": {
                mode: {name: list(found) for name, found in one.items()} for mode, one in self._metrics.items()
            },
            "totals": copy.copy(totals["train"]) if totals else None,
            "callbacks": copy.deepcopy(self.state.stateful_callbacks),
            "tokens": self.state.num_input_tokens_seen,
            "random": read_random_state(),
        }

    def _save_step_end(self) -> None:
        """Save a checkpoint of the last finished step, unless there is one."""
        step, kept = self.state.global_step, self._step_end
        if kept is None or (Path(self.args.output_dir) / f"checkpoint-{step}").exists():
            return
        self._tr_loss = kept["loss"]
        self._globalstep_last_logged, self._initial_global_step = kept["logged"]
        for mode, found in kept["metrics"].items():
            self._metrics[mode].clear()
            self._metrics[mode].update(found)
        if kept["totals"] is not None:
            self._totals["train"] = kept["totals"]
        self.state.stateful_callbacks, self.state.num_input_tokens_seen = kept["callbacks"], kept["tokens"]
        restore_random_state(kept["random"])
        self._save_checkpoint(self.model, trial=None)  # type: ignore[attr-defined]


def shape_of_batch(batch: dict[str, Any], *, samples: bool = False) -> BatchShape | None:
    """The shape of a collated batch; with `samples`, also the ids and lengths of its rows, which a GPU is read for."""
    ids = batch.get("input_ids")
    if ids is None:
        return None
    pictures = next((len(batch[name]) for name in _PICTURES if batch.get(name) is not None), 0)
    if not samples:
        return BatchShape(len(ids), ids.shape[1], pictures)
    info = BatchInfo.from_batch(batch)
    lengths: list[int] = []
    if info.lengths_by_row is not None and info.token_indices is not None:
        lengths = ((info.token_indices >= 0).sum(1) + 1).tolist()
    elif "attention_mask" in batch:
        lengths = batch["attention_mask"].sum(1).tolist()
    return BatchShape(len(ids), ids.shape[1], pictures, info.ids, lengths)


def read_random_state() -> dict[str, Any]:
    """The state of every generator that a checkpoint keeps."""
    found = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
    return found | ({"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_initialized() else {})


def restore_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
