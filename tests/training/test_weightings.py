"""Weightings in training: the loss by its definition, however the batch is cut or packed; and gradients of one norm."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.loss.schedules import Schedule
from balanced_thinking.loss.weightings import Progress
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.runs.manifest import read_about, seal_folder
from balanced_thinking.segments import ANSWER, THINK, get_format
from balanced_thinking.training.changes import check_weighting
from balanced_thinking.training.gradient_norm import MatchedGradientNorm, scale_to_norm_
from balanced_thinking.training.header import describe_weighting
from balanced_thinking.training.metrics import SegmentTotals
from balanced_thinking.training.options import ScaleSFTOptions
from balanced_thinking.training.recipe import make_recipe
from balanced_thinking.training.run_recipe import load_run_recipe
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.sft_config import ScaleSFTConfig
from balanced_thinking.training.weighing import TokenWeigher
from tests.conftest import some_now
from tests.tiny_training import GradNorms, config, logged, losses, trainer

FACTOR = 4.0
TAGS = ("</think>", "<answer>", "</answer>", "<|im_end|>")
MOVING = {"think_weight_start": 0.6, "think_weight_end": 0.5, "answer_weight_start": 1.5, "answer_weight_end": 1.0}
# (options, means, weights of thinking and answer)
CASES: dict[str, tuple[dict[str, Any], str, tuple[float, float]]] = {
    "example means and a gate": (
        {"weighting": "example-mean", "token_gate": "dft", "token_gate_on": "think"},
        "example-mean",
        (1.0, 1.0),
    ),
    "closing tags of plain SFT": ({"weighting": "uniform", "closing_tag_factor": FACTOR}, "token", (1.0, 1.0)),
    "everything": (MOVING | {"closing_tag_factor": FACTOR, "token_gate": "eaft"}, "example", (0.6, 1.5)),
}


@pytest.fixture(scope="module")
def rows(world_rows: Dataset) -> Dataset:
    return world_rows.remove_columns("images")


class Supervised(NamedTuple):
    """The supervised tokens of one sample, in float64."""

    nll: Tensor
    segments: Tensor
    closes: Tensor  # whether a token is one of the closing tags
    logits: Tensor

    def gated_nll(self, options: dict[str, Any]) -> Tensor:
        if options.get("token_gate") == "dft":
            gates = torch.exp(-self.nll)
        elif options.get("token_gate") == "eaft":
            top = self.logits.topk(20).values.softmax(-1)
            gates = -(top * top.log()).sum(-1) / 3
        else:
            return self.nll
        on_think_alone = options.get("token_gate_on") == "think"
        return self.nll * torch.where((self.segments == THINK) | (not on_think_alone), gates, 1.0)


@pytest.fixture(scope="module")
def samples(rows: Dataset) -> list[Supervised]:
    """Without packing or padding, and without any of the package's weights."""
    model, processor = build_tiny("qwen2")
    collator, tags = ScaleCollator(processor), torch.tensor(processor.convert_tokens_to_ids(list(TAGS)))
    found = []
    for row in rows:
        batch = collator([row])
        with torch.no_grad():
            logits = model.double()(input_ids=batch["input_ids"]).logits[0, :-1]
        ids, segments = batch["input_ids"][0, 1:], batch["segment_ids"][0, 1:]
        nll = torch.nn.functional.cross_entropy(logits, ids, reduction="none")
        kept = segments > 0
        found.append(Supervised(nll[kept], segments[kept], torch.isin(ids, tags)[kept], logits[kept]))
    return found


def weighted_mean(samples: list[Supervised], segments: tuple[int, ...], options: dict[str, Any]) -> float:
    """The mean nll of these segments' tokens, each with its factor and its gate."""
    factor, total, count = options.get("closing_tag_factor", 1.0), 0.0, 0.0
    for one in samples:
        factors = torch.where(one.closes, factor, 1.0).double() * torch.isin(one.segments, torch.tensor(segments))
        total, count = total + float((factors * one.gated_nll(options)).sum()), count + float(factors.sum())
    return total / count


def expected_loss(
    samples: list[Supervised], means: str, weights: tuple[float, float], options: dict[str, Any]
) -> float:
    if means == "token":
        return weighted_mean(samples, (THINK, ANSWER), options)
    if means == "example-mean":
        return sum(weighted_mean([one], (THINK, ANSWER), options) for one in samples) / len(samples)
    means_of = [sum(weighted_mean([one], (s,), options) for one in samples) / len(samples) for s in (THINK, ANSWER)]
    return weights[0] * means_of[0] + weights[1] * means_of[1]


def take_step(rows: Dataset, out: Path, batch: int, **options: Any) -> tuple[dict[str, float], float]:
    """What is logged of one step of eight samples, and the norm of its gradient."""
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 8 // batch}
    run = trainer("qwen2", rows, config(out, **sizes, **options))
    norms = GradNorms()
    run.add_callback(norms)
    run.train()
    return run.state.log_history[0], norms.norms[0]


@pytest.mark.parametrize("name", some_now(lambda name: "plain" not in name, CASES))
def test_the_loss_is_that_of_the_definition_however_the_batch_is_cut_and_packed(
    name: str, rows: Dataset, samples: list[Supervised], tmp_path: Path
) -> None:
    options, means, weights = CASES[name]
    expected = expected_loss(samples, means, weights, options)
    plain_nll = torch.cat([one.nll[one.segments == THINK] for one in samples]).mean()
    (padded, norm), (packed, same) = (
        take_step(rows, tmp_path, batch, packing=packing, **options) for batch, packing in ((8, False), (2, True))
    )
    assert padded["loss"] == pytest.approx(expected, rel=1e-6)
    assert (packed["loss"], same) == pytest.approx((padded["loss"], norm), rel=1e-6)
    assert padded["think_nll"] == pytest.approx(float(plain_nll), rel=1e-6)  # the log's has neither weight nor gate
    for shares in (padded, packed):
        if means == "example":
            assert (shares["w_think"], shares["w_answer"]) == pytest.approx(weights)
        else:
            part = think_share(samples, means, options.get("closing_tag_factor", 1.0))
            assert (shares["w_think"], shares["w_answer"]) == pytest.approx((part, 1 - part))


def think_share(samples: list[Supervised], means: str, factor: float) -> float:
    """The share of the weights that the think tokens have in plain SFT."""
    pairs = []
    for one in samples:
        factors = torch.where(one.closes, factor, 1.0).double()
        pairs.append((float(factors[one.segments == THINK].sum()), float(factors.sum())))
    if means == "token":
        return sum(think for think, _ in pairs) / sum(total for _, total in pairs)
    return sum(think / total for think, total in pairs) / len(pairs)


def test_evaluation_has_fixed_weights_alone(rows: Dataset, samples: list[Supervised], tmp_path: Path) -> None:
    for options, means in ((CASES["everything"][0], "example"), (CASES["example means and a gate"][0], "example-mean")):
        run = trainer("qwen2", rows, config(tmp_path, per_device_eval_batch_size=3, **options), eval_dataset=rows)
        expected = expected_loss(samples, means, (0.5, 0.5), {})
        assert run.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)


def test_sftkey_is_plain_sft_and_then_the_answer_alone(rows: Dataset, tmp_path: Path) -> None:
    few, size = rows.select(range(2)), {"per_device_train_batch_size": 2}
    key = trainer("qwen2", few, config(tmp_path, max_steps=2, weighting="sftkey", **size))
    plain = trainer("qwen2", few, config(tmp_path, weighting="uniform", **size))
    for run in (key, plain):
        run.train()
    assert losses(key)[:1] == losses(plain)
    assert logged(key, "w_think")[:1] == logged(plain, "w_think")
    answer_args = config(tmp_path, schedule="answer-only", **size)
    answer = ScaleSFTTrainer(plain.model, answer_args, train_dataset=few, processing_class=plain.processing_class)
    answer.train()
    assert losses(key)[1:] == losses(answer)
    assert (logged(key, "w_think")[1:], logged(key, "w_answer")[1:]) == ([0.0], [1.0])


def test_every_step_has_the_norm_that_is_asked_for_in_its_own_direction(rows: Dataset, tmp_path: Path) -> None:
    found = []
    for options in ({"match_gradient_norm": 30.0}, {"match_gradient_norm": 0.01, "max_grad_norm": 0.0}):
        args = config(tmp_path, max_steps=2, per_device_train_batch_size=1, gradient_accumulation_steps=2, **options)
        run, seen = trainer("qwen2", rows.select(range(2)), args), GradNorms()
        run.add_callback(seen)
        run.train()
        found.append((run, seen.norms))
    (up, raised), (down, lowered) = found
    assert raised == pytest.approx([30.0, 30.0], rel=1e-5)
    assert lowered == pytest.approx([0.01, 0.01], rel=1e-5)
    assert 0.01 < logged(up, "grad_norm")[0] < 30.0  # the log has the norm from before
    assert logged(up, "grad_norm")[0] == logged(down, "grad_norm")[0]
    # Adam does not see a factor that is the same in all steps, so the direction is the same.
    assert losses(up) == pytest.approx(losses(down), rel=1e-4)


def test_a_gradient_of_zero_stays_zero_and_the_rest_is_scaled() -> None:
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    scale_to_norm_(gradients, torch.tensor(5.0), 10.0)
    assert [one.flatten().tolist() for one in gradients] == [[6.0, 0.0], [8.0]]
    zeros = [torch.zeros(2)]
    scale_to_norm_(zeros, torch.tensor(0.0), 10.0)
    assert zeros[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"closing_tag_factor": 0.0}, "closing_tag_factor is 0.0; expected a finite number above 0"),
        ({"match_gradient_norm": -1.0}, "match_gradient_norm is -1.0; expected a finite number above 0"),
        ({"match_gradient_norm": 2.0, "max_grad_norm": 1.0}, "max_grad_norm 1.0 would clip that norm; set max_grad"),
        ({"answer_weight_end": 1.0}, "answer_weight_end is set, but answer_weight_start is not"),
        ({"weighting": "example-means"}, "did you mean 'example-mean'"),
        ({"token_gate": "efat"}, "did you mean 'eaft'"),
        ({"token_gate": "dft", "token_gate_on": "answer"}, "token_gate_on is 'answer'"),
        ({"token_gate_on": "think"}, "token_gate_on is 'think', but token_gate is 'none'; choose a gate"),
    ],
)
def test_options_that_contradict_are_refused_by_name(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleSFTConfig(str(tmp_path), **options)


@pytest.mark.parametrize(
    ("options", "weighting"),
    [
        ({}, "scale"),
        ({"packing": True, "closing_tag_factor": 5.0, "token_gate": "dft"}, "scale"),
        ({"think_weight_end": 0.0}, "scale"),
        ({"normalize": "batch"}, "scale"),
        ({"reasoning_format": "direct"}, "uniform"),  # without thinking there is nothing to balance
        ({"reasoning_format": get_format("direct")}, "uniform"),
        ({"reasoning_format": "direct", "schedule": "linear"}, "scale"),
        ({"reasoning_format": "deepseek-r1"}, "scale"),
        ({"schedule": "cosine", "weighting": "uniform"}, "uniform"),
        ({"weighting": "sftkey"}, "sftkey"),
        ({"weighting": "scale"}, "scale"),
    ],
)
def test_scale_is_the_default_unless_there_is_no_thinking(
    options: dict[str, Any], weighting: str, tmp_path: Path
) -> None:
    """The same in Python, in a recipe, and for whoever weighs tokens without a trainer."""
    args = ScaleSFTConfig(str(tmp_path), **options)
    assert args.chosen_weighting == ScaleSFTOptions(**options).chosen_weighting == weighting
    assert make_recipe({"training": options}, "the recipe").training["weighting"] == weighting
    means = {"scale": args.normalize, "uniform": "token", "sftkey": "token"}
    assert TokenWeigher(args).step_weights(Progress(0.0)).means == means[weighting]
    # A copy follows what it is given, as the config would.
    assert replace(args, think_weight_end=0.2).chosen_weighting == (options.get("weighting") or "scale")


@pytest.mark.parametrize(
    ("options", "schedule"),
    [
        ({}, Schedule("cosine", 1.0, 1.0, answer_start=0.1, answer_end=1.0)),
        ({"weighting": "scale", "schedule": "linear"}, Schedule("linear", 1.0, 1.0, answer_start=0.1, answer_end=1.0)),
        ({"schedule_hold_end": 0.2}, Schedule("cosine", 1.0, 1.0, 0.0, 0.2, answer_start=0.1, answer_end=1.0)),
        # a think weight alone: the answer's is 1 minus it
        ({"think_weight_start": 0.8}, Schedule("cosine", 0.8, 0.5)),
        ({"think_weight_end": 0.1}, Schedule("cosine", 0.9, 0.1)),
        ({"think_weight_end": 0.0, "schedule": "step"}, Schedule("step", 0.9, 0.0)),
        # the answer's own weights
        (
            {"answer_weight_start": 0.2, "answer_weight_end": 2.0},
            Schedule("cosine", 1.0, 1.0, answer_start=0.2, answer_end=2.0),
        ),
        (
            {"answer_weight_start": 0.2, "answer_weight_end": 2.0, "think_weight_end": 0.0},
            Schedule("cosine", 1.0, 0.0, answer_start=0.2, answer_end=2.0),
        ),
        ({"schedule": "answer-only"}, Schedule("answer-only")),
    ],
)
def test_end_points_that_are_not_given_follow_from_those_that_are(
    options: dict[str, Any], schedule: Schedule, tmp_path: Path
) -> None:
    """The same in Python, and in the recipe that a run records and reads again."""
    assert ScaleSFTConfig(str(tmp_path), **options).weight_schedule() == schedule
    recipe = make_recipe({"training": options}, "the recipe")
    assert ScaleSFTOptions(**recipe.training).weight_schedule() == schedule
    (tmp_path / "config.yaml").write_text(recipe.to_yaml())
    assert load_run_recipe(tmp_path / "config.yaml") == recipe


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "SCALe, cosine: reasoning / answer 1 / 0.1 to 1 / 1"),
        ({"reasoning_format": "direct"}, "plain SFT, every token counts alike (uniform)"),
        (
            {"weighting": "uniform", "schedule": "linear", "think_weight_end": 0.1},
            "plain SFT, every token counts alike (uniform); without effect: schedule, think_weight_end (for "
            "--weighting scale)",
        ),
        ({"think_weight_end": 0.5}, "SCALe, cosine: reasoning / answer 0.9 / 0.1 to 0.5 / 0.5"),
        (
            {"schedule": "adaptive", "think_weight_end": 0.1},
            "SCALe, adaptive: reasoning / answer 0.9 / 0.1 to 0.1 / 0.9",
        ),
        (
            {"schedule": "constant", "think_weight_start": 0.4},
            "SCALe, constant: reasoning / answer 0.4 / 0.6 to 0.4 / 0.6",
        ),
        (MOVING, "SCALe, cosine: reasoning / answer 0.6 / 1.5 to 0.5 / 1"),
        ({"weighting": "sftkey", "schedule_hold_start": 0.2}, "plain SFT, then the answer alone (sftkey)"),
    ],
)
def test_the_start_of_a_run_says_what_weighs_its_tokens(options: dict[str, Any], line: str, tmp_path: Path) -> None:
    assert describe_weighting(ScaleSFTConfig(str(tmp_path), **options)) == line


def test_a_batch_without_marks_of_closing_tags_is_refused(rows: Dataset) -> None:
    weigher = TokenWeigher(ScaleSFTOptions(closing_tag_factor=2.0))
    batch = ScaleCollator(build_tiny("qwen2")[1])([rows[0]])
    with pytest.raises(ValueError, match=r"closing_tag_factor is 2\.0, but the batch has no 'closing_tags'"):
        weigher.count_batch(batch)


@pytest.mark.parametrize("entropies", [[], [5.0, 6.0]])
def test_sums_of_an_older_checkpoint_are_counted_on(entropies: list[float]) -> None:
    """They have neither the masses of the segments nor the means of complete examples."""
    older = torch.tensor([*range(1, 13), *entropies], dtype=torch.float32)
    totals = SegmentTotals()
    totals.load_state_dicts([{"sums": older, "weights": (0.7, 0.3), "seconds": 1.0}], parts=1)
    metrics = totals.compute_metrics(lambda sums: sums)
    assert (metrics["think_nll"], metrics["answer_nll"]) == (1 / 3, 6 / 8)
    assert (metrics["tokens"], metrics["dropped"], metrics["w_think"]) == (11, 12, 0.7)
    assert ("entropy" in metrics) == bool(entropies)
    assert not entropies or metrics["answer_entropy"] == 6 / 8


def test_deepspeed_cannot_match_a_norm() -> None:
    class WithDeepSpeed:
        is_deepspeed_enabled = True

        def __init__(self) -> None:
            self.args = SimpleNamespace(match_gradient_norm=1.0)

    class Run(MatchedGradientNorm, WithDeepSpeed):
        pass

    with pytest.raises(RecipeError, match=r"match_gradient_norm is 1\.0, but DeepSpeed keeps its gradients to itself"):
        Run()


RESUMED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"weighting": "uniform"}, "weighting was scale and is uniform"),
    ({"weighting": "uniform"}, {"think_weight_end": 0.1}, "weighting was uniform and is scale"),
    (
        {"think_weight_end": 0.5},
        {"think_weight_end": 0.1},
        "think_weight_end was 0.5 and is 0.1, answer_weight_end was 0.5 and is 0.9",
    ),
    ({}, {"closing_tag_factor": 2.0}, "closing_tag_factor was 1.0 and is 2.0"),
    ({}, {"token_gate": "dft"}, "token_gate was none and is dft"),
    ({"token_gate": "dft"}, {"token_gate": "dft", "token_gate_on": "think"}, "token_gate_on was all and is think"),
    ({}, {"normalize": "batch"}, "normalize was example and is batch"),
    ({}, {"schedule_hold_end": 0.2}, "schedule_hold_end was 0.0 and is 0.2"),
    (
        {"weighting": "sftkey"},
        {"weighting": "sftkey", "schedule_hold_start": 0.1},
        "schedule_hold_start was 0.0 and is 0.1",
    ),
    ({"schedule": "adaptive"}, {"schedule": "adaptive", "adaptive_latest": 0.4}, "adaptive_latest was 0.5 and is 0.4"),
    # the same, in other words or number types
    ({"think_weight_end": 1.0, "answer_weight_start": 0.1, "answer_weight_end": 1.0}, {"schedule": "cosine"}, ""),
    (
        {"think_weight_end": 0.5},
        {"think_weight_start": 0.9, "think_weight_end": 0.5, "answer_weight_start": 0.1, "answer_weight_end": 0.5},
        "",
    ),
    ({"think_weight_end": np.float32(0.5)}, {"think_weight_end": 0.5, "closing_tag_factor": np.int64(1)}, ""),
    # what changes plays no part
    ({"weighting": "uniform"}, {"weighting": "uniform", "think_weight_end": 0.1}, ""),
    ({"weighting": "sftkey"}, {"weighting": "sftkey", "schedule": "linear", "think_weight_start": 0.8}, ""),
    (
        {"schedule": "constant", "think_weight_end": 0.5},
        {"schedule": "constant", "think_weight_end": 0.1},
        "",
    ),
    ({}, {"adaptive_latest": 0.4}, ""),
]


@pytest.mark.parametrize(("before", "now", "said"), RESUMED)
def test_a_script_that_resumes_with_another_weighting_is_told_so(
    before: dict[str, Any], now: dict[str, Any], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = older_checkpoint(tmp_path, {"weighting": TokenWeigher(config(tmp_path, **before)).describe()})
    check_weighting(checkpoint, resuming(tmp_path, **now))
    assert caplog.messages == ([f"{checkpoint}: {said}; the next steps follow the new setting"] if said else [])
    check_weighting(checkpoint, resuming(tmp_path, first_rank=False, **now))
    assert len(caplog.messages) == bool(said)


def resuming(folder: Path, first_rank: bool = True, **options: Any) -> Any:
    """What the check reads of a trainer."""
    weigher = TokenWeigher(config(folder, **options))
    return SimpleNamespace(weigher=weigher, is_world_process_zero=lambda: first_rank)


def older_checkpoint(folder: Path, about: dict[str, Any], **row: float) -> Path:
    place = folder / "checkpoint-2"
    place.mkdir()
    (place / "trainer_state.json").write_text(json.dumps({"log_history": [{"loss": 1.0, **row}]}))
    seal_folder(place, about={"kind": "checkpoint", "step": 2, **about})
    return place


@pytest.mark.parametrize("sealed", [True, False])
def test_a_checkpoint_of_the_earlier_default_is_continued_only_where_the_weighting_is_known(
    sealed: bool, tmp_path: Path
) -> None:
    older = older_checkpoint(tmp_path, {}, **({} if sealed else {"w_think": 0.8}))
    if not sealed:
        (older / "manifest.json").unlink()
    answers = {"answer_weight_start": 0.1, "answer_weight_end": 1.0}  # the think weights went from 0.9 to 0.5 then
    for unknown in ({"weighting": "scale"}, {}, {"schedule": "linear"}, answers):
        with pytest.raises(ValueError, match=r"does not say what weighed its tokens .* which had\s+other defaults"):
            check_weighting(older, resuming(tmp_path, **{"weighting": None} | unknown))
    thinking = {"think_weight_start": 0.9, "think_weight_end": 0.5}
    known: list[dict[str, Any]] = [{"think_weight_end": 0.5}, {"weighting": "uniform"}, {"weighting": "sftkey"}]
    known += [{"schedule": "answer-only"}, answers | thinking]
    for options in known:
        check_weighting(older, resuming(tmp_path, **{"weighting": None} | options))


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (
            {"weighting": "uniform"},
            {},
            r"weighting was uniform and is scale.*those of the checkpoint, weighting='u",
        ),
        ({"think_weight_end": 0.5}, {}, r"think_weight_end was 0.5 and is 1.0.*='cosine', think_weight_start=0.9"),
        # a script that once meant 0.9 to 0.5
        ({"think_weight_end": 0.5}, {"schedule": "cosine"}, r"think_weight_end was 0.5 and is 1.0"),
        ({"think_weight_end": 0.5}, {"weighting": "scale"}, r"think_weight_end was 0.5 and is 1.0"),
        ({"schedule": "answer-only"}, {}, r"set those of the checkpoint, weighting='scale', schedule='answer-only'$"),
    ],
)
def test_a_script_that_leaves_the_weights_open_does_not_go_on_with_another_default(
    before: dict[str, Any], now: dict[str, Any], said: str, tmp_path: Path
) -> None:
    recorded = TokenWeigher(config(tmp_path, **{"weighting": None} | before)).describe()
    older = older_checkpoint(tmp_path, {"weighting": recorded})
    with pytest.raises(ValueError, match=said) as refused:
        check_weighting(older, resuming(tmp_path, **{"weighting": None} | now))
    check_weighting(older, resuming(tmp_path, **{"weighting": None} | before))  # as it was
    stated = re.findall(r"(\w+)=([^,]+)", str(refused.value).split("set those of the checkpoint, ")[1])
    check_weighting(older, resuming(tmp_path, **{name: ast.literal_eval(value) for name, value in stated}))
    check_weighting(older, resuming(tmp_path, weighting="sftkey"))  # another one, stated: a warning


@pytest.mark.parametrize("wrong", ["", False, 0, [], ["scale"], "Scale", "plain"])
def test_a_wrong_weighting_is_refused_and_never_the_default(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weighting is "):
        ScaleSFTConfig(str(tmp_path), weighting=wrong)
    assert make_recipe({"training": {"weighting": wrong}}, "the recipe").training == {"weighting": wrong}


def test_a_checkpoint_of_another_trainer_is_continued_with_the_default(tmp_path: Path) -> None:
    other = older_checkpoint(tmp_path, {})
    with pytest.raises(ValueError, match="does not say what weighed its tokens"):
        check_weighting(other, resuming(tmp_path, weighting=None))
    (other / "manifest.json").unlink()  # which no other trainer writes
    check_weighting(other, resuming(tmp_path, weighting=None))


def test_a_trainer_writes_its_weighting_into_checkpoints_and_compares_it(
    rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 2}
    trainer("qwen2", rows, config(tmp_path, **options)).train()
    checkpoint = tmp_path / "checkpoint-1"
    about = read_about(checkpoint)
    assert about.pop("weighting") == TokenWeigher(config(tmp_path)).describe()
    again = trainer("qwen2", rows, config(tmp_path, **options, weighting="uniform"))
    again.train(resume_from_checkpoint=str(checkpoint))
    assert any("weighting was scale and is uniform" in line for line in caplog.messages)
    (checkpoint / "manifest.json").unlink()
    seal_folder(checkpoint, about=about)  # as an earlier version did
    with pytest.raises(ValueError, match="does not say what weighed its tokens"):
        trainer("qwen2", rows, config(tmp_path, **options, weighting=None)).train(str(checkpoint))
