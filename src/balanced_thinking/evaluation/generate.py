"""Batched greedy generation and scoring, every sample kept."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from balanced_thinking import runs
from balanced_thinking.batch import ScaleCollator, open_image
from balanced_thinking.data.example import Example
from balanced_thinking.data.rows import prompt
from balanced_thinking.evaluation.scorers import get_scorer
from balanced_thinking.evaluation.statistics import wilson_interval
from balanced_thinking.segments import ANSWER, THINK, Parsed, ReasoningFormat, generated_segments, get_format

# Pictures of this many samples are kept beside the predictions, for the report's sample browser.
_KEPT_PICTURES = 64
_REPORT_SIDE = 336


@dataclass(frozen=True)
class Prediction:
    """One scored sample. `think_tokens` and `answer_tokens` count the tokens that were generated, tags included.

    An answer that was cut off is kept as `prediction`, but is never correct: of 12, only the 1 may be there.
    """

    id: str
    question: str
    gold: str
    prediction: str | None
    correct: bool
    problems: list[str]
    malformed: bool
    truncated: bool
    think_tokens: int
    answer_tokens: int
    completion: str
    family: str | None = None
    choices: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Summary:
    """A split's result. `malformed` counts outputs without an answer that can be extracted, `truncated` those cut
    off, `dropped` bad rows of the data that were left out (and are not among `n`)."""

    data: str
    split: str
    n: int
    correct: int
    accuracy: float
    wilson_low: float
    wilson_high: float
    malformed: int
    truncated: int
    think_tokens_mean: float
    answer_tokens_mean: float
    scorer: str
    format: str
    wall_seconds: float
    model: str
    dropped: int = 0


class Generator:
    """Greedy answers of one model to batches of examples.

    Args:
        model: a generating model in evaluation mode; processor: what prepares its input.
        reasoning_format: how thoughts and answer are told apart.
        max_new_tokens: where a completion is cut off (and counted as truncated).
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        reasoning_format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
        max_new_tokens: int = 512,
    ) -> None:
        self.model = model.eval()
        self.format, self.max_new_tokens = get_format(reasoning_format), max_new_tokens
        self.collator = ScaleCollator(processor, self.format)
        self.tokenizer = self.collator.tokenizer

    def refuse(self, examples: Sequence[Example]) -> None:
        """Raises ValueError where there is no example, or one has a picture that the model would never see."""
        _check_some(len(examples))
        sees = hasattr(self.collator.processor, "image_processor")
        if pictured := [example.id for example in examples if example.images and not sees]:
            raise ValueError(
                f"the model takes text only, but {len(pictured)} of {len(examples)} examples have pictures "
                f"({pictured[0]} is the first); choose a vision-language --model, or --data without pictures"
            )

    @torch.inference_mode()
    def complete(self, examples: Sequence[Example]) -> list[list[int]]:
        """The generated token ids, without padding and up to and including the stop token."""
        rows = [{"id": e.id, "prompt": prompt(e), "images": [open_image(i) for i in e.images]} for e in examples]
        inputs = {k: v.to(self.model.device) for k, v in self.collator.prompts(rows).items()}
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            eos_token_id=self._stops(),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        sequences = self.model.generate(**inputs, generation_config=config)
        return [self._cut(ids) for ids in sequences[:, inputs["input_ids"].shape[1] :].tolist()]

    def _stops(self) -> list[int]:
        stops = self.model.generation_config.eos_token_id
        stops = [stops] if isinstance(stops, int) else list(stops or [])
        return sorted({*stops, self.tokenizer.eos_token_id})

    def _cut(self, ids: list[int]) -> list[int]:
        stops = set(self._stops())
        end = next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))
        return ids[:end]

    def score(self, example: Example, ids: list[int], scorer: str = "exact") -> Prediction:
        """One completion, parsed by the training's own parser and scored."""
        stopped = bool(ids) and ids[-1] in self._stops()
        parsed, segments = generated_segments(ids[: len(ids) - stopped], self.tokenizer, self.format)
        right = get_scorer(scorer)(parsed.answer, example.answer, example.choices) >= 1.0
        return Prediction(
            id=example.id,
            question=example.question,
            gold=example.answer,
            prediction=parsed.answer,
            correct=right and (stopped or _is_closed(parsed)),
            problems=list(parsed.problems),
            malformed=parsed.answer is None,
            truncated=not stopped,
            think_tokens=segments.count(THINK),
            answer_tokens=segments.count(ANSWER) + stopped,
            completion=parsed.text,
            family=example.meta.get("family"),
            choices=list(example.choices),
        )


def predict(
    generator: Generator, examples: Sequence[Example], *, batch_size: int = 64, scorer: str = "exact"
) -> Iterator[Prediction]:
    """Predictions in the order of the examples."""
    for start in range(0, len(examples), batch_size):
        chunk = examples[start : start + batch_size]
        for example, ids in zip(chunk, generator.complete(chunk), strict=True):
            yield generator.score(example, ids, scorer)


def evaluate(
    generator: Generator,
    examples: Sequence[Example],
    out: Path,
    *,
    data: str,
    split: str,
    model_name: str,
    batch_size: int = 64,
    scorer: str = "exact",
    dropped: int = 0,
    progress: Any = iter,
) -> Summary:
    """Predict, score and write `out/predictions.jsonl` (every sample) and, last of all, `out/summary.json`.

    Raises ValueError, before anything is written, for an unknown scorer and for examples the model can't answer.
    """
    get_scorer(scorer)
    generator.refuse(examples)
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    partial = out / ".predictions.jsonl.partial"
    kept: list[Prediction] = []
    with partial.open("w", encoding="utf-8") as file:
        for i, prediction in enumerate(progress(predict(generator, examples, batch_size=batch_size, scorer=scorer))):
            row = {**asdict(prediction), "images": _picture_names(i, examples[i])}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            kept.append(prediction)
    summary = summarize(
        kept,
        data=data,
        split=split,
        model=model_name,
        scorer=scorer,
        format=generator.format.name,
        wall_seconds=time.perf_counter() - started,
        dropped=dropped,
    )
    _keep_pictures(examples, out)
    partial.replace(out / "predictions.jsonl")
    runs.write_atomically(out / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
    return summary


def summarize(predictions: Sequence[Prediction], **about: Any) -> Summary:
    """Counts, means and the Wilson interval of the predictions."""
    n, correct = len(predictions), sum(p.correct for p in predictions)
    _check_some(n)
    low, high = wilson_interval(correct, n)
    return Summary(
        n=n,
        correct=correct,
        accuracy=correct / n,
        wilson_low=low,
        wilson_high=high,
        malformed=sum(p.malformed for p in predictions),
        truncated=sum(p.truncated for p in predictions),
        think_tokens_mean=sum(p.think_tokens for p in predictions) / n,
        answer_tokens_mean=sum(p.answer_tokens for p in predictions) / n,
        **about,
    )


def _check_some(n: int) -> None:
    if n == 0:
        raise ValueError("there is nothing to evaluate: the data holds no example; check --data, --split and --limit")


def _is_closed(parsed: Parsed) -> bool:
    """Whether anything follows the answer, so that it cannot have been cut off in the middle."""
    return parsed.answer_span is not None and parsed.answer_span[1] < len(parsed.text.rstrip())


def _picture_names(index: int, example: Example) -> list[str]:
    return [f"images/{index:04d}-{k}.png" for k in range(len(example.images))] if index < _KEPT_PICTURES else []


def _keep_pictures(examples: Sequence[Example], out: Path) -> None:
    for i, example in enumerate(examples[:_KEPT_PICTURES]):
        for name, image in zip(_picture_names(i, example), example.images, strict=True):
            picture = open_image(image)
            picture.thumbnail((_REPORT_SIDE, _REPORT_SIDE))
            (out / "images").mkdir(exist_ok=True)
            picture.save(out / name)
