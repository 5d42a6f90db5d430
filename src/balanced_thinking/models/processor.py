"""Load what prepares a model's input: its processor, or the tokenizer of a text-only model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.models.find import (
    TINY_PREFIX,
    ModelNotFoundError,
    adapter_base_name,
    describe_missing_model,
    find_model_source,
    how_to_add_processor,
    read_json_mapping,
)
from balanced_thinking.models.own_code import refuse_own_code
from balanced_thinking.models.pictures_only import load_pictures_only
from balanced_thinking.models.processor_parts import takes_pictures
from balanced_thinking.models.revisions import split_revision
from balanced_thinking.models.templates import bound_chat_templates
from balanced_thinking.models.tiny import ImageOnlyQwen2_5_VLProcessor, build_tiny

bound_chat_templates()


def load_processor(name: str, image_options: Mapping[str, Any] | None = None) -> Any:
    """The processor of a model, or its tokenizer for a text-only model; `name` as for `load_model`.

    Raises ValueError for an image option that the image processor does not have.
    """
    if name.startswith(TINY_PREFIX):
        refuse_tiny_image_options(image_options)
        return build_tiny(name.removeprefix(TINY_PREFIX))[1]
    path = find_model_source(name)
    if (base := adapter_base_name(path)) is not None:  # an adapter has no configuration of its own
        if not (Path(path) / "tokenizer_config.json").is_file():
            return load_processor(base, image_options)
        return load_checked_processor(path, is_vision_model(find_model_source(base)), image_options or {})
    return load_checked_processor(path, is_vision_model(path), image_options or {})


def refuse_tiny_image_options(image_options: Mapping[str, Any] | None) -> None:
    """Raises RecipeError for options of an image processor: a `tiny:` model takes its sizes from `model_size`."""
    if image_options:
        raise RecipeError(
            f"image_options is {dict(image_options)}, but a tiny model has none; leave them out (a training sets "
            "model_size.image_side or model_size.max_image_tokens instead)"
        )


def load_checked_processor(path: str, vision: bool, image_options: Mapping[str, Any]) -> Any:
    """As `load_processor`, from a folder or hub name that has the files itself; `vision`: whether it takes images."""
    declared = Path(path) / "processor_config.json"
    kind = read_json_mapping(declared).get("processor_class") if declared.is_file() else None
    if kind == ImageOnlyQwen2_5_VLProcessor.__name__:
        processor = _load_image_only_qwen(path, image_options)
    else:
        load = load_auto_processor if vision else _load_auto_tokenizer
        processor = _load_part(load, path, image_options if vision else {})
    if vision and not takes_pictures(processor):  # transformers gives the tokenizer alone then
        raise ModelNotFoundError(
            f"{path} has no processor for images; expected its files beside config.json{how_to_add_processor(path)}"
        )
    if vision and processor.chat_template is None:  # older checkpoints have it in tokenizer_config.json only
        processor.chat_template = processor.tokenizer.chat_template
    # transformers ignores unknown names silently.
    images = getattr(processor, "image_processor", None)
    known = getattr(getattr(images, "valid_kwargs", None), "__annotations__", {})
    for option in image_options:
        if option not in known:
            expected = f"known: {', '.join(sorted(known))}" if known else "this model takes no images"
            raise RecipeError(f"image_options has {option!r}{did_you_mean(option, known)}; {expected}")
    return processor


@cache
def why_no_torchvision() -> str | None:
    """Why torchvision cannot be used; None where it can. A build for another torch fails at its import."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        return str(error)
    return None


def load_auto_processor(path: str, **options: Any) -> Any:
    """What `AutoProcessor` gives; without torchvision its picture half (see `pictures_only`)."""
    pictures = load_pictures_only(path, options) if why_no_torchvision() is not None else None
    source = split_revision(path)
    return AutoProcessor.from_pretrained(source.name, **options, **source.options) if pictures is None else pictures


def _load_auto_tokenizer(path: str, **options: Any) -> Any:
    source = split_revision(path)
    return AutoTokenizer.from_pretrained(source.name, **options, **source.options)


def _refuse_missing_package(path: str, error: Exception) -> None:
    """Raises ModelNotFoundError where the error is about a package that is not installed."""
    about_torchvision = "torchvision" in str(error).lower() and why_no_torchvision() is not None
    if not about_torchvision and not isinstance(error, ImportError):
        return
    package = "the torchvision that belongs to your torch (https://pytorch.org/get-started/locally/)"
    raise ModelNotFoundError(
        f"the processor of {path} needs a package that cannot be used here: {str(error).strip()[:400]}; install "
        f"{package if about_torchvision else 'it'}"
    ) from error


def _load_part(load: Callable[..., Any], path: str, options: Mapping[str, Any]) -> Any:
    """Raises ModelNotFoundError if there is no processor or tokenizer to load."""
    try:
        return load(path, **options)
    except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        refuse_own_code(path, error)
        _refuse_missing_package(path, error)
        if options and not isinstance(error, OSError):
            raise RecipeError(
                f"image_options is {dict(options)}, but the image processor refuses it: {error}"
            ) from error
        if not Path(path).is_dir():
            raise OSError(f"the processor of {path} cannot be loaded from the hub: {error}") from error
        what = "processor" if load is load_auto_processor else "tokenizer"
        raise ModelNotFoundError(
            f"{path} has no {what} that transformers can load ({error}); expected its files beside config.json"
            f"{how_to_add_processor(path)}"
        ) from error


def _load_image_only_qwen(path: str, image_options: Mapping[str, Any]) -> ImageOnlyQwen2_5_VLProcessor:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = _load_part(_load_auto_tokenizer, path, {})
    images = _load_part(Qwen2VLImageProcessorPil.from_pretrained, path, image_options)
    return ImageOnlyQwen2_5_VLProcessor(images, tokenizer, chat_template=tokenizer.chat_template)


def load_config(path: str) -> Any:
    """Raises OSError, with the places where it was looked for, if there is no such model."""
    try:
        source = split_revision(path)
        return AutoConfig.from_pretrained(source.name, **source.options)
    except (RecursionError, TypeError, AttributeError, LookupError, ArithmeticError, StrictDataclassError) as error:
        raise ModelNotFoundError(
            f"{path} has a config.json that transformers cannot use ({str(error)[:400]}); copy it again from its source"
        ) from error
    except (OSError, ValueError) as error:
        refuse_own_code(path, error)
        folder = Path(path)
        if not folder.is_dir():
            raise OSError(f"there is no folder {path}, and it cannot be loaded from the hub: {error}") from error
        if (folder / "config.json").is_file():
            raise
        raise ModelNotFoundError(describe_missing_model(folder)) from error


def is_vision_model(path: str) -> bool:
    return type(load_config(path)) in AutoModelForImageTextToText._model_mapping
