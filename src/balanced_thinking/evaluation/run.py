"""Evaluate a model: the one path of Python, the command line and a study's workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from balanced_thinking.cpu.attention import fast_matmuls_and_attention
from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.benchmarks import Benchmark, check_benchmarks
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.evaluation.engines.identity import loaded_weights_identity
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.evaluation.engines.start import (
    EngineOptions,
    describe_weights,
    read_engine,
    resolve_dtype,
    start_engine,
    weights_identity,
)
from balanced_thinking.evaluation.in_the_way import refuse_other_answers, reusable_results
from balanced_thinking.evaluation.model import EvaluatedModel, locate_model
from balanced_thinking.evaluation.pictures import drop_refused_pictures, picture_budget
from balanced_thinking.evaluation.prompt_checks import drop_unrenderable_prompts
from balanced_thinking.evaluation.results import answer_task, refuse_unanswerable
from balanced_thinking.evaluation.resume import evaluation_ranks, hold_results, shared_temporary_folder
from balanced_thinking.evaluation.task import NOTHING_TO_EVALUATE, Task, load_task_data
from balanced_thinking.evaluation.training_rows import count_training_rows
from balanced_thinking.models.dtypes import dtype_name
from balanced_thinking.models.load import LoadedModel, load_processor
from balanced_thinking.models.weights import refuse_nonfinite
from balanced_thinking.runs.advice import advise_on_outputs, describe_withheld
from balanced_thinking.runs.manifest import manifest_digest
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.runs.records import Summary
from balanced_thinking.segments import get_format
from balanced_thinking.system.progress import track_progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation. `folder` holds its files; None where it was kept in memory only."""

    summary: Summary
    folder: Path | None


def evaluate(
    model: str | LoadedModel,
    benchmark: str | Benchmark | Sequence[Example],
    split: str = "test",
    *,
    engine: EngineOptions | Engine | str | None = None,
    out: Path | str | None = None,
) -> Summary:
    """Answer one split, score the answers, and keep every sample.

    A second call with the same arguments and folder returns the finished result; a call that was stopped continues.

    Args:
        model: a run directory, a checkpoint's folder, `world-base` or `world-reasoner`, a hub name, or a model with its
            processor in memory, as `load_model` returns it.
        benchmark: a data set's name or path, a list of examples, or a `Benchmark`, which also says how they are asked,
            generated and scored.
        split: the split of the data.
        engine: `transformers` (the default), `vllm`, the address of an OpenAI-compatible server, `EngineOptions`, or an
            engine of one's own.
        out: the folder of the results. Default: `eval/<data>-<split>` inside the run that `model` is of, else inside
            `runs/<its name>`. A model or examples in memory: none, the result is returned only.

    Returns the summary, whose `predictions` are the samples.

    Raises:
        FileExistsError: the folder holds the results, or the first answers, of another evaluation.
        FolderBusyError: another process evaluates to it.
        BadRowsError: the data has bad rows.
        ValueError: an unknown name, or nothing to evaluate.
    """
    chosen = benchmark if isinstance(benchmark, Benchmark) else Benchmark(benchmark)
    folder = None if out is None else Path(out)
    return evaluate_benchmarks(model, [replace(chosen, splits=(split,))], engine=engine, out=folder)[0].summary


def evaluate_benchmarks(
    model: str | LoadedModel,
    benchmarks: Sequence[Benchmark],
    *,
    engine: EngineOptions | Engine | str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    announce: Callable[[str], object] = logger.info,
) -> list[Evaluated]:
    """`evaluate` on each split of each benchmark. The model is loaded once, and only if a result is missing.

    `out` holds a folder for each result where there are several. `overwrite` replaces results once the new ones are
    complete, and deletes the answers of another evaluation that was stopped. All data are read, and whatever is wrong
    with them is reported, before the model is loaded. Each result is given to `announce` in one line as soon as it is
    there.
    """
    source = ModelSource.connect(model, engine)
    planned = plan_evaluations(source, benchmarks, out, overwrite=overwrite)
    evaluated = []
    missing = [one for one in planned if not one.finished]
    with fast_matmuls_and_attention(), hold_results([one.folder for one in missing if one.folder is not None]):
        refuse_other_answers([(one.task, one.folder) for one in missing], overwrite=overwrite)
        for task, folder, finished in planned:
            if finished is not None:
                announce(f"{folder} holds these results already: {summary_line(finished)}")
            else:
                finished = _run_task(source, task, folder, overwrite)
                announce(f"{task.data}, {summary_line(finished)}")
            for advice in _advise(finished):
                logger.warning("%s: %s", task.data, advice)
            evaluated.append(Evaluated(finished, folder))
    return evaluated


def _advise(summary: Summary) -> Iterator[str]:
    """What to say last of a result."""
    n, withheld = summary.n, summary.withheld
    if said := describe_withheld(n, withheld):
        yield said
    counts = (n, summary.truncated, summary.malformed, summary.max_new_tokens)
    if advice := advise_on_outputs(*counts, withheld=sum(withheld.values())):
        yield advice


class PlannedTask(NamedTuple):
    """One evaluation, the folder of its results (None: none), and the results that are there already."""

    task: Task
    folder: Path | None
    finished: Summary | None


def plan_evaluations(
    source: ModelSource, benchmarks: Sequence[Benchmark], out: Path | None, *, overwrite: bool
) -> list[PlannedTask]:
    """One task for each split of each benchmark, its data read and checked. Loads no weights and writes nothing."""
    check_benchmarks(benchmarks, "what to evaluate on")
    pairs = [(benchmark, split) for benchmark in benchmarks for split in benchmark.splits]
    tasks = [source.make_task(benchmark, split) for benchmark, split in pairs]
    folders = _result_folders(source.model, pairs, out)
    return [
        PlannedTask(task, folder, reusable_results(task, folder, overwrite))
        for task, folder in zip(tasks, folders, strict=True)
    ]


@dataclass
class ModelSource:
    """The model and what generates with it, started when it is first needed."""

    model: EvaluatedModel
    options: EngineOptions
    own_weights: str | None  # of an engine or a model in memory
    dtype: str
    engine: Engine | None = None

    @classmethod
    def connect(cls, model: str | LoadedModel, engine: EngineOptions | Engine | str | None) -> ModelSource:
        """Raises ValueError where the two do not fit together."""
        located = locate_model(model)
        if isinstance(engine, Engine):
            return cls(located, EngineOptions(), f"{engine.name} {type(engine).__name__}", "", engine)
        if located.loaded is not None:
            if engine is not None:
                raise ValueError(f"the model is in memory and generates there: leave engine={engine!r} out")
            own = located.loaded.model
            refuse_nonfinite(own.state_dict(), located.name)
            local = LocalEngine(own, located.loaded.processor)
            return cls(located, EngineOptions(), loaded_weights_identity(own), dtype_name(own.dtype), local)
        options = resolve_dtype(read_engine(engine), located.folder)
        return cls(located, options, None, describe_weights(options))

    def make_task(self, benchmark: Benchmark, split: str) -> Task:
        """The evaluation of one split; its data are read and checked."""
        format = benchmark.format or self.model.format or "think-answer"
        loaded, budget = load_task_data(benchmark, split, format), {}
        if loaded.examples:
            shape, on_bad_row = get_format(format), benchmark.on_bad_row
            loaded = drop_unrenderable_prompts(benchmark.name, loaded, self.processor, shape, on_bad_row)
        if self._knows_pictures and any(example.images for example in loaded.examples):
            loaded = drop_refused_pictures(loaded, self.processor, benchmark.name, benchmark.on_bad_row)
            budget = {} if self.options.server else picture_budget(self.processor)
        if not loaded.examples:
            raise ValueError(f"{benchmark.name}, split {split!r}: {NOTHING_TO_EVALUATE}")
        if loaded.dropped:
            logger.info("%d bad %s left out", loaded.dropped, "row was" if loaded.dropped == 1 else "rows were")
        return Task(
            benchmark=benchmark,
            split=split,
            examples=loaded.examples,
            format=get_format(format),
            model=self.model.name,
            weights=self.weights,  # after its processor is loaded
            dtype=self.dtype,
            engine=self.engine.name if self.engine else self.options.engine_name,
            dropped=loaded.dropped,
            picture_budget=budget,
            model_digest=manifest_digest(RunFiles(self.model.run).model) if self.model.run else "",
        )

    @cached_property
    def weights(self) -> str:
        """Distinguishes its weights from those of another time. Of a hub name they are known once its processor is
        loaded, which may fetch another commit."""
        return self.own_weights if self.own_weights is not None else weights_identity(self.options, self.model.folder)

    @cached_property
    def processor(self) -> Any:
        """The model's processor or tokenizer, which is loaded before the model."""
        if self.engine is not None:
            return self.engine.scorer.processor
        return load_processor(self.model.folder, self.options.image_options)

    @property
    def _knows_pictures(self) -> bool:
        """Whether `processor` prepares the pictures; an engine of one's own may do that in another way."""
        return self.engine is None or isinstance(self.engine, LocalEngine)

    def started_engine(self) -> Engine:
        self.engine = self.engine or start_engine(self.options, self.model.folder)
        return self.engine


def _result_folders(
    model: EvaluatedModel, pairs: Sequence[tuple[Benchmark, str]], out: Path | None
) -> list[Path | None]:
    """`out` itself holds a single result."""
    if out is not None and len(pairs) == 1:
        return [out]
    folders: list[Path | None] = []
    for benchmark, split in pairs:
        in_memory = model.loaded is not None or not isinstance(benchmark.data, str)
        if out is None and in_memory:
            folders.append(None)
        else:
            folders.append((out or model.results_folder()) / benchmark.folder_name(split))
    return folders


def _run_task(source: ModelSource, task: Task, folder: Path | None, overwrite: bool) -> Summary:
    engine = source.started_engine()
    refuse_unanswerable(engine, task)  # before there is a folder
    with ExitStack() as stack:
        place = stack.enter_context(shared_temporary_folder()) if folder is None else folder
        # Another process may have finished before this one held the folder.
        finished = reusable_results(task, folder, overwrite)
        progress = partial(_with_progress, split=task.split, total=len(task.examples))
        if finished is not None:
            return finished
        trained_on = count_training_rows(source.model, task.benchmark, task.split, task.examples)
        return answer_task(engine, replace(task, trained_on=trained_on), place, overwrite=overwrite, progress=progress)


def _with_progress(rows: Iterable[Any], split: str, total: int) -> Iterable[Any]:
    share = -(-total // evaluation_ranks().num_processes)
    return track_progress(rows, f"{split}: samples answered", total=share, at_once=True)


def summary_line(summary: Summary) -> str:
    """The result in one line."""
    n = summary.n
    score = summary.accuracy if summary.score is None else summary.score
    graded = f", {summary.scorer} {score:.3f}" if abs(score - summary.accuracy) > 1e-9 else ""
    return (
        f"{summary.split}: accuracy {summary.accuracy:.1%} (95 % interval {summary.wilson_low:.1%} to "
        f"{summary.wilson_high:.1%}, n = {n}){graded}, malformed {summary.malformed / n:.1%}, truncated "
        f"{summary.truncated / n:.1%}, {summary.think_tokens_mean:.0f} think tokens"
    )
