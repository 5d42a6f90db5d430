"""How a trainer continues from a checkpoint: verified first, complete, and nothing left to chance."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import IterableDataset
from transformers import set_seed

from balanced_thinking.models.base_record import refuse_other_base
from balanced_thinking.models.load_in_place import load_in_place
from balanced_thinking.models.weights import check_adapter_checkpoint, load_checked_model
from balanced_thinking.runs.checkpoints import checkpoint_name
from balanced_thinking.runs.manifest import describe_damages
from balanced_thinking.system.locks import hold_folder, is_within_held
from balanced_thinking.training.checked_data import on_first_rank
from balanced_thinking.training.early_stopping import has_stopped_early
from balanced_thinking.training.inspect_checkpoint import (
    OPTIMIZER,
    RANDOM,
    SCALER,
    SCHEDULER,
    SCHEDULER_FILE,
    inspect_checkpoint,
    needed_parts,
)
from balanced_thinking.training.rank_change import (
    find_random_state,
    refuse_lost_random_state,
    refuse_other_division,
    seed_of_new_rank,
)
from balanced_thinking.training.resume import ResumeChoice, choose_checkpoint, verify_checkpoint
from balanced_thinking.training.sharded import (
    load_fsdp_optimizer,
    load_fsdp_weights,
    reading_as_written,
    refuse_other_writer,
)
from balanced_thinking.training.space import saves_checkpoints
from balanced_thinking.training.streams import find_place_in_stream

logger = logging.getLogger(__name__)
_LOCK = "_training.lock"  # `push_to_hub` uploads the folder, except what begins so
_FULL_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class CheckpointReader:
    """A mixin for a `Trainer`: every tensor and every state of a checkpoint, or an error that names what is missing.

    `allow_partial_resume` lets a training continue from weights alone. `resume_choice` is a checkpoint that was
    verified by `choose_checkpoint` already.
    """

    args: Any
    model: Any
    state: Any
    accelerator: Any
    optimizer: Any
    lr_scheduler: Any
    train_dataset: Any
    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool
    allow_partial_resume = False
    resume_choice: ResumeChoice | None = None
    _missing: tuple[str, ...] = ()  # parts of the state that the checkpoint does not have

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As upstream. `resume_from_checkpoint=True` takes the newest complete checkpoint in `output_dir`."""
        with self._hold_output_folder():
            self._prepare_saving()  # type: ignore[attr-defined]
            choice = self._verify_resume(resume_from_checkpoint) if resume_from_checkpoint else None
            self._missing = choice.missing if choice else ()
            if choice is not None:
                self._refuse_unsuitable(choice.path)
            return super().train(choice.path if choice else None, *args, **kwargs)  # type: ignore[misc]

    def _hold_output_folder(self) -> AbstractContextManager[None]:
        """Keep other trainings from saving there, unless this process holds the run. Raises FolderBusyError."""
        folder = Path(self.args.output_dir)
        if self.args.process_index or not saves_checkpoints(self.args) or is_within_held(folder):
            return nullcontext()
        return hold_folder(folder, "training", name=_LOCK)

    def _refuse_unsuitable(self, checkpoint: str) -> None:
        sharded = {"fsdp": self.is_fsdp_enabled, "deepspeed": self.is_deepspeed_enabled}
        refuse_other_writer(checkpoint, **sharded)
        refuse_other_division(checkpoint, self.args)

    def _verify_resume(self, wanted: str | bool) -> ResumeChoice:
        if self.resume_choice is not None and self.resume_choice.path == wanted:
            return self.resume_choice
        needed, partial = needed_parts(self.args), self.allow_partial_resume
        if wanted is not True:
            return on_first_rank(lambda: verify_checkpoint(str(wanted), needed, allow_partial=partial))
        folder, steps = Path(self.args.output_dir), self.args.max_steps
        choice = on_first_rank(lambda: choose_checkpoint(folder, steps, needed, allow_partial=partial))
        if choice is None:
            raise ValueError(f"No valid checkpoint found in output directory ({folder})")
        return choice

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, checkpoint: Any, *args: Any
    ) -> tuple[int, int]:
        """As upstream, which would take another step from the checkpoint of the last one, and which does not know that
        a stream has begun anew."""
        trained = super()._init_training_state(  # type: ignore[misc]
            max_steps, num_update_steps_per_epoch, num_train_epochs, checkpoint, *args
        )
        self._find_moved_best_checkpoint()
        if trained[1] and isinstance(self.train_dataset, IterableDataset):
            trained = find_place_in_stream(checkpoint, self.args.gradient_accumulation_steps)
        ended = has_stopped_early(self.state, getattr(self.args, "early_stopping_patience", None))
        return (num_train_epochs, 0) if ended or self.state.global_step >= max_steps else trained

    def _find_moved_best_checkpoint(self) -> None:
        """Upstream forgets the best checkpoint of a run whose folder was moved."""
        if self.state.best_model_checkpoint is None and self.state.best_global_step:
            best = Path(self.args.output_dir) / checkpoint_name(self.state.best_global_step)
            if best.is_dir():
                self.state.best_model_checkpoint = str(best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.model if model is None else model
        self._check_adapter(resume_from_checkpoint, target)
        if not self._load_unsharded(resume_from_checkpoint, target):
            with reading_as_written(self.accelerator, Path(resume_from_checkpoint)):
                super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]

    def _load_unsharded(self, checkpoint: str, model: Any) -> bool:
        """Load the weights of a model that is not sharded, whoever saved them; False where upstream must do it."""
        if self._is_sharded():  # type: ignore[attr-defined]
            return False
        return load_full_weights(checkpoint, model) or load_fsdp_weights(Path(checkpoint), model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        lost = {OPTIMIZER.name, SCHEDULER.name} & {*self._missing}
        if not lost:
            self._load_optimizer_of_any_form(checkpoint)
        elif SCHEDULER.name in lost:  # upstream loads both or none
            logger.warning("%s continues without the state of its optimizer and its scheduler", checkpoint)
        elif checkpoint is not None and (file := Path(checkpoint) / SCHEDULER_FILE).is_file():
            self.lr_scheduler.load_state_dict(torch.load(file, "cpu", weights_only=True))
        if checkpoint is not None:
            self._load_extra_state(Path(checkpoint))  # type: ignore[attr-defined]

    def _load_optimizer_of_any_form(self, checkpoint: str | None) -> None:
        sharded = self._is_sharded()  # type: ignore[attr-defined]
        if checkpoint and not sharded and load_fsdp_optimizer(Path(checkpoint), self.model, self.optimizer):
            schedule = torch.load(Path(checkpoint) / SCHEDULER_FILE, map_location="cpu", weights_only=True)
            self.lr_scheduler.load_state_dict(schedule)
            return
        with reading_as_written(self.accelerator, Path(checkpoint or "")):
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]

    def _load_scaler(self, checkpoint: str | None) -> None:
        if SCALER.name not in self._missing:
            super()._load_scaler(checkpoint)  # type: ignore[misc]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if RANDOM.name not in self._missing:
            super()._load_rng_state(checkpoint)  # type: ignore[misc]
        if checkpoint is not None:
            self._seed_rank_without_state(Path(checkpoint))

    def _seed_rank_without_state(self, checkpoint: Path) -> None:
        """For ranks that did not take part before: the same random numbers whenever the run continues from here."""
        rank, ranks = self.args.process_index, self.args.world_size
        if not self.allow_partial_resume:
            refuse_lost_random_state(checkpoint, rank, ranks)
        if RANDOM.name in self._missing or find_random_state(checkpoint, rank, ranks) is None:
            logger.info("rank %d has no state of random numbers in %s: it gets one from the seed", rank, checkpoint)
            set_seed(seed_of_new_rank(self.args.seed, self.state.global_step, rank))

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if damages := on_first_rank(lambda: inspect_checkpoint(Path(best))):
            logger.warning(
                "the best checkpoint %s is damaged: %s. The model keeps the weights of the last step (%s) instead of "
                "those of the best; load_best_model_at_end had no effect",
                *(best, describe_damages(damages), self.state.global_step),
            )
            return
        self._check_adapter(best, self.model)
        if not self._load_unsharded(best, self.model):
            with reading_as_written(self.accelerator, Path(best)):
                super()._load_best_model()  # type: ignore[misc]

    def _check_adapter(self, checkpoint: str, model: Any) -> None:
        """Raises WeightsError for an adapter's checkpoint that is not complete, where PEFT would only warn, and
        OtherBaseError where it was trained on other weights than those of its base now."""
        has_weights = any(Path(checkpoint).glob("adapter_model.*"))
        if isinstance(model, PeftModel) and has_weights and not self._is_sharded():  # type: ignore[attr-defined]
            check_adapter_checkpoint(model, checkpoint)
            base = str(model.active_peft_config.base_model_name_or_path)
            if Path(base).is_dir():
                refuse_other_base(Path(checkpoint), base, Path(base))


def load_full_weights(checkpoint: str, model: Any) -> bool:
    """Load every tensor of a fully fine-tuned `checkpoint`; False without loading for an adapter or sharded weights.

    transformers' own loader reads the keys of the file as they are, but `save_pretrained` renames most keys of a VLM.
    So it silently loads 1 of 57 tensors of Qwen2.5-VL (transformers #43701). We read tensor by tensor under their own
    names; where saving changes more than names, `from_pretrained` reads a second copy.

    Raises WeightsError for weights that are not complete, not readable or not finite.
    """
    complete = any((Path(checkpoint) / name).is_file() for name in _FULL_WEIGHTS)
    if isinstance(model, PeftModel) or not complete:
        return False
    if load_in_place(model, Path(checkpoint)):
        return True
    saved = load_checked_model(type(model), checkpoint, (), {"dtype": model.dtype}).model
    model.load_state_dict(saved.state_dict(), strict=True)
    return True
