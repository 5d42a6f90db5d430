"""Help, version and completion: at once, without a heavy library."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from importlib.metadata import version

import pytest

import balanced_thinking
from balanced_thinking.cli.commands import COMMANDS, make_parsers
from balanced_thinking.cli.completion import SHELLS, completion_script
from balanced_thinking.training.arguments import argument_types
from balanced_thinking.training.options import ScaleGRPOOptions, ScaleSFTOptions
from balanced_thinking.training.recipe import Recipe
from tests.cli.tiny_commands import exit_code

HEAVY = "torch, transformers, trl, peft, datasets, accelerate, matplotlib"


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert exit_code(list(words)) == 0
    return capsys.readouterr().out


def test_help_of_sft_shows_each_of_our_training_arguments_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "sft", "--help")
    for field in fields(ScaleSFTOptions):
        assert f"  --{field.name} " in text or f"  --{field.name}.NAME VALUE" in text
    for shown in (
        *("model world-base", "data world", "validation_split null", "lora.NAME VALUE", "limit null"),
        *("save_total_limit 2", "weighting null ", "think_weight_start ", "max_length 4096 ", "bf16 null "),
    ):
        assert f"  --{shown}" in text


def test_help_of_grpo_offers_only_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "grpo", "--help")
    assert "adaptive" not in text
    for field in fields(ScaleGRPOOptions):
        assert f"  --{field.name} " in text or f"  --{field.name}.NAME VALUE" in text
    assert text.index("  --rewards.NAME VALUE") < text.index("  --algorithm ") < text.index("  --loss_type ")


@pytest.mark.parametrize(("stage", "of_trl"), [("sft", "packing_strategy bfd"), ("grpo", "num_generations 8")])
def test_all_help_adds_the_arguments_of_trl_and_transformers(
    stage: str, of_trl: str, capsys: pytest.CaptureFixture[str]
) -> None:
    short = help_of(capsys, stage, "--help")
    text = help_of(capsys, stage, "--help-all")
    assert text.startswith(short)
    for shown in ("learning_rate ", "per_device_train_batch_size 8", "lr_scheduler_type linear", of_trl):
        assert f"  --{shown}" in text
        assert f"  --{shown}" not in short
    assert "--output_dir" not in text
    assert text.count("  --bf16 ") == 1


# What needs no heavy library, with its exit code.
LIGHT = [
    *((0, [name, "--help"]) for name in COMMANDS),
    (0, ["--help"]),
    (0, ["--version"]),
    (0, ["--print-completion", "bash"]),
    (2, ["sft", "--lerning_rate", "1"]),
    (2, ["sft", "--max_steps", "3"]),
    (2, ["sft", "--model", "world-base", "--max_steps", "ten"]),
    (2, ["sft", "--model", "world-base", "--weighting", "scaled"]),
    (2, ["sft", "--model", "world-base", "--lora.rank", "4"]),
    (2, ["sft", "--model", "world-base", "--eval_strategy", "steps"]),
    (2, ["sft", "--model", "runs/nope"]),
    (2, ["grpo", "--model", "world-base", "--rewards.acuracy", "1"]),
    (2, ["grpo", "--model", "world-base", "--data", "wrld"]),
    (2, ["eval", "--model", "runs/nope", "--data", "world"]),
    (2, ["eval", "--model", "world-base", "--data", "wrld"]),
    (2, ["check", "runs/nope"]),
    (2, ["estimate", "nowhere.yaml", "--gpu", "h1000"]),
    (2, ["export", "runs/nope", "--out", "x"]),
    (2, ["export", "world-base"]),
    (2, ["check", "world-base", "--data", "wrld"]),
    (2, ["inspect", "wrld"]),
    (2, ["convert", "wrld", "--out", "x.jsonl"]),
    (2, ["study", "nowhere.yaml", "--out", "x"]),
    (2, ["report", "nowhere"]),
]


def test_help_and_wrong_usage_import_no_heavy_library() -> None:
    """All in one process: what any of them imports is seen after it."""
    code = f"""
import sys
from balanced_thinking.cli import main
for expected, words in {LIGHT!r}:
    try:
        found = main(words)
    except SystemExit as end:
        found = end.code or 0
    assert found == expected, (words, found)
    heavy = set({HEAVY!r}.split(", ")) & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert balanced_thinking.__version__ == version("balanced-thinking")
    assert help_of(capsys, "--version") == f"balanced-thinking {balanced_thinking.__version__}\n"
    assert "__version__" in dir(balanced_thinking)


def test_the_package_is_the_command() -> None:
    for module in ("balanced_thinking", "balanced_thinking.cli"):
        command = [sys.executable, "-m", module, "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.startswith("balanced-thinking ")


def test_every_public_name_is_there() -> None:
    assert sorted(balanced_thinking.__all__) == sorted(balanced_thinking._HOMES)
    for name in balanced_thinking.__all__:
        assert getattr(balanced_thinking, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = balanced_thinking.nothing


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_quiet_or_verbose(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, name, "--help")
    assert "-q, --quiet" in text
    assert "-v, --verbose" in text
    assert exit_code([name, "--quiet", "--verbose"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_help_shows_defaults_of_0_but_not_switches(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_of(capsys, "eval", "--help").split())
    assert "above 0: tokens are drawn at random (default: 0.0)" in text
    assert "0: none (default: 0)" in text
    assert "(default: False)" not in text


def test_no_training_argument_has_the_name_of_an_option() -> None:
    _, parsers = make_parsers()
    for stage in ("sft", "grpo"):
        names = {*argument_types(stage), *(field.name for field in fields(Recipe))}
        assert not names & {option.lstrip("-").replace("-", "_") for option in parsers[stage].option_names()}


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = help_of(capsys, "--print-completion", shell)
    for word in ("sft", "help-all", "learning_rate", "lr_scheduler_type", "weighting", "validation_split"):
        assert word in script


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["balanced", "ins"], {"inspect"}),
        (["balanced", "sft", "--learning_r"], {"--learning_rate"}),
        (["balanced", "sft", "--lr_scheduler_type", "cosine_with_"], {"cosine_with_restarts", "cosine_with_min_lr"}),
        (["balanced", "study", "--dry"], {"--dry-run"}),
    ],
)
def test_bash_completes_commands_options_and_choices(words: list[str], expected: set[str]) -> None:
    line = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_balanced; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    script = f"{completion_script('bash')}\n{ask}"
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=60)
    assert set(done.stdout.split()) == expected, done.stderr
