"""What is called detectable is detected: simulated studies."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import fmean

import numpy as np
import pytest

from balanced_thinking.report.compare import pairing
from balanced_thinking.report.compare.contrasts import Contrast
from balanced_thinking.report.compare.pairing import Comparison, PairedAnswers, make_contrasts
from balanced_thinking.statistics.bootstrap import paired_bootstraps
from tests.conftest import some_now


def studies(seeds: int, true_points: float, *, many: int, items: int = 1000) -> list[Contrast]:
    """Studies of two arms that disagree on 32 % of the items and whose trainings differ by 2.5 points, as ours do."""
    rng, ids, found = np.random.default_rng(seeds), [str(i) for i in range(items)], []
    for _ in range(many):
        shift_S1 = rng.normal(true_points, 2.5, size=(seeds, 1)) / 100
        drawn_SQ, better_S1 = rng.random((seeds, items)), (0.32 + shift_S1) / 2
        only_SQ, other_SQ = drawn_SQ < better_S1, (drawn_SQ >= better_S1) & (drawn_SQ < 0.32)
        answers = [
            PairedAnswers(seed, dict(zip(ids, ~other_Q, strict=True)), dict(zip(ids, ~only_Q, strict=True)))
            for seed, (only_Q, other_Q) in enumerate(zip(only_SQ, other_SQ, strict=True))
        ]
        (alone,) = make_contrasts([Comparison("arm", "base", "test", answers)])
        assert alone is not None
        found.append(replace(alone, p_holm=alone.p))
    return found


@pytest.mark.parametrize("seeds", some_now((3).__eq__, [2, 3, 4, 5, 10]))
def test_what_is_called_detectable_is_found_four_times_in_five_and_nothing_seldom(
    seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 studies give a standard error of 1.5 % at 5 % and of 3 % at 80 %."""
    monkeypatch.setattr(pairing, "paired_bootstraps", partial(paired_bootstraps, resamples=400))
    equal = studies(seeds, 0.0, many=200)
    assert np.mean([contrast.is_significant for contrast in equal]) <= 0.05
    detectable = fmean(contrast.detectable_points or 0 for contrast in equal)
    assert 0.7 <= np.mean([contrast.is_significant for contrast in studies(seeds, detectable, many=200)]) <= 0.9
