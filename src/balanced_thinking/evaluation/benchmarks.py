"""Benchmarks: what a model is evaluated on, how it is asked and judged. As YAML, a file of its own for `balanced eval
--benchmarks FILE`, or `evaluate` in a study:

    scienceqa:data/scienceqa: {scorer: official}
    data/chartqa: {splits: [val, test], prompt: question, scorer: relaxed, max_new_tokens: 1024}
    world: {options: {n: 400}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from balanced_thinking.data import label
from balanced_thinking.evaluation.prompts import get_prompt
from balanced_thinking.evaluation.scorers import get_scorer
from balanced_thinking.training.recipe import RecipeError, check_keys, read_yaml


@dataclass(frozen=True)
class Benchmark:
    """One data set that a model is evaluated on; `limit` and `options` as `load_data` takes them."""

    data: str
    splits: tuple[str, ...] = ("test",)
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    batch_size: int = 200
    max_new_tokens: int = 512
    prompt: str = "question"
    scorer: str = "exact"


def load_benchmarks(path: Path) -> list[Benchmark]:
    """The benchmarks in a YAML file. Raises RecipeError for anything else in it."""
    if not path.is_file():
        raise RecipeError(f"there is no file {path}; expected YAML such as `data/chartqa: {{scorer: relaxed}}`")
    found = read_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(found, dict) or not all(isinstance(value, dict | None) for value in found.values()):
        raise RecipeError(f"{path}: expected data sets with options, such as `data/chartqa: {{scorer: relaxed}}`")
    return list(read_benchmarks(found))


def read_benchmarks(evaluate: Mapping[str, Mapping[str, Any] | None]) -> Iterator[Benchmark]:
    """The benchmarks of a mapping from data to options. Raises RecipeError for an unknown key."""
    for data, options in evaluate.items():
        options = options or {}
        check_keys(options, (f.name for f in fields(Benchmark) if f.name != "data"), f"evaluate.{data}")
        yield Benchmark(data=data, **{**options, "splits": tuple(options.get("splits", ("test",)))})


def check_benchmarks(benchmarks: Sequence[Benchmark], where: str) -> None:
    """Raises RecipeError unless every result has a folder of its own, and every prompt and scorer exists."""
    labels = [label(benchmark.data, split) for benchmark in benchmarks for split in benchmark.splits]
    for name in labels:
        if labels.count(name) > 1:
            raise RecipeError(f"{where}: two benchmarks would share the folder {name!r}; rename one of the files")
    for benchmark in benchmarks:
        try:
            get_prompt(benchmark.prompt)
            get_scorer(benchmark.scorer)
        except ValueError as error:
            raise RecipeError(f"{where}: evaluate.{benchmark.data}: {error}") from None
