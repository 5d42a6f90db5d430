"""Continuing on another number of ranks: what may change, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.runs.manifest import DamagedFilesError, seal_folder
from balanced_thinking.training.rank_change import (
    DIVISION,
    count_step_samples,
    find_random_state,
    keys_that_ranks_divide,
    refuse_lost_random_state,
    refuse_other_division,
    seed_of_new_rank,
)


def checkpoint(parent: Path, ranks: int, samples: int) -> Path:
    folder = parent / "checkpoint-3"
    folder.mkdir()
    for rank in range(ranks):
        (folder / f"rng_state_{rank}.pth").touch()
    seal_folder(folder, about={"world_size": ranks, "step_samples": samples})
    return folder


def arguments(ranks: int, batch: int, accumulation: int = 1, **more: Any) -> SimpleNamespace:
    shape = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    return SimpleNamespace(world_size=ranks, deepspeed=None, **shape, **more)


@pytest.mark.parametrize(("ranks", "batch", "accumulation"), [(4, 2, 1), (2, 4, 1), (2, 2, 2), (1, 8, 1), (1, 1, 8)])
def test_the_same_samples_a_step_are_accepted(ranks: int, batch: int, accumulation: int, tmp_path: Path) -> None:
    args = arguments(ranks, batch, accumulation)
    refuse_other_division(str(checkpoint(tmp_path, 4, 8)), args)
    assert count_step_samples(args) == 8


REFUSED = [
    (arguments(2, 2), "written by 4 ranks, with 8 samples a step; here 2 x 2 x 1 .* make 4. Change one"),
    (arguments(1, 2), "here 1 x 2 x 1 .* make 2. Change one of the two options so that they make 8"),
    (arguments(2, 4, steps_per_generation=1), "GRPO continues on the same number of ranks"),
    (
        SimpleNamespace(**vars(arguments(2, 4)) | {"deepspeed": {}}),
        "DeepSpeed loads it on as many only; 2 were started",
    ),
]


@pytest.mark.parametrize(("args", "said"), REFUSED)
def test_what_would_be_another_step_is_refused(args: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        refuse_other_division(str(checkpoint(tmp_path, 4, 8)), args)


def test_a_checkpoint_that_does_not_say_its_ranks_is_accepted(tmp_path: Path) -> None:
    (folder := tmp_path / "checkpoint-3").mkdir()
    refuse_other_division(str(folder), arguments(2, 1))
    assert not keys_that_ranks_divide(tmp_path)


@pytest.mark.parametrize(("started", "keys"), [("4", frozenset()), ("2", DIVISION), (None, DIVISION)])
def test_the_division_may_change_with_the_ranks_only(
    started: str | None, keys: frozenset[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path, 4, 8)
    monkeypatch.setenv("WORLD_SIZE", started) if started else monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert keys_that_ranks_divide(tmp_path) == keys


def test_a_manifest_that_cannot_be_read_is_left_to_the_choice_of_a_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path, 4, 8)
    for step, text in ((4, ""), (5, '{"version": 1, "files": {}}'), (6, "\0")):
        (newer := tmp_path / f"checkpoint-{step}").mkdir()
        (newer / "manifest.json").write_text(text)
        assert keys_that_ranks_divide(tmp_path) == DIVISION  # of checkpoint-3
    (tmp_path / "checkpoint-3" / "manifest.json").unlink()
    assert not keys_that_ranks_divide(tmp_path)


def test_a_rank_without_a_state_has_its_own_seed_for_each_step(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 2, 8)
    assert [find_random_state(folder, rank, 4) is None for rank in range(4)] == [False, False, True, True]
    assert find_random_state(folder, 0, 1) is None
    seeds = {seed_of_new_rank(seed, step, rank) for seed in (0, 1) for step in (0, 1, 2) for rank in range(8)}
    assert len(seeds) == 48


def test_a_state_of_random_numbers_that_was_lost_is_no_new_rank(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 2, 8)
    (folder / "rng_state_1.pth").unlink()  # such as on another machine's disk, so not in the manifest either
    seal_folder(folder, about={"world_size": 2})
    refuse_lost_random_state(folder, 0, 2)
    refuse_lost_random_state(folder, 2, 3)  # one that was not there before
    with pytest.raises(DamagedFilesError, match=r"random numbers of rank 1, but 2 ranks wrote it.*--allow-partial"):
        refuse_lost_random_state(folder, 1, 2)
