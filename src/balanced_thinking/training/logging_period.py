"""What has been added up since the last logging step, as a file of a checkpoint.

A checkpoint between two logging steps would otherwise make the next row of `metrics.jsonl` a mean over fewer steps than
that of a run without a stop. Every rank has a file of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def _file_name(rank: int | str) -> str:
    return f"logging_period_{rank}.pt"


def save_period(trainer: Any, folder: str) -> None:
    """Write this rank's open logging period into a checkpoint's folder."""
    state = {
        "loss": trainer._tr_loss.detach().cpu(),
        "logged_at": trainer._globalstep_last_logged,
        "metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},
        "totals": _totals_of(trainer).state_dict() if _totals_of(trainer) else {},
    }
    torch.save(state, Path(folder) / _file_name(trainer.args.process_index))


def restore_period(trainer: Any, folder: str) -> None:
    """Continue the logging period of a checkpoint. Without its file, which older checkpoints lack, a new one begins.

    With another number of ranks than at the save, each gets an equal share of all sums: the logged means are the same
    to rounding.
    """
    files = sorted(Path(folder).glob(_file_name("*")))
    if not files:
        return
    ranks = trainer.args.world_size
    if own := len(files) == ranks:
        files = [Path(folder) / _file_name(trainer.args.process_index)]
    states = [torch.load(file, map_location="cpu", weights_only=True) for file in files]
    parts = 1 if own else ranks
    trainer._tr_loss += (sum(state["loss"] for state in states) / len(states)).to(trainer._tr_loss.device)
    trainer._globalstep_last_logged = states[0]["logged_at"]
    for name, values in states[0]["metrics"].items():  # the same on all ranks
        trainer._metrics["train"][name] = list(values)
    if (totals := _totals_of(trainer)) and states[0]["totals"]:
        totals.load_state_dicts([state["totals"] for state in states], parts)


def _totals_of(trainer: Any) -> Any:
    """The sums of SFT's segments; None in GRPO."""
    totals = getattr(trainer, "_totals", None)
    return totals and totals["train"]
