"""`balanced sft` and `balanced grpo`: run directories, resuming, adapters, on a tiny model."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from balanced_thinking.cli import main
from balanced_thinking.runs.directory import create_run, finish_run
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.training.recipe import Recipe, describe_changes
from balanced_thinking.training.resume import ResumeError
from balanced_thinking.training.run import _choose_beginning, _count_all_steps
from tests.cli.tiny_commands import BASE, FEW, LEARNING, STEPS, TINY, exit_code
from tests.conftest import REPOSITORY, some_now

SAVING = ["--save_strategy", "steps", "--save_steps", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps with both checkpoints, for tests of what comes after one."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert main(["sft", *TINY, *STEPS, *SAVING, "--out", str(run)]) == 0
    return run


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, `run` in the test's folder."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_finished_run_is_not_overwritten_but_can_be_resumed(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sft", *TINY, *STEPS, *SAVING, "--out", str(finished)]
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert exit_code(command) == 2
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


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--learning_rate", "0.5"], "training.learning_rate was not given and is 0.5"),
        (["--data_options.ratio", "9"], "data_options.ratio was 5 and is 9"),
        (["--model", "tiny:qwen2"], "model was 'tiny:qwen2_5_vl' and is 'tiny:qwen2'"),
    ],
)
def test_a_run_does_not_go_on_with_another_recipe(
    changed: list[str], said: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sft", "--out", str(finished), "--resume", *changed])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_a_run_goes_on_with_its_own_recipe_when_none_is_given(finished: Path) -> None:
    assert main(["sft", "--out", str(finished), "--resume", "--max_steps", "3"]) == 0
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert (config["model"], config["training"]["max_steps"]) == ("tiny:qwen2_5_vl", 3)


def test_a_start_that_fails_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    command = ["sft", *TINY, *STEPS, "--out", str(tmp_path / "run")]
    assert exit_code([*command, "--reasoning_format", "boxd"]) == 2
    assert main([*command, "--reasoning_format", "boxed"]) == 0


def test_a_first_step_that_fails_leaves_nothing_in_the_way_of_the_next_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sft", *TINY, *STEPS, "--out", str(tmp_path / "run")]
    assert main([*command, "--max_length", "32"]) == 1
    table = capsys.readouterr().err
    assert "too_long (8)" in table
    assert "raise it, or set overflow" in table
    assert not (tmp_path / "run").exists()
    assert main(command) == 0
    (tmp_path / "run/checkpoints").rename(tmp_path / "elsewhere")
    assert exit_code([*command, "--max_length", "32"]) == 2  # it holds a finished run
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_grpo_goes_on_from_a_run_and_names_the_command_for_other_recipes(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = finished, tmp_path / "grpo"
    command = ["grpo", "--model", str(first), *TINY[2:], *STEPS, *LEARNING, "--beta", "0.1", "--out", str(second)]
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


def test_a_grpo_run_in_which_nothing_could_be_learned_fails_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    few = ["--num_generations", "2", "--max_completion_length", "4", "--max_steps", "4", "--out", str(run)]
    assert main(["grpo", *TINY, *STEPS, *few]) == 1
    error = capsys.readouterr().err
    assert "in the last 3 generations every completion was cut off at max_completion_length: raise it" in error
    assert "balanced grpo: nothing was learned: none of the 8 completions had an advantage" in error
    assert (run / "model" / "config.json").is_file()
    assert not json.loads((run / "provenance.json").read_text()).get("finished")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {row["step"]: row.get("warnings") for row in rows}
    assert found == {
        1: None,
        2: None,
        3: ["all_clipped", "no_format", "no_advantage"],
        4: ["all_clipped", "no_format", "no_advantage", "nothing_learned"],
    }
    assert main(["report", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 0
    assert "nothing was learned" in (tmp_path / "page.html").read_text()


def test_lora_on_random_weights_learns_answers_alone_and_keeps_the_base_that_its_adapter_names(tmp_path: Path) -> None:
    """`think: drop` in the format `direct`: no token of the run is one of reasoning, and its evaluation needs none."""
    run, words = tmp_path / "run", [*TINY, "--data", "world-text", "--data_options.think", "drop"]
    words += ["--reasoning_format", "direct", "--lora.r", "4", "--lora.target_modules", "[q_proj, v_proj]"]
    assert main(["sft", *words, *STEPS, "--out", str(run)]) == 0
    assert (run / "model" / "adapter_config.json").is_file()
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert "answer_nll" in first
    assert "think_nll" not in first
    few = ["--data", "world-text", "--data_options.n", "2", "--shots", "1", "--max-new-tokens", "4"]
    assert main(["eval", "--model", str(run), *few]) == 0
    found = json.loads(next(run.glob("eval/*/summary.json")).read_text())
    assert (found["format"], found["prompt"]) == ("direct", "question after 1 examples")  # the format is the run's


def test_lora_run_is_evaluated_on_its_base(finished: Path, tmp_path: Path) -> None:
    base, run = finished, tmp_path / "lora"
    lora = ["--model", str(base / "model"), "--lora.r", "4", "--lora.target_modules", "[q_proj, v_proj]"]
    assert main(["sft", *TINY[2:], *STEPS, *lora, "--out", str(run)]) == 0
    assert (run / "model" / "adapter_config.json").is_file()
    assert main(["eval", "--model", str(run), "--data", "world", "--data_options.n", "2", "--max-new-tokens", "4"]) == 0


def test_answers_alone_are_inspected_and_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, words = tmp_path / "out.jsonl", ["--data_options.n", "4", "--data_options.think"]
    assert main(["inspect", "world-text", *words, "drop", "--format", "direct"]) == 0
    assert main(["convert", "world-text", *words, "drop", "--out", str(out)]) == 0
    assert not any(json.loads(line).get("think") for line in out.read_text().splitlines())
    capsys.readouterr()
    assert exit_code(["sft", *TINY, *words, "dropped", "--out", str(tmp_path / "run")]) == 2
    assert "did you mean 'drop'" in capsys.readouterr().err


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
    command = ["sft", "--model", "tiny:qwen2_5_vl", "--data", str(data), *STEPS, "--out", str(run)]
    assert main(command) == 1
    table = capsys.readouterr().err
    assert all(
        problem in table for problem in ("no_answer", "missing_image", "broken_image", "invalid_json", "gone.png")
    )
    assert not run.exists()
    assert main([*command, "--on-bad-row", "drop"]) == 0
    assert json.loads((run / "provenance.json").read_text())["dropped"] == 4


@pytest.mark.parametrize("architecture", some_now("qwen2_5_vl".__eq__, ["qwen2_5_vl", "llava_next", "gemma3"]))
def test_real_data_trains_with_each_architecture_and_both_segments_fall(
    architecture: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BALANCED_THINKING_DATA", str(real_data))
    recipe, run = f"recipes/puzzlevqa/{architecture}.yaml", tmp_path / "run"
    monkeypatch.chdir(REPOSITORY)
    steps = ["--max_steps", "10", "--logging_steps", "1", "--limit", "40"]
    assert main(["sft", "--config", recipe, *steps, "--out", str(run)]) == 0
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("think_nll", "answer_nll"):
        values = [entry[name] for entry in metrics if name in entry]
        assert mean(values[-3:]) < mean(values[:3])
    data = f"puzzlevqa:{real_data / 'puzzlevqa'}"
    assert main(["eval", "--model", str(run), "--data", data, "--limit", "3", "--max-new-tokens", "4"]) == 0
    assert json.loads((run / "eval" / "puzzlevqa-test" / "summary.json").read_text())["n"] == 3


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


def test_an_empty_lora_is_an_adapter_of_the_language_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["sft", *TINY, *STEPS, "--lora", "{}", "--out", str(out)]) == 0
    assert "LoRA: rank 8, alpha 8, on language: down_proj, gate_proj" in capsys.readouterr().err
    assert json.loads((out / "model" / "adapter_config.json").read_text())["exclude_modules"] == r"model\.visual(\..*)?"
    both = ["--lora.targets", "all", "--lora.target_modules", "[q_proj]", "--out", str(tmp_path / "both")]
    assert exit_code(["sft", *TINY, *STEPS, *both]) == 2
    assert "expected one of them: leave the other out" in capsys.readouterr().err
    assert exit_code(["sft", *TINY, *STEPS, "--lora.targets", "langage", "--out", str(tmp_path / "both")]) == 2
    assert "lora.targets is 'langage' (did you mean 'language'?)" in capsys.readouterr().err
    (told,) = describe_changes(Recipe(), Recipe(lora={}), ())
    assert told == "lora was not given and is {}"


def test_resuming_what_was_never_begun_begins_it_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", *TINY, *STEPS, "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert "there is no run in" in capsys.readouterr().err


def test_what_is_not_installed_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("balanced_thinking.training.checks.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        main(["sft", *TINY, "--report_to", "wandb", "--out", str(tmp_path / "run")])
    assert "pip install 'balanced-thinking[wandb]'" in capsys.readouterr().err


def test_a_finished_run_without_checkpoints_is_not_trained_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, args = RunFiles(tmp_path / "run"), SimpleNamespace(max_steps=9, fp16=False)
    create_run(files.folder, Recipe().to_yaml(), {})
    with caplog.at_level(logging.INFO):  # killed before its first checkpoint
        assert _choose_beginning(files, Recipe(), args, False) is None
    assert "has no checkpoint yet; training starts from the beginning" in caplog.text
    finish_run(files.folder, steps=6)
    with pytest.raises(ResumeError, match="is finished and has no checkpoint to continue from; train its model furthe"):
        _choose_beginning(files, Recipe(), args, False)


# The training of a finished run of 6 steps, that with which it is resumed, the steps that leave it as it is
FINISHED: list[tuple[dict[str, Any], dict[str, Any], int | None]] = [
    ({}, {}, 6),  # three epochs, which no max_steps says
    ({"num_train_epochs": 2.0}, {"num_train_epochs": 2.0}, 6),
    ({"num_train_epochs": 2.0}, {"num_train_epochs": 3.0}, None),
    ({"max_steps": 6}, {"max_steps": 6}, 6),
    ({"max_steps": 6}, {"max_steps": 7}, None),
    ({"max_steps": 6}, {}, None),
    ({}, {"max_steps": 6}, 6),
    ({"max_steps": 6}, {"max_steps": "6e0"}, 6),  # as a command line gives it
    ({}, {"save_steps": 2}, 6),
]


@pytest.mark.parametrize(("before", "now", "steps"), FINISHED)
def test_a_finished_run_stays_as_it_is_unless_it_is_made_longer(
    before: dict[str, Any], now: dict[str, Any], steps: int | None, tmp_path: Path
) -> None:
    files = RunFiles(tmp_path / "run")
    create_run(files.folder, Recipe(training=before).to_yaml(), {})
    arguments = files, Recipe(training=now), int(float(now.get("max_steps", -1)))
    assert _count_all_steps(*arguments) is None  # it is not finished
    finish_run(files.folder, steps=6)
    assert _count_all_steps(*arguments) == steps


def test_resuming_a_run_with_all_its_steps_takes_none(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished
    command = ["sft", *TINY, *STEPS, *SAVING, "--out", str(run)]
    weights = (run / "model" / "model.safetensors").read_bytes()
    assert main([*command, "--resume"]) == 0
    assert f"{run} has taken all its 2 steps" in capsys.readouterr().err
    (run / "model" / "model.safetensors").write_bytes(weights[:-1])  # it is saved again from the last checkpoint
    assert main([*command, "--resume"]) == 0
    assert (run / "model" / "model.safetensors").read_bytes() == weights
    said = capsys.readouterr().err
    assert f"expected {len(weights):,}; it is kept as {run}/damaged-model" in said
    about = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps(about | {"finished": None}))  # killed before it could say so
    (run / "model" / "model.safetensors").unlink()
    assert main([*command, "--resume"]) == 0
    assert json.loads((run / "provenance.json").read_text())["steps"] == 2
    assert (run / "model" / "model.safetensors").read_bytes() == weights
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--max_steps", "1", "--resume"])
    assert "has taken 2 steps already; max_steps is 1" in capsys.readouterr().err
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--resume"])
    assert f"{run}/model is missing, and there is no checkpoint in" in capsys.readouterr().err


def test_a_training_without_a_sample_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["sft", *TINY, *STEPS, "--max_length", "32", "--overflow", "drop", "--out", str(run)]) == 1
    assert "longer than max_length=32" in capsys.readouterr().err
    assert not (run / "model").exists()
    few = ["--num_generations", "2", "--steps_per_generation", "64", "--max_completion_length", "4"]
    for dry in ([], ["--dry-run"]):
        with pytest.raises(SystemExit, match="2"):
            main(["grpo", *TINY, *STEPS, *few, "--save_strategy", "no", "--out", str(tmp_path / "grpo"), *dry])
        assert not (tmp_path / "grpo").exists()
        assert "8 rows are fewer than the 64 prompts of one generation" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["sft", *TINY, "--dataloader_drop_last", "true", "--per_device_train_batch_size", "32", "--dry-run"])
    assert "the 8 rows of the data are fewer than the 32 of a batch" in capsys.readouterr().err


def test_a_run_begins_with_a_header_and_its_result_is_the_only_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    more = ["--gradient_accumulation_steps", "3", "--lora.r", "4", "--lora.target_modules", "q_proj,v_proj"]
    assert main(["sft", *TINY, *STEPS, *more, "--out", str(run)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{run}/model\n"
    header = dict(found) if (found := re.findall(r"^(\w+) {2,}(.*)$", err, re.MULTILINE)) else {}
    assert list(header) == ["model", "device", "data", "loss", "batch", "steps", "writes"]
    assert header["data"] == "world, train: 8 examples"
    assert header["loss"] == "SCALe, cosine: reasoning / answer 1 / 0.1 to 1 / 1"
    assert header["batch"] == "6 examples a step (2 per device x 3 accumulated x 1 rank)"
    assert (header["steps"], header["writes"]) == ("2", str(run))
    assert header["device"] == "cpu, weights in float32"
    counts = re.fullmatch(
        r"tiny:qwen2_5_vl, ([\d.]+) thousand trainable of (\d+) thousand parameters \(.* %\)", header["model"]
    )
    assert counts
    assert float(counts[1]) < 10 < 300 < float(counts[2])
    lora = json.loads((run / "model" / "adapter_config.json").read_text())
    assert sorted(lora["target_modules"]) == ["q_proj", "v_proj"]


@pytest.mark.parametrize(("option", "shown"), [("--quiet", False), ("--verbose", True)])
def test_quiet_leaves_the_result_alone(
    option: str, shown: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", *TINY, *STEPS, "--out", str(tmp_path / "run"), option]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/run/model\n"
    assert ("step 2: loss" in err) == shown


@pytest.mark.slow
def test_no_line_is_redrawn_in_a_log_file(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "balanced_thinking", "sft", *BASE, *FEW, *STEPS, "--out", str(tmp_path / "run")]
    with (tmp_path / "log").open("wb") as log:
        subprocess.run(words, stdout=log, stderr=log, check=True, timeout=300)
    text = (tmp_path / "log").read_bytes().decode()
    assert "step 2: loss" in text
    assert not {"\r", "\x1b"} & set(text)


def test_a_key_of_a_mapping_is_an_option_of_its_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["grpo", *TINY, *STEPS, *LEARNING, "--save_strategy", "no"]
    command += ["--rewards.format", "1", "--rewards.conciseness", "0.5", "--out", str(run)]
    assert main(command) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["training"]["rewards"] == {"format": 1, "conciseness": 0.5}
