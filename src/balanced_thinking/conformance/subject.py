"""What is checked: a checkpoint's processor, and its model or a shrunken copy of it in a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.conformance.pictures import shrink_pictures
from balanced_thinking.conformance.samples import sample_examples
from balanced_thinking.conformance.shrink import ShrinkError, SmallSizes, shrink_config
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.models.load import LoadedModel, load_model, load_processor
from balanced_thinking.models.processor import is_vision_model, load_config
from balanced_thinking.models.processor_parts import takes_pictures, tokenizer_of
from balanced_thinking.segments import ReasoningFormat

logger = logging.getLogger(__name__)
_SEED, _GATE_STD = 0, 0.1


@dataclass(frozen=True)
class Subject:
    """The model that the checks look at. What they need of it is made when it is first used.

    Attributes:
        name: as the user named it.
        source: the folder or hub name with its configuration.
        format: the reasoning format of the samples.
        work: a folder for what the checks write.
        real_weights: whether to check the checkpoint itself, not a shrunken copy.
        sizes: of the copy.
    """

    name: str
    source: str
    format: ReasoningFormat
    work: Path
    real_weights: bool = False
    sizes: SmallSizes = field(default_factory=SmallSizes)

    @cached_property
    def processor(self) -> Any:
        """The checkpoint's own, with pictures in their own size."""
        return load_processor(self.source)

    @cached_property
    def config(self) -> PreTrainedConfig:
        return load_config(self.source)

    @cached_property
    def folder(self) -> str:
        """What the checks load: `source` itself, or a copy of it, with small pictures where that works."""
        if self.real_weights:
            return self.source
        small = self._make_copy("copy", small_pictures=True)
        try:
            self._show_picture(load_model(small))
        except Exception as error:  # a family whose pictures our rules do not know well enough: its own size is slower
            logger.debug("pictures keep their size: %s", error)
            return self.full_pictures_folder
        return small

    @cached_property
    def full_pictures_folder(self) -> str:
        """The same with pictures in the checkpoint's own size."""
        return self.source if self.real_weights else self._make_copy("copy-full-pictures", small_pictures=False)

    @cached_property
    def examples(self) -> list[Example]:
        return sample_examples(self.sees)

    @property
    def tokenizer(self) -> Any:
        return tokenizer_of(self.processor)

    @property
    def sees(self) -> bool:
        """Whether the model takes pictures."""
        return takes_pictures(self.processor)

    def load(self, **options: Any) -> LoadedModel:
        """The model that is checked, with its processor; each call gives the same weights."""
        return load_model(self.folder, **options)

    def rows(self) -> Dataset:
        return to_dataset(self.examples, self.format)

    def sample_rows(self) -> list[dict[str, Any]]:
        """The samples as the collator takes them."""
        return [dict(row) for row in self.rows()]

    def prompt_rows(self) -> list[dict[str, Any]]:
        """The samples' prompts as generation takes them."""
        return [{**row, "images": [open_image(one) for one in row.get("images") or []]} for row in self.sample_rows()]

    def _make_copy(self, name: str, small_pictures: bool) -> str:
        folder = self.work / name
        try:
            save_copy(self.source, self.processor, folder, self.sizes, small_pictures=small_pictures)
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError, NotImplementedError) as error:
            raise ShrinkError(
                f"no small copy of {type(self.config).__name__} could be made ({error}); try --layers 2, which leaves "
                "out layers only, or --real-weights"
            ) from error
        return str(folder)

    @torch.no_grad()
    def _show_picture(self, loaded: LoadedModel) -> None:
        """A forward with pictures; raises whatever the model's code raises."""
        batch = ScaleCollator(loaded.processor, self.format).collate_prompts(self.prompt_rows()[:1])
        loaded.model.eval()(**batch)


def auto_class(path: str) -> Any:
    """The class of transformers that loads the model in a folder or of a hub name."""
    return AutoModelForImageTextToText if is_vision_model(path) else AutoModelForCausalLM


def save_copy(source: str, processor: Any, folder: Path, sizes: SmallSizes, *, small_pictures: bool = True) -> None:
    """Write a shrunken copy of the model in `source`, with seeded random weights, and its processor.

    Raises ShrinkError where the configuration cannot be shrunk.
    """
    config = shrink_config(load_config(source), sizes)
    changed = shrink_pictures(config, processor) if small_pictures else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model: PreTrainedModel = auto_class(source).from_config(config, dtype=torch.float32)
        _fill_closed_gates(model)
    model.generation_config = _generation_config(source, model)
    model.save_pretrained(folder)
    save_processor(processor, folder, changed)


@torch.no_grad()
def _fill_closed_gates(model: PreTrainedModel) -> None:
    """Give random values to what starts at zero and keeps pictures out: projections and gates of vision parts."""
    for name, value in model.named_parameters():
        if not value.any() and (value.ndim > 1 or "gate" in name.rpartition(".")[2]):
            value.normal_(std=_GATE_STD)


def save_processor(processor: Any, folder: Path, changed: Mapping[str, Mapping[str, Any]]) -> None:
    """Save a processor with the changes that `shrink_pictures` made; the processor itself stays as it is."""
    kept = [(part, name, getattr(part, name)) for part, values in _parts(processor, changed) for name in values]
    try:
        for part, values in _parts(processor, changed):
            for name, value in values.items():
                setattr(part, name, value)
        processor.save_pretrained(folder)
    finally:
        for part, name, value in kept:
            setattr(part, name, value)


def _parts(processor: Any, changed: Mapping[str, Mapping[str, Any]]) -> list[tuple[Any, Mapping[str, Any]]]:
    return [(processor if not name else getattr(processor, name), values) for name, values in changed.items()]


def _generation_config(source: str, model: PreTrainedModel) -> GenerationConfig:
    """The checkpoint's own; what transformers makes of the configuration where there is none."""
    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return model.generation_config or GenerationConfig.from_model_config(model.config)
