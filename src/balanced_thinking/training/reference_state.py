"""The reference model of GRPO as state of a training, where `sync_ref_model` moves it towards the trained one.

Upstream saves it nowhere: a resumed run would measure its KL term from the model with which it began.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from balanced_thinking.training.inspect_checkpoint import REFERENCE, REFERENCE_FILE

logger = logging.getLogger(__name__)


class ReferenceState:
    """A mixin for a GRPO trainer: its moving reference model is in the checkpoint. Sharded ones are not saved."""

    args: Any
    accelerator: Any
    ref_model: Any
    _missing: tuple[str, ...]

    def _save_extra_state(self, folder: Path) -> None:
        super()._save_extra_state(folder)  # type: ignore[misc]
        if not self.args.sync_ref_model or not self.args.should_save:
            return
        if self._is_sharded():  # type: ignore[attr-defined]
            logger.warning("%s is without the reference model, which is sharded: no exact resume from it", folder.name)
            return
        torch.save(self.accelerator.unwrap_model(self.ref_model).state_dict(), folder / REFERENCE_FILE)

    def _load_extra_state(self, folder: Path) -> None:
        super()._load_extra_state(folder)  # type: ignore[misc]
        if self.args.sync_ref_model and REFERENCE.name not in self._missing:
            saved = torch.load(folder / REFERENCE_FILE, "cpu", weights_only=True, mmap=True)
            self.accelerator.unwrap_model(self.ref_model).load_state_dict(saved, strict=True)
