"""Evaluate one model on one split of one data set, or of several."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from balanced_thinking.cpu.attention import fast_model
from balanced_thinking.data.example import Example
from balanced_thinking.data.load import check_first_row, completion_format, load_data
from balanced_thinking.data.registry import result_folder_name
from balanced_thinking.evaluation.benchmarks import Benchmark, check_benchmarks
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.evaluation.engines.start import check_engine, resolve_dtype, start_engine, weights_identity
from balanced_thinking.evaluation.model import Place, locate
from balanced_thinking.evaluation.prompts import asked, get_prompt
from balanced_thinking.evaluation.results import evaluate_examples, task_of
from balanced_thinking.evaluation.resume import alone, ranks
from balanced_thinking.runs.records import Summary
from balanced_thinking.scoring.scorers import get_scorer
from balanced_thinking.segments import get_format
from balanced_thinking.system.progress import track

logger = logging.getLogger(__name__)


def evaluate_on_each(
    model: str,
    benchmarks: Sequence[Benchmark],
    *,
    out: Path | None = None,
    format: str | Mapping[str, Any] | None = None,
    overwrite: bool = False,
    server: str | None = None,
    served: str | None = None,
    engine: str = "transformers",
    dtype: str = "auto",
) -> list[Path]:
    """`evaluate` on each split of each benchmark, the model loaded once; the results' folders, which `out` holds where
    there are several. Stopped and started again, it goes on: results of the same task stay as they are.

    Whatever is wrong with what was asked is said before the model is loaded. Raises as `evaluate` does.
    """
    found = locate(model)
    format = format or found.format or "think-answer"
    check_engine(engine, server)
    dtype = resolve_dtype(dtype, found.folder, server, engine)
    check_benchmarks(benchmarks, "what to evaluate on")
    pairs = [(benchmark, split) for benchmark in benchmarks for split in benchmark.splits]
    parent = found.results() if out is None else out
    alone = len(pairs) == 1 and out is not None
    places = [parent if alone else parent / result_folder_name(benchmark.data, split) for benchmark, split in pairs]
    shared: dict[str, Any] = {"format": format, "overwrite": overwrite}
    shared |= {"server": server, "served": served, "engine": engine, "dtype": dtype}
    calls = []
    for (benchmark, split), place in zip(pairs, places, strict=True):
        own = {f.name: getattr(benchmark, f.name) for f in fields(benchmark) if f.name not in ("data", "splits")}
        call: dict[str, Any] = {"data": benchmark.data, "split": split, **own, **shared}
        if len(pairs) > 1 and not overwrite and (task := _finished(place)) and task == _task(found, call):
            logger.info("%s holds these results already", place)
            continue
        _free(place, overwrite)
        check_first_row(
            benchmark.data,
            split,
            benchmark.options,
            format=completion_format(format),
            on_bad_row=benchmark.on_bad_row,
            limit=benchmark.limit,
        )
        calls.append((call, place))
    judge: Engine | None = None
    for call, place in calls:
        judge = judge or start_engine(
            found.folder, server, served, engine, dtype, get_format(format), call["max_new_tokens"]
        )
        judge.max_new_tokens = call["max_new_tokens"]
        evaluate(model, out=place, judge=judge, **call)
    return places


def _task(model: Place, call: Mapping[str, Any]) -> str:
    """What `evaluate` with these arguments would call its results."""
    read = ("data", "split", "format", "prompt", "limit", "on_bad_row", "options")
    examples, _ = _examples(**{name: call[name] for name in read})
    weights = weights_identity(model.folder, call["server"], call["served"], call["engine"])
    how = [*(call[name] for name in ("data", "split", "prompt", "scorer")), repr(get_format(call["format"]))]
    return task_of(examples, [model.name, weights, *how, call["max_new_tokens"], call["dtype"]])


def _examples(
    data: str,
    split: str,
    format: str | Mapping[str, Any],
    prompt: str,
    limit: int | None,
    on_bad_row: str,
    options: Mapping[str, Any] | None,
) -> tuple[list[Example], int]:
    """The examples as they are asked, and how many bad rows were left out."""
    loaded = load_data(
        data,
        split=split,
        format=completion_format(format),
        limit=limit,
        on_bad_row=on_bad_row,
        verify_images=True,
        options=options,
    )
    return [asked(example, prompt, get_format(format)) for example in loaded.examples], loaded.dropped


def _finished(place: Path) -> str | None:
    """The task of the results that a folder holds."""
    path = place / "summary.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found.get("task") if isinstance(found, dict) else None


def evaluate(
    model: str,
    data: str,
    *,
    split: str = "test",
    out: Path | None = None,
    format: str | Mapping[str, Any] | None = None,
    prompt: str = "question",
    scorer: str = "exact",
    batch_size: int = 64,
    max_new_tokens: int = 512,
    limit: int | None = None,
    on_bad_row: str = "error",
    options: dict[str, Any] | None = None,
    overwrite: bool = False,
    server: str | None = None,
    served: str | None = None,
    engine: str = "transformers",
    dtype: str = "auto",
    judge: Engine | None = None,
) -> Summary:
    """Answer one split, score the answers, and write every sample and the summary to a folder.

    Args:
        model: a run directory (or the folder `model` in it), a checkpoint's folder, `world-base`, or a hub name.
        data, split: as `load_data` takes them.
        out: the folder; default: `eval/<label>` inside the run that `model` is of, else inside `runs/<its name>`.
        server: address of an OpenAI-compatible server that serves `model`, of which only the tokenizer is loaded then.
        served: the model's name on the server, where it serves several.
        engine: `transformers`, or `vllm` where it is installed: who generates in this process.
        prompt, scorer: names of `prompts.PROMPTS` and `scorers.SCORERS`: how it is asked and judged.
        dtype: of the weights, one of `DTYPES`; auto: on a GPU what the checkpoint says, on a CPU float32.
        judge: the model, where it is loaded already.
        overwrite: replace the results that the folder holds, once the new ones are whole; what this very evaluation
            has answered before it was stopped is kept.
        format: of the outputs; default: what the run was trained with, else think-answer.

    Raises:
        FileExistsError: the folder already holds results. BlockingIOError: another process evaluates to it.
        ValueError: an unknown name, or nothing to evaluate.
    """
    get_scorer(scorer)
    get_prompt(prompt)
    check_engine(engine, server)
    found = locate(model)
    dtype = resolve_dtype(dtype, found.folder, server, engine)
    format = format or found.format or "think-answer"
    reasoning = get_format(format)
    out = _free(out or found.results() / result_folder_name(data, split), overwrite)
    examples, dropped = _examples(data, split, format, prompt, limit, on_bad_row, options)
    if dropped:
        logger.info("%d bad %s left out", dropped, "row was" if dropped == 1 else "rows were")
    with fast_model():
        judge = judge or start_engine(found.folder, server, served, engine, dtype, reasoning, max_new_tokens)
        judge.refuse(examples)  # before there is a folder
        with alone(out):
            summary = evaluate_examples(
                judge,
                examples,
                _free(out, overwrite),  # another process may have come to its end meanwhile
                data=data,
                split=split,
                model_name=found.name,
                batch_size=batch_size,
                prompt=prompt,
                scorer=scorer,
                dropped=dropped,
                dtype=dtype,
                weights=weights_identity(found.folder, server, served, engine),
                progress=lambda predictions: _progress(predictions, split, len(examples)),
            )
    logger.info("%s, %s", data, describe(summary))
    return summary


def _free(out: Path, overwrite: bool) -> Path:
    if (out / "summary.json").exists() and not overwrite:
        raise FileExistsError(f"{out} already holds results; add --overwrite to replace them, or choose another --out")
    return out


def _progress(predictions: Iterable[Any], split: str, total: int) -> Iterable[Any]:
    return track(predictions, f"{split}: samples answered", total=-(-total // ranks().num_processes), at_once=True)


def describe(summary: Summary) -> str:
    """The result in one line."""
    n = summary.n
    graded = f", {summary.scorer} {summary.score:.3f}" if abs(summary.score - summary.accuracy) > 1e-9 else ""
    return (
        f"{summary.split}: accuracy {summary.accuracy:.1%} (95 % interval {summary.wilson_low:.1%} to "
        f"{summary.wilson_high:.1%}, n = {n}){graded}, malformed {summary.malformed / n:.1%}, truncated "
        f"{summary.truncated / n:.1%}, {summary.think_tokens_mean:.0f} think tokens"
    )
