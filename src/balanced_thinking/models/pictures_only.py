"""The picture half of a processor, for machines without torchvision, which its video half needs.

What is left out stays in the processor's configuration, so that a run saves a complete one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import transformers
from transformers import PROCESSOR_MAPPING, ProcessorMixin
from transformers.utils import cached_file

from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.models.revisions import split_revision

LEFT_OUT = "video_processor"
# Where a checkpoint may name the class of its processor, and its video configuration, in transformers' order.
_NAMING_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_NAMING_FILES_LAST = "tokenizer_config.json"
_VIDEO_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")


class LeftOutHalf:
    """The settings of the video half, which SmolVLM's chat template reads for pictures, too; None for one not set."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._settings.get(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise ImportError("videos need torchvision, which cannot be used here; install it, or leave the videos out")


class PicturesOnly(ProcessorMixin):
    """Between a processor's class and `ProcessorMixin`: takes the video half out of what the class passes on.

    `video_config` is the configuration of that half, as the checkpoint has it.
    """

    video_config: dict[str, Any] | None = None

    @property
    def video_processor(self) -> LeftOutHalf:
        return LeftOutHalf(self.video_config or {})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= zip(super().get_attributes(), args, strict=False)
        kwargs.pop(LEFT_OUT, None)
        super().__init__(**kwargs)

    @classmethod
    def get_attributes(cls) -> list[str]:
        return [name for name in super().get_attributes() if name != LEFT_OUT]

    @classmethod
    def from_args_and_dict(cls, args: Any, processor_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        parts = dict(zip(cls.get_attributes(), args, strict=True))
        every = [parts.get(name) for name in super().get_attributes()]
        others = {name: value for name, value in processor_dict.items() if name != LEFT_OUT}
        return super().from_args_and_dict(every, others, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        kept = {} if self.video_config is None else {LEFT_OUT: self.video_config}
        return super().to_dict() | kept

    def __reduce__(self) -> Any:
        """By the class that it narrows: the narrow one has no place of its own, and workers need to unpickle it."""
        return _restore, (type(self).__mro__[1], self.__dict__)


@cache
def narrow_processor_class(whole: type) -> type:
    """The class without its video half. It has the same name, under which it saves itself."""
    return type(whole.__name__, (whole, PicturesOnly), {"__module__": whole.__module__})


def _restore(whole: type, values: dict[str, Any]) -> Any:
    processor: Any = object.__new__(narrow_processor_class(whole))
    processor.__dict__.update(values)
    return processor


def load_pictures_only(path: str, options: Mapping[str, Any]) -> Any | None:
    """The picture half of the processor of a checkpoint; None for one that has no video half."""
    source, whole = split_revision(path), find_processor_class(path)
    options = {**options, **source.options}
    if whole is None or LEFT_OUT not in whole.get_attributes():
        return None if whole is None else whole.from_pretrained(source.name, **options)
    narrow: Any = narrow_processor_class(whole)
    processor: Any = narrow.from_pretrained(source.name, **options)
    processor.video_config = _read_video_config(path)
    return processor


def find_processor_class(path: str) -> Any | None:
    """The class that a checkpoint names or that its kind of model has; None where transformers has neither."""
    named = (read_part(path, file).get("processor_class") for file in (*_NAMING_FILES, _NAMING_FILES_LAST))
    name = next(filter(None, named), None)
    found = getattr(transformers, name, None) if name else _class_of_model(path)
    if found is None or issubclass(found, ProcessorMixin):
        return found
    # transformers gave a stand-in, because the module of the class imports torchvision.
    return getattr(_import_with_pillow(found.__module__), found.__name__)


def _class_of_model(path: str) -> Any | None:
    source = split_revision(path)
    config = transformers.AutoConfig.from_pretrained(source.name, **source.options)
    return PROCESSOR_MAPPING.get(type(config), None)


def _import_with_pillow(name: str) -> ModuleType:
    """A module `transformers.models.x.processing_x` whose `image_processing_x` is the one that uses Pillow."""
    package, _, last = name.rpartition(".")
    kind = last.removeprefix("processing_")
    taken = f"{package}.image_processing_{kind}"
    pillow = importlib.import_module(f"{package}.image_processing_pil_{kind}")
    sys.modules[taken] = pillow
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[taken]


def _read_video_config(path: str) -> dict[str, Any] | None:
    if (nested := read_part(path, "processor_config.json").get(LEFT_OUT)) is not None:
        return dict(nested)
    return next(filter(None, (read_part(path, file) for file in _VIDEO_FILES)), None)


def read_part(path: str, name: str) -> dict[str, Any]:
    """A JSON file of a folder or hub name; empty where there is none."""
    source = split_revision(path)
    file = cached_file(
        source.name,
        name,
        **source.options,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is None:
        return {}
    found = read_json_file(Path(file))
    return found if isinstance(found, dict) else {}
