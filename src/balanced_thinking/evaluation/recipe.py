"""The recipe of an evaluation: what `balanced eval --config` reads. No torch.

model: runs/mine
evaluate:                       # as in a study
  my.jsonl: {splits: [test], options: {hash_split: true}}
max_new_tokens: 1024            # the options of the command, which apply to every data set of `evaluate`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.layers import Paths, merge_mappings, read_config_files
from balanced_thinking.config.own_functions import search_beside_recipe
from balanced_thinking.config.types import check_keys, typed_arguments
from balanced_thinking.config.variables import expand_variables
from balanced_thinking.evaluation.benchmarks import check_benchmark_options

_EXAMPLE = "recipes/qwen2.5-vl-3b/eval.yaml"
_SYNONYMS = {"data": "evaluate", "benchmarks": "evaluate", "max_tokens": "max_new_tokens"}


@dataclass(frozen=True)
class EvaluationRecipe:
    """The keys of an evaluation's recipe. `evaluate` is as in a study, the others are options of `balanced eval`."""

    model: str | None = None
    evaluate: dict[str, Any] = field(default_factory=dict)
    split: str = "test"
    engine: Literal["transformers", "vllm"] = "transformers"
    server: str | None = None
    served_model: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: str | None = None
    allow_missing: list[str] = field(default_factory=list)
    image_options: dict[str, Any] = field(default_factory=dict)
    format: str | None = None
    prompt: str = "question"
    scorer: str = "exact"
    shots: int = 0
    batch_size: int = 64
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    sampling_seed: int = 0
    limit: int | None = None
    on_bad_row: Literal["error", "drop"] = "error"


def read_evaluation_recipe(paths: Paths) -> dict[str, Any]:
    """The keys that a file gives, or several of which later ones override earlier ones, checked and converted.

    Raises RecipeError for invalid YAML, an unknown key, a value of the wrong type, or an unset `$VARIABLE`.
    """
    files = read_config_files(paths, "evaluation", _EXAMPLE, _check_file_keys)
    merged: dict[str, Any] = {}
    for file in files:
        merged = merge_mappings(merged, file.values)
    for file in files:
        search_beside_recipe(merged, file.path)
    values = typed_arguments(EvaluationRecipe, merged, "the evaluation")
    for data, options in values.get("evaluate", {}).items():
        if not isinstance(options, Mapping | None):
            raise RecipeError(f"evaluate.{data} is {options!r}; expected a mapping of options, or nothing")
    check_benchmark_options(values, "the evaluation")
    if values.get("model"):
        values["model"] = expand_variables("model", values["model"])
    return values


def _check_file_keys(values: dict[str, Any], where: str) -> None:
    if "arms" in values:
        raise RecipeError(f"{where} has arms, so it is a study; run it with `balanced study`")
    if "stages" in values or "training" in values:
        raise RecipeError(f"{where} is for training; an evaluation has keys such as model, evaluate and batch_size")
    known = [f.name for f in fields(EvaluationRecipe)]
    check_keys(values, known, where, _SYNONYMS)
