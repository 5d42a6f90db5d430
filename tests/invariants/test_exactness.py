"""The loss and the gradient of an optimizer step do not depend on how its batch was cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from balanced_thinking.cli import main
from balanced_thinking.loss.variants import NORMALIZE
from balanced_thinking.models.tiny import build_tiny
from tests.conftest import ARCHITECTURES, EACH_ONCE, some_now
from tests.forked import run_ranks
from tests.invariants.two_ranks import CASES, EPOCHS, STRATEGIES, UNEVEN, logs_and_evaluation, rows_for
from tests.invariants.two_ranks_sharded import NORM, RUNS, gradients
from tests.invariants.two_ranks_zero import STEPS, without_some_pictures
from tests.tiny_training import GradNorms, config, logged, losses, trainer

RANKS = Path(__file__).with_name("two_ranks.py")


def one_step(architecture: str, rows: Dataset, out: Path, batch: int, **options: Any) -> tuple[float, float]:
    args = config(out, per_device_train_batch_size=batch, gradient_accumulation_steps=8 // batch, **options)
    run = trainer(architecture, rows, args)
    norms = GradNorms()
    run.add_callback(norms)
    run.train()
    return losses(run)[0], norms.norms[0]


@pytest.mark.parametrize(
    ("architecture", "normalize"),
    some_now(lambda *case: case in EACH_ONCE, ARCHITECTURES, NORMALIZE),
)
def test_eight_by_one_equals_two_by_four_equals_one_by_eight(
    architecture: str, normalize: str, world_rows: Dataset, tmp_path: Path
) -> None:
    one_batch = one_step(architecture, world_rows, tmp_path, 8, normalize=normalize)
    for batch in (4, 1):
        found = one_step(architecture, world_rows, tmp_path, batch, normalize=normalize)
        assert found == pytest.approx(one_batch, rel=1e-6)


def on_two_ranks(folder: Path, *words: str) -> None:
    # As `accelerate launch --cpu` says; else each rank thinks it is alone.
    run_ranks(words, 2, {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}, folder)


def test_two_ranks_answer_what_one_answers(tmp_path: Path) -> None:
    """Seven samples in batches of two, half of the batches for each rank: the same files, byte for byte."""
    options = "--model world-base --data world --data_options.n 7 --batch-size 2 --max-new-tokens 12 --format direct"
    words = ["eval", *options.split(), "--out"]
    assert main([*words, str(tmp_path / "one")]) == 0
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / ".resume-2.jsonl").write_text("of a third rank\n")
    on_two_ranks(tmp_path, "-m", "balanced_thinking.cli", *words, str(tmp_path / "two"))
    one, two = ((tmp_path / name / "predictions.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(one.splitlines()) == 7
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == [
        "images",
        "predictions.jsonl",
        "summary.json",
    ]


def test_two_ranks_equal_one(world_rows: Dataset, tmp_path: Path) -> None:
    """Every mode, order and resume in one pair of gloo processes: starting them is what takes the time."""
    world_rows.save_to_disk(tmp_path / "rows")
    on_two_ranks(tmp_path, str(RANKS), str(tmp_path))
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == len(CASES)
    for case, (loss, norm) in found.items():
        architecture, options = CASES[case]
        alone = one_step(architecture, rows_for(architecture, world_rows), tmp_path, 8, **options)
        assert (loss, norm) == pytest.approx(alone, rel=1e-6), case

    streamed = trainer("qwen2_5_vl", world_rows.to_iterable_dataset(), config(tmp_path, max_steps=2, packing=True))
    streamed.train()
    assert json.loads((tmp_path / "streamed.json").read_text()) == pytest.approx(losses(streamed), rel=1e-6)

    logs = json.loads((tmp_path / "logs.json").read_text())
    one = logs_and_evaluation(world_rows, tmp_path / "logs-alone", batch=8)
    assert len(logs) == len(one) == 8  # six steps, the evaluation, the end
    for theirs, ours in zip(logs, one, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4), (theirs, ours)
    assert one[-1]["eval_dropped"] >= 1
    assert (one[0]["w_answer"], one[5]["w_answer"]) == (0.5, 1.5)  # its own end points, along the adaptive curve

    resumed = json.loads((tmp_path / "resumed.json").read_text())
    texts = rows_for("qwen2", world_rows).select(range(UNEVEN))
    for strategy in STRATEGIES:
        undisturbed, again = resumed[strategy]
        assert len(undisturbed) == 8
        assert again[6:] == undisturbed[6:], strategy
        # Which rank gets which sample of a step is free; which samples a step has is not.
        args = config(tmp_path / strategy, **EPOCHS, per_device_train_batch_size=2, train_sampling_strategy=strategy)
        (one := trainer("qwen2", texts, args)).train()
        assert undisturbed == pytest.approx(losses(one), rel=1e-5), strategy


def test_sharding_by_fsdp2_changes_no_gradient(tmp_path: Path) -> None:
    """Heads that are tied, by themselves, and beside the last norm; over one axis of ranks and over two. A
    sharded gradient can be scaled to a norm."""
    on_two_ranks(tmp_path, str(RANKS.with_name("two_ranks_sharded.py")), str(tmp_path))
    for rank in (0, 1):
        found = torch.load(tmp_path / f"found-{rank}.pt")
        matched, plain = found.pop("matched"), gradients("gemma3")
        factor = NORM / torch.nn.utils.get_total_norm(list(plain.values()))
        torch.testing.assert_close(matched, {name: factor * one for name, one in plain.items()}, rtol=1e-4, atol=1e-6)
        assert set(found) == {f"{case}/{mesh}" for case, mesh in RUNS}
        alone = {case: gradients(case) for case, _ in RUNS}
        for name, sharded in found.items():
            torch.testing.assert_close(sharded, alone[name.split("/")[0]], rtol=1e-4, atol=1e-6)
    low = torch.load(tmp_path / "low.pt")  # with bfloat16 weights of a third would be 0.3340
    assert low["nll"].dtype == low["loss"].dtype == torch.float32
    assert float(low["loss"]) == pytest.approx(float(low["nll"].sum()) / 3, rel=1e-6)
    assert low["moved"] > 0


@pytest.mark.slow
def test_zero_3_equals_one_rank_packed_and_padded(world_rows: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: `make test-long` installs it")
    world_rows.save_to_disk(tmp_path / "rows")
    on_two_ranks(tmp_path, str(RANKS.with_name("two_ranks_zero.py")), str(tmp_path))
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 2 * len(ARCHITECTURES) + 1
    for architecture, *case, theirs, norms in found:
        rows = world_rows if case[1] else without_some_pictures(world_rows)
        alone = trainer(architecture, rows, config(tmp_path, per_device_train_batch_size=8, **STEPS))
        alone.train()
        assert theirs == pytest.approx(losses(alone), rel=1e-6), (architecture, case)
        assert norms == pytest.approx(logged(alone, "grad_norm"), rel=1e-5), (architecture, case)


@pytest.mark.parametrize(
    ("architecture", "loss"),
    some_now(lambda name, loss: (name, loss) == ("gemma3", "nll"), ["llava_next", "gemma3"], ["nll", "dft"]),
)
def test_uniform_weighting_follows_trls_trajectory(
    architecture: str, loss: str, world_rows: Dataset, tmp_path: Path
) -> None:
    options = {"max_steps": 6, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_length": 1024}
    gate = {"token_gate": "dft" if loss == "dft" else "none"}
    ours = trainer(architecture, world_rows, config(tmp_path, weighting="uniform", log_entropy=True, **gate, **options))
    ours.train()
    shared = config(tmp_path, **options)
    model, processor = build_tiny(architecture)
    common = {name: getattr(shared, name) for name in (*options, *_SHARED)}
    plain = SFTConfig(**common, completion_only_loss=True, loss_type=loss)
    theirs = SFTTrainer(model, plain, train_dataset=_decoded(world_rows), processing_class=processor)
    theirs.train()
    assert losses(ours)[0] == pytest.approx(losses(theirs)[0], rel=1e-6)
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-4)
    assert logged(ours, "num_tokens") == logged(theirs, "num_tokens")
    # TRL logs the mean of its micro-batches' means.
    assert logged(ours, "entropy") == pytest.approx(logged(theirs, "entropy"), rel=2e-3)


_SHARED = (
    "output_dir", "learning_rate", "lr_scheduler_type", "max_grad_norm", "logging_steps", "save_strategy", "report_to",
    "gradient_checkpointing", "disable_tqdm", "use_cpu", "seed", "bf16",
)  # fmt: skip


def _decoded(rows: Dataset) -> Dataset:
    """The same rows with the pictures as TRL expects them."""
    from datasets import Image, List

    return rows.remove_columns("id").cast_column("images", List(Image()))
