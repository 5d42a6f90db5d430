"""Benchmarks: the data that a model is evaluated on, with prompt, scorer and limits. As YAML they are a file for
`balanced eval --benchmarks FILE`, or `evaluate` in a study:

    scienceqa:data/scienceqa: {scorer: official}
    data/chartqa: {splits: [val, test], prompt: question, scorer: relaxed, max_new_tokens: 1024}
    mine.jsonl: {on_bad_row: drop}
    world: {options: {n: 400}}
    gsm8k:$DATA/gsm8k.tsv: {scorer: numeric, shots: 4}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.own_functions import search_beside_recipe
from balanced_thinking.config.types import check_keys, format_value, typed_arguments
from balanced_thinking.config.variables import expand_variables
from balanced_thinking.config.yaml import read_yaml_file
from balanced_thinking.data.example import Example
from balanced_thinking.data.registry import result_folder_name
from balanced_thinking.evaluation.prompts import get_prompt
from balanced_thinking.evaluation.sampling import Sampling
from balanced_thinking.scoring.scorers import get_scorer

ON_BAD_ROW = ("error", "drop")
# Far above what a machine can do.
_AT_MOST = {"limit": 10**12, "batch_size": 2**20, "max_new_tokens": 10**7, "shots": 1000}
_AT_LEAST = {"shots": 0}  # 1 for the others
_SHOWN = 80  # characters of a wrong value
_IN_MEMORY = "examples"  # what results call a list of them


@dataclass(frozen=True)
class Benchmark:
    """Data that a model is evaluated on, and how.

    Attributes:
        data: as `load_data` takes it, or a list of examples.
        splits: those that `balanced eval` and studies run on.
        options: of the data set, as `load_data` takes them.
        limit: rows to take at most.
        on_bad_row: `error`, or `drop` to continue without bad rows.
        batch_size: samples generated together.
        max_new_tokens: tokens after which an output is cut off.
        prompt: a name of `prompts.PROMPTS`.
        shots: training rows with their completions that are put before each question as earlier turns.
        temperature, top_p, top_k, sampling_seed: how tokens are drawn, as in `Sampling`; temperature 0 is greedy.
        scorer: a name of `scoring.scorers.SCORERS`, or `module:function` for one of your own.
        format: the reasoning format of the outputs, by name or definition; None: the run's, else think-answer.
    """

    data: str | Sequence[Example]
    splits: tuple[str, ...] = ("test",)
    options: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    on_bad_row: str = "error"
    batch_size: int = 64
    max_new_tokens: int = 512
    prompt: str = "question"
    scorer: str = "exact"
    format: str | dict[str, Any] | None = None
    shots: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    sampling_seed: int = 0

    @property
    def sampling(self) -> Sampling:
        """Raises RecipeError for values that do not fit."""
        return Sampling(self.temperature, self.top_p, self.top_k, self.sampling_seed)

    @property
    def prompt_name(self) -> str:
        """What results call the prompt."""
        return f"{self.prompt} after {self.shots} examples" if self.shots else self.prompt

    @property
    def name(self) -> str:
        """What results call the data."""
        return self.data if isinstance(self.data, str) else _IN_MEMORY

    def folder_name(self, split: str) -> str:
        """The name of the folder of its results, `<data>-<split>`."""
        return result_folder_name(self.data, split) if isinstance(self.data, str) else f"{_IN_MEMORY}-{split}"


def load_benchmarks(path: Path, **defaults: Any) -> list[Benchmark]:
    """The benchmarks in a YAML file; `defaults` fill what it leaves out. Raises RecipeError for anything else in it."""
    if not path.is_file():
        raise RecipeError(
            f"there is no file {path}; expected a YAML file for --benchmarks, with lines such as "
            "`data/chartqa: {scorer: relaxed}`"
        )
    found = read_yaml_file(path)
    if not isinstance(found, dict) or not all(isinstance(value, dict | None) for value in found.values()):
        raise RecipeError(f"{path}: expected data sets with options, such as `data/chartqa: {{scorer: relaxed}}`")
    search_beside_recipe(found, path)
    return list(read_benchmarks(found, **defaults))


def read_benchmarks(evaluate: Mapping[str, Mapping[str, Any] | None], **defaults: Any) -> Iterator[Benchmark]:
    """The benchmarks of a mapping from data to options. Raises RecipeError for an unknown key or a wrong value."""
    for data, options in evaluate.items():
        where = f"evaluate.{data}"
        check_keys(options or {}, (f.name for f in fields(Benchmark) if f.name != "data"), where)
        own = {key: value for key, value in (options or {}).items() if key != "splits"}
        own = typed_arguments(Benchmark, own, where)
        check_benchmark_options(own, where)
        if own.get("on_bad_row", "error") not in ON_BAD_ROW:
            raise RecipeError(f"{where}: on_bad_row is {own['on_bad_row']!r}; expected {' or '.join(ON_BAD_ROW)}")
        yield Benchmark(
            data=expand_variables("evaluate", str(data)), **{**defaults, **own, **_read_splits(options or {}, where)}
        )


def check_benchmark_options(options: Mapping[str, Any], where: str) -> None:
    """Raises RecipeError for a number that no machine could use."""
    for name, most in _AT_MOST.items():
        least, value = _AT_LEAST.get(name, 1), options.get(name)
        if value is not None and not least <= value <= most:
            shown = format_value(value)[:_SHOWN]
            raise RecipeError(f"{where}: {name} is {shown}; expected at least {least} and at most {most}")


def _read_splits(options: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    if "splits" not in options:
        return {}
    splits = options["splits"]
    named = (splits,) if isinstance(splits, str) else splits
    if not isinstance(named, list | tuple) or not named or not all(isinstance(split, str) for split in named):
        raise RecipeError(f"{where}: splits is {splits!r}; expected names such as [val, test]")
    return {"splits": tuple(named)}


def check_benchmarks(benchmarks: Sequence[Benchmark], where: str) -> None:
    """Raises RecipeError unless every result has a folder of its own, every prompt and scorer exists, and the sampling
    fits."""
    names = [benchmark.folder_name(split) for benchmark in benchmarks for split in benchmark.splits]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"{where}: two benchmarks would share the folder {name!r}; rename one of the files")
    for benchmark in benchmarks:
        try:
            get_prompt(benchmark.prompt)
            get_scorer(benchmark.scorer)
            _ = benchmark.sampling
        except ValueError as error:
            raise RecipeError(f"{where}: evaluate.{benchmark.name}: {error}") from None
