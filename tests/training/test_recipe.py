"""Recipes: what is shipped is valid, what cannot be used says what fixes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.types import typed_arguments
from balanced_thinking.evaluation.benchmarks import check_benchmarks, read_benchmarks
from balanced_thinking.evaluation.recipe import read_evaluation_recipe
from balanced_thinking.study.load import load_study
from balanced_thinking.training.recipe import load_recipe
from balanced_thinking.training.sft_config import ScaleSFTConfig
from balanced_thinking.training.stages import training_arguments
from tests.conftest import REPOSITORY

NO_RECIPES = ("accelerate", "cluster", "hardware")  # tests/recipes looks at these
SHIPPED = sorted(path for path in (REPOSITORY / "recipes").rglob("*.yaml") if path.parent.name not in NO_RECIPES)
STUDIES = [path for path in SHIPPED if "arms:" in path.read_text()]
EVALUATIONS = [path for path in SHIPPED if path.stem == "eval"]
RECIPES = [path for path in SHIPPED if path not in (*STUDIES, *EVALUATIONS)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_recipe_is_valid_and_says_how_to_run_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BALANCED_THINKING_DATA", "data")
    monkeypatch.setenv("BALANCED_THINKING_MODEL", "model")
    training_arguments(load_recipe(recipe), tmp_path)
    assert f"--config {recipe.relative_to(RECIPES[0].parents[2])}" in recipe.read_text()


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_run_of_a_shipped_study_is_valid(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALANCED_THINKING_DATA", "data")
    monkeypatch.setenv("BALANCED_THINKING_MODEL", "model")
    runs = load_study(study).planned_runs()
    for node in (node for node in runs if node.seed == runs[0].seed):  # seeds differ in nothing else
        training_arguments(node.recipe, tmp_path)
    assert f"balanced study {study.relative_to(RECIPES[0].parents[2])}" in study.read_text()


@pytest.mark.parametrize("path", EVALUATIONS, ids=lambda path: path.parent.name)
def test_every_shipped_evaluation_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALANCED_THINKING_DATA", "data")
    values = read_evaluation_recipe(path)
    check_benchmarks(list(read_benchmarks(values["evaluate"])), str(path))
    assert f"balanced eval --config {path.relative_to(RECIPES[0].parents[2])}" in path.read_text()


def test_numbers_and_words_that_yaml_misreads_are_what_they_were_meant_to_be() -> None:
    meant = typed_arguments(ScaleSFTConfig, yaml.safe_load("{learning_rate: 1e-4, save_strategy: no, bf16: false}"))
    assert meant == {"learning_rate": 1e-4, "save_strategy": "no", "bf16": False}
    assert typed_arguments(ScaleSFTConfig, {"max_steps": "1e3", "learning_rate": 1}) == {
        "max_steps": 1000,
        "learning_rate": 1.0,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not valid YAML"),  # cut off
        ("- a", "holds ['a']; expected a mapping of keys"),  # a list
        ("modle: x", "did you mean 'model'"),  # an unknown key
        ("training:", "training is empty; expected a mapping"),  # nothing under it
        ("training: {output_dir: x}", "use --out"),  # the run directory's own
        ("training: {hub_token: hf_1}", "hub_token would be kept in the run's config.yaml"),
        ("training: {model_init_kwargs: {token: hf_1}}", "token would be kept"),
        ("model_options: {token: hf_1}", "token would be kept"),
        ("lora: true", "lora is true; expected a mapping or null"),  # a switch in place of arguments
        ("lora: {rank: 4}", "lora has the unknown key 'rank' (did you mean"),
        ("lora: {r: four}", "r is 'four'; expected an integer"),
        ("model_size: {hiden: 4}", "did you mean 'hidden'"),
        ("limit: 2.5", "limit is 2.5; expected an integer or null"),
        ("data: 5", "data is 5; expected text or a list: put it in quotes"),
        ("data: $NOT_SET/x", "the environment variable NOT_SET is not set"),
        ("data: ${NOT_SET}/x", "the environment variable NOT_SET is not set"),
    ],
)
def test_a_recipe_that_cannot_be_used_says_what_mends_it(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=re.escape(said)):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_steps", "ten", "an integer"),
        ("max_steps", 1.5, "an integer"),
        ("max_steps", True, "an integer"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", False, "a number"),
        ("gradient_checkpointing", "flase", "true or false"),
        ("gradient_checkpointing", 1, "true or false"),
        ("weighting", 3, "text or null: put it in quotes"),
        ("max_length", [4], "an integer or null"),
    ],
)
def test_a_training_argument_of_another_kind_is_refused(name: str, value: object, expected: str) -> None:
    with pytest.raises(RecipeError, match=rf"{name} is .*; expected {expected}"):
        typed_arguments(ScaleSFTConfig, {name: value})


def test_recipes_and_studies_are_utf_8_whatever_the_system_writes(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: größe/modell\n", encoding="utf-8")
    (tmp_path / "study.yaml").write_text("arms: {größer: {}}\nevaluate: {world: {}}\n", encoding="utf-8")
    code = "import sys; from balanced_thinking.training.recipe import load_recipe; from balanced_thinking.study.load "
    code += "import load_study; print(ascii([load_recipe(sys.argv[1]).model, *load_study(sys.argv[2]).arms]))"
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "recipe.yaml"), str(tmp_path / "study.yaml")]
    told = subprocess.run(command, env=os.environ | plain, capture_output=True, text=True, check=True).stdout
    assert told.strip() == ascii(["größe/modell", "größer"])
    (tmp_path / "recipe.yaml").write_bytes("model: größe\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"recipe.yaml is not valid YAML: .*; expected text in UTF-8"):
        load_recipe(tmp_path / "recipe.yaml")
