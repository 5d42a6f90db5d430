"""How every command ends: 0, 1 (it ran and failed), 2 (wrong usage, nothing started), 130 (SIGINT), 143 (SIGTERM)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from balanced_thinking.cli import commands, main
from balanced_thinking.cli.commands import COMMANDS
from balanced_thinking.models.find import find_model_source
from balanced_thinking.system.signals import StoppedEarly
from balanced_thinking.training.health import NothingLearnedError
from tests.cli.tiny_commands import BASE, FEW, exit_code

ASKED = "you tried to allocate 46170898432 bytes"
ROW = {"id": "a", "question": "which color ?", "think": "it looks red .", "answer": "red"}
STUDY = """
arms: {sft: {model: "tiny:qwen2", data: good.jsonl, split: all, training: {weighting: uniform}}}
evaluate: {good.jsonl: {}}
seeds: [0]
"""
EVAL = ["eval", *BASE, "--max-new-tokens", "4"]

# What is in the folder: good.jsonl, bad.jsonl (a row without an answer), study.yaml, other.yaml, model/ (without a
# tokenizer), folder/ (without a model), runs/ (a run, finished), finished/ (a study), and nothing else.
TABLE: list[tuple[list[str], int, str]] = [
    # Every command: an unknown option, with the most similar one.
    (["sft", "--confg", "x"], 2, "did you mean '--config'"),
    (["grpo", "--confg", "x"], 2, "did you mean '--config'"),
    (["eval", "--modle", "x"], 2, "did you mean '--model'"),
    (["inspect", "world", "--splt", "test"], 2, "did you mean '--split'"),
    (["convert", "world", "--ot", "x"], 2, "did you mean '--out'"),
    (["check", "tiny:qwen2", "--layer", "1"], 2, "did you mean '--layers'"),
    (["estimate", "x.yaml", "--pric", "1"], 2, "did you mean '--price'"),
    (["study", "study.yaml", "--job", "1"], 2, "did you mean '--jobs'"),
    (["report", "x", "--htm", "y"], 2, "did you mean '--html'"),
    (["demo", "--step", "1"], 2, "did you mean '--steps'"),
    (["export", "x", "--ot", "y"], 2, "did you mean '--out'"),
    (["chat", "world-base", "--imag", "x.png"], 2, "did you mean '--image'"),
    (["evl"], 2, "invalid choice"),
    ([], 2, "required: COMMAND"),
    # What is needed and is not given.
    (["sft"], 2, "there is nothing to train; name a recipe with --config, or a model with --model"),
    (["grpo", "--data", "world"], 2, "there is nothing to train"),
    (["sft", "--out", "typo", "--max_steps", "3", "--resume"], 2, "there is no run in typo to resume"),
    (["eval", "--model", "world-base"], 2, "there is nothing to evaluate on"),
    (["eval", "--data", "world"], 2, "there is no model to evaluate; name it with --model"),
    (["inspect"], 2, "required: data"),
    (["convert", "world"], 2, "required: --out"),
    (["study", "study.yaml"], 2, "required: --out"),
    (["report"], 2, "required: runs"),
    (["estimate"], 2, "required: recipe"),
    (["estimate", "study.yaml", "--gpu", "h1000"], 2, "did you mean 'h100'"),
    (["estimate", "study.yaml", "--lengths", "9"], 2, "expected MEAN,MAX in tokens"),
    (["estimate", "nowhere.yaml"], 2, "there is no recipe nowhere.yaml"),
    (["export", "runs/done"], 2, "required: --out"),
    (["chat"], 2, "required: MODEL"),
    # Names of options, of keys of recipes and of training arguments, and what they are called elsewhere.
    (["sft", "--ouput", "x"], 2, "did you mean '--out'"),
    (["sft", "--modle", "x"], 2, "did you mean '--model'"),
    (["sft", "--dta", "x"], 2, "did you mean '--data'"),
    (["sft", "--data_option.n", "3"], 2, "did you mean '--data_options.n'"),
    (["sft", "--lerning_rate", "1"], 2, "did you mean '--learning_rate'"),
    (["sft", "--lr", "1"], 2, "did you mean '--learning_rate'"),
    (["sft", "--lora_rank", "1"], 2, "did you mean '--lora.r'"),
    (["sft", *BASE, "--lora.rank", "4"], 2, "lora has the unknown key 'rank' (did you mean 'r'?)"),
    (["sft", *BASE, "--lora.dropout", "0.1"], 2, "did you mean 'lora_dropout'"),
    (["grpo", "--rewads.accuracy", "1"], 2, "did you mean '--rewards.accuracy'"),
    (["grpo", *BASE, "--rewards.acuracy", "1"], 2, "did you mean 'accuracy'"),
    (["eval", "--model", "x", "--data", "y", "--data_option.n", "3"], 2, "did you mean '--data_options.NAME'"),
    (["sft", "--output_dir", "x"], 2, "did you mean '--out'"),
    (["sft", "stray"], 2, "unexpected argument 'stray'"),
    (["sft", "recipe.yaml"], 2, "a recipe is given as --config recipe.yaml"),
    # Values.
    (["eval", "--model", "x", "--data", "y", "--batch-size", "0"], 2, "'0'; expected an integer of at least 1"),
    (["eval", "--model", "x", "--data", "y", "--max-new-tokens", "0"], 2, "'0'; expected an integer of at least 1"),
    (["eval", "--model", "x", "--data", "y", "--data_options.n", "[1"], 2, "--data_options.n [1, line 1, column 3"),
    (["sft", *BASE, "--learning_rate", "fast"], 2, "learning_rate is 'fast'; expected a number"),
    (["sft", *BASE, "--learning_rate", "-1"], 2, "learning_rate is -1; expected at least 0"),
    (["sft", *BASE, "--learning_rate", ".nan"], 2, "learning_rate is nan; expected at least 0"),
    (["sft", *BASE, "--max_steps", "ten"], 2, "max_steps is 'ten'; expected an integer"),
    (["sft", *BASE, "--max_steps", "0"], 2, "max_steps is 0; expected at least 1"),
    (["sft", *BASE, "--num_train_epochs", "0"], 2, "num_train_epochs is 0; expected more than 0"),
    (["grpo", *BASE, "--num_train_epochs", "-1"], 2, "num_train_epochs is -1; expected more than 0"),
    (["sft", *BASE, "--limit", "abc"], 2, "limit is 'abc'; expected an integer"),
    (["sft", *BASE, "--limit", "0"], 2, "limit is 0; expected at least 1, or null"),
    (["sft", *BASE, "--on_bad_row", "skip"], 2, "on_bad_row is 'skip'; expected error or drop"),
    (["sft", *BASE, "--data", "5"], 2, "data is 5; expected text"),
    (["sft", *BASE, "--data.n", "5"], 2, "--data.n sets a key of data, which is not a mapping"),
    (["sft", *BASE, "--max_steps.x", "5"], 2, "--max_steps.x sets a key of max_steps, which is not a mapping"),
    (["sft", *BASE, "--lora", "true"], 2, "lora is true; expected a mapping"),
    (["sft", *BASE, "--lora.target_modules", "[q_proj"], 2, "line 1, column 8 is not valid YAML"),
    (["sft", *BASE, "--lora.layers_to_transform", "q"], 2, "expected an integer or a list or null, such as '[a, b]'"),
    (["sft", *BASE, "--lora.r", "0"], 2, "lora.r is 0; expected at least 1"),
    (["sft", *BASE, "--seed", "-1"], 2, "seed is -1; expected at least 0"),
    (["sft", *BASE, "--dataloader_num_workers", "-1"], 2, "dataloader_num_workers is -1; expected at least 0"),
    (["sft", *BASE, "--save_steps", "0"], 2, "save_steps is 0; expected more than 0"),
    (["sft", *BASE, "--logging_steps", "1.5"], 2, "logging_steps is 1.5; expected an integer"),
    (["sft", *BASE, "--gradient_accumulation_steps", "0"], 2, "gradient_accumulation_steps is 0; expected at least 1"),
    (["sft", *BASE, "--per_device_train_batch_size", "0"], 2, "batch_size is 0; expected at least 1"),
    (["sft", *BASE, "--lr_scheduler_type", "cosin"], 2, "did you mean 'cosine'"),
    (["sft", *BASE, "--lr_scheduler_kwargs", "x"], 2, "expected a mapping, such as --lr_scheduler_kwargs.key value"),
    (["sft", *BASE, "--lr_scheduler_kwargs.cycles", "2"], 2, "which the schedule linear does not take"),
    (["sft", *BASE, "--optim", "adamw"], 2, "did you mean 'adamw_"),
    (["sft", *BASE, "--optim_args", "betas"], 2, "expected name=value"),
    (["sft", *BASE, "--deepspeed", "x.json"], 2, "there is no such file"),
    (["sft", *BASE, "--chat_template_path", "x.jinja"], 2, "chat_template_path is 'x.jinja'; there is no such file"),
    (["sft", *BASE, "--weighting", "scaled"], 2, "did you mean 'scale'"),
    (["sft", *BASE, "--schedule", "cosin"], 2, "did you mean 'cosine'"),
    (["sft", *BASE, "--head_impl", "tritn"], 2, "did you mean 'triton'"),
    (["sft", *BASE, "--reasoning_format", "boxd"], 2, "did you mean 'boxed'"),
    (["sft", *BASE, "--report_to", "wand"], 2, "did you mean 'wandb'"),
    (["sft", *BASE, "--model_options.dtype", "bf16"], 2, "model_options.dtype is 'bf16' (did you mean 'bfloat16'?)"),
    (["grpo", *BASE, "--temperature", "0"], 2, "temperature is 0; expected more than 0"),
    (["grpo", *BASE, "--num_generations", "1"], 2, "num_generations is 1; expected at least 2"),
    (["grpo", *BASE, "--credit", "segments"], 2, "did you mean 'segment'"),
    (["eval", *BASE, "--data", "world", "--scorer", "exat"], 2, "did you mean 'exact'"),
    (["eval", *BASE, "--data", "world", "--prompt", "questoin"], 2, "did you mean 'question'"),
    (["eval", *BASE, "--data", "world", "--format", "boxd"], 2, "did you mean 'boxed'"),
    (["eval", *BASE, "--data", "world", "--dtype", "float31"], 2, "invalid choice"),
    (["inspect", "world", "--format", "boxd"], 2, "did you mean 'boxed'"),
    (["demo", "--seeds", "x"], 2, "'x'; expected an integer of at least 0"),
    # What does not go together, or not on this machine.
    (["sft", *BASE, "--resume_from_checkpoint", "x"], 2, "set by --resume"),
    (["sft", *BASE, "--data", "a.jsonl", "--data", "b.jsonl"], 2, "no data set and no path 'a.jsonl'"),
    (["sft", *BASE, "--data", "[world, {data: world, wieght: 2}]"], 2, "did you mean 'weight'"),
    (["sft", *BASE, "--stage", "grpo"], 2, "run it with `balanced grpo`"),
    (["sft", *BASE, "--bf16", "true", "--fp16", "true"], 2, "bf16 and fp16 are both true"),
    (["sft", *BASE, "--eval_strategy", "steps"], 2, "there is no data to evaluate on; name a split"),
    (["sft", *BASE, "--eval_on_start", "true"], 2, "eval_on_start is true, but there is no data to evaluate on"),
    (["sft", *BASE, "--load_best_model_at_end", "true", "--validation_split", "test"], 2, "eval_strategy is 'no'"),
    (["sft", *BASE, "--padding_free", "true"], 2, "padding_free=True cannot be exact"),
    (["grpo", *BASE, "--generation_batch_size", "7"], 2, "generation_batch_size (7)"),
    (["grpo", *BASE, "--per_device_train_batch_size", "3"], 2, "must be a multiple of num_generations, 8"),
    (["eval", *BASE, "--data", "world", "--server", "http://x/v1", "--engine", "vllm"], 2, "leave --engine vllm out"),
    (["eval", *BASE, "--benchmarks", "plan.yaml"], 2, "there is no file plan.yaml"),
    (["report", "runs", "--html", "x.md", "--markdown", "x.md"], 2, "would be the same file"),
    # What is not there, or is in the way.
    (["sft", "--config", "nowhere.yaml"], 2, "no recipe nowhere.yaml"),
    (["study", "nowhere.yaml", "--out", "s"], 2, "no study nowhere.yaml"),
    (["report", "nowhere"], 2, "nowhere"),
    (["report", "folder"], 2, "folder"),
    (["sft", "--model", "runs/nope"], 2, "there is no model folder runs/nope"),
    (["sft", "--model", "finished/nope"], 2, "there is no model folder finished/nope (did you mean 'finished/sft'?)"),
    (["sft", "--model", "./nope"], 2, "there is no model folder ./nope"),
    (["sft", "--model", "./new/mine", "--out", "./new/mine-grpo"], 2, "./new/mine; expected"),  # its --out is no model
    (["sft", "--model", "tiny:qwen"], 2, "did you mean 'qwen2'"),
    (["sft", "--model", "folder"], 2, "folder holds no model: there is no config.json"),
    (["sft", "--model", "model"], 2, "model has no tokenizer: expected tokenizer.json or"),
    (["eval", "--model", "nowhere", "--data", "world"], 2, "no model folder nowhere"),
    (["eval", "--model", "runs/nope", "--data", "world"], 2, "no model folder runs/nope"),
    (["eval", "--model", "folder", "--data", "world"], 2, "folder holds no model"),
    (["eval", "--model", "model", *FEW], 2, "model has no tokenizer"),
    (["inspect", "world", "--model", "nowhere"], 2, "no model folder nowhere"),
    (["export", "nowhere", "--out", "x"], 2, "no model folder nowhere"),
    (["export", *BASE[1:], "--out", "folder"], 2, "folder"),
    (["chat", "nowhere"], 2, "no model folder nowhere"),
    (["sft", *BASE, "--data", "wrld"], 2, "did you mean 'world'"),
    (["eval", *BASE, "--data", "wrld"], 2, "did you mean 'world'"),
    (["inspect", "wrld"], 2, "did you mean 'world'"),
    (["convert", "wrld", "--out", "x.jsonl"], 2, "did you mean 'world'"),
    (["sft", *BASE, "--data_options.rato", "3"], 2, "did you mean 'ratio'"),
    (["eval", *BASE, "--data", "world", "--data_options.rato", "3"], 2, "did you mean 'ratio'"),
    (["inspect", "world", "--data_options.rato", "3"], 2, "did you mean 'ratio'"),
    (["inspect", "world", "--split", "tset"], 2, "no split 'tset'"),
    (["sft", *BASE, "--out", "runs/done"], 2, "already holds a run; add --resume"),
    (["sft", *BASE, "--out", "good.jsonl/run"], 2, "good.jsonl is a file, not a folder for runs"),
    (["convert", "world", "--out", "good.jsonl"], 2, "add --overwrite to replace it"),
    (["convert", "world", "--out", "x.csv"], 2, "expected a name that ends in .jsonl"),
    (["study", "other.yaml", "--out", "finished"], 2, "finished holds another study"),
    # It ran and failed.
    (["sft", "--model", "tiny:qwen2", "--data", "bad.jsonl", "--split", "all"], 1, "fix these rows, or leave them out"),
    ([*EVAL, "--data", "bad.jsonl", "--split", "all"], 1, "fix these rows, or leave them out"),
    (["convert", "bad.jsonl", "--split", "all", "--out", "x.jsonl"], 1, "fix these rows, or leave them out"),
    # It ran.
    (["--version"], 0, ""),
    *((([name, "--help"]), 0, "") for name in COMMANDS),
    (["inspect", "world", "--data_options.n", "4"], 0, ""),
    (["convert", "good.jsonl", "--split", "all", "--out", "x.jsonl"], 0, "1 rows"),
    (["study", "study.yaml", "--out", "s", "--dry-run"], 0, ""),
    (["report", "runs"], 0, ""),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "good.jsonl").write_text(json.dumps(ROW) + "\n")
    (folder / "bad.jsonl").write_text(json.dumps(ROW | {"answer": ""}) + "\n")
    (folder / "study.yaml").write_text(STUDY)
    (folder / "other.yaml").write_text(STUDY.replace("tiny:qwen2", "tiny:gemma3"))
    (folder / "folder").mkdir()
    (folder / "model").mkdir()
    shutil.copy(Path(find_model_source("world-base")) / "config.json", folder / "model")
    for run in ("runs/done", "finished/sft/seed-0"):
        (folder / run).mkdir(parents=True)
        (folder / run / "config.yaml").write_text("model: tiny:qwen2\ndata: good.jsonl\nsplit: all\narm: sft\n")
        (folder / run / "provenance.json").write_text(json.dumps({"arm": "sft", "finished": "now"}))
    (folder / "finished" / "study.yaml").write_text(STUDY)
    return folder


@pytest.mark.parametrize(("words", "code", "said"), TABLE, ids=[" ".join(words) for words, _, _ in TABLE])
def test_each_end_has_its_code_and_says_why(
    words: list[str],
    code: int,
    said: str,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    hub = "balanced_thinking.models.processor.AutoConfig.from_pretrained"
    monkeypatch.setattr(hub, lambda name: pytest.fail(f"{name}: a model is loaded"))
    before = sorted(tmp_path.rglob("*"))
    assert exit_code(words) == code, capsys.readouterr()
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    if code:
        assert out == ""
        assert sorted(tmp_path.rglob("*")) == before  # and nothing is left behind


def test_every_command_is_in_the_table_with_usage_and_success() -> None:
    for code in (0, 2):
        assert {words[0] for words, found, _ in TABLE if found == code and words} >= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "balanced {}: stopped"),
        (StoppedEarly("stopped after step 3"), 143, "balanced {}: stopped after step 3"),
        (torch.OutOfMemoryError("CUDA out of memory."), 1, "balanced {}: CUDA out of memory."),
        (RuntimeError(f"[fail] DefaultCPUAllocator: can't allocate memory: {ASKED}"), 1, "balanced {}: out of memory"),
        (MemoryError(), 1, "balanced {}: out of memory"),
        (OSError(12, "Cannot allocate memory"), 1, "balanced {}: out of memory"),
        (
            OSError(28, "No space left"),
            1,
            "balanced {}: [Errno 28] No space left (free some space, or choose another folder",
        ),
        (OSError(30, "Read-only", "ro/r"), 1, "balanced {}: [Errno 30] Read-only: 'ro/r' (choose a folder that can be"),
        (NothingLearnedError("nothing was learned"), 1, "balanced {}: nothing was learned"),
        (ImportError("no bitsandbytes"), 1, "balanced {}: no bitsandbytes"),
        (FloatingPointError("the gradient norm is nan"), 1, "balanced {}: the gradient norm is nan"),
        (ValueError("no sample is left"), 1, "balanced {}: no sample is left"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_stops_any_command_is_said_in_one_line(
    name: str,
    failure: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: Any) -> None:
        raise failure

    needed = {"sft": [], "grpo": [], "eval": BASE, "inspect": ["world"], "convert": ["world", "--out", "x"]}
    needed |= {"study": ["x", "--out", "x"], "report": ["x"], "demo": [], "check": ["x"], "estimate": ["x"]}
    needed |= {"export": ["x", "--out", "x"], "chat": ["x"]}
    monkeypatch.setitem(commands.COMMANDS, name, replace(COMMANDS[name], run=fail))
    assert main([name, *needed[name]]) == code
    error = capsys.readouterr().err.strip()
    assert error.startswith(said.format(name))
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("name", ["sft", "grpo", "eval"])
def test_too_little_memory_on_a_cpu_gets_the_hint_of_a_gpu(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError(f"[enforce fail at alloc] DefaultCPUAllocator: not enough memory: {ASKED}. Error code 12")

    monkeypatch.setitem(commands.COMMANDS, name, replace(COMMANDS[name], run=fail))
    assert main([name, *(BASE if name == "eval" else [])]) == 1
    hint = "lower --batch-size" if name == "eval" else "lower per_device_train_batch_size"
    assert f"out of memory: 43.0 GiB were needed at once; {hint}" in capsys.readouterr().err


def test_what_a_stopped_command_does_next_and_what_saves_memory_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for failure, said in (
        (KeyboardInterrupt(), "stopped; the same command continues where it stopped"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory.; lower --batch-size"),
    ):

        def fail(_: Any, failure: BaseException = failure) -> None:
            raise failure

        monkeypatch.setitem(commands.COMMANDS, "eval", replace(COMMANDS["eval"], run=fail))
        main(["eval", *BASE])
        assert said in capsys.readouterr().err


def test_the_reader_of_the_output_may_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [sys.executable, "-m", "balanced_thinking", "inspect", "world", "--data_options.n", "2"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_ranks_report_wrong_usage_once_and_failures_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    assert exit_code(["sft"]) == 2
    assert capsys.readouterr().err == ""

    def fail(_: Any) -> None:
        raise ValueError("this rank has no data")

    monkeypatch.setitem(commands.COMMANDS, "report", replace(COMMANDS["report"], run=fail))
    assert main(["report", "x"]) == 1
    assert capsys.readouterr().err == "rank 1: balanced report: this rank has no data\n"
