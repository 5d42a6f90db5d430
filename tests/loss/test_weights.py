"""Schedules and weights against their definitions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from balanced_thinking.loss.schedules import CURVES, SCHEDULES, FlatteningRule, Schedule
from balanced_thinking.loss.variants import NORMALIZE
from balanced_thinking.loss.weights import count_examples_and_tokens, count_weighted_tokens, token_weights
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


rows = st.lists(st.lists(st.sampled_from([IGNORE, THINK, ANSWER]), min_size=6, max_size=6), min_size=1, max_size=5)


def slow_loss(segments: torch.Tensor, nll: torch.Tensor, think: float, answer: float, normalize: str) -> float:
    """The formulas of the method, as loops over examples."""
    if normalize == "token":
        picked = nll[segments != IGNORE]
        return picked.mean().item() if len(picked) else 0.0
    total = 0.0
    for segment, weight in ((THINK, think), (ANSWER, answer)):
        if normalize == "batch":
            picked = nll[segments == segment]
            total += weight * picked.mean().item() if len(picked) else 0.0
        else:
            means = [n[s == segment].mean().item() for s, n in zip(segments, nll, strict=True) if (s == segment).any()]
            total += weight * sum(means) / len(means) if means else 0.0
    return total


@pytest.mark.parametrize("normalize", NORMALIZE)
@given(rows=rows, think=st.floats(0, 1))
def test_weights_give_the_means_of_the_method(normalize: str, rows: list[list[int]], think: float) -> None:
    segments = torch.tensor(rows)
    nll = torch.rand(segments.shape, generator=torch.Generator().manual_seed(0))
    weights = token_weights(segments, count_examples_and_tokens(segments), think, 1 - think, normalize)
    assert (weights * nll).sum().item() == pytest.approx(
        slow_loss(segments, nll, think, 1 - think, normalize), abs=1e-5
    )


@pytest.mark.parametrize("normalize", NORMALIZE)
@given(rows=rows)
def test_micro_batches_with_global_counts_add_up_to_the_global_batch(normalize: str, rows: list[list[int]]) -> None:
    segments = torch.tensor(rows)
    counts = count_examples_and_tokens(segments)
    assert torch.equal(counts, torch.stack([count_examples_and_tokens(row[None]) for row in segments]).sum(0))
    together = token_weights(segments, counts, 0.7, 0.3, normalize)
    parts = torch.cat([token_weights(row[None], counts, 0.7, 0.3, normalize) for row in segments])
    assert torch.equal(together, parts)


def test_weight_of_a_segment_does_not_depend_on_its_length() -> None:
    segments = torch.tensor([[THINK] * 9 + [ANSWER], [THINK] * 5 + [ANSWER] * 5])
    weights = token_weights(segments, count_examples_and_tokens(segments), 0.6, 0.4, "example")
    for row, weight in zip(segments, weights, strict=True):
        assert weight[row == THINK].sum().item() == pytest.approx(0.3)
        assert weight[row == ANSWER].sum().item() == pytest.approx(0.2)


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("think", [0.0, 1e-9, 0.3, 1.0])
def test_tokens_with_a_weight_are_counted_without_looking_at_weights(normalize: str, think: float) -> None:
    segments = torch.tensor([[IGNORE, THINK, THINK, THINK, ANSWER], [IGNORE, IGNORE, THINK, ANSWER, ANSWER]])
    weights = token_weights(segments, count_examples_and_tokens(segments), think, 1 - think, normalize)
    assert count_weighted_tokens([4, 3], think, 1 - think, normalize) == (7, int((weights != 0).sum()))
