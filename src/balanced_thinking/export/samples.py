"""The samples on which an exported folder must answer as the run's own model does."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from balanced_thinking.batch.messages import template_messages
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.bad_rows import DataError, RowError
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.load import choose_read_format, stream_data
from balanced_thinking.data.permissions import permit
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.models.load import LoadedModel
from balanced_thinking.models.processor_parts import takes_pictures
from balanced_thinking.system.progress import track_progress

logger = logging.getLogger(__name__)
_WITHOUT_RUN = {True: "world", False: "world-text"}  # by whether the model takes pictures


@dataclass(frozen=True)
class SampleOptions:
    """Which samples, and how long their answers may be.

    Attributes:
        count: samples that both models answer; 0 for no verification.
        data: a data set's name or path; None for the run's own, or an embedded one where there is no run.
        split: of the data; None for the run's own.
        max_new_tokens: the limit of an answer.
    """

    count: int = 20
    data: str | None = None
    split: str | None = None
    max_new_tokens: int = 128


class OwnAnswer(NamedTuple):
    """What the run's own model answered to a sample, as `balanced eval` asks it.

    `prompt` and `ids` are token ids; `cut` whether it ended at the closing tag of its answer, where the evaluation
    stops. `messages` are those of the chat template; `inputs` what the collator makes of them.
    """

    id: str
    messages: list[dict[str, Any]]
    images: list[Any]
    inputs: dict[str, torch.Tensor]
    ids: list[int]
    cut: bool

    @property
    def prompt(self) -> list[int]:
        return self.inputs["input_ids"][0].tolist()


def answer_samples(
    loaded: LoadedModel, config: Mapping[str, Any], examples: Iterator[Example], options: SampleOptions
) -> list[OwnAnswer]:
    """The run's own answers to the first of `examples`. `config` is its recipe, empty where there is none.

    Raises DataError where the data have no row for the model.
    """
    if options.count == 0:
        return []
    engine = LocalEngine(loaded.model, loaded.processor, _format_of(config), options.max_new_tokens)
    with permit(urls=bool(config.get("allow_urls"))):
        answers = _answer_each(engine, examples)
        tracked = track_progress(answers, "samples answered by the run's model", total=options.count)
        found = list(islice(tracked, options.count))
    if not found:
        raise DataError("the data have no row that the model can answer; choose others with --data and --split")
    if len(found) < options.count:
        logger.info("the data have %d of the %d samples to compare answers on", len(found), options.count)
    return found


def _format_of(config: Mapping[str, Any]) -> Any:
    return (config.get("training") or {}).get("reasoning_format") or "think-answer"


def open_samples(config: Mapping[str, Any], options: SampleOptions, processor: Any) -> Iterator[Example]:
    """The examples, of which none is read yet; `processor` is the model's. Raises DataError for unknown data."""
    if options.count == 0:
        return iter(())
    sees = takes_pictures(processor)
    own = options.data is None and config.get("data") is not None
    data = config["data"] if own else options.data or _WITHOUT_RUN[sees]
    settings = config.get("data_options") if own else None
    split = options.split or (config.get("split") if own else None) or "train"
    if options.data is None and not own:
        logger.info("no run says which data it was trained on: the answers are compared on %s", data)
    try:
        read = choose_read_format(_format_of(config))
        return stream_data(data, split=split, format=read, on_bad_row="drop", options=settings)
    except DataError as error:
        if not own:
            raise
        raise RecipeError(
            f"the data of the run cannot be read from here, to compare answers on them: {error}. Name them with "
            "--data, or leave the comparison out with --samples 0"
        ) from error


def _answer_each(engine: LocalEngine, examples: Iterator[Example]) -> Iterator[OwnAnswer]:
    """One at a time, so that no padding takes part. What the model or its template refuses is left out."""
    sees = takes_pictures(engine.collator.processor)
    for example in examples:
        if engine.reason_for_refusal([example]) is not None:
            continue
        example = replace(example, images=tuple(open_image(image) for image in example.images))
        images, prompt = list(example.images), prompt_messages(example)
        try:
            inputs = engine.collator.collate_prompts([{"id": example.id, "prompt": prompt, "images": images}])
            messages = template_messages(prompt, len(images) if sees else None, example.id)
        except RowError as error:
            logger.info("sample %s is left out: %s", example.id, error)
            continue
        ids = engine.complete([example])[0]
        cut = ids[-1:] and ids[-1] not in engine.scorer.stops and len(ids) < engine.max_new_tokens
        yield OwnAnswer(example.id, messages, images, dict(inputs), ids, bool(cut))


def write_request(answers: list[OwnAnswer], folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The samples as `plain_answers` reads them: pictures as PNG files in `folder`, prepared inputs beside them."""
    samples = []
    for number, answer in enumerate(answers):
        files = []
        for place, image in enumerate(answer.images):
            files.append(folder / f"{number}-{place}.png")
            image.save(files[-1])
        samples.append(_with_paths(answer.messages, iter(files)))
    inputs = folder / "inputs.pt"
    torch.save([answer.inputs for answer in answers], inputs)
    return {**about, "samples": samples, "inputs": str(inputs)}


def _with_paths(messages: list[dict[str, Any]], files: Iterator[Path]) -> list[dict[str, Any]]:
    """The messages with a file's path in each part that is a picture."""

    def with_path(part: Any) -> Any:
        is_image = isinstance(part, dict) and part.get("type") == "image"
        return {"type": "image", "path": str(next(files))} if is_image else part

    return [
        {**message, "content": [with_path(part) for part in content] if isinstance(content, list) else content}
        for message in messages
        for content in [message["content"]]
    ]


def stop_tokens(loaded: LoadedModel) -> list[int]:
    """The ids of all tokens at which our evaluation stops."""
    return LocalEngine(loaded.model, loaded.processor).scorer.stops
