"""What an evaluation would do: its data are read and checked, no weights are loaded and no answer is generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.evaluation.engines.start import EngineOptions
from balanced_thinking.evaluation.in_the_way import refuse_other_answers
from balanced_thinking.evaluation.run import ModelSource, PlannedTask, plan_evaluations, summary_line


def describe_evaluation(
    model: str, benchmarks: Sequence[Benchmark], *, engine: EngineOptions, out: Path | None, overwrite: bool
) -> str:
    """The plan of an evaluation, a line for each of its parts.

    Raises what `evaluate_benchmarks` raises before it loads weights.
    """
    source = ModelSource.connect(model, engine)
    planned = plan_evaluations(source, benchmarks, out, overwrite=overwrite)
    refuse_other_answers([(one.task, one.folder) for one in planned if not one.finished], overwrite=overwrite)
    lines = [("model", f"{source.model.name}, {_describe_engine(source.options, source.dtype)}")]
    lines += [line for one in planned for line in _describe_task(one)]
    lines.append(("", "(a dry run: nothing was started)"))
    return "\n".join(f"{name:<9} {text}" for name, text in lines)


def _describe_engine(options: EngineOptions, weights: str) -> str:
    if options.server is not None:
        return f"answered by the server {options.server}"
    return f"answered by {options.name}, weights in {weights}"


def _describe_task(planned: PlannedTask) -> Iterator[tuple[str, str]]:
    task, chosen = planned.task, planned.task.benchmark
    left_out = f", {task.dropped:,} left out" if task.dropped else ""
    pictures = sum(len(example.images) for example in task.examples)
    yield "data", f"{task.data}, {task.split}: {len(task.examples):,} rows, {pictures:,} pictures{left_out}"
    yield "asks", f"{chosen.prompt_name}, format {task.format.name}, scorer {chosen.scorer}"
    size = min(chosen.batch_size, len(task.examples))
    yield "answers", f"{chosen.sampling}, at most {chosen.max_new_tokens:,} new tokens each, {size:,} at a time"
    if planned.finished is not None:
        yield "finished", summary_line(planned.finished)
    elif planned.folder is not None:
        yield "writes", str(planned.folder)
