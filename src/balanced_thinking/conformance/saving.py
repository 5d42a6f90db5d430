"""Is a resumed run the undisturbed one, and is what it saves read by others?"""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, AutoTokenizer

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.turn_end import find_turn_end, stop_token_ids
from balanced_thinking.conformance.generation import relative_difference
from balanced_thinking.conformance.loading import NOT_INPUTS
from balanced_thinking.conformance.steps import QUIET
from balanced_thinking.conformance.subject import Subject, auto_class
from balanced_thinking.conformance.table import PropertyError, SkippedError
from balanced_thinking.data.convert import write_jsonl
from balanced_thinking.models.load import load_model
from balanced_thinking.models.processor_parts import takes_pictures, tokenizer_of
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.segments import FORMATS, ReasoningFormat
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.run import train

_ROUNDING = 1e-5  # of logits, relative: weights that are equal to the bit may be in memory of other alignment
_STEPS = 4  # of a run, which saves in the middle of its only epoch


class SavingChecks:
    """Checks of one run, which is trained once."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.run = subject.work / "undisturbed"

    def train_run(self) -> Path:
        """The folder of the trained model."""
        if not RunFiles(self.run).model.is_dir():
            train(self._recipe(), self.run)
        return RunFiles(self.run).model

    def _recipe(self) -> Recipe:
        data = self.subject.work / "samples.jsonl"
        if not data.exists():
            write_jsonl(self.subject.examples, data)
        quiet = {name: value for name, value in QUIET.items() if name != "disable_tqdm"}
        saving = {"save_strategy": "steps", "save_steps": _STEPS // 2, "max_steps": _STEPS}
        return Recipe(
            model=self.subject.folder,
            data=str(data),
            lora={"r": 4, "target_modules": "all-linear"} if self.subject.real_weights else None,
            training={
                **quiet,
                **saving,
                "weighting": "scale",
                "per_device_train_batch_size": len(self.subject.examples) // _STEPS,
                "reasoning_format": _recipe_format(self.subject.format),
            },
        )

    def check_resume(self) -> str:
        """Four steps give the weights of two steps, a stop, and two more."""
        straight = self.train_run()
        again = self.subject.work / "resumed"
        shutil.copytree(self.run, again, ignore=_after_the_stop(self.run))
        resumed = train(self._recipe(), again, resume=True)
        expected, found = _weights_of(straight), _weights_of(resumed)
        if unlike := _unlike_tensors(found, expected):
            raise PropertyError(
                f"{len(unlike)} of {len(expected)} tensors differ between {_STEPS} steps and {_STEPS // 2} + "
                f"{_STEPS // 2} after a resume, {unlike[0]} for one"
            )
        if not _unlike_tensors(expected, _weights_of(Path(self.subject.folder))):
            raise PropertyError(f"{_STEPS} steps changed no weight: nothing is trained")
        return f"{len(expected)} tensors are equal to the bit after {_STEPS} steps and after 2 + 2 with a resume"

    def check_saved_folder(self) -> str:
        """transformers alone reads the saved folder, and computes what our own loading does."""
        if self.run.exists() and not RunFiles(self.run).model.is_dir():
            raise SkippedError("no run could be trained: see resume")
        folder = self.train_run()
        if self.subject.real_weights:
            raise SkippedError("a run by an adapter saves the adapter alone")
        ours = load_model(str(folder))
        theirs = auto_class(str(folder)).from_pretrained(folder, dtype=torch.float32)
        read = AutoProcessor if self.subject.sees else AutoTokenizer
        try:
            processor, note = read.from_pretrained(folder), "model and processor"
        except ImportError as missing:
            if "orchvision" not in str(missing):
                raise
            processor, note = ours.processor, "the model (its processor needs torchvision, which is not installed)"
        if type(ours.processor).__module__.startswith("balanced_thinking.models"):
            raise SkippedError("its processor is a class of this package, which transformers alone does not know")
        if self.subject.sees and not takes_pictures(processor):
            raise PropertyError("transformers alone reads only the tokenizer of the saved folder, nothing for pictures")
        self._check_stops(theirs, processor)
        rows = self.subject.sample_rows()
        found, expected = (
            _last_logits(model, part, self.subject, rows[0])
            for model, part in ((theirs, processor), (ours.model, ours.processor))
        )
        if unlike := _unlike_tensors(theirs.state_dict(), ours.model.state_dict()):
            raise PropertyError(
                f"plain transformers reads {len(unlike)} other tensors than our loading: {unlike[0]} ..."
            )
        error = relative_difference(found, expected) if found.shape == expected.shape else float("inf")
        if not error <= _ROUNDING:
            raise PropertyError(
                f"plain transformers computes other logits from the saved folder: {error:.0e} (relative)"
            )
        return f"transformers alone reads {note}; logits differ by {error:.0e} (relative)"

    def _check_stops(self, model: Any, processor: Any) -> None:
        """Whoever reads the folder stops where its chat template ends a turn."""
        end, tokenizer = find_turn_end(processor), tokenizer_of(processor)
        if end is not None and end.id not in (stops := stop_token_ids(model.generation_config, tokenizer)):
            known = tokenizer.convert_ids_to_tokens(stops)
            raise PropertyError(f"the saved generation_config stops at {known}, not at the trained end {end.token!r}")


def _recipe_format(format: ReasoningFormat) -> str | dict[str, Any]:
    """As a recipe writes it: by its name, or by its tags if it is the user's own."""
    if FORMATS.get(format.name) == format:
        return format.name
    values = {field.name: getattr(format, field.name) for field in fields(format)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _after_the_stop(run: Path) -> Any:
    """For `shutil.copytree`: leaves out what a run that stopped after its first checkpoint would not have."""
    files = RunFiles(run)
    later = {files.model.name, files.provenance.name, f"checkpoint-{_STEPS}"}
    return lambda folder, names: [name for name in names if name in later]


def _unlike_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that only one side has, or that differ in any bit."""
    both = [name for name in expected if name in found and not torch.equal(found[name], expected[name])]
    return sorted([*(found.keys() ^ expected.keys()), *both])


def _weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


@torch.no_grad()
def _last_logits(model: Any, processor: Any, subject: Subject, row: dict[str, Any]) -> torch.Tensor:
    batch = ScaleCollator(processor, subject.format)([row])
    inputs = {name: value for name, value in batch.items() if name not in NOT_INPUTS}
    return model.eval()(**inputs).logits.double()
