"""Schedules and weights against their definitions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from balanced_thinking.loss.schedules import CURVES, SCHEDULES, FlatteningRule, Schedule
from balanced_thinking.loss.variants import NORMALIZE, PLAIN_MEANS
from balanced_thinking.loss.weightings import WEIGHTINGS, Progress
from balanced_thinking.loss.weights import (
    closing_tag_factors,
    count_examples_and_tokens,
    count_weighted_tokens,
    token_weights,
)
from balanced_thinking.segments import ANSWER, IGNORE, THINK

# (schedule, progress, think weight from 0.9 to 0.1)
CASES = [
    ("cosine", 0.0, 0.9),
    ("cosine", 0.5, 0.5),
    ("cosine", 0.25, 0.1 + 0.8 * (1 + math.cos(math.pi / 4)) / 2),
    ("cosine", 1.0, 0.1),
    ("linear", 0.25, 0.7),
    ("step", 0.49, 0.9),
    ("step", 0.5, 0.1),
    ("constant", 1.0, 0.9),
    ("exponential", 0.0, 0.9),
    ("exponential", 0.2, 0.9 - 0.8 * (1 - math.exp(-1)) / (1 - math.exp(-5))),
    ("exponential", 1.0, 0.1),
    ("answer-only", 0.3, 0.0),
    ("think-only", 0.3, 1.0),
    ("linear", -1.0, 0.9),  # clamped
    ("linear", 2.0, 0.1),
]


@pytest.mark.parametrize(("name", "progress", "weight"), CASES)
def test_schedule_has_its_published_values(name: str, progress: float, weight: float) -> None:
    assert Schedule(name, end=0.1).think_weight(progress) == pytest.approx(weight)


@pytest.mark.parametrize("name", SCHEDULES)
def test_weights_sum_to_one_and_never_turn_back(name: str) -> None:
    weights = [Schedule(name).weights(i / 50, moved_at=0.3) for i in range(51)]
    assert all(think + answer == pytest.approx(1) for think, answer in weights)
    assert all(a[0] >= b[0] for a, b in itertools.pairwise(weights))


@pytest.mark.parametrize("name", [name for name in CURVES if name != "adaptive"])
def test_holds_rest_at_the_end_points(name: str) -> None:
    held, free = Schedule(name, hold_start=0.2, hold_end=0.3), Schedule(name)
    assert held.think_weight(0.2) == held.think_weight(0.1) == free.think_weight(0)
    assert held.think_weight(0.7) == pytest.approx(free.think_weight(1))
    assert held.think_weight(0.45) == pytest.approx(free.think_weight(0.5))


def test_adaptive_rests_until_it_moves_and_then_is_the_cosine_of_what_is_left() -> None:
    adaptive = Schedule("adaptive", end=0.1)
    assert adaptive.think_weight(0.4) == adaptive.think_weight(0.0) == 0.9
    assert adaptive.think_weight(0.4, moved_at=0.4) == pytest.approx(0.9)
    assert adaptive.think_weight(0.7, moved_at=0.4) == pytest.approx(0.5)
    assert adaptive.think_weight(1.0, moved_at=0.4) == pytest.approx(0.1)
    assert adaptive.think_weight(1.0, moved_at=1.0) == pytest.approx(0.9)  # no time was left to move


def moved_at(losses: list[float], rule: FlatteningRule) -> float | None:
    state: dict[str, float] = {}
    for step, loss in enumerate(losses):
        state = rule.advance_state(state, loss, step / (len(losses) - 1), len(losses))
    return state.get("moved_at")


def test_weight_moves_when_the_think_loss_has_flattened() -> None:
    steps = range(400)
    early, late = ([0.2 + 2 * math.exp(-step / scale) for step in steps] for scale in (20, 60))
    rule = FlatteningRule()
    first, second = moved_at(early, rule), moved_at(late, rule)
    assert first is not None
    assert second is not None
    assert 0.2 < first < 0.4
    assert second == pytest.approx(0.5, abs=0.01)  # the latest moment: it would have been 0.6


def test_noise_within_a_window_does_not_move_the_weight() -> None:
    noisy = [math.exp(-step / 100) * (1.5 if step % 2 else 0.5) for step in range(400)]
    assert moved_at(noisy, FlatteningRule(latest=0.9)) == pytest.approx(0.9, abs=0.01)


def test_weight_moves_at_the_latest_moment_where_the_loss_never_flattens() -> None:
    falling = [math.exp(-step / 30) for step in range(400)]
    assert moved_at(falling, FlatteningRule(latest=0.6)) == pytest.approx(0.6, abs=0.01)


def test_weight_never_moves_before_two_windows() -> None:
    assert moved_at([1.0] * 400, FlatteningRule()) == pytest.approx(0.1, abs=0.01)


def test_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        Schedule("cosinus")


# (options, progress, think weight, answer weight)
TWO_WEIGHTS = [
    ({"answer_start": 1.0, "answer_end": 1.0}, 0.5, 0.7, 1.0),  # the answer's weight may stay
    ({"answer_start": 0.0, "answer_end": 2.0}, 0.5, 0.7, 1.0),  # along the same cosine
    ({"answer_start": 0.5, "answer_end": 3.0, "name": "linear", "hold_start": 0.2}, 0.2, 0.9, 0.5),  # and holds
    ({"answer_start": 0.5, "answer_end": 3.0, "name": "constant", "start": 4.0}, 1.0, 4.0, 0.5),  # above 1
    ({"answer_start": 0.2, "answer_end": 1.0, "name": "adaptive"}, 0.4, 0.9, 0.2),  # has not moved yet
    ({"answer_start": 0.2, "answer_end": 1.0, "name": "adaptive"}, 1.0, 0.9, 0.2),
]


@pytest.mark.parametrize(("options", "progress", "think", "answer"), TWO_WEIGHTS)
def test_the_answer_may_have_a_schedule_of_its_own(
    options: dict[str, Any], progress: float, think: float, answer: float
) -> None:
    assert Schedule(**options).weights(progress) == pytest.approx((think, answer))
    if options.get("name") == "adaptive":
        assert Schedule(**options).weights(1.0, moved_at=0.3) == pytest.approx((0.5, 1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 1.5}, "think_weight_start is 1.5, but a weight must be between 0 and 1"),
        ({"answer_end": 1.0}, "answer_weight_end is set, but answer_weight_start is not"),
        ({"answer_start": 1.0}, "answer_weight_start is set, but answer_weight_end is not"),
        ({"answer_start": 1.0, "answer_end": -1.0}, "answer_weight_end is -1.0; expected a finite number"),
        ({"answer_start": math.inf, "answer_end": 1.0}, "answer_weight_start is inf; expected a finite number"),
        ({"answer_start": math.nan, "answer_end": 1.0}, "answer_weight_start is nan"),
        ({"start": -0.1, "answer_start": 1.0, "answer_end": 1.0}, "think_weight_start is -0.1; expected a finite"),
        ({"end": 0.0, "answer_start": 1.0, "answer_end": 0.0}, "think_weight_end and answer_weight_end are both 0"),
        ({"name": "answer-only", "answer_start": 1.0, "answer_end": 1.0}, "'answer-only' fixes both weights"),
        ({"name": "think-only", "answer_start": 0.0, "answer_end": 0.0}, "'think-only' fixes both weights"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**options)


# (weighting, normalize, progress, weights of the step)
STEPS = [
    ("scale", "example", 0.0, (0.9, 0.1, "example")),
    ("scale", "batch", 1.0, (0.5, 0.5, "batch")),
    ("uniform", "batch", 0.3, (1.0, 1.0, "token")),
    ("example-mean", "batch", 0.3, (1.0, 1.0, "example-mean")),
    ("sftkey", "example", 0.59, (1.0, 1.0, "token")),  # the schedule's holds make it 0.6
    ("sftkey", "example", 0.61, (0.0, 1.0, "example")),
    ("sftkey", "batch", 1.0, (0.0, 1.0, "batch")),
    ("sftkey", "token", 1.0, (0.0, 1.0, "batch")),  # over the answer's tokens, not over all
]


@pytest.mark.parametrize(("weighting", "normalize", "progress", "expected"), STEPS)
def test_each_weighting_has_its_weights(
    weighting: str, normalize: str, progress: float, expected: tuple[float, float, str]
) -> None:
    found = WEIGHTINGS[weighting](Schedule(hold_start=0.4, hold_end=0.2), normalize, Progress(progress))
    assert found == (pytest.approx(expected[0]), pytest.approx(expected[1]), expected[2])
    assert found.is_plain == (expected[2] in PLAIN_MEANS)


rows = st.lists(st.lists(st.sampled_from([IGNORE, THINK, ANSWER]), min_size=6, max_size=6), min_size=1, max_size=5)
MEANS = (*NORMALIZE, "example-mean")
factors = st.sampled_from([None, 4.0, 0.3])


def slow_loss(
    segments: torch.Tensor, nll: torch.Tensor, factors: torch.Tensor, weights: tuple[float, float], means: str
) -> float:
    """The formulas of the method, as loops over examples, in float64."""

    def mean(chosen: torch.Tensor) -> float:
        return float((nll * factors)[chosen].sum() / factors[chosen].sum())

    def mean_over_examples(chosen: torch.Tensor) -> float:
        every = [float((n * f)[c].sum() / f[c].sum()) for n, f, c in zip(nll, factors, chosen, strict=True) if c.any()]
        return sum(every) / len(every)

    if means in ("token", "example-mean"):
        if not (segments != IGNORE).any():
            return 0.0
        return mean(segments != IGNORE) if means == "token" else mean_over_examples(segments != IGNORE)
    return sum(
        weight * (mean if means == "batch" else mean_over_examples)(segments == segment)
        for segment, weight in zip((THINK, ANSWER), weights, strict=True)
        if (segments == segment).any()
    )


def random_factors(segments: torch.Tensor, factor: float | None) -> torch.Tensor | None:
    """A factor on a third of the tokens; None without one."""
    if factor is None:
        return None
    marks = torch.rand(segments.shape, generator=torch.Generator().manual_seed(1)) < 1 / 3
    return closing_tag_factors(marks, factor)


@pytest.mark.parametrize("means", MEANS)
@given(factor=factors, rows=rows, think=st.floats(0, 1))
def test_weights_give_the_means_of_the_method(
    means: str, factor: float | None, rows: list[list[int]], think: float
) -> None:
    segments = torch.tensor(rows)
    nll = torch.rand(segments.shape, generator=torch.Generator().manual_seed(0)).double()
    per_token = random_factors(segments, factor)
    counts = count_examples_and_tokens(segments, per_token)
    weights = token_weights(segments, counts, think, 1.5 - think, means, per_token)
    plain = torch.ones_like(nll) if per_token is None else per_token.double()
    expected = slow_loss(segments, nll, plain, (think, 1.5 - think), means)
    assert (weights * nll).sum().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("means", MEANS)
@given(factor=factors, rows=rows)
def test_micro_batches_with_global_counts_add_up_to_the_global_batch(
    means: str, factor: float | None, rows: list[list[int]]
) -> None:
    segments = torch.tensor(rows)
    per_token = random_factors(segments, factor)
    each = [(row[None], None if per_token is None else per_token[i : i + 1]) for i, row in enumerate(segments)]
    counts = count_examples_and_tokens(segments, per_token)
    assert torch.allclose(counts, torch.stack([count_examples_and_tokens(*one) for one in each]).sum(0), rtol=1e-12)
    together = token_weights(segments, counts, 0.7, 0.3, means, per_token)
    assert torch.equal(together, torch.cat([token_weights(s, counts, 0.7, 0.3, means, f) for s, f in each]))


def test_a_factor_is_no_learning_rate() -> None:
    """The weights of the tokens sum to the segments' weights, whatever the factor."""
    segments = torch.tensor([[THINK] * 9 + [ANSWER], [THINK] * 5 + [ANSWER] * 5])
    per_token = random_factors(segments, 10.0)
    for means, total in (("token", 1.0), ("example-mean", 1.0), ("example", 0.8), ("batch", 0.8)):
        weights = token_weights(segments, count_examples_and_tokens(segments, per_token), 0.5, 0.3, means, per_token)
        assert weights.sum().item() == pytest.approx(total)


def test_weight_of_a_segment_does_not_depend_on_its_length() -> None:
    segments = torch.tensor([[THINK] * 9 + [ANSWER], [THINK] * 5 + [ANSWER] * 5])
    weights = token_weights(segments, count_examples_and_tokens(segments), 0.6, 0.4, "example")
    for row, weight in zip(segments, weights, strict=True):
        assert weight[row == THINK].sum().item() == pytest.approx(0.3)
        assert weight[row == ANSWER].sum().item() == pytest.approx(0.2)


@pytest.mark.parametrize("normalize", MEANS)
@pytest.mark.parametrize("think", [0.0, 1e-9, 0.3, 1.0])
def test_tokens_with_a_weight_are_counted_without_looking_at_weights(normalize: str, think: float) -> None:
    segments = torch.tensor([[IGNORE, THINK, THINK, THINK, ANSWER], [IGNORE, IGNORE, THINK, ANSWER, ANSWER]])
    weights = token_weights(segments, count_examples_and_tokens(segments), think, 1 - think, normalize)
    assert count_weighted_tokens([4, 3], think, 1 - think, normalize) == (7, int((weights != 0).sum()))
