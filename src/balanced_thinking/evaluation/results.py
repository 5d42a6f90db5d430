"""Evaluating to a folder: every sample in the predictions, the counts in the summary. An evaluation that was stopped
continues where it was, and the ranks share it."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.row_paths import may_be_copied
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.evaluation.memory import FittingBatches
from balanced_thinking.evaluation.resume import (
    SERVED_MODEL,
    Row,
    SavedAnswers,
    evaluation_ranks,
    refuse_other_served_model,
)
from balanced_thinking.evaluation.task import NOTHING_TO_EVALUATE, Task, item_digest, short_digest
from balanced_thinking.runs.evaluations import read_predictions, read_summary
from balanced_thinking.runs.paths import EvaluationFiles
from balanced_thinking.runs.records import Prediction, Summary, record_values
from balanced_thinking.scoring.scorers import get_scorer
from balanced_thinking.statistics.intervals import wilson_interval
from balanced_thinking.system.files import open_atomically, write_atomically

logger = logging.getLogger(__name__)
# Pictures of this many samples are kept beside the predictions, for the report's sample browser.
_KEPT_PICTURES = 64
_REPORT_SIDE = 336

Progress = Callable[[Iterable[Any]], Iterable[Any]]


def answer_task(
    engine: Engine, task: Task, out: Path, *, overwrite: bool = False, progress: Progress = iter
) -> Summary:
    """Complete and score every example of a task; write the predictions and, last of all, the summary.

    An evaluation that was stopped continues if the task is the same. Results in the folder stay until the new ones are
    complete. Under `accelerate launch` the ranks share the batches, and each returns the complete summary.

    Raises, before anything is written, ValueError for an unknown scorer and for examples the model can't answer, and
    FileExistsError where a server's other model has begun the evaluation; `overwrite` deletes its answers.
    """
    get_scorer(task.benchmark.scorer)
    engine.configure(task.format, task.benchmark.max_new_tokens)
    engine.sampling = task.benchmark.sampling
    refuse_unanswerable(engine, task)
    out.mkdir(parents=True, exist_ok=True)
    batches = batches_by_length(task.examples, task.benchmark.batch_size)
    if not overwrite:
        refuse_other_served_model(out, task.identity, engine.served_model)
    settings = task.settings | ({SERVED_MODEL: engine.served_model} if engine.served_model else {})
    answers = SavedAnswers(out, task.identity, batches, settings)
    fitting = FittingBatches(engine)
    try:
        own_rows = list(progress(_answer_rows(fitting, task, answers)))
    finally:
        answers.close()
    rows_by_index = dict(gather_object(own_rows))
    found = [Prediction(**rows_by_index[index]) for index in range(len(task.examples))]
    spent = answers.spent_seconds()
    sizes = [size for size in gather_object([fitting.size]) if size is not None]
    summary = summarize(
        found,
        data=task.data,
        split=task.split,
        model=task.model,
        scorer=task.benchmark.scorer,
        format=task.format.name,
        wall_seconds=spent.wall_seconds,
        cpu_seconds=spent.cpu_seconds,
        dropped=task.dropped,
        trained_on=task.trained_on,
        prompt=task.benchmark.prompt_name,
        dtype=task.dtype,
        engine=engine.name,
        max_new_tokens=task.benchmark.max_new_tokens,
        sampling=str(task.benchmark.sampling),
        served_model=engine.served_model,
        model_digest=task.model_digest,
        items=short_digest(json.dumps([(prediction.id, prediction.digest) for prediction in found])),
        picture_budget=dict(task.picture_budget),
        task=task.identity,
        scorer_file=task.scorer_file,
        reduced_batch_size=min(sizes, default=None),
    )
    if evaluation_ranks().is_main_process:
        _write_results(task.examples, summary, EvaluationFiles(out))
    answers.delete_files()
    return summary


def refuse_unanswerable(engine: Engine, task: Task) -> None:
    """Raises ValueError where there is no example, or the engine cannot answer one, or not in the way asked for."""
    if not task.examples:
        raise ValueError(NOTHING_TO_EVALUATE)
    if not (engine.can_sample or task.benchmark.sampling.is_greedy):
        raise ValueError(
            f"temperature is {task.benchmark.temperature:g}, but {type(engine).__name__} does not say that it draws "
            "tokens: let it read `self.sampling` and set `can_sample = True`, or leave the temperature out"
        )
    if reason := engine.reason_for_refusal(task.examples):
        raise ValueError(reason)


def read_results(folder: Path) -> Summary | None:
    """The results in a folder with their predictions; None where there are none. Raises RecordError for what this
    version cannot read."""
    files = EvaluationFiles(folder)
    if not files.summary.is_file():
        return None
    return replace(read_summary(files), predictions=tuple(read_predictions(folder, [])))


def batches_by_length(examples: Sequence[Example], batch_size: int) -> list[list[int]]:
    """Indices of the examples, similar lengths together. The longest come first: what does not fit in memory fails at
    once."""
    order = sorted(range(len(examples)), key=lambda i: (-len(examples[i].images), -len(examples[i].question), i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def summarize(found: Sequence[Prediction], **about: Any) -> Summary:
    """Counts, means and the Wilson interval of the predictions; `about` are other fields of `Summary`."""
    n, correct = len(found), sum(prediction.correct for prediction in found)
    if n == 0:
        raise ValueError(NOTHING_TO_EVALUATE)
    low, high = wilson_interval(correct, n)
    return Summary(
        n=n,
        correct=correct,
        accuracy=correct / n,
        score=sum(prediction.score for prediction in found) / n,
        wilson_low=low,
        wilson_high=high,
        malformed=sum(prediction.malformed for prediction in found),
        truncated=sum(prediction.truncated for prediction in found),
        think_tokens_mean=sum(prediction.think_tokens for prediction in found) / n,
        answer_tokens_mean=sum(prediction.answer_tokens for prediction in found) / n,
        withheld=dict(Counter(prediction.withheld for prediction in found if prediction.withheld)),
        predictions=tuple(found),
        **about,
    )


def _answer_rows(fitting: FittingBatches, task: Task, answers: SavedAnswers) -> Iterator[tuple[int, Row]]:
    """(index, the prediction's values) of this rank's examples, those of an earlier try first."""
    yield from answers.kept.items()
    parts = (part for batch in answers.open_batches for part in fitting.answer(task.examples, batch))
    for part in parts:
        rows = {}
        for index, ids in zip(part.positions, part.completions, strict=True):
            example = task.examples[index]
            prediction = fitting.engine.scorer.score_completion(example, ids, task.benchmark.scorer)
            about = {"digest": item_digest(example), "images": _picture_names(index, example)}
            rows[index] = record_values(prediction) | about
        answers.append_batch(rows)
        yield from rows.items()


def _write_results(examples: Sequence[Example], summary: Summary, files: EvaluationFiles) -> None:
    _write_pictures(examples, files)
    with open_atomically(files.predictions) as file:
        for prediction in summary.predictions:
            file.write(json.dumps(record_values(prediction), ensure_ascii=False) + "\n")
    write_atomically(files.summary, json.dumps(record_values(summary), indent=2) + "\n")


def _picture_names(index: int, example: Example) -> list[str]:
    if index >= _KEPT_PICTURES:
        return []
    return [f"images/{index:04d}-{k}.png" for k, image in enumerate(example.images) if may_be_copied(image)]


def _write_pictures(examples: Sequence[Example], files: EvaluationFiles) -> None:
    left_out = 0
    for index, example in enumerate(examples[:_KEPT_PICTURES]):
        kept = [image for image in example.images if may_be_copied(image)]
        left_out += len(example.images) - len(kept)
        for name, image in zip(_picture_names(index, example), kept, strict=True):
            picture = open_image(image)
            picture.thumbnail((_REPORT_SIDE, _REPORT_SIDE))
            files.images.mkdir(exist_ok=True)
            picture.save(files.folder / name)
    if left_out:
        logger.warning("%d pictures outside the data's folder are not kept; --allow-outside keeps them", left_out)
