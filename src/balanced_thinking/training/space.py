"""Whether the disk has room for what a training will save: known before its first step."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import UsageError
from balanced_thinking.runs.checkpoints import list_checkpoints
from balanced_thinking.runs.manifest import DamagedFilesError, read_manifest
from balanced_thinking.training.failed_saves import free_bytes
from balanced_thinking.training.inspect_checkpoint import newest_valid_checkpoint

logger = logging.getLogger(__name__)
_TWO_MOMENTS = (
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
)  # as large as the weights


class NoSpaceError(UsageError, OSError):
    """The disk has no room for a single checkpoint."""


def estimate_checkpoint_bytes(trainer: Any, like: Path | None = None) -> int:
    """Bytes of the trainer's next checkpoint: those of the checkpoint `like`, or of its weights and optimizer's state.

    Before the first step an optimizer has no state: that of AdamW is known, that of any other counts as nothing.
    """
    if like is not None:
        try:
            return read_manifest(like).total_bytes
        except (OSError, DamagedFilesError):
            pass
    others = 0 if trainer.args.save_only_model else _optimizer_bytes(trainer)
    return estimate_model_bytes(trainer) + others + _reference_bytes(trainer)


def estimate_model_bytes(trainer: Any) -> int:
    """Bytes of the weights that the trainer saves: an adapter's own, or all."""
    from peft import PeftModel

    adapter = isinstance(trainer.model, PeftModel)
    saved = [p for p in trainer.model.parameters() if p.requires_grad or not adapter]
    return sum(_count(p) * p.element_size() for p in saved)


def _count(parameter: Any) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))  # DeepSpeed keeps an empty shell


def _optimizer_bytes(trainer: Any) -> int:
    name = getattr(trainer.args.optim, "value", str(trainer.args.optim))
    if name not in _TWO_MOMENTS:
        return 0
    return sum(2 * _count(p) * p.element_size() for p in trainer.model.parameters() if p.requires_grad)


def _reference_bytes(trainer: Any) -> int:
    moves = getattr(trainer.args, "sync_ref_model", False)
    return sum(_count(p) * p.element_size() for p in trainer.ref_model.parameters()) if moves else 0


def saves_checkpoints(args: Any) -> bool:
    return getattr(args.save_strategy, "value", args.save_strategy) != "no"


def check_free_space(trainer: Any) -> None:
    """Warn where the disk will be full before all is saved that is to be kept.

    Raises NoSpaceError where not even one more checkpoint fits, or the final model where none are saved.
    """
    args, folder = trainer.args, Path(trainer.args.output_dir)
    model, existing = estimate_model_bytes(trainer), list_checkpoints(folder)
    saves = saves_checkpoints(args)
    one = estimate_checkpoint_bytes(trainer) if saves else model
    free = free_bytes(folder)
    what = "a checkpoint" if saves else "the trained model"
    if free < one:
        raise NoSpaceError(
            f"{folder} has {free:,} bytes free, but {what} needs about {one:,}; nothing was started. Free some space, "
            "choose another disk with --out, or save less: save_only_model, which cannot be resumed exactly, or an "
            "adapter (lora)"
        )
    if not saves:
        return
    limit = args.save_total_limit
    more = max(1, limit + 1 - len(existing)) if limit else _saves_planned(args, existing)
    needed = more * one + model
    if free < needed:
        logger.warning(
            "%s has %s bytes free, but %s more checkpoints of about %s bytes and the final model need %s: the training "
            "will stop when the disk is full. Free some space, lower save_total_limit (%s now), or use another --out",
            *(folder, f"{free:,}", more, f"{one:,}", f"{needed:,}", limit or "no limit"),
        )


def _saves_planned(args: Any, existing: dict[int, Path]) -> int:
    """Checkpoints that will be saved without a limit; 1 where nobody knows yet."""
    if args.max_steps <= 0 or getattr(args.save_strategy, "value", "") != "steps" or args.save_steps < 1:
        return 1
    taken = max(existing, default=0)
    return max(1, (args.max_steps - taken) // int(args.save_steps))


def advise_resuming(checkpoints: Path, needed: int | None = None) -> str:
    """How a training goes on that could not save: bytes that were needed and are free, and its newest checkpoint."""
    newest = newest_valid_checkpoint(checkpoints)
    about = f"It needs about {needed:,} bytes, and " if needed is not None else ""
    free = free_bytes(checkpoints)
    limit = (
        ", so that it may be a quota or a limit on the size of a file" if needed is not None and free > needed else ""
    )
    space = f"{about}{free:,} bytes are free{limit}. Nothing incomplete was left"
    if newest is None:
        return f"{space}. There is no valid checkpoint yet: free some space, then start again with --resume"
    return (
        f"{space}. {newest.name} is the newest valid checkpoint: free some space or lower save_total_limit, then "
        "continue with --resume"
    )
