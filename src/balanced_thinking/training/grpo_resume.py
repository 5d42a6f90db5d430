"""Resuming GRPO at any step: the completions of a generation cycle serve several steps, so checkpoints keep them.

Upstream generates them anew after a resume, from the weights of another step. Each rank keeps its own completions in a
file of its own.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import send_to_device

from balanced_thinking.config.errors import UsageError
from balanced_thinking.training.grpo_division import divide_generation_state
from balanced_thinking.training.inspect_checkpoint import GENERATION

logger = logging.getLogger(__name__)
_KEPT_LOGS = ("prompt", "completion", "advantages")  # of the table of completions; pictures are not shown again
_KEPT_COLUMNS = ("rewards", "extra")  # of that table: by name, `extra` is what rewards log with `log_extra`


class GenerationStateError(UsageError, ValueError):
    """A checkpoint within a generation cycle has not all that the rest of the cycle needs."""


class CyclePlace(NamedTuple):
    """Micro-batches since the beginning of the training, and how many of them are of an unfinished cycle."""

    micro_step: int
    inside: int


class GenerationState:
    """A mixin for a GRPO trainer: the completions of an unfinished generation cycle are in the checkpoint."""

    args: Any
    state: Any
    accelerator: Any
    train_dataset: Any
    num_generations: int
    num_iterations: int
    allow_partial_resume: bool
    _missing: tuple[str, ...]
    _step: int
    _buffered_inputs: list[dict[str, Any]] | None
    _logs: dict[str, Any]

    def _find_cycle_place(self) -> CyclePlace:
        """Where the training is after `state.global_step` steps. A cycle never spans two epochs."""
        cycle = self.args.steps_per_generation * self.num_iterations
        prompts, steps = self.args.generation_batch_size // self.num_generations, self.args.gradient_accumulation_steps
        if not hasattr(self.train_dataset, "__len__"):  # a stream, of which each pass has complete cycles
            done = self.state.global_step * steps
            return CyclePlace(done, done % cycle)
        in_epoch = len(self.train_dataset) // prompts * cycle
        updates = max(1, -(-in_epoch // steps))
        epochs, updates_done = divmod(self.state.global_step, updates)
        done = updates_done * steps
        return CyclePlace(epochs * in_epoch + done, done % cycle)

    def _save_extra_state(self, folder: Path) -> None:
        place = self._find_cycle_place()
        state: dict[str, Any] = {"about": self._describe_cycle(place)}
        if place.inside and self._holds_cycle_of(place):
            state["inputs"] = self._buffered_inputs
        if "inputs" in state and self.args.log_completions:
            state["table"] = {name: _without_pictures(list(self._logs[name])) for name in _KEPT_LOGS}
            for group in _KEPT_COLUMNS:
                columns = {name: list(values) for name, values in self._logs[group].items()}
                state["table"][group] = _without_pictures(columns)
        if len(state) > 1:
            torch.save(state, folder / state_file_name(self.accelerator.process_index))

    def _holds_cycle_of(self, place: CyclePlace) -> bool:
        """Whether the completions at hand are those of this place. A bad row can stop a step after a cycle's end."""
        cycle = self.args.steps_per_generation * self.num_iterations
        return self._buffered_inputs is not None and (max(self._step, 1) - 1) // cycle == place.micro_step // cycle

    def _describe_cycle(self, place: CyclePlace) -> dict[str, int]:
        """What must be the same after the resume."""
        return {
            "micro_step": place.micro_step,
            "ranks": self.accelerator.num_processes,
            "per_device_train_batch_size": self.args.per_device_train_batch_size,
            "steps_per_generation": self.args.steps_per_generation,
            "num_iterations": self.num_iterations,
            "gradient_accumulation_steps": self.args.gradient_accumulation_steps,
        }

    def _load_extra_state(self, folder: Path) -> None:
        """Raises GenerationStateError where the checkpoint is within a cycle whose completions it does not have."""
        place = self._find_cycle_place()
        if self.args.ignore_data_skip:  # the rows start again, and with them the cycles
            return
        self._step, file = place.micro_step, folder / state_file_name(self.accelerator.process_index)
        if GENERATION.name in self._missing:  # it is damaged, and the user accepted that
            return
        state = torch.load(file, "cpu", weights_only=True) if file.is_file() else {}
        expected = self._describe_cycle(place)
        state = divide_generation_state(state, expected)
        found = state.get("about")
        if found is not None and found != expected:
            changes = (f"{k} was {found.get(k)} and is {v}" for k, v in expected.items() if found.get(k) != v)
            self._report_lost_cycle(f"{file} was written by another training: {', '.join(changes)}", place)
            return
        if place.inside and "inputs" not in state:
            self._report_lost_cycle(f"{file} is missing" if not state else f"{file} has no completions", place)
        self._buffered_inputs = send_to_device(state.get("inputs"), self.accelerator.device)
        table = state.get("table", {})
        for name in _KEPT_LOGS:
            self._logs[name].extend(table.get(name, ()))
        for group in _KEPT_COLUMNS:
            for name, values in table.get(group, {}).items():
                self._logs[group][name].extend(values)

    def _report_lost_cycle(self, problem: str, place: CyclePlace) -> None:
        """Raises GenerationStateError unless nothing is lost, or the user accepted that with --allow-partial-resume."""
        if not place.inside:
            return
        step = self.state.global_step
        where = f"step {step} is within a generation cycle, of which {place.inside} micro-batches are done"
        if not self.allow_partial_resume:
            raise GenerationStateError(
                f"{problem}. {where}, and the rest of it needs the completions with which it began. Resume from an "
                "earlier checkpoint, or add --allow-partial-resume to generate them anew, which is not exact"
            )
        logger.warning("%s. %s: its completions are generated anew", problem, where)


def _without_pictures(values: Any) -> Any:
    """Messages and numbers as JSON has them, which can be loaded without running anything."""
    return json.loads(json.dumps(values, default=lambda one: one.item() if getattr(one, "ndim", None) == 0 else None))


def state_file_name(rank: int) -> str:
    return f"generation_state_{rank}.pt"
