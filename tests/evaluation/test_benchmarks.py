"""The benchmarks' own rules: one that fails stops no other, and what is known is on disk after every round."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"
# `late` works once: a file says that it has run.
SCRIPT = """
import json, pathlib, sys
name, seen = sys.argv[-1], pathlib.Path(sys.argv[1])
if name == "broken" or (name == "late" and seen.exists()):
    raise MemoryError("9 GiB | none left")
if name == "late":
    seen.touch()
if name == "killed":
    import os; os.kill(os.getpid(), 9)
print("chatter")
print(json.dumps({"seconds": {"fast": 1.0, "slow": 4.0, "late": 2.0}[name]}))
"""


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def contest(harness: Any, folder: Path, contestants: tuple[str, ...], baseline: str, rounds: int = 2) -> Any:
    (folder / "script.py").write_text(SCRIPT)
    options = argparse.Namespace(rounds=rounds, json=folder / "found.json", device="cpu", threads=1)
    return harness.contest(str(folder / "script.py"), options, contestants, [str(folder / "seen")], baseline, size="s")


def test_one_that_fails_is_recorded_and_the_others_go_on(benchmark: Any, tmp_path: Path) -> None:
    harness = benchmark("harness")
    rows = contest(harness, tmp_path, ("broken", "fast", "killed", "late", "slow"), "slow")
    assert rows["broken"] == rows["late"] == {"failed": "MemoryError: 9 GiB | none left"}
    assert rows["killed"] == {"failed": "signal 9"}
    assert rows["fast"]["seconds_ratio"] == {"median": 0.25, "min": 0.25, "max": 0.25}
    written = json.loads((tmp_path / "found.json").read_text())
    assert (written["figures"], written["rounds"], written["ranks"], written["size"]) == (rows, 2, 1, "s")
    lines = harness.table(rows, {"seconds": "s:.1f"}, "slow").splitlines()
    assert lines[2] == "| `broken` | failed: MemoryError: 9 GiB \\| none left | |"
    assert lines[3] == "| `fast` | 1.0 | 0.250 (0.250-0.250) |"


@pytest.mark.parametrize("baseline", ["broken", "absent"])
def test_without_a_baseline_ratios_stay_empty(baseline: str, benchmark: Any, tmp_path: Path) -> None:
    harness = benchmark("harness")
    rows = contest(harness, tmp_path, ("fast", "broken"), baseline)
    assert set(rows["fast"]) == {"seconds"}
    assert "| `fast` | 1.0 |  |" in harness.table(rows, {"seconds": "s:.1f"}, baseline)


def test_every_round_is_written_when_it_is_done(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, measure = benchmark("harness"), benchmark("harness").in_fresh_process
    taken: list[str] = []

    def stopped_in_the_second_round(*words: Any) -> Any:
        taken.append("a round has one contestant")
        if len(taken) == 2:
            raise KeyboardInterrupt
        return measure(*words)

    monkeypatch.setattr(harness, "in_fresh_process", stopped_in_the_second_round)
    with pytest.raises(KeyboardInterrupt):
        contest(harness, tmp_path, ("fast",), "fast", rounds=3)
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["rounds"] == 1
    assert written["figures"]["fast"]["seconds"]["median"] == 1.0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_sweep_changes_one_axis_at_a_time(device: str, benchmark: Any) -> None:
    head = benchmark("head")
    options = argparse.Namespace(
        device=device, dtype=head.DTYPES[device], frozen=False, threads=1, iterations=1, shape=None
    )
    found = head.cases(options)
    base = found.pop("base")
    assert {name.split()[0] for name in found} == {"hidden", "vocabulary", "tokens", "ignored", "dtype", "frozen"}
    for case in found.values():
        changed = [
            *(a != b for a, b in zip(case.shape, base.shape, strict=True)),
            case.dtype != base.dtype,
            case.frozen,
        ]
        assert sum(changed) == 1
    assert head.arguments_of(found["frozen True"])[-1] == "--frozen"


@pytest.mark.parametrize("frozen", [False, True])
def test_a_head_is_measured_as_asked(frozen: bool, benchmark: Any) -> None:
    head = benchmark("head")
    hidden, weight, labels, weights = head.inputs(head.Shape(8, 40, 64, 0.5), "cpu", torch.bfloat16, frozen)
    assert hidden.dtype == weight.dtype == torch.bfloat16
    assert weight.requires_grad is not frozen
    assert 10 < (labels == -100).sum() < 54
    head.step(head.chunked, (hidden, weight, labels, weights))
    assert (weight.grad is None) is frozen


@pytest.mark.parametrize("name", ["packed", "trainer", "trl"])
def test_tokens_and_padding_are_counted_from_what_a_contestant_is_given(
    name: str, benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = benchmark("sft_step")
    monkeypatch.setitem(step.BATCHES, "tiny", 4)
    options = argparse.Namespace(size="tiny", steps=1, device="cpu")
    model, processor = step.build_tiny("qwen2_5_vl")
    data = step.rows(8, None)
    in_order = {"train_sampling_strategy": "sequential"}
    trainer = step.make_trainer(name, options, model, processor, data, str(tmp_path), **in_order)
    counts = step.Counts(trainer, warm_up=1)
    trainer.train()
    timed = trainer.data_collator([data[i] for i in range(4, 8)])  # the first four warm up
    lengths = timed["batch_info"].lengths_by_row if "batch_info" in timed else None
    tokens = sum(map(sum, lengths)) if lengths else int(timed["attention_mask"].sum())
    supervised, padding = counts.read()
    assert supervised == (timed["labels"] != -100).sum()
    assert padding == pytest.approx(1 - tokens / timed["input_ids"].numel())
    if name != "packed":
        assert padding > 0.3


@pytest.mark.slow
def test_all_contestants_see_the_same_steps(benchmark: Any, tmp_path: Path) -> None:
    step = benchmark("sft_step")
    options = argparse.Namespace(size="tiny", steps=2, device="cpu")
    data, found = step.rows(12, None), {}
    for name in step.CONTESTANTS:
        model, processor = step.build_tiny("qwen2_5_vl")
        sizes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "dataloader_num_workers": 0}
        trainer = step.make_trainer(name, options, model, processor, data, str(tmp_path), **sizes)
        counts = step.Counts(trainer, warm_up=2)
        trainer.train()
        found[name] = counts.read()[0]
    assert len(set(found.values())) == 1, found


def test_a_step_that_does_not_divide_is_refused(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its micro-batches would hold fewer examples than the record says."""
    step = benchmark("sft_step")
    monkeypatch.setattr("sys.argv", ["sft_step.py", "--batch", "30", "--accumulation", "4"])
    with pytest.raises(SystemExit, match="2"):
        step.main()


def test_puzzlevqas_lengths_are_even(benchmark: Any) -> None:
    step = benchmark("sft_step")
    words = {
        kind: [
            len(row["completion"][0]["content"].split()) for row in step.rows(24, None, kind).remove_columns("images")
        ]
        for kind in ("ragged", "puzzlevqa")
    }
    assert max(words["puzzlevqa"]) < 2 * min(words["puzzlevqa"])
    assert max(words["ragged"]) > 3 * min(words["ragged"])
