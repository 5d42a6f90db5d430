"""What is wrong with a checkpoint: by its manifest, or where it has none, as far as its files say themselves."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainerState

from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.models.weights import WeightsError, check_weight_files
from balanced_thinking.runs.checkpoints import list_checkpoints, step_of_checkpoint
from balanced_thinking.runs.manifest import Damage, find_damage, is_sealed, read_manifest
from balanced_thinking.training.sharded import inspect_shard_indices

# As transformers names them.
OPTIMIZER_FILE, SCHEDULER_FILE, SCALER_FILE = "optimizer.pt", "scheduler.pt", "scaler.pt"
TRAINER_STATE_FILE = "trainer_state.json"
REFERENCE_FILE = "reference_model.pt"  # ours
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin", "pytorch_model_fsdp*", "global_step*")
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OSError, ValueError, LookupError)
# What `torch.load` raises for what is not its own, and our reading of a state of another form.
_TORCH_ERRORS = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, RuntimeError, OSError, ValueError, LookupError),
    *(TypeError, AttributeError, ArithmeticError, AssertionError, ImportError),
)


class StatePart(NamedTuple):
    """State beside the weights: its name, the patterns of its files (any one will do), and what its absence changes.

    `always` says whether every checkpoint has it; the trainer itself knows which must have the others.
    """

    name: str
    patterns: tuple[str, ...]
    effect: str
    always: bool = True

    def holds(self, file: str) -> bool:
        """Whether a file, by its relative name, or the folder in which it is, belongs to this part."""
        return any(fnmatchcase(file.partition("/")[0], pattern) for pattern in self.patterns)


OPTIMIZER = StatePart(
    "optimizer",
    (OPTIMIZER_FILE, "optimizer.bin", "optimizer_*", "global_step*"),
    "its moments start at zero, so the next updates are larger or smaller than they would have been",
)
SCHEDULER = StatePart(
    "scheduler", (SCHEDULER_FILE, "global_step*"), "the learning rate starts its schedule from the beginning"
)
RANDOM = StatePart(
    "random numbers",
    ("rng_state.pth", "rng_state_*.pth"),
    "the order of the data in later epochs, dropout and generations are others",
)
SCALER = StatePart("gradient scaler", (SCALER_FILE,), "float16 gradients are scaled from the initial factor again")
ENTROPY = StatePart(
    "entropy controller", ("entropy_ctrl_state.json",), "the entropy coefficient starts from its initial value"
)
REFERENCE = StatePart(
    "reference model", (REFERENCE_FILE,), "the KL term is measured from the model with which the run began"
)
GENERATION = StatePart(
    "generation cycle",
    ("generation_state_*.pt",),
    "its completions are generated anew, from the weights of this step",
    always=False,
)


def needed_parts(args: Any) -> list[StatePart]:
    """What a training with these arguments cannot do without if it is to continue exactly."""
    parts = [OPTIMIZER, SCHEDULER, RANDOM]
    if args.fp16:
        parts.append(SCALER)
    if getattr(args, "use_adaptive_entropy", False):
        parts.append(ENTROPY)
    if getattr(args, "sync_ref_model", False):
        parts.append(REFERENCE)
    if hasattr(args, "steps_per_generation"):
        parts.append(GENERATION)
    return parts


def find_missing_parts(folder: Path, needed: list[StatePart]) -> list[StatePart]:
    always = [part for part in needed if part.always]
    return [part for part in always if not any(any(folder.glob(pattern)) for pattern in part.patterns)]


def inspect_checkpoint(folder: Path) -> list[Damage]:
    """Every file that is not what was saved; an empty list for a checkpoint that can be loaded.

    One of an earlier version, or of transformers' own trainer, has no manifest: its files are read for what they say of
    themselves (headers, sums of zip files, steps). An altered byte in its weights is not noticed.
    """
    step = step_of_checkpoint(folder)
    if not is_sealed(folder):
        return [*_inspect_structure(folder, step), *inspect_shard_indices(folder)]
    if damages := find_damage(folder) or list(inspect_shard_indices(folder)):
        return damages
    found = read_manifest(folder).about.get("step")
    if step is not None and found != step:
        return [Damage("manifest.json", f"is that of step {found}; expected step {step}")]
    return []


def newest_valid_checkpoint(parent: Path) -> Path | None:
    """The newest checkpoint in `parent` without damage, which is read for it; None where there is none."""
    return next((place for place in list_checkpoints(parent).values() if not inspect_checkpoint(place)), None)


def _inspect_structure(folder: Path, step: int | None) -> Iterator[Damage]:
    yield from _inspect_weights(folder)
    state = folder / TRAINER_STATE_FILE
    try:
        values = read_json_file(state)
        found = values["global_step"]
        if step is not None and found != step:
            yield Damage(state.name, f"is that of step {found}; expected step {step}")
        if unknown := sorted(values.keys() - {field.name for field in fields(TrainerState)}):
            yield Damage(state.name, f"has the key {unknown[0]!r}, which transformers does not know")
    except FileNotFoundError:
        yield Damage(state.name, "is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        yield Damage(state.name, f"cannot be read: {_first_line(error)}")
    for file in sorted(folder.glob("*.json")):
        if file != state:
            yield from _inspect_json(file)
    for file in sorted(folder.glob("*.pt*")):
        if file.suffix in (".pt", ".pth") and file.is_file():
            yield from _inspect_zip(file)
    if step is not None and not (folder / SCALER_FILE).is_file():  # which skips steps that overflow
        yield from _inspect_steps(folder, step)


def _inspect_json(file: Path) -> Iterator[Damage]:
    try:
        read_json_file(file)
    except (OSError, ValueError, RecursionError) as error:
        yield Damage(file.name, f"cannot be read: {_first_line(error)}")


def _inspect_weights(folder: Path) -> Iterator[Damage]:
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        yield Damage("model.safetensors", "is missing, as is every other file of weights")
    try:
        check_weight_files(str(folder))
    except WeightsError as error:
        yield Damage("the weights", f"cannot be read: {_first_line(error)}")


def _inspect_zip(file: Path) -> Iterator[Damage]:
    """torch writes the sum of each part."""
    try:
        with zipfile.ZipFile(file) as parts:
            bad = parts.testzip()
    except _ZIP_ERRORS as error:
        yield Damage(file.name, f"cannot be read: {_first_line(error)}")
        return
    if bad is not None:
        yield Damage(file.name, f"was altered: the sum of its part {bad} does not match")


def _inspect_steps(folder: Path, step: int) -> Iterator[Damage]:
    """Compare the steps that optimizer and scheduler have counted with the folder's name."""
    for name, read in ((OPTIMIZER_FILE, _steps_of_optimizer), (SCHEDULER_FILE, _steps_of_scheduler)):
        file = folder / name
        try:
            counted = read(torch.load(file, "cpu", weights_only=True, mmap=True)) if file.is_file() else None
        except _TORCH_ERRORS:
            continue  # its sums say so, or the loader will
        if counted is not None and counted != step:
            yield Damage(name, f"is that of step {counted}; expected step {step}")


def _steps_of_optimizer(state: Any) -> int | None:
    counts = [int(one["step"]) for one in state["state"].values() if "step" in one]
    return max(counts, default=None)


def _steps_of_scheduler(state: Any) -> int | None:
    return state["last_epoch"] if "lr_lambdas" in state else None  # another kind counts evaluations


def _first_line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:200]
