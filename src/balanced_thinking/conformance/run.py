"""The check of one model: each property in turn, with a line as soon as it is known."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.conformance.generation import check_generation
from balanced_thinking.conformance.loading import check_loading, check_pictures
from balanced_thinking.conformance.rows import UserData, check_rows
from balanced_thinking.conformance.saving import SavingChecks
from balanced_thinking.conformance.shrink import SmallSizes
from balanced_thinking.conformance.subject import Subject
from balanced_thinking.conformance.table import (
    FAILED,
    PASSED,
    SKIPPED,
    CheckedProperty,
    Conformance,
    PropertyError,
    SkippedError,
)
from balanced_thinking.conformance.text import check_prompt, check_segments, check_stop_token
from balanced_thinking.conformance.training import TrainingChecks
from balanced_thinking.cpu.attention import fast_matmuls_and_attention
from balanced_thinking.data.load import stream_data
from balanced_thinking.models.find import TINY_PREFIX, adapter_base_name, check_model, find_model_source
from balanced_thinking.models.load import load_model
from balanced_thinking.segments import ReasoningFormat, get_format
from balanced_thinking.training.example_check import has_chat_template

logger = logging.getLogger(__name__)
# Rooms whose log would come between the lines of the table.
_TALKATIVE = ("balanced_thinking.training", "balanced_thinking.data", "balanced_thinking.batch")
_LONGEST = 500  # characters of an error's text in the table


class Property(NamedTuple):
    """A row of the table: what finds its figure, and what a failure means for the user.

    `check` returns the figure, or raises PropertyError or SkippedError.
    """

    name: str
    means: str
    check: Callable[[], str]


def check_model_conformance(
    model: str,
    *,
    data: UserData | str | None = None,
    format: str | ReasoningFormat = "think-answer",
    real_weights: bool = False,
    layers: int | None = None,
    announce: Callable[[str], object] = logger.info,
) -> Conformance:
    """Check whether a model can be trained, packed, evaluated and resumed exactly.

    Args:
        model: a run directory, a checkpoint's folder, a hub name, an embedded model (`world-base`) or a `tiny:` one.
            Of an adapter, its base is checked.
        data: rows of the user's own to check too: a data set's name or path, or a `UserData`.
        format: reasoning format of the samples.
        real_weights: check the checkpoint's own weights instead of a shrunken copy with random ones. Training then uses
            a small adapter, so that it needs little more memory than the weights.
        layers: make the copy by leaving out layers only, down to this number, and keep all widths.
        announce: is given each row of the table as soon as it is known.

    Returns the table; its `failed` rows are what does not hold.

    Raises:
        ModelNotFoundError: there is no such model.
        UnknownDataError: there are no such data.
    """
    check_model(model)
    wanted = UserData(data) if isinstance(data, str) else data
    if wanted is not None:
        stream_data(wanted.name, split=wanted.split, options=wanted.options)
    sizes = SmallSizes() if layers is None else SmallSizes(layers=layers, keep_widths=True)
    with TemporaryDirectory(prefix="balanced-check-") as work, _quiet_rooms(), fast_matmuls_and_attention():
        subject = prepare_subject(model, Path(work), get_format(format), sizes, real_weights)
        architecture = _architecture_name(subject)  # before any row: without a configuration there is nothing to check
        rows = [report_property(prop, announce) for prop in list_properties(subject, wanted)]
        return Conformance(model, architecture, real_weights, tuple(rows))


def prepare_subject(
    model: str, work: Path, format: ReasoningFormat, sizes: SmallSizes, real_weights: bool = False
) -> Subject:
    """The model that is checked, with the processor of the checkpoint; a copy is made when it is first needed."""
    if model.startswith(TINY_PREFIX):
        built = load_model(model)
        source = str(work / "tiny")
        built.model.save_pretrained(source)
        built.processor.save_pretrained(source)
    else:
        source = find_model_source(model)
        while (base := adapter_base_name(source)) is not None:
            source = find_model_source(base)
    return Subject(model, source, format, work, real_weights, sizes)


def list_properties(subject: Subject, data: UserData | None = None) -> list[Property]:
    """All rows of the table, in their order."""
    training, saving = TrainingChecks(subject), SavingChecks(subject)
    loads, template, *others = [
        Property(
            "loads",
            "Part of the model would be missing or random; nothing that is trained from it can be trusted.",
            lambda: check_loading(subject),
        ),
        Property(
            "processor and template",
            "Pictures or prompts would reach the model wrongly; training would stop, or teach it nothing.",
            lambda: check_pictures(subject),
        ),
        Property(
            "segments",
            "Tokens of the reasoning would be weighted as answer or the other way round; choose another --format.",
            lambda: check_segments(subject),
        ),
        Property(
            "prompt",
            "The model would be trained after another prompt than it gets later, and answer worse than it could.",
            lambda: check_prompt(subject),
        ),
        Property(
            "stop token",
            "A trained model would not stop, or stop too early; set eos_token_id in generation_config.json.",
            lambda: check_stop_token(subject),
        ),
        Property(
            "loss and gradient",
            "Training would follow another loss than the one that the method defines.",
            training.check_loss,
        ),
        Property(
            "accumulation",
            "The result would depend on the micro-batch that fits in memory, not only on the batch.",
            training.check_accumulation,
        ),
        Property(
            "packing",
            "Samples that share rows would see each other; leave packing off for this model.",
            training.check_packing,
        ),
        Property(
            "generation",
            "An accuracy would depend on --batch-size; evaluate with --batch-size 1.",
            lambda: check_generation(subject),
        ),
        Property(
            "resume",
            "A run that is stopped and resumed would end with other weights; do not rely on --resume.",
            saving.check_resume,
        ),
        Property(
            "saved folder",
            "Other programs could not read what a run saves, or would compute something else with it.",
            saving.check_saved_folder,
        ),
        Property(
            "your data",
            "Training would stop at these rows, or leave them out with --on-bad-row drop; see balanced inspect.",
            lambda: check_rows(subject, data),
        ),
    ]
    return [loads, template, *(prop._replace(check=partial(_check_with_template, subject, prop)) for prop in others)]


def _check_with_template(subject: Subject, prop: Property) -> str:
    """Raises SkippedError where no prompt can be written: that says nothing about the property."""
    if not has_chat_template(subject.processor):
        raise SkippedError("needs the chat template that is missing")
    return prop.check()


def report_property(prop: Property, announce: Callable[[str], object]) -> CheckedProperty:
    """Run one check. Whatever it raises becomes its row, because the other rows are wanted too."""
    began = time.monotonic()
    try:
        status, figure = PASSED, prop.check()
    except SkippedError as why:
        status, figure = SKIPPED, str(why)
    except PropertyError as why:
        status, figure = FAILED, str(why)
    except Exception as error:  # the model's code, or the checkpoint's, failed: that is what the table is for
        logger.debug("%s", prop.name, exc_info=True)
        status, figure = FAILED, describe_error(error)
    row = CheckedProperty(prop.name, status, figure, prop.means, round(time.monotonic() - began, 2))
    announce(f"{row.status}: {row.name}")
    return row


def describe_error(error: Exception) -> str:
    """An error's text on one line, after its kind where it is not one of ours."""
    kind = "" if isinstance(error, BalancedThinkingError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())}"[:_LONGEST]


def _architecture_name(subject: Subject) -> str:
    names = subject.config.architectures or [type(subject.config).__name__]
    return names[0]


@contextmanager
def _quiet_rooms() -> Iterator[None]:
    """Within it the log of a check shows no line of the short trainings in it, unless details are asked for."""
    if logging.getLogger("balanced_thinking").level == logging.DEBUG:
        yield
        return
    rooms = [logging.getLogger(name) for name in _TALKATIVE]
    before = [room.level for room in rooms]
    try:
        for room in rooms:
            room.setLevel(logging.ERROR)
        yield
    finally:
        for room, level in zip(rooms, before, strict=True):
            room.setLevel(level)
