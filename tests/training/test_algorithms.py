"""Variants of GRPO by name: TRL's own loss with the arguments of the table, however a step is divided."""

from __future__ import annotations

import copy
import json
import pickle
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import HfArgumentParser
from trl import GRPOConfig, GRPOTrainer, TrlParser

from balanced_thinking.training.algorithms import ALGORITHMS, describe_algorithm
from balanced_thinking.training.grpo import ScaleGRPOTrainer
from balanced_thinking.training.grpo_config import ScaleGRPOConfig
from balanced_thinking.training.sft_config import ScaleSFTConfig
from tests.cli.tiny_commands import TINY, exit_code

SIZES = {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 6, "bf16": False}
# The table of docs/training.md, written out again.
BY_HAND: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo", "beta": 0.04, "epsilon": 0.2, "use_bias_correction_kl": False},
    "dapo": {"loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28, "mask_truncated_completions": True},
    "dr-grpo": {"loss_type": "dr_grpo", "scale_rewards": "none", "epsilon": 0.2},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
}


def config(out: Path, **options: Any) -> ScaleGRPOConfig:
    return ScaleGRPOConfig(str(out), **SIZES | options)


def test_each_sets_what_its_table_says_and_nothing_else(tmp_path: Path) -> None:
    assert list(BY_HAND) == list(ALGORITHMS)
    for name, arguments in BY_HAND.items():
        expected = config(tmp_path, **arguments).to_dict() | {"algorithm": name}
        assert config(tmp_path, algorithm=name).to_dict() == expected
    assert config(tmp_path).loss_type == GRPOConfig.loss_type


def test_an_argument_of_the_user_wins_even_where_it_is_the_default_of_trl(tmp_path: Path) -> None:
    args = config(tmp_path, algorithm="grpo", beta=0.0, loss_type="dapo")
    assert (args.beta, args.loss_type) == (0.0, "dapo")
    said = describe_algorithm(args)
    assert said is not None
    assert "beta is yours, 0.0 (grpo has 0.04)" in said
    assert "loss_type is yours, dapo (grpo has grpo)" in said
    assert "epsilon 0.2" in said
    assert describe_algorithm(config(tmp_path)) is None
    dapo = describe_algorithm(config(tmp_path, algorithm="dapo", num_iterations=2))
    assert "no dynamic sampling" in str(dapo)
    assert "no ratio is clipped" not in str(dapo)
    assert "no ratio is clipped" in said


@pytest.mark.parametrize("parser", [HfArgumentParser, TrlParser])
def test_a_parser_of_commands_leaves_open_what_is_not_given(parser: Any, tmp_path: Path) -> None:
    """It passes every argument, given or not."""
    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    given = ["--output_dir", str(tmp_path), *sizes, "--algorithm", "dr-grpo", "--epsilon", "0.2"]
    [args] = parser(ScaleGRPOConfig).parse_args_into_dataclasses(given)
    assert args.to_dict() == config(tmp_path, algorithm="dr-grpo", epsilon=0.2).to_dict()
    [args] = parser(ScaleSFTConfig).parse_args_into_dataclasses(["--output_dir", str(tmp_path), "--packing", "true"])
    assert (args.reasoning_format, args.packing) == ("think-answer", True)


_TAGS = {"think_open": "<r>", "think_close": "</r>"}


@pytest.mark.parametrize("parser", [HfArgumentParser, TrlParser])
def test_a_parser_of_commands_reads_mappings_as_json(parser: Any, tmp_path: Path) -> None:
    given = ["--output_dir", str(tmp_path), "--reasoning_format", json.dumps(_TAGS)]
    given += ["--chat_template_kwargs", '{"enable_thinking": false}']
    for kind in (ScaleSFTConfig, ScaleGRPOConfig):
        [args] = parser(kind).parse_args_into_dataclasses(given)
        assert (args.reasoning_format, args.chat_template_kwargs) == (_TAGS, {"enable_thinking": False})


def test_copies_keep_their_values(tmp_path: Path) -> None:
    args = config(tmp_path, algorithm="gspo", beta=0.1)
    for other in (copy.copy(args), copy.deepcopy(args), pickle.loads(pickle.dumps(args))):
        assert (other.beta, other.epsilon, other.importance_sampling_level) == (0.1, 3e-4, "sequence")


def loss_of(kind: type, args: Any, batch: dict[str, torch.Tensor], parts: int = 1) -> float:
    """TRL's loss of a batch by a trainer's arguments, summed over `parts` micro-batches; no model is run."""
    trainer = object.__new__(kind)
    logps, metrics = batch["logps"], {"train": defaultdict(list)}
    accelerator = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, **_: x)
    about = {name: getattr(args, name) for name in ("loss_type", "beta", "importance_sampling_level")}
    about |= {"epsilon_low": args.epsilon, "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None}
    about |= {"epsilon_high": args.epsilon if args.epsilon_high is None else args.epsilon_high, "use_vllm": False}
    about |= {"max_completion_length": args.max_completion_length, "aux_loss_enabled": False, "_metrics": metrics}
    about |= {"_entropy_bonus_enabled": False, "current_gradient_accumulation_steps": parts, "accelerator": accelerator}
    about |= {"model": SimpleNamespace(training=True), "args": copy.copy(args)}
    vars(trainer).update(about)
    trainer.args.steps_per_generation = parts
    total = 0.0
    for rows in torch.arange(len(logps)).chunk(parts):
        inputs = {name: value[rows] if value.dim() else value for name, value in batch.items()}
        found = inputs.pop("logps")
        trainer._get_per_token_logps_and_entropies = lambda *_, found=found, **__: (
            found,
            torch.zeros_like(found),
            None,
        )
        total += GRPOTrainer._compute_loss(trainer, None, inputs).item()
    return total


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    """Eight completions of different lengths by a policy that has moved, one of them masked as cut off."""
    torch.manual_seed(0)
    lengths = torch.tensor([6, 5, 4, 6, 3, 2, 0, 6])
    mask = (torch.arange(6) < lengths[:, None]).long()
    old, ids = -torch.rand(8, 6), torch.ones(8, 3).long()
    return {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": torch.ones(8, 6).long(),
        "completion_mask": mask,
        "advantages": torch.randn(8),
        "old_per_token_logps": old,
        "ref_per_token_logps": old + 0.1 * torch.randn(8, 6),
        "num_items_in_batch": mask.sum(),
        "logps": old + 0.3 * torch.randn(8, 6),
    }


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_loss_is_that_of_trl_and_of_the_formula_however_it_is_divided(
    name: str, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    args = config(tmp_path, algorithm=name)
    ours = loss_of(ScaleGRPOTrainer, args, batch)
    theirs = loss_of(GRPOTrainer, GRPOConfig(str(tmp_path), **SIZES | BY_HAND[name]), batch)
    assert ours == theirs
    assert ours == pytest.approx(formula(name, batch), abs=1e-6)
    assert loss_of(ScaleGRPOTrainer, args, batch, parts=4) == pytest.approx(ours, abs=1e-6)


def formula(name: str, batch: dict[str, torch.Tensor]) -> float:
    """The losses as the papers write them."""
    mask, advantage = batch["completion_mask"].double(), batch["advantages"].double()[:, None]
    new, old, reference = (batch[key].double() for key in ("logps", "old_per_token_logps", "ref_per_token_logps"))
    length = mask.sum(1, keepdim=True).clamp(min=1)
    ratio = (new - old).exp()
    low, high = {"dapo": (0.2, 0.28), "gspo": (3e-4, 4e-4)}.get(name, (0.2, 0.2))
    if name == "gspo":  # the geometric mean over the sequence
        ratio = (((new - old) * mask).sum(1, keepdim=True) / length).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    if name == "grpo":
        gain = gain - 0.04 * ((reference - new).exp() - (reference - new) - 1)
    gain = gain * mask
    if name == "dapo":
        return -(gain.sum() / mask.sum()).item()
    if name == "dr-grpo":
        return -(gain.sum() / (len(mask) * SIZES["max_completion_length"])).item()
    return -(gain.sum(1, keepdim=True) / length).mean().item()


def test_the_command_says_what_is_set_and_refuses_an_unknown_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code(["grpo", *TINY, "--algorithm", "dr_grpo"]) == 2
    assert "algorithm is 'dr_grpo' (did you mean 'dr-grpo'?); known: grpo, dapo" in capsys.readouterr().err
