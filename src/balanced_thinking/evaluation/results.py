"""Evaluating to a folder: every sample in `predictions.jsonl`, the counts in `summary.json`; resumed where it stopped,
and shared by the ranks that there are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.evaluation.engines.engine import NOTHING, Engine
from balanced_thinking.evaluation.resume import Answers, Row, ranks
from balanced_thinking.runs.records import Prediction, Summary
from balanced_thinking.scoring.scorers import get_scorer
from balanced_thinking.statistics.intervals import wilson_interval
from balanced_thinking.system.files import write_atomically, written_atomically

# Pictures of this many samples are kept beside the predictions, for the report's sample browser.
_KEPT_PICTURES = 64
_REPORT_SIDE = 336


def evaluate_examples(
    judge: Engine,
    examples: Sequence[Example],
    out: Path,
    *,
    data: str,
    split: str,
    model_name: str,
    batch_size: int = 64,
    prompt: str = "question",
    scorer: str = "exact",
    dropped: int = 0,
    dtype: str = "",
    weights: str = "",
    progress: Any = iter,
) -> Summary:
    """Predict, score and write `out/predictions.jsonl` (every sample) and, last of all, `out/summary.json`.

    An evaluation that was stopped goes on where it was, if it is the same one: of the same examples by the same model
    (`weights` tells its weights apart) in the same way. Results that are there stay until the new ones are whole. Under
    `accelerate launch` the ranks share the batches, and each returns the whole summary. `examples` are asked as they
    are; `prompt` names how they came to be so.

    Raises ValueError, before anything is written, for an unknown scorer and for examples the model can't answer.
    """
    get_scorer(scorer)
    judge.refuse(examples)
    out.mkdir(parents=True, exist_ok=True)
    how = [data, split, prompt, scorer, repr(judge.format), judge.max_new_tokens, dtype]
    task = task_of(examples, [model_name, weights, *how])
    answers = Answers(out, task, in_batches(examples, batch_size))
    try:
        mine = list(progress(_rows(judge, examples, answers, scorer)))
    finally:
        answers.close()
    kept = dict(gather_object(mine))
    rows = [kept[index] for index in range(len(examples))]
    wall, cpu = answers.seconds()
    summary = summarize(
        [Prediction(**row) for row in rows],
        data=data,
        split=split,
        model=model_name,
        scorer=scorer,
        format=judge.format.name,
        wall_seconds=wall,
        cpu_seconds=cpu,
        dropped=dropped,
        prompt=prompt,
        dtype=dtype,
        engine=judge.engine,
        max_new_tokens=judge.max_new_tokens,
        items=_short(json.dumps([(row["id"], row.get("digest")) for row in rows])),
        task=task,
    )
    if ranks().is_main_process:
        _write(examples, rows, summary, out)
    answers.forget()
    return summary


def task_of(examples: Sequence[Example], asked: Sequence[Any]) -> str:
    """Tells one evaluation from another: what is asked of which model, the examples, the version of this package."""
    return _short(json.dumps([asked, _digest(examples), metadata.version("balanced-thinking")]))


def digest_of(example: Example) -> str:
    """Of everything about an example that its score depends on, the same wherever its pictures lie."""
    pictures = [_identity(image.read_bytes() if isinstance(image, Path) else image) for image in example.images]
    return _short(repr((example.question, example.answer, example.choices, pictures)))


def _short(told: str) -> str:
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _rows(judge: Engine, examples: Sequence[Example], answers: Answers, scorer: str) -> Iterator[tuple[int, Row]]:
    """(index, what is kept of it) of this rank's examples, those of an earlier try first."""
    yield from answers.kept.items()
    for batch in answers.todo:
        rows = {}
        for index, ids in zip(batch, judge.complete([examples[i] for i in batch]), strict=True):
            prediction = judge.score(examples[index], ids, scorer)
            about = {"digest": digest_of(examples[index]), "images": _picture_names(index, examples[index])}
            rows[index] = asdict(prediction) | about
        answers.add(rows)
        yield from rows.items()


def _write(examples: Sequence[Example], rows: Sequence[Row], summary: Summary, out: Path) -> None:
    _keep_pictures(examples, out)
    with written_atomically(out / "predictions.jsonl") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(out / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")


def _digest(examples: Sequence[Example]) -> str:
    """Of everything about the examples that their scores depend on; files of pictures by size and time."""
    whole = hashlib.sha256()
    for example in examples:
        pictures = [_identity(image) for image in example.images]
        whole.update(repr((example.id, example.question, example.answer, example.choices, pictures)).encode())
    return whole.hexdigest()


def _identity(image: Any) -> str:
    if isinstance(image, Path):
        about = image.stat()
        return f"{image} {about.st_size} {about.st_mtime_ns}"
    data = image if isinstance(image, bytes) else getattr(image, "encoded", None) or image.tobytes()
    return hashlib.sha256(data).hexdigest()


def in_batches(examples: Sequence[Example], batch_size: int) -> list[list[int]]:
    """Indices of the examples, like lengths together, the longest questions first: what does not fit in memory fails
    at once."""
    order = sorted(range(len(examples)), key=lambda i: (-len(examples[i].images), -len(examples[i].question), i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def summarize(predictions: Sequence[Prediction], **about: Any) -> Summary:
    """Counts, means and the Wilson interval of the predictions."""
    n, correct = len(predictions), sum(p.correct for p in predictions)
    if n == 0:
        raise ValueError(NOTHING)
    low, high = wilson_interval(correct, n)
    return Summary(
        n=n,
        correct=correct,
        accuracy=correct / n,
        score=sum(p.score for p in predictions) / n,
        wilson_low=low,
        wilson_high=high,
        malformed=sum(p.malformed for p in predictions),
        truncated=sum(p.truncated for p in predictions),
        think_tokens_mean=sum(p.think_tokens for p in predictions) / n,
        answer_tokens_mean=sum(p.answer_tokens for p in predictions) / n,
        **about,
    )


def _picture_names(index: int, example: Example) -> list[str]:
    return [f"images/{index:04d}-{k}.png" for k in range(len(example.images))] if index < _KEPT_PICTURES else []


def _keep_pictures(examples: Sequence[Example], out: Path) -> None:
    for i, example in enumerate(examples[:_KEPT_PICTURES]):
        for name, image in zip(_picture_names(i, example), example.images, strict=True):
            picture = open_image(image)
            picture.thumbnail((_REPORT_SIDE, _REPORT_SIDE))
            (out / "images").mkdir(exist_ok=True)
            picture.save(out / name)
