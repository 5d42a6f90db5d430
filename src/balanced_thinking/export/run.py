"""Export a run: write the folder, load it in plain transformers, compare answers, write the card, upload."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from balanced_thinking.config.errors import BalancedThinkingError, FileInTheWayError, RecipeError
from balanced_thinking.data.recorded_places import recorded_place
from balanced_thinking.evaluation.model import EvaluatedModel, locate_model
from balanced_thinking.export.card import CardModel, write_card
from balanced_thinking.export.facts import collect_facts, read_config
from balanced_thinking.export.push import check_push, push_folder
from balanced_thinking.export.quantized import compare_with_trained, load_as_trained
from balanced_thinking.export.samples import OwnAnswer, SampleOptions, answer_samples, open_samples
from balanced_thinking.export.verify import PlainLoadError, Verification, verify_folder
from balanced_thinking.export.write import (
    check_space,
    left_out_settings,
    parameter_count,
    write_adapter,
    write_complete,
)
from balanced_thinking.models.adapters import picture_half_keys, record_base, served_rank, unserved_settings
from balanced_thinking.models.dtypes import dtype_name
from balanced_thinking.models.find import adapter_base_name, find_model_source, read_json_mapping
from balanced_thinking.models.load import LoadedModel, checkpoint_dtype, load_model, load_processor
from balanced_thinking.models.processor_parts import takes_pictures, tokenizer_of
from balanced_thinking.models.quantization import read_base_quantization
from balanced_thinking.models.revisions import split_revision
from balanced_thinking.runs.manifest import ABOUT_FORMAT
from balanced_thinking.runs.staging import write_folder
from balanced_thinking.system.files import write_atomically
from balanced_thinking.system.memory import free_device_memory

logger = logging.getLogger(__name__)
CARD = "README.md"
DTYPES = ("keep", "float32", "bfloat16", "float16")
_NOT_COMPARED = "answers were not compared with the run's"


class AnswersDifferError(BalancedThinkingError, RuntimeError):
    """Plain transformers does not answer as the run's own model does."""


@dataclass(frozen=True)
class ExportOptions:
    """How a run is exported.

    Attributes:
        dtype: of the weights, one of `DTYPES`; keep: that of the checkpoint, or of an adapter's base.
        adapter: whether an adapter stays one, beside its base.
        samples: on which the answers are compared.
        allow_differences: whether answers may differ.
        push: the name on the hub to upload to; None for nowhere. private: whether only its owner sees it.
        licence: identifier of the model's licence for the card, such as apache-2.0; None: to be filled in.
    """

    dtype: str = "keep"
    adapter: bool = False
    samples: SampleOptions = field(default_factory=SampleOptions)
    allow_differences: bool = False
    push: str | None = None
    private: bool = False
    licence: str | None = None


@dataclass(frozen=True)
class Exported:
    """The folder, what the comparison found (None: not compared), and the address on the hub (None: not uploaded)."""

    folder: Path
    verification: Verification | None
    address: str | None


def export_model(source: str, out: Path, options: ExportOptions | None = None) -> Exported:
    """Write the model of a run, a checkpoint, a model's or an adapter's folder to the new folder `out`, and verify it.

    Raises:
        FileExistsError: `out` exists, or is inside the model's own folder.
        ModelNotFoundError, WeightsError: as `load_model`.
        DataError: the data of the samples cannot be read.
        AnswersDifferError: plain transformers answers otherwise, and `allow_differences` is not set; PlainLoadError:
            it cannot load the folder. The folder stays, for a look at it, and is not uploaded.
        NoSpaceError: the disk has no room for the weights.
        HubNameError, PushError: as `check_push`, before anything is written.
    """
    options = options or ExportOptions()
    located = locate_model(source)
    folder = find_model_source(located.folder)
    _refuse_place(out, Path(folder))
    base = adapter_base_name(folder)
    _refuse_contradictions(options, base)
    if options.push:
        check_push(options.push)
    config = read_config(located.config)
    config["training"] = {"reasoning_format": located.format} | (config.get("training") or {})
    if located.config is not None and "data" in config:
        config["data"] = recorded_place(config["data"], located.config.parent)
    written = _answer_and_write(folder, out, config, options)
    free_device_memory()  # two copies may not fit in it
    rounding = None if options.adapter else compare_with_trained(folder, written.answers, config, options.samples)
    if rounding is not None:
        logger.info("%s", rounding.describe())
    found = _verify(out, written)
    said = str(found) if isinstance(found, PlainLoadError) else found.describe() if found else _NOT_COMPARED
    _write_card(out, written.card, located, said if rounding is None else f"{said}; {rounding.describe()}")
    if isinstance(found, PlainLoadError):
        raise found
    _refuse_differences(out, found, options)
    address = push_folder(out, options.push, private=options.private) if options.push else None
    return Exported(out, found, address)


class _Written(NamedTuple):
    """What is known of the folder: its card's facts, the run's own answers, and the request to plain transformers."""

    card: CardModel
    answers: list[OwnAnswer]
    about: dict[str, Any]


def _answer_and_write(folder: str, out: Path, config: Mapping[str, Any], options: ExportOptions) -> _Written:
    """Load the run's model, let it answer the samples, and write `out`. The model is gone afterwards."""
    examples = open_samples(config, options.samples, load_processor(folder))
    loaded, dtype = _load(folder, options)
    if not options.adapter:
        check_space(loaded.model, out)
    answers = answer_samples(loaded, config, examples, options.samples)
    left_out, base = left_out_settings(loaded), None
    format = (config.get("training") or {}).get("reasoning_format")
    about = {"kind": "export", "dtype": dtype, ABOUT_FORMAT: format}
    if options.adapter:
        about |= record_base(Path(folder), find_model_source(adapter_base_name(folder) or ""))
    with write_folder(out, about=about) as staged:
        if options.adapter:
            base = write_adapter(loaded, Path(folder), staged, out)
        else:
            write_complete(loaded, staged)
    card = _describe_model(loaded, options, out, base, left_out)
    source = split_revision(base or "")
    request: dict[str, Any] = {"base": source.name or None, "revision": source.revision, "dtype": dtype}
    request |= {"device": str(loaded.model.device), "pictures": card.pictures}
    return _Written(card, answers, request | {"max_new_tokens": options.samples.max_new_tokens})


def _verify(out: Path, written: _Written) -> Verification | PlainLoadError | None:
    """What was found, None without samples; or why plain transformers cannot use the folder."""
    if not written.answers:
        return None
    logger.info("%s is written; now plain transformers answers %d samples with it", out, len(written.answers))
    try:
        return verify_folder(out.absolute(), written.answers, written.about)
    except PlainLoadError as error:
        return error


def _refuse_place(out: Path, source: Path) -> None:
    if out.exists() or out.is_symlink():
        raise FileInTheWayError(f"{out} exists already, and nothing is written over it; choose another --out")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise FileInTheWayError(f"{out} is inside {source}, which is exported; choose a folder elsewhere with --out")


def _refuse_contradictions(options: ExportOptions, base: str | None) -> None:
    if options.dtype not in DTYPES:
        raise RecipeError(f"there is no dtype {options.dtype!r}; known: {', '.join(DTYPES)}")
    if options.private and not options.push:
        raise RecipeError("--private is about the upload: name the repository with --push, or leave it out")
    if not options.adapter:
        return
    if base is None:
        raise RecipeError("--adapter keeps an adapter beside its base, but the model has none: leave it out")
    if options.dtype != "keep":
        raise RecipeError("--adapter writes the adapter as it was trained: leave --dtype out")
    if options.push and Path(base).exists():
        raise RecipeError(
            f"--push with --adapter: the base of the adapter is the folder {base}, which nobody can download; leave "
            "--adapter out, to upload the merged model"
        )


def _load(folder: str, options: ExportOptions) -> tuple[LoadedModel, str]:
    """The run's own model as it is evaluated in this dtype, on a GPU where there is one, and the dtype's name."""
    dtype = checkpoint_dtype(folder) if options.dtype == "keep" else getattr(torch, options.dtype)
    if options.adapter:
        dtype = torch.float32
    logger.info("loading %s in %s", folder, dtype_name(dtype))
    if options.adapter and (trained := load_as_trained(folder)) is not None:
        return trained, dtype_name(trained.model.dtype)
    loaded = load_model(folder, dtype=dtype)
    if torch.cuda.is_available():
        loaded.model.to("cuda")
    return loaded, dtype_name(dtype)


def _describe_model(
    loaded: LoadedModel, options: ExportOptions, out: Path, base: str | None, left_out: dict[str, Any]
) -> CardModel:
    tokenizer = tokenizer_of(loaded.processor)
    stops = read_json_mapping(out / "generation_config.json")["eos_token_id"]
    return CardModel(
        name=options.push or out.resolve().name,
        dtype=dtype_name(loaded.model.dtype),
        parameters=parameter_count(loaded.model),
        pictures=takes_pictures(loaded.processor),
        stops=tokenizer.convert_ids_to_tokens(stops if isinstance(stops, list) else [stops]),
        left_out=left_out,
        adapter_base=base,
        quantized=read_base_quantization(out) is not None,
        rank=served_rank(str(out)) if base is not None else 0,
        sees=bool(picture_half_keys(str(out))),
        unserved=unserved_settings(str(out)),
        licence=options.licence,
    )


def _write_card(out: Path, card: CardModel, located: EvaluatedModel, verification: str) -> None:
    """Beside the manifest, which does not list it: its reader is asked to complete it."""
    of_checkpoint = located.run is None and located.config is not None
    text = write_card(card, collect_facts(located), verification, of_checkpoint=of_checkpoint)
    write_atomically(out / CARD, text)


def _refuse_differences(out: Path, verification: Verification | None, options: ExportOptions) -> None:
    if verification is None:
        logger.info("%s", _NOT_COMPARED)
        return
    if verification.differences and not options.allow_differences:
        lines = "".join(f"\n  {one}" for one in verification.differences)
        raise AnswersDifferError(
            f"{out} is complete, but {len(verification.differences)} of {verification.asked} answers differ from the "
            f"run's own:{lines}\nDifferences at near ties come from rounding; --allow-differences accepts them"
        )
    logger.info("%s", verification.describe())
