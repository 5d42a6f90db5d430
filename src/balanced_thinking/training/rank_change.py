"""Continuing a run on another number of ranks: a step keeps its samples, or the run is refused by name."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.runs.checkpoints import list_checkpoints
from balanced_thinking.runs.manifest import DamagedFilesError, read_about
from balanced_thinking.system.process import count_ranks

logger = logging.getLogger(__name__)
# What divides the samples of a step: these may change together with the number of ranks.
DIVISION = frozenset({"training.per_device_train_batch_size", "training.gradient_accumulation_steps"})


def count_step_samples(args: Any) -> int:
    """Samples of an optimizer step, over all its micro-batches and ranks."""
    return int(args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size)


def refuse_other_ranks(meant: int | None, started: int) -> None:
    """Raises RecipeError where a recipe's batch is meant for another number of processes than were started."""
    if meant is None or meant == started:
        return
    several = "start it with accelerate launch --config_file recipes/accelerate/fsdp2.yaml --num_processes"
    fix = f"{several} {meant}" if meant > 1 else "start it without accelerate launch"
    raise RecipeError(
        f"the recipe's batch is meant for {meant} rank{'s' if meant > 1 else ''} (ranks: {meant}), and this training "
        f"has {started}; {fix}, or set --ranks {started} with a gradient_accumulation_steps that keeps the samples of "
        "a step"
    )


def keys_that_ranks_divide(checkpoints: Path) -> frozenset[str]:
    """The recipe's keys that may differ because other ranks than those of the newest checkpoint continue.

    One whose manifest is damaged is passed over here, too; what is wrong with it is said later.
    """
    for checkpoint in list_checkpoints(checkpoints).values():
        with suppress(DamagedFilesError, OSError):
            about = read_about(checkpoint)
            return DIVISION if about.get("world_size", count_ranks()) != count_ranks() else frozenset()
    return frozenset()


def refuse_other_division(checkpoint: str, args: Any) -> None:
    """Raises RecipeError where the next steps would not be those of the ranks that wrote the checkpoint."""
    about = read_about(Path(checkpoint))
    ranks, samples, now = about.get("world_size"), about.get("step_samples"), count_step_samples(args)
    if ranks is None:
        return
    if ranks == args.world_size:
        if samples not in (None, now) and not getattr(args, "ignore_data_skip", False):
            raise RecipeError(
                f"{Path(checkpoint).name} has steps of {samples} samples, and now a step has {now}, so that rows would "
                "be left out or seen twice; set per_device_train_batch_size and gradient_accumulation_steps as before"
            )
        return
    place, written = Path(checkpoint).name, f"{ranks} rank{'s' if ranks > 1 else ''}"
    if args.deepspeed is not None or getattr(args, "deepspeed_plugin", None) is not None:
        raise RecipeError(
            f"{place} was written by {written}, and DeepSpeed loads it on as many only; {args.world_size} were "
            "started. Start that number, or convert the checkpoint with DeepSpeed's own ds_to_universal"
        )
    if hasattr(args, "steps_per_generation"):
        raise RecipeError(
            f"{place} was written by {written}, each with completions of its own; {args.world_size} were started. "
            "GRPO continues on the same number of ranks"
        )
    if samples is not None and samples != now:
        raise RecipeError(
            f"{place} was written by {written}, with {samples} samples a step; here {args.world_size} x "
            f"{args.per_device_train_batch_size} x {args.gradient_accumulation_steps} (ranks x "
            f"per_device_train_batch_size x gradient_accumulation_steps) make {now}. Change one of the two options so "
            f"that they make {samples}"
        )
    logger.info(
        "%s was written by %s and continues on %d, with the same samples a step", place, written, args.world_size
    )


def find_random_state(checkpoint: Path, rank: int, ranks: int) -> Path | None:
    """The file with the state of a rank's random numbers; None where the ranks that wrote the checkpoint were fewer,
    or another kind of run."""
    file = checkpoint / (f"rng_state_{rank}.pth" if ranks > 1 else "rng_state.pth")
    return file if file.is_file() else None


def refuse_lost_random_state(checkpoint: Path, rank: int, ranks: int) -> None:
    """Raises DamagedFilesError where as many ranks wrote the checkpoint, so that a rank's state has been lost.

    It may be on the disk of another machine.
    """
    if find_random_state(checkpoint, rank, ranks) is None and read_about(checkpoint).get("world_size") == ranks:
        raise DamagedFilesError(
            f"{checkpoint} has no state of the random numbers of rank {rank}, but {ranks} ranks wrote it. All ranks "
            "must save to the same disk, or each machine to its own with save_on_each_node; copy the file there, or "
            "add --allow-partial-resume to draw others"
        )


def seed_of_new_rank(seed: int, step: int, rank: int) -> int:
    """The seed of a rank without a state: the same whenever the run continues from this step."""
    return (seed + 1_000_003 * (step + 1) + 7_919 * rank) % 2**32
