"""Numbers that no training can have: each is refused before anything starts, with its range, in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.training.bounds import check_argument_bounds, check_lora_bounds, check_recipe_bounds
from tests.faults.attacks.attack import assert_refused, run_balanced

TRAIN = ["--model", "world-base", "--data", "world", "--out", "o"]
EVALUATE = ["eval", "--model", "world-base", "--data", "world", "--split", "test", "--out", "o"]
STUDY = ["study", "s.yaml", "--out", "o"]
HUGE, ENDLESS = str(16**80), "1" + "0" * 4000
# (command, option, value, what is said)
NUMBERS = [
    ("sft", "max_steps", HUGE, "about 97 digits; expected at most 1000000000"),
    ("sft", "max_steps", str(16**95), "a number has 115 digits; expected at most 100"),
    ("sft", "max_steps", hex(16**95), "about 115 digits; expected at most 1000000000"),
    ("sft", "max_steps", ENDLESS, "max_steps"),
    ("sft", "max_steps", "1e300", "max_steps"),
    ("sft", "max_steps", "-5", "expected at least 1"),
    ("sft", "limit", HUGE, "limit is an integer of about 97 digits; expected at most 1000000000000"),
    ("sft", "limit", ENDLESS, "limit"),
    ("sft", "seed", str(2**32), "seed is 4294967296; expected at least 0 and at most 4294967295"),
    ("sft", "data_seed", "-1", "data_seed is -1; expected at least 0"),
    ("sft", "max_length", str(10**18), "max_length is 1000000000000000000; expected at least 1 and at most 10000000"),
    ("sft", "max_length", "0", "expected at least 1"),
    ("sft", "pack_tokens", str(10**18), "pack_tokens"),
    ("sft", "per_device_train_batch_size", str(10**12), "expected at least 1 and at most 1048576"),
    ("sft", "per_device_eval_batch_size", "-1", "expected at least 1"),
    ("sft", "gradient_accumulation_steps", str(10**12), "expected at least 1 and at most 1048576"),
    ("sft", "num_train_epochs", "1e300", "num_train_epochs is 1e+300; expected more than 0 and at most 1000000"),
    ("sft", "num_train_epochs", ".nan", "num_train_epochs is nan; expected more than 0"),
    ("sft", "learning_rate", ".inf", "learning_rate is inf; expected at least 0 and at most 1000"),
    ("sft", "learning_rate", "inf", "learning_rate is inf"),
    ("sft", "learning_rate", "1e999", "learning_rate is inf"),
    ("sft", "learning_rate", "nan", "learning_rate is nan"),
    ("sft", "weight_decay", ".inf", "weight_decay is inf"),
    ("sft", "max_grad_norm", ".nan", "max_grad_norm is nan"),
    ("sft", "adam_epsilon", ".inf", "adam_epsilon is inf; expected at least 0"),
    ("sft", "warmup_steps", HUGE, "warmup_steps"),
    ("sft", "save_steps", "-5", "save_steps is -5; expected more than 0"),
    ("sft", "save_steps", ".inf", "save_steps is inf"),
    ("sft", "logging_steps", "0", "logging_steps is 0; expected more than 0"),
    ("sft", "save_total_limit", HUGE, "save_total_limit"),
    ("sft", "dataloader_num_workers", str(10**6), "expected at least 0 and at most 1024"),
    ("sft", "max_hours", ".nan", "max_hours is nan; expected more than 0"),
    ("sft", "max_hours", ".inf", "max_hours is inf; expected more than 0"),
    ("sft", "max_hours", "-1", "max_hours is -1; expected more than 0"),
    ("sft", "image_cache_gib", "1e300", "image_cache_gib"),
    ("sft", "preflight", "sample:" + ENDLESS, "preflight is"),
    ("sft", "lora.r", str(10**12), "lora.r is 1000000000000; expected at least 1 and at most 100000"),
    ("sft", "lora.lora_alpha", ".nan", "lora.lora_alpha is nan"),
    ("sft", "model_size.hidden", str(10**12), "model_size.hidden is 1000000000000; expected at least 1"),
    ("sft", "model_size.layers", "-1", "model_size.layers is -1; expected at least 1"),
    ("grpo", "num_generations", str(10**12), "num_generations"),
    ("grpo", "max_completion_length", str(10**15), "expected at least 1 and at most 10000000"),
    ("grpo", "temperature", ".inf", "temperature is inf"),
    ("grpo", "beta", ".nan", "beta is nan"),
    ("eval", "max-new-tokens", str(10**15), "expected an integer of at least 1 and at most 10000000"),
    ("eval", "max-new-tokens", ENDLESS, "expected an integer of at least 1"),
    ("eval", "batch-size", str(10**12), "expected an integer of at least 1 and at most 1048576"),
    ("eval", "batch-size", "-1", "expected"),
    ("eval", "limit", ENDLESS, "limit"),
    ("eval", "limit", str(10**18), "limit"),
    ("inspect", "limit", ENDLESS, "expected an integer of at least 1"),
    ("study", "jobs", str(10**9), "expected an integer of at least 1 and at most 4096"),
    ("study", "jobs", "0", "expected an integer of at least 1"),
    ("study", "max-hours", "nan", "expected a number above 0"),
    ("study", "max-hours", "inf", "expected a number above 0"),
    ("study", "max-hours", "-1", "expected"),
    ("demo", "seeds", str(2**32), "expected an integer of at least 0 and at most 4294967295"),
    ("demo", "ratio", "nan", "expected a finite number"),
    ("demo", "steps", ENDLESS, "expected an integer of at least 1"),
]


@pytest.mark.parametrize(("command", "option", "value", "said"), NUMBERS)
def test_a_number_out_of_range_is_refused(command: str, option: str, value: str, said: str, tmp_path: Path) -> None:
    given = {"sft": ["sft", *TRAIN], "grpo": ["grpo", *TRAIN], "eval": EVALUATE, "study": STUDY}
    argv = given.get(command, [command, *(["world"] if command == "inspect" else [])])
    result = run_balanced([*argv, f"--{option}={value}"], tmp_path)
    assert_refused(result, said, code=2)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["seeds", "batch_size", "limit", "max_new_tokens"])
def test_a_number_of_a_study_is_refused(name: str, tmp_path: Path) -> None:
    inner = "" if name == "seeds" else f"{name}: {16**60}"
    text = f"arms: {{sft: {{}}}}\nevaluate: {{world: {{{inner}}}}}\n" + (f"seeds: [{16**60}]\n" if not inner else "")
    (tmp_path / "s.yaml").write_text(text)
    assert_refused(run_balanced(STUDY, tmp_path), name, "at most", code=2)


def test_numbers_of_real_trainings_are_accepted() -> None:
    check_argument_bounds(
        {
            "max_steps": -1,
            "learning_rate": 1.0,
            "num_train_epochs": 0.01,
            "max_grad_norm": float("inf"),
            "per_device_train_batch_size": 4096,
            "max_length": 2**20,
            "seed": 2**32 - 1,
            "save_steps": 0.1,
            "warmup_steps": 10**6,
            "max_hours": 24 * 365.0,
            "temperature": 1.5,
            "save_total_limit": None,
        }
    )
    check_lora_bounds({"r": 512, "lora_alpha": 1024, "lora_dropout": 0.0})
    check_recipe_bounds(10**9, {"hidden": 8192, "layers": 126})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**13, -(10**13)])
def test_an_argument_without_a_range_is_finite(value: float) -> None:
    with pytest.raises(RecipeError, match="unknown_to_us is "):
        check_argument_bounds({"unknown_to_us": value})
