"""YAML: recipes with options of the command line, studies and benchmark files.

An input is a byte for the kind of file, then its content; of a recipe with options, the options come first, one a line.
"""

from __future__ import annotations

import datetime
import random
import shutil
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from balanced_thinking.config.yaml import read_yaml
from balanced_thinking.evaluation.benchmarks import check_benchmarks, load_benchmarks
from balanced_thinking.study.load import make_study, to_yaml
from balanced_thinking.training.arguments import argument_types, lora_types
from balanced_thinking.training.checks import check_settings
from balanced_thinking.training.recipe import Recipe, load_recipe, make_recipe
from tests.faults.fuzz.target import Target
from tests.faults.fuzz.values import (
    FRAGMENTS,
    decode_text,
    encode_text,
    mutate_bytes,
    nasty_number,
    nasty_text,
    nasty_value,
    nest_deeply,
)

_KINDS = ("recipe", "options", "study", "benchmarks")
_SYNTAX = (
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "!!python/object:os.system ",
    "!!set ",
    "!!omap ",
    "!!timestamp ",
    "!!str ",
)
_SYNTAX += (
    "? ",
    "- ",
    ": ",
    "| \n  x\n",
    ">-\n  y\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "# x\n",
    "{",
    "}",
    "[",
    "]",
    "\t",
    "~",
)
_SYNTAX += (
    "!!int ",
    "!!float ",
    "&a [*a]",
    "&b {x: *b}",
    "2026-01-01",
    "2026-01-01 10:00:00",
    "1:30",
    "0o7",
    "0b1",
    ".inf",
    ".nan",
)
_SYNTAX += (
    "on",
    "off",
    "yes",
    "1e3",
    "1e-4",
    "1_000",
    "=",
    "<<",
    "!x y",
    '"\\x00"',
    '"\\ud800"',
    "'",
    '"',
    "9" * 5000,
    "\ufeff",
)
_WORDS = (*_SYNTAX, *FRAGMENTS)
_ARGUMENTS = ("learning_rate", "max_steps", "per_device_train_batch_size", "seed", "report_to", "optim", "optim_args")
_ARGUMENTS += (
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "save_strategy",
    "logging_steps",
    "reasoning_format",
    "schedule",
)
_ARGUMENTS += (
    "think_weight_start",
    "answer_weight_end",
    "normalize",
    "overflow",
    "max_length",
    "bf16",
    "fsdp",
    "deepspeed",
)
_ARGUMENTS += (
    "eval_strategy",
    "load_best_model_at_end",
    "num_generations",
    "beta",
    "chat_template_path",
    "warmup_steps",
)
_DATA: tuple[Any, ...] = (
    "world",
    "x.jsonl",
    "scienceqa:folder",
    ["world", {"data": "world", "weight": 2}],
    "$HOME/x",
    "owner/name",
)


@cache
def _file() -> Path:
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-yaml-", dir=memory if memory.is_dir() else None)) / "x.yaml"


def generate(rng: random.Random) -> bytes:
    kind = rng.choices(range(len(_KINDS)), (4, 2, 3, 2))[0]
    if _KINDS[kind] == "study":
        value = _make_study(rng)
    elif _KINDS[kind] == "benchmarks":
        value = {rng.choice(("world", "a.jsonl", "hub/name")): _make_benchmark(rng) for _ in range(rng.randrange(1, 3))}
    else:
        value = _make_recipe(rng)
    text = yaml.safe_dump(
        _plain(value), sort_keys=False, allow_unicode=rng.random() < 0.5, default_flow_style=rng.random() < 0.2
    )
    if _KINDS[kind] == "options":
        options = [f"{_option_name(rng)} {_inline(rng)}" for _ in range(rng.randrange(1, 4))]
        text = "\n".join(line.replace("\n", " ") for line in options) + "\n\n" + text
    if rng.random() < 0.02:
        text = _alias_bomb(rng) if rng.random() < 0.9 else "model: " + nest_deeply(rng).decode()
    return bytes([kind]) + encode_text(text)


def _plain(value: Any) -> Any:
    """What PyYAML can write: without lone surrogates and control characters."""
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _alias_bomb(rng: random.Random) -> str:
    """Anchors that refer to each other: sizes of 2 to 9 to the power of 3 to 9, or a structure that holds itself."""
    levels, times = rng.randrange(3, 10), rng.randrange(2, 10)
    lines = [
        rng.choice(("data_options:", "training:", "arms:", "stages:", "world:", "model_options:", "lora:")),
        "  a0: &a0 x",
    ]
    for k in range(1, levels):
        inner = f"[{', '.join([f'*a{k - 1}'] * times)}]" if rng.random() < 0.7 else f"{{x: *a{k - 1}, y: *a{k - 1}}}"
        lines.append(f"  a{k}: &a{k} {inner}")
    itself = ("lora: &z {x: *z}", "data: &z [*z]", "data_options: &z {? *z : 1}", "training: {x: &z [[*z]]}")
    return "\n".join(lines) if rng.random() < 0.7 else rng.choice(itself)


def _tame_recipe(rng: random.Random) -> dict[str, Any]:
    """One that is taken, mostly: what comes after the reader is tested with it."""
    keys: dict[str, Any] = {
        "model": rng.choice(("world-base", "tiny:qwen2-vl", "owner/name")),
        "data": rng.choice(_DATA[:4]),
        "split": rng.choice(("train", nasty_text(rng, 2))),
        "data_options": {"n": 4, "x": rng.choice((nasty_number(rng), nasty_value(rng, 1)))},
        "limit": rng.choice((3, None)),
        "preflight": rng.choice(("all", "sample:3")),
        "lora": {"r": rng.choice((4, "8")), "target_modules": rng.choice((["q_proj"], "a,b", "all-linear"))},
        "allow_missing": [nasty_text(rng, 2)],
        "arm": rng.choice(("x", nasty_text(rng, 2))),
        "image_options": {"max_pixels": rng.choice((9, nasty_number(rng)))},
    }
    known = {
        "learning_rate": "1e-4",
        "max_steps": 5.0,
        "seed": 1,
        "logging_steps": 0.1,
        "report_to": "none",
        "bf16": False,
    }
    known |= {"think_weight_start": 0.9, "overflow": "drop", "max_length": "512", "warmup_steps": 3, "adam_beta1": 0.5}
    chosen = {name: keys[name] for name in rng.sample(sorted(keys), rng.randrange(len(keys)))}
    return chosen | {"training": {name: known[name] for name in rng.sample(sorted(known), rng.randrange(len(known)))}}


def _make_recipe(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.5:
        return _tame_recipe(rng)
    recipe: dict[str, Any] = {
        "model": rng.choice(("world-base", "tiny:qwen2-vl", nasty_text(rng, 3))),
        "data": rng.choice(_DATA),
    }
    for name in rng.sample(sorted(Recipe.__dataclass_fields__), rng.randrange(4)):
        recipe[name] = rng.choice(
            (nasty_value(rng), {}, {"r": nasty_number(rng)}, {"dtype": "bfloat16"}, "sample:3", [nasty_text(rng, 2)])
        )
    arguments = rng.sample(_ARGUMENTS, rng.randrange(5)) + rng.sample(sorted(argument_types("grpo")), rng.randrange(3))
    training = {name: _argument(rng) for name in arguments}
    recipe |= {"training": training} if rng.random() < 0.9 else {}
    recipe |= {"stage": rng.choice(("sft", "grpo"))} if rng.random() < 0.4 else {}
    if rng.random() < 0.2:
        recipe["lora"] = {rng.choice(sorted(lora_types())): _argument(rng) for _ in range(2)}
    return recipe


def _argument(rng: random.Random) -> Any:
    usual = (
        1,
        0.5,
        "no",
        "steps",
        "none",
        "adamw_torch",
        "cosine",
        "eps=1e-8",
        "1e-4",
        "a,b",
        True,
        None,
        [1, "x"],
        {"x": 1},
    )
    return rng.choice((rng.choice(usual), rng.choice(usual), nasty_number(rng), nasty_value(rng)))


def _make_study(rng: random.Random) -> dict[str, Any]:
    arms = {
        name: _make_recipe(rng) if rng.random() < 0.4 else {"training": {"seed": 1}} for name in ("sft", "scale", "10")
    }
    arms["grpo"] = {"after": rng.choice(("sft", "grpo", "x", 10)), "stage": "grpo"}
    study: dict[str, Any] = {"arms": arms, "evaluate": {"world": _make_benchmark(rng)}, "seeds": [0, 1]}
    extra = {
        "settings": {"r-40": {"sft": {"limit": 3}, "arms": ["sft"], "seeds": [0]}},
        "stages": {"sft": _make_recipe(rng)},
        "contrasts": [["scale", "sft"]],
        "margin": nasty_number(rng),
    }
    for name in rng.sample(sorted(extra), rng.randrange(4)):
        study[name] = extra[name] if rng.random() < 0.7 else nasty_value(rng)
    if rng.random() < 0.2:
        study[rng.choice(sorted(study))] = nasty_value(rng)
    return study


def _make_benchmark(rng: random.Random) -> Any:
    known = {
        "scorer": "exact",
        "splits": ["test"],
        "options": {"n": 4},
        "limit": 3,
        "prompt": "question",
        "format": "boxed",
    }
    chosen = {name: known[name] for name in rng.sample(sorted(known), rng.randrange(4))}
    if rng.random() < 0.4:
        chosen[rng.choice((*known, "batch_size", "max_new_tokens", "on_bad_row", "x"))] = nasty_value(rng)
    return chosen if rng.random() < 0.9 else nasty_value(rng)


def _option_name(rng: random.Random) -> str:
    names = (
        "model",
        "data_options.n",
        "lora.r",
        "limit",
        "training",
        "lr_scheduler_kwargs.x.y",
        "seed",
        "x",
        "data.x",
        "stage",
        "",
    )
    return rng.choice((*names, rng.choice(_ARGUMENTS), nasty_text(rng, 2)))


def _inline(rng: random.Random) -> str:
    return rng.choice(
        (nasty_text(rng, 3), str(nasty_number(rng))[:400], "{a: 1}", "[1, 2]", "a,b", rng.choice(_SYNTAX), "grpo", "")
    )


def run(data: bytes) -> None:
    kind, content = _KINDS[(data[:1] or b"\0")[0] % len(_KINDS)], data[1:]
    if kind == "study":
        _check_study(content)
    elif kind == "benchmarks":
        _file().write_bytes(content)
        check_benchmarks(load_benchmarks(_file()), str(_file()))
    else:
        options = []
        if kind == "options":
            head, _, content = content.partition(b"\n\n")
            lines = (line.partition(" ") for line in decode_text(head).split("\n"))
            options = [(name, text) for name, _, text in lines]
        _file().write_bytes(content)
        recipe = load_recipe(_file(), options)
        _check_recipe(recipe)
        check_settings(recipe)


def _check_study(content: bytes) -> None:
    study = make_study(read_yaml(content, "study.yaml"), "study.yaml")
    written = to_yaml(study)
    again = make_study(read_yaml(written, "study.yaml"), "study.yaml")
    assert repr(_listed(asdict(again))) == repr(_listed(asdict(study)))


def _check_recipe(recipe: Recipe) -> None:
    """A recipe that was taken is read back from what the run's `config.yaml` holds."""
    again = make_recipe(read_yaml(recipe.to_yaml(), "config.yaml"), "config.yaml")
    assert repr(_listed(asdict(again))) == repr(_listed(asdict(recipe)))


def _listed(value: Any) -> Any:
    """Values that YAML writes alike are alike: tuples and lists, dates with and without a zone of zero."""
    if isinstance(value, dict):
        return {key: _listed(one) for key, one in value.items()}
    if isinstance(value, datetime.datetime):
        return value.isoformat()[:19]
    return [_listed(one) for one in value] if isinstance(value, (list, tuple)) else value


def mutate(rng: random.Random, data: bytes) -> bytes:
    return data[:1] + mutate_bytes(rng, data[1:], _WORDS)


def close() -> None:
    shutil.rmtree(_file().parent)
    _file.cache_clear()


# 300 bytes with aliases may be 20,000 values, which the check writes out and reads again.
TARGET = Target("yaml", generate, run, mutate, close, seconds=3.0)
