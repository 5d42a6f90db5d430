"""Windows that are traced at once compute and hold what they do one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.estimate import step
from balanced_thinking.estimate.model import sketch_model
from balanced_thinking.estimate.run import trace
from balanced_thinking.estimate.trace import Trace
from balanced_thinking.estimate.workload import make_batch
from tests.estimate.test_sizes import plan_of

_SIDE = 20 * 14 + 14  # 21 x 21 patches: windows of several sizes


@contextmanager
def one_by_one(model: Any, shapes: Any) -> Iterator[None]:
    yield


def work(found: Trace, kind: str) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for one, count in found.operations.items():
        if one.kind == kind:
            counts[one.name, one.shapes[:3], one.flops] += count
    return counts


@pytest.mark.parametrize("checkpointing", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_windows_at_once_count_as_one_by_one(
    checkpointing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"per_device_train_batch_size": 2, "packing": True, "gradient_checkpointing": checkpointing}
    plan = plan_of(tmp_path, training=training)
    model = sketch_model(plan).model
    batch = make_batch(plan, model, (700, 800), _SIDE)
    at_once = trace(plan, model, batch.inputs)
    monkeypatch.setattr(step, "equal_windows_at_once", one_by_one)
    singly = trace(plan, model, batch.inputs)
    assert work(at_once, "product") == work(singly, "product")
    assert work(at_once, "attention") == work(singly, "attention")
    assert max(work(singly, "attention").values()) >= 8  # there were windows to count
    assert at_once.peak_bytes == pytest.approx(singly.peak_bytes, rel=0.01)
    assert sum(at_once.operations.values()) == pytest.approx(sum(singly.operations.values()), rel=0.1)
