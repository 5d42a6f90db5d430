"""The command line as a user meets it: exit codes, nearest names, run directories, the whole path on a tiny model."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.types import typed_arguments
from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.models.load import load_model
from balanced_thinking.runs.directory import create_run
from balanced_thinking.study.load import load_study
from balanced_thinking.system.files import exclusive_lock
from balanced_thinking.training.recipe import Recipe, describe_changes, load_recipe
from balanced_thinking.training.run import training_arguments
from balanced_thinking.training.sft_config import ScaleSFTConfig
from tests.conftest import REPOSITORY

SHIPPED = sorted((REPOSITORY / "recipes").rglob("*.yaml"))
STUDIES = [path for path in SHIPPED if "arms:" in path.read_text()]
RECIPES = [path for path in SHIPPED if path not in STUDIES]
TINY = ["--model", "tiny:qwen2_5_vl", "--data_options.n", "8", "--data_options.ratio", "5"]
STEPS = [
    "--max_steps",
    "2",
    "--per_device_train_batch_size",
    "2",
    "--logging_steps",
    "1",
    "--gradient_checkpointing",
    "false",
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_recipe_is_valid_and_says_how_to_run_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BALANCED_THINKING_DATA", "data")
    training_arguments(load_recipe(recipe), tmp_path)
    assert f"--config {recipe.relative_to(RECIPES[0].parents[2])}" in recipe.read_text()


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_run_of_a_shipped_study_is_valid(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALANCED_THINKING_DATA", "data")
    for node in load_study(study).planned_runs():
        training_arguments(node.recipe, tmp_path)
    assert f"balanced study {study.relative_to(RECIPES[0].parents[2])}" in study.read_text()


def test_help_of_sft_shows_each_of_our_training_arguments_with_its_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sft", "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for name in set(ScaleSFTConfig.__annotations__):
        assert f"  --{name} " in said
    for name in (
        "model world-base",
        "data world",
        "validation_split null",
        "lora.NAME VALUE",
        "limit null",
        "save_total_limit 2",
    ):
        assert f"  --{name}" in said
    for shown in ("--weighting scale ", "--think_weight_start 0.9", "--max_length 4096 ", "--bf16 null "):
        assert shown in said


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
        ("- a", "holds ['a']; expected keys"),  # a list
        ("modle: x", "did you mean 'model'"),  # an unknown key
        ("training:", "training is empty; expected a mapping"),  # nothing under it
        ("training: {output_dir: x}", "use --out"),  # the run directory's own
        ("lora: true", "lora is true; expected a mapping or null"),  # a switch in place of arguments
        ("lora: {rank: 4}", "lora has the unknown key 'rank' (did you mean"),
        ("lora: {r: four}", "r is 'four'; expected an integer"),
        ("model_size: {hiden: 4}", "did you mean 'hidden'"),
        ("limit: 2.5", "limit is 2.5; expected an integer or null"),
        ("data: 5", "data is 5; expected text: put it in quotes"),
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
        ("weighting", 3, "text: put it in quotes"),
        ("max_length", [4], "an integer or null"),
    ],
)
def test_a_training_argument_of_another_kind_is_refused(name: str, value: object, expected: str) -> None:
    with pytest.raises(RecipeError, match=rf"{name} is .*; expected {expected}"):
        typed_arguments(ScaleSFTConfig, {name: value})


def test_help_is_instant_because_no_heavy_library_is_imported() -> None:
    code = (
        "import sys\nfrom balanced_thinking.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'trl'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["evl"], "invalid choice"),
        (["eval", "--modle", "x"], "did you mean '--model'"),
        (["report", "x", "--htm", "y"], "did you mean '--html'"),
        (["inspect", "world", "--splt", "test"], "did you mean '--split'"),
        (["eval", "--model", "x", "--data", "y", "--data_option.n", "3"], "did you mean '--data_options.NAME'"),
        (["eval", "--model", "x", "--data", "y", "--batch-size", "0"], "'0' is no whole number of at least 1"),
        (["eval", "--model", "x", "--data", "y", "--max-new-tokens", "0"], "'0' is no whole number of at least 1"),
        (["eval", "--model", "x", "--data", "y", "--data_options.n", "[1"], "--data_options.n [1, line 1, column 3"),
        # sft: the nearest of its options, the recipe's keys and the training arguments
        (["sft", "--confg", "x"], "did you mean '--config'"),
        (["sft", "--ouput", "x"], "did you mean '--out'"),
        (["sft", "--modle", "x"], "did you mean '--model'"),
        (["sft", "--dta", "x"], "did you mean '--data'"),
        (["sft", "--data_option.n", "3"], "did you mean '--data_options.n'"),
        (["sft", "--lerning_rate", "1"], "did you mean '--learning_rate'"),
        (["sft", "--config", "nowhere.yaml"], "no recipe nowhere.yaml"),
        (["sft", "stray"], "unexpected argument 'stray'"),
        (["sft", *TINY, "--learning_rate", "fast"], "learning_rate is 'fast'; expected a number"),
        (["sft", "--max_steps", "ten"], "max_steps is 'ten'; expected an integer"),
        (["sft", "--limit", "abc"], "limit is 'abc'; expected an integer"),
        (["sft", "--data", "5"], "data is 5; expected text"),
        (["sft", "--data.n", "5"], "--data.n sets a key of data, which is no mapping"),
        (["sft", "--lora", "true"], "lora is true; expected a mapping"),
        (
            ["sft", "--lora.target_modules", "[q_proj"],
            "--lora.target_modules [q_proj, line 1, column 8 is not valid YAML",
        ),
        (["sft", "--output_dir", "x"], "use --out"),
        (["sft", "--resume_from_checkpoint", "x"], "what --resume says"),
        (["sft", *TINY, "--gradient_accumulation_steps", "0"], "gradient_accumulation_steps is 0; expected at least 1"),
        (["sft", *TINY, "--per_device_train_batch_size", "0"], "batch_size is 0; expected at least 1"),
        (["sft", *TINY, "--report_to", "wand"], "did you mean 'wandb'"),
        (["sft", "--data", "a.jsonl", "--data", "b.jsonl"], "--data is given 2 times (a.jsonl, b.jsonl)"),
        (["sft", "--out", "typo", "--max_steps", "3", "--resume"], "there is no run in typo to resume"),
    ],
)
def test_wrong_usage_ends_with_2_and_the_nearest_name(
    command: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["eval", "--model", "nowhere", "--data", "world"], "no model folder nowhere"),
        (["sft", "--data", "wrld"], "did you mean 'world'"),
        (["sft", *TINY, "--weighting", "scaled"], "known: scale, uniform"),
        (["sft", *TINY, "--padding_free", "true"], "padding_free=True cannot be exact"),
        (["sft", *TINY, "--data_options.rato", "3"], "did you mean 'ratio'"),
        (["report", "nowhere"], "nowhere"),
        (["sft", *TINY, "--out", f"{__file__}/run"], "test_cli.py is a file, not a folder for runs"),
        (["sft", "--data_options.n", "2", "--model_options.foo", "1"], "model_options is {'foo': 1"),
        (["sft", "--data_options.n", "2", "--model_options.dtype", "bf16"], "which from_pretrained refuses"),
        (["eval", "--model", "runs/nowhere", "--data", "world"], "there is no folder runs/nowhere, and as a name on"),
        (["eval", "--model", str(Path(__file__).parent), "--data", "world"], "cli holds no model"),
    ],
)
def test_failure_ends_with_1_and_one_sentence(
    command: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_from_training_to_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arm, weighting in (("sft", "uniform"), ("scale-sft", "scale")):
        run = tmp_path / arm / "seed-0"
        assert main(["sft", *TINY, *STEPS, "--weighting", weighting, "--out", str(run)]) == 0
        about = json.loads((run / "provenance.json").read_text())
        assert about["arm"] == arm
        assert about["finished"]
        assert {"torch", "trl", "transformers"} <= about["versions"].keys()
        assert about["tokens"] > 100
        assert yaml.safe_load((run / "config.yaml").read_text())["training"]["weighting"] == weighting
        assert json.loads((run / "metrics.jsonl").read_text().splitlines()[1])["step"] == 2
        command = ["eval", "--model", str(run), "--data", "world", "--data_options.n", "3", "--max-new-tokens", "4"]
        assert main(command) == 0
        assert (run / "eval" / "world-test" / "predictions.jsonl").is_file()
    assert main(["report", str(tmp_path)]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert (tmp_path / "report.md").is_file()


def test_a_base_stands_in_the_report_beside_what_was_trained_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sft", *TINY, *STEPS, "--out", "runs/mine"]) == 0
    for model in ("runs/mine", "world-base"):
        command = ["eval", "--model", model, "--data", "world", "--data_options.n", "3", "--max-new-tokens", "4"]
        assert main(command) == 0
    assert json.loads(Path("runs/world-base/eval/world-test/summary.json").read_text())["n"] == 3
    assert main(["report", "runs"]) == 0
    (contrast,) = csv.DictReader(Path("runs/report-contrasts.csv").read_text().splitlines())
    assert {contrast["arm"], contrast["base"]} == {"mine", "world-base"}


def test_two_processes_do_not_evaluate_to_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["eval", "--model", "world-base", "--data", "world", "--data_options.n", "1", "--max-new-tokens", "4"]
    command += ["--out", str(out)]
    out.mkdir()
    with exclusive_lock(out):
        assert main(command) == 1
    assert f"another process evaluates to {out}; wait until it ends" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [".lock"]
    assert main(command) == 0


def test_results_that_came_while_a_model_was_loaded_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = '{"n": 1, "correct": 1}'

    def load(name: str, **options: object) -> object:
        (tmp_path / "summary.json").write_text(other)  # another process was faster
        return load_model(name, **options)

    monkeypatch.setattr("balanced_thinking.evaluation.engines.start.load_model", load)
    command = ["eval", "--model", "world-base", "--data", "world", "--data_options.n", "1", "--max-new-tokens", "4"]
    assert main([*command, "--out", str(tmp_path)]) == 1
    assert "already holds results of another evaluation" in capsys.readouterr().err
    assert (tmp_path / "summary.json").read_text() == other


def test_overwriting_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete, asked = LocalEngine.complete, []
    command = ["eval", "--model", "world-base", "--data", "world", "--data_options.n", "3", "--max-new-tokens", "4"]
    command += ["--batch-size", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    before = (tmp_path / "summary.json").read_text()

    def failing(self: LocalEngine, chunk: list[Example]) -> list[list[int]]:
        asked.extend(example.id for example in chunk)
        if len(asked) == 3 and len(chunk) == 1:
            raise KeyboardInterrupt
        return complete(self, chunk)

    monkeypatch.setattr(LocalEngine, "complete", failing)
    assert main([*command, "--overwrite"]) == 130
    assert (tmp_path / "summary.json").read_text() == before  # until the new ones are whole
    assert main([*command, "--overwrite"]) == 0
    assert len(asked) == 4
    asked.clear()
    assert main([*command, "--overwrite", "--batch-size", "3"]) == 0
    assert len(asked) == 3  # what is done is asked anew


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """The embedded base as a checkpoint in bfloat16."""
    loaded = load_model("world-base", dtype=torch.bfloat16)
    loaded.model.save_pretrained(tmp_path / "half")
    loaded.processor.save_pretrained(tmp_path / "half")
    return tmp_path / "half"


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [
        ("cpu", "auto", "float32"),
        ("cpu", "bfloat16", "bfloat16"),
        ("cuda", "auto", "bfloat16"),  # the checkpoint's
        ("cuda", "float32", "float32"),
    ],
)
def test_weights_are_loaded_in_the_dtype_of_the_checkpoint_on_a_gpu_alone(
    device: str, asked: str, expected: str, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def load(name: str, **options: object) -> Any:
        loaded = load_model(name, **options)
        found.append(str(loaded.model.dtype))
        monkeypatch.undo()  # from here on as on this machine
        return loaded

    monkeypatch.setattr("balanced_thinking.evaluation.engines.start.load_model", load)
    elsewhere = SimpleNamespace(device=torch.device(device), print=print, is_main_process=True, num_processes=1)
    monkeypatch.setattr("balanced_thinking.evaluation.engines.start.evaluation_ranks", lambda: elsewhere)
    command = ["eval", "--model", str(half), "--data", "world", "--data_options.n", "1", "--max-new-tokens", "4"]
    assert main([*command, "--dtype", asked, "--out", str(tmp_path / "out")]) == 0
    assert found == [f"torch.{expected}"]
    assert json.loads((tmp_path / "out/summary.json").read_text())["dtype"] == expected


def test_another_dtype_is_another_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "which color ?", "answer": "red"}) + "\n")
    command = ["eval", "--model", "world-base", "--data", "world", "--data", str(tmp_path / "a.jsonl")]
    command += ["--limit", "1", "--max-new-tokens", "4", "--out", str(tmp_path / "out")]
    assert main(command) == main([*command, "--dtype", "float32"]) == 0  # what auto is on a CPU
    assert "holds these results already" in capsys.readouterr().err
    assert main([*command, "--dtype", "bfloat16"]) == 1
    assert "already holds results" in capsys.readouterr().err


def test_finished_run_is_not_overwritten_but_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sft", *TINY, *STEPS, "--save_strategy", "steps", "--save_steps", "1", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert main(command) == 1
    assert "--resume" in capsys.readouterr().err
    assert main([*command, "--max_steps", "3", "--resume"]) == 0
    assert len(json.loads((tmp_path / "run" / "provenance.json").read_text())["earlier"]) == 1
    after = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert after[:2] == metrics.splitlines()[:2]
    assert [json.loads(line)["step"] for line in after if "loss" in json.loads(line)] == [1, 2, 3]


def test_a_run_records_its_command_as_a_shell_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/balanced", "sft", "--data", "my data.jsonl", "--lora.r", "8"])
    create_run(tmp_path / "run", "", {})
    about = json.loads((tmp_path / "run/provenance.json").read_text())
    assert about["command"] == "balanced sft --data 'my data.jsonl' --lora.r 8"


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


def test_results_are_not_overwritten_unless_told_and_use_the_format_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": str(i), "question": "which color ?", "think": "it looks red .", "answer": "red"} for i in range(3)]
    data, run = tmp_path / "mine.jsonl", tmp_path / "run"
    data.write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    base = ["--data", str(data), "--on-bad-row", "drop"]
    form = ["--reasoning_format", "{name: mine, think_close: ;, answer_open: '='}"]
    assert main(["sft", "--model", "tiny:qwen2", *base, *STEPS, *form, "--out", str(run)]) == 0
    command = ["eval", "--model", str(run), *base, "--max-new-tokens", "4"]
    assert main(command) == 0
    assert "1 bad row was left out\n" in capsys.readouterr().err
    summary = run / "eval" / "mine-test" / "summary.json"
    kept = json.loads(summary.read_text())
    assert (kept["format"], kept["n"], kept["dropped"]) == ("mine", 3, 1)
    again = ["eval", "--model", str(run / "model"), *command[3:]]
    assert main([*again, "--out", str(tmp_path / "out")]) == 0
    same, timed = json.loads((tmp_path / "out/summary.json").read_text()), {"wall_seconds": 0, "cpu_seconds": 0}
    assert same | timed == kept | timed
    assert main(again) == 0
    assert f"{summary.parent} holds these results already" in capsys.readouterr().err
    assert main([*command, "--format", "boxed"]) == 1
    error = capsys.readouterr().err
    assert str(summary.parent) in error
    assert "--overwrite" in error
    assert json.loads(summary.read_text()) == kept
    assert main([*command, "--format", "boxed", "--overwrite"]) == 0
    assert json.loads(summary.read_text())["format"] == "boxed"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--learning_rate", "0.5"], "training.learning_rate was empty and is 0.5"),
        (["--data_options.ratio", "9"], "data_options.ratio was 5 and is 9"),
        (["--model", "tiny:qwen2"], "model was 'tiny:qwen2_5_vl' and is 'tiny:qwen2'"),
    ],
)
def test_a_run_does_not_go_on_with_another_recipe(
    changed: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", *TINY, *STEPS, "--out", str(tmp_path / "run")]) == 0
    with pytest.raises(SystemExit) as end:
        main(["sft", "--out", str(tmp_path / "run"), "--resume", *changed])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_a_run_goes_on_with_its_own_recipe_when_none_is_given(tmp_path: Path) -> None:
    run = tmp_path / "run"
    saving = ["--save_strategy", "steps", "--save_steps", "1"]
    assert main(["sft", *TINY, *STEPS, *saving, "--out", str(run)]) == 0
    assert main(["sft", "--out", str(run), "--resume", "--max_steps", "3"]) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["model"], config["training"]["max_steps"]) == ("tiny:qwen2_5_vl", 3)


def test_a_start_that_fails_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    command = ["sft", *TINY, *STEPS, "--out", str(tmp_path / "run")]
    assert main([*command, "--reasoning_format", "boxd"]) == 1
    assert main([*command, "--reasoning_format", "boxed"]) == 0


def test_a_first_step_that_fails_leaves_nothing_in_the_way_of_the_next_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sft", *TINY, *STEPS, "--out", str(tmp_path / "run")]
    assert main([*command, "--max_length", "32"]) == 1
    assert capsys.readouterr().err.startswith("balanced sft: sample")
    assert main(command) == 0
    (tmp_path / "run/checkpoints").rename(tmp_path / "elsewhere")
    assert main([*command, "--max_length", "32"]) == 1  # it holds a finished run
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_grpo_goes_on_from_a_run_and_names_the_command_for_other_recipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "sft", tmp_path / "grpo"
    assert main(["sft", *TINY, *STEPS, "--out", str(first)]) == 0
    sampling = ["--num_generations", "2", "--max_completion_length", "4", "--beta", "0.1"]
    command = ["grpo", "--model", str(first), *TINY[2:], *STEPS, *sampling, "--out", str(second)]
    assert main(command) == 0
    about = json.loads((second / "provenance.json").read_text())
    assert (about["arm"], about["stage"], about["model"]) == ("grpo", "grpo", str(first))
    assert about["tokens"] > 0
    assert (
        main(["eval", "--model", str(second), "--data", "world", "--data_options.n", "2", "--max-new-tokens", "4"]) == 0
    )
    with pytest.raises(SystemExit) as end:
        main(["sft", "--config", "recipes/world/grpo.yaml", "--out", str(tmp_path / "other")])
    assert end.value.code == 2
    assert "run it with `balanced grpo`" in capsys.readouterr().err


def test_lora_on_random_weights_keeps_the_base_that_its_adapter_names(tmp_path: Path) -> None:
    run = tmp_path / "run"
    lora = ["--lora.r", "4", "--lora.target_modules", "[q_proj, v_proj]"]
    assert main(["sft", *TINY, *STEPS, *lora, "--out", str(run)]) == 0
    assert (run / "model" / "adapter_config.json").is_file()
    assert main(["eval", "--model", str(run), "--data", "world", "--data_options.n", "2", "--max-new-tokens", "4"]) == 0


def test_lora_run_is_evaluated_on_its_base(tmp_path: Path) -> None:
    base, run = tmp_path / "base", tmp_path / "run"
    assert main(["sft", *TINY, *STEPS, "--out", str(base)]) == 0
    lora = ["--model", str(base / "model"), "--lora.r", "4", "--lora.target_modules", "[q_proj, v_proj]"]
    assert main(["sft", *TINY[2:], *STEPS, *lora, "--out", str(run)]) == 0
    assert (run / "model" / "adapter_config.json").is_file()
    assert main(["eval", "--model", str(run), "--data", "world", "--data_options.n", "2", "--max-new-tokens", "4"]) == 0


def test_bad_rows_end_in_one_table_before_any_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": "good", "question": "which color ?", "think": "it looks red .", "answer": "red"},
        {"id": "bad", "question": "which color ?", "think": "it looks red .", "answer": ""},
        {"id": "lost", "question": "which color ?", "image": "gone.png", "think": "x .", "answer": "red"},
        {"id": "torn", "question": "which color ?", "image": "torn.png", "think": "x .", "answer": "red"},
    ]
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    data, run = tmp_path / "data.jsonl", tmp_path / "run"
    data.write_text("\n".join(json.dumps(row) for row in rows) + "\nnot json\n")
    command = ["sft", "--model", "tiny:qwen2", "--data", str(data), *STEPS, "--out", str(run)]
    assert main(command) == 1
    table = capsys.readouterr().err
    assert all(
        problem in table for problem in ("no_answer", "missing_image", "broken_image", "invalid_json", "gone.png")
    )
    assert not run.exists()
    assert main([*command, "--on-bad-row", "drop"]) == 0
    assert json.loads((run / "provenance.json").read_text())["dropped"] == 4


def test_inspect_says_what_is_in_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "world", "--data_options.n", "40", "--data_options.ratio", "10"]) == 0
    said = capsys.readouterr().out
    for part in ("40 examples, 0 bad rows", "families: attribute 5", "think-to-answer ratio", "plain SFT would spend"):
        assert part in said


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava_next", "gemma3"])
def test_real_data_trains_with_each_architecture_and_both_segments_fall(
    architecture: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BALANCED_THINKING_DATA", str(real_data))
    recipe, run = f"recipes/puzzlevqa/{architecture}.yaml", tmp_path / "run"
    monkeypatch.chdir(REPOSITORY)
    steps = ["--max_steps", "16", "--logging_steps", "1", "--limit", "60"]
    assert main(["sft", "--config", recipe, *steps, "--out", str(run)]) == 0
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("think_nll", "answer_nll"):
        values = [entry[name] for entry in metrics if name in entry]
        assert mean(values[-3:]) < mean(values[:3])
    data = f"puzzlevqa:{real_data / 'puzzlevqa'}"
    assert main(["eval", "--model", str(run), "--data", data, "--limit", "3", "--max-new-tokens", "4"]) == 0
    assert json.loads((run / "eval" / "puzzlevqa-test" / "summary.json").read_text())["n"] == 3


def test_every_public_name_is_there() -> None:
    import balanced_thinking

    assert sorted(balanced_thinking.__all__) == sorted(balanced_thinking._HOMES)
    for name in balanced_thinking.__all__:
        assert getattr(balanced_thinking, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = balanced_thinking.nothing


def test_tensorboard_gets_the_same_metrics_under_the_same_names(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "run"
    assert main(["sft", *TINY, *STEPS, "--report_to", "tensorboard", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "think_nll" in row]
    (file,) = out.rglob("events.out.tfevents.*")
    told = events.EventAccumulator(str(file)).Reload()
    for name in steps[0].keys() - {"step"}:
        values = [event.value for event in told.Scalars(f"train/{name}")]
        assert values[: len(steps)] == pytest.approx([row[name] for row in steps], rel=1e-6), name
    assert {"think_nll", "answer_nll", "w_think", "grad_norm"} <= steps[0].keys()


def test_one_call_evaluates_on_several_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = {"question": "which color ?", "answer": "red"}
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(example) + "\n")
    sets = [word for name in ("a", "b") for word in ("--data", str(tmp_path / f"{name}.jsonl"))]
    words = ["eval", "--model", "world-base", *sets, "--max-new-tokens", "4", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert capsys.readouterr().out.rstrip().endswith(str(tmp_path / "out"))
    for name in ("a", "b"):
        assert json.loads((tmp_path / "out" / f"{name}-test" / "summary.json").read_text())["n"] == 1
    (tmp_path / "out" / "b-test" / "summary.json").unlink()  # as if it had been stopped there
    before = (tmp_path / "out" / "a-test" / "summary.json").stat().st_mtime_ns
    assert main(words) == 0
    assert f"{tmp_path}/out/a-test holds these results already" in capsys.readouterr().err
    assert (tmp_path / "out" / "a-test" / "summary.json").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "b-test" / "summary.json").is_file()
    assert main([*words, "--scorer", "numeric"]) == 1
    assert "already holds results" in capsys.readouterr().err


def test_each_benchmark_has_its_own_split_prompt_and_scorer(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "which color ?", "answer": "red"}) + "\n")
    plan = {
        str(tmp_path / "a.jsonl"): {"splits": ["x", "y"], "scorer": "anls", "max_new_tokens": 3},
        "world": {"options": {"n": 2}, "prompt": "instructed", "max_new_tokens": 5},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    out = tmp_path / "out"
    assert main(["eval", "--model", "world-base", "--benchmarks", str(tmp_path / "plan.yaml"), "--out", str(out)]) == 0
    found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/summary.json")}
    told = {name: (one["n"], one["prompt"], one["scorer"]) for name, one in found.items()}
    assert told == {
        "a-x": (1, "question", "anls"),
        "a-y": (1, "question", "anls"),
        "world-test": (2, "instructed", "exact"),
    }
    assert found["a-x"]["think_tokens_mean"] <= 3 < found["world-test"]["think_tokens_mean"] <= 5


def test_a_benchmark_says_by_itself_what_a_bad_row_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": "which color ?", "answer": "red"}) + "\n{")
    plan = {str(tmp_path / "a.jsonl"): {"on_bad_row": "drop"}, str(tmp_path / "b.jsonl"): {}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    words = ["eval", "--model", "world-base", "--benchmarks", str(tmp_path / "plan.yaml"), "--max-new-tokens", "3"]
    words += ["--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "b.jsonl: 1 bad row" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # nothing is generated before all data were read
    assert main([*words, "--on-bad-row", "drop"]) == 0  # fills what one leaves out
    for name in ("a-test", "b-test"):
        assert json.loads((tmp_path / "out" / name / "summary.json").read_text())["dropped"] == 1


def test_options_of_data_beside_benchmarks_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("world: {options: {n: 2}}\n")
    words = ["eval", "--model", "world-base", "--benchmarks", str(tmp_path / "plan.yaml"), "--data_options.n", "1"]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--out", str(tmp_path / "out")])


def test_options_beside_benchmarks_are_their_defaults_and_changed_data_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = json.dumps({"question": "which color ?", "answer": "red"}) + "\n"
    rows = (json.dumps({"id": str(k), "question": "which color ?", "answer": "red"}) for k in range(3))
    (tmp_path / "a.jsonl").write_text(example)
    (tmp_path / "b.jsonl").write_text("\n".join(rows))
    plan = {str(tmp_path / "a.jsonl"): {"scorer": "anls"}, str(tmp_path / "b.jsonl"): {}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    words = ["eval", "--model", "world-base", "--benchmarks", str(tmp_path / "plan.yaml"), "--max-new-tokens", "3"]
    words += ["--scorer", "relaxed", "--limit", "2", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    read = lambda name: json.loads((tmp_path / "out" / f"{name}-test" / "summary.json").read_text())  # noqa: E731
    assert (read("a")["scorer"], read("b")["scorer"], read("b")["n"]) == ("anls", "relaxed", 2)
    (tmp_path / "a.jsonl").write_text(example.replace("red", "blue"))
    assert main(words) == 1
    assert "a-test already holds results" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("plan", "code", "said"),
    [
        ("world: {splits: []}", 2, "expected names such as [val, test]"),
        ("world: {splits: }", 2, "expected names such as [val, test]"),
        ("world: {options: }", 2, "options is empty"),
        ("world: {batch_size: 0}", 2, "batch_size is 0; expected at least 1"),
        ("world: {limit: many}", 2, "limit is 'many'"),
        ("world: {on_bad_row: skip}", 2, "on_bad_row is 'skip'; expected error or drop"),
        ("world: {scorer: anls}\nworld: {scorer: exact}", 2, "'world' occurs twice"),
        ("world: {scorre: exact}", 2, "did you mean 'scorer'"),
        ("world: {scorer: exat}", 2, "did you mean 'exact'"),
        ("[world]", 2, "expected data sets with options"),
        ("world: {options: {nn: 3}}", 1, "no option 'nn'"),
        ("world: {splits: [tset]}", 1, "tset"),
        ("nowhere.jsonl: {}", 1, "no path 'nowhere.jsonl'"),
    ],
)
def test_what_is_wrong_with_the_benchmarks_is_said_before_the_model_is_loaded(
    plan: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "balanced_thinking.evaluation.engines.start.load_model", lambda *_, **__: pytest.fail("it was loaded")
    )
    (tmp_path / "plan.yaml").write_text(f"{plan}\n")
    words = [
        "eval",
        "--model",
        "world-base",
        "--benchmarks",
        str(tmp_path / "plan.yaml"),
        "--out",
        str(tmp_path / "out"),
    ]
    try:
        found = main(words)
    except SystemExit as stop:
        found = stop.code
    assert found == code
    assert said in capsys.readouterr().err


def test_an_empty_lora_is_no_full_fine_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sft", *TINY, *STEPS, "--lora", "{}", "--out", str(tmp_path / "run")]) == 1
    assert "specify `target_modules`" in capsys.readouterr().err  # PEFT knows none for this architecture
    (told,) = describe_changes(Recipe(), Recipe(lora={}), ())
    assert told == "lora was empty and is {}"


def test_resuming_what_was_never_begun_begins_it_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", *TINY, *STEPS, "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert "there is no run in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped; the same command continues where it stopped"),
        (torch.OutOfMemoryError("CUDA out of memory."), 1, "out of memory.; lower --batch-size"),
        (ImportError("no bitsandbytes"), 1, "balanced eval: no bitsandbytes"),
    ],
)
def test_what_stops_a_command_is_told_in_one_line(
    failure: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("balanced_thinking.evaluation.run.evaluate_benchmarks", fail)
    assert main(["eval", "--model", "world-base", "--data", "world"]) == code
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_options_may_be_spelt_as_keys_of_recipes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def note(model: str, benchmarks: list[Any], **_: object) -> list[Any]:
        seen["benchmark"] = benchmarks[0]
        return [SimpleNamespace(folder=Path("out"))]

    monkeypatch.setattr("balanced_thinking.evaluation.run.evaluate_benchmarks", note)
    words = ["--max_new_tokens", "7", "--on_bad_row=drop", "--data_options.n", "3", "--batch-size", "2"]
    assert main(["eval", "--model", "world-base", "--data", "world", *words]) == 0
    found = seen["benchmark"]
    assert (found.max_new_tokens, found.on_bad_row, found.options, found.batch_size) == (7, "drop", {"n": 3}, 2)


def test_what_is_not_installed_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("balanced_thinking.training.run.get_available_reporting_integrations", list)
    with pytest.raises(SystemExit, match="2"):
        main(["sft", *TINY, "--report_to", "wandb", "--out", str(tmp_path / "run")])
    assert "pip install 'balanced-thinking[wandb]'" in capsys.readouterr().err


def test_resuming_a_run_with_all_its_steps_takes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    command = ["sft", *TINY, *STEPS, "--save_strategy", "steps", "--save_steps", "1", "--out", str(run)]
    assert main(command) == 0
    weights = (run / "model" / "model.safetensors").read_bytes()
    assert main([*command, "--resume"]) == 0
    assert f"{run} has taken all its 2 steps" in capsys.readouterr().err
    about = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps(about | {"finished": None}))  # killed before it could say so
    (run / "model" / "model.safetensors").unlink()
    assert main([*command, "--resume"]) == 0
    assert json.loads((run / "provenance.json").read_text())["steps"] == 2
    assert (run / "model" / "model.safetensors").read_bytes() == weights
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--max_steps", "1", "--resume"])
    assert "has taken 2 steps already; max_steps is 1" in capsys.readouterr().err


def test_a_training_without_a_sample_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["sft", *TINY, *STEPS, "--max_length", "32", "--overflow", "drop", "--out", str(run)]) == 1
    assert "every sample is longer than max_length=32" in capsys.readouterr().err
    assert not (run / "model").exists()
    few = ["--num_generations", "2", "--steps_per_generation", "64", "--max_completion_length", "4"]
    assert main(["grpo", *TINY, *STEPS, *few, "--save_strategy", "no", "--out", str(tmp_path / "grpo")]) == 1
    assert "8 rows are fewer than the 64 prompts of one generation" in capsys.readouterr().err


def test_help_of_grpo_offers_only_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["grpo", "--help"])
    said = capsys.readouterr().out
    assert "adaptive" not in said
