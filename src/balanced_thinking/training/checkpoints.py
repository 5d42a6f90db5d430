"""How a trainer writes checkpoints, so that a kill, a full disk or a changed file never goes unnoticed.

A checkpoint is written into a folder beside its place, every file of it to the disk, then its manifest, and only then
it gets its name. `training/resume.py` reads them.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from balanced_thinking.models.adapters import name_base_absolutely, record_base
from balanced_thinking.models.quantization import write_base_quantization
from balanced_thinking.runs.checkpoints import checkpoint_name, list_checkpoints, remove_older_checkpoints
from balanced_thinking.runs.digests import BackgroundDigests
from balanced_thinking.runs.manifest import FileDigest, seal_folder
from balanced_thinking.runs.staging import publish_folder, remove_folder, staging_folder
from balanced_thinking.training.failed_saves import SaveFailedError, name_failed_save
from balanced_thinking.training.final_model import record_format
from balanced_thinking.training.inspect_checkpoint import OPTIMIZER_FILE, TRAINER_STATE_FILE
from balanced_thinking.training.rank_change import count_step_samples
from balanced_thinking.training.sharded import raising_errors_of_ranks
from balanced_thinking.training.space import (
    advise_resuming,
    check_free_space,
    estimate_checkpoint_bytes,
    saves_checkpoints,
)

logger = logging.getLogger(__name__)


class CheckpointWriter:
    """A mixin for a `Trainer`: complete checkpoints or none.

    Every rank writes into the same staging folder; the first seals and publishes it. A trainer with more state
    overrides `_save_extra_state`.
    """

    args: Any
    model: Any
    state: Any
    accelerator: Any
    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool
    _staged: Path | None = None  # the folder in which `checkpoint-N` is being written
    _digests: BackgroundDigests | None = None
    _push_later = False
    _folder_inode: int | None = None  # of the folder of checkpoints, since the training began
    has_checked_space = False  # set by the code that made the trainer
    carried_files: tuple[Path, ...] = ()  # of the run, copied into every checkpoint where they exist

    def _get_output_dir(self, trial: Any) -> str:
        """Where upstream puts `checkpoint-N`: during a save the staging folder."""
        return str(self._staged) if self._staged else super()._get_output_dir(trial)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        final = Path(self._get_output_dir(trial)) / checkpoint_name(self.state.global_step)
        with name_failed_save(final.name, final, lambda: self._advise_after_failure(final.parent)):
            with self._stage_checkpoint(final) as folder:
                with raising_errors_of_ranks():
                    super()._save_checkpoint(model, trial)  # type: ignore[misc]
                self._save_extra_state(folder)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    self._seal_checkpoint(folder, final)
                self.accelerator.wait_for_everyone()
            if self.args.should_save:
                remove_older_checkpoints(final.parent, self.args.save_total_limit, self._kept_names(final))
        if self._push_later:
            self._push_later = False
            super()._push_from_checkpoint(str(final))  # type: ignore[misc]

    def _prepare_saving(self) -> None:
        """Before the first step. Raises NoSpaceError where not even one checkpoint would fit."""
        if self.args.should_save:
            if not self.has_checked_space:
                check_free_space(self)
            if saves_checkpoints(self.args):
                Path(self.args.output_dir).mkdir(parents=True, exist_ok=True)
                self._folder_inode = Path(self.args.output_dir).stat().st_ino

    @contextmanager
    def _stage_checkpoint(self, final: Path) -> Iterator[Path]:
        """The folder to write, which is gone when the block ends: renamed, or removed where the save failed."""
        self._refuse_vanished_folder(final)
        staged = staging_folder(final)
        if self.args.should_save:
            remove_folder(staged)
            staged.mkdir(parents=self._folder_inode is None)
            (staged / final.name).mkdir()
        self.accelerator.wait_for_everyone()
        self._staged, self._digests = staged, BackgroundDigests(staged / final.name)
        try:
            yield staged / final.name
        finally:
            self._digests.close()
            self._staged = self._digests = None
            if self.args.should_save:
                shutil.rmtree(staged, ignore_errors=True)

    def _seal_checkpoint(self, folder: Path, final: Path) -> None:
        """Complete the state, describe all files and give the folder its name."""
        self._correct_best_checkpoint(final)
        self.state.save_to_json(str(folder / TRAINER_STATE_FILE))
        for file in self.carried_files:
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
        name_base_absolutely(folder)
        write_base_quantization(self.accelerator.unwrap_model(self.model), folder)
        about = self._describe_checkpoint() | record_base(folder) | record_format(self.args)
        seal_folder(folder, about=about, known=self._collect_digests())
        self._refuse_vanished_folder(final)
        publish_folder(folder, final)

    def _refuse_vanished_folder(self, final: Path) -> None:
        """Raises SaveFailedError where another folder, or none, is in the place of the checkpoints' folder.

        A new one would be made where nobody looks for it, such as below the mount point of a disk that is gone.
        """
        if self._folder_inode is None:
            return
        try:
            same = final.parent.stat().st_ino == self._folder_inode
        except OSError:
            same = False
        if not same:
            raise SaveFailedError(
                f"{final.name} could not be saved: {final.parent} has disappeared since the training began. Bring it "
                "back (a disk that is not mounted, a folder that was moved), then continue with --resume"
            )

    def _describe_checkpoint(self) -> dict[str, Any]:
        """What the manifest says of the checkpoint; the reader compares `step` with the folder's name."""
        return {
            "kind": "checkpoint",
            "step": self.state.global_step,
            "max_steps": self.state.max_steps,
            "world_size": self.accelerator.num_processes,
            "step_samples": count_step_samples(self.args),
            "weights_only": bool(self.args.save_only_model),
        }

    def _collect_digests(self) -> dict[str, FileDigest]:
        """Digests by relative name that are known already; other files are read once more."""
        return self._digests.collect_digests() if self._digests else {}

    def _save_extra_state(self, folder: Path) -> None:
        """Write state that upstream does not know into a checkpoint; called on every rank before it is sealed."""

    def _load_extra_state(self, folder: Path) -> None:
        """Read what `_save_extra_state` wrote; called on every rank after the optimizer's state is loaded."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Digest the weights meanwhile, and the optimizer's file while it grows: the slowest parts of a manifest."""
        if self._digests is None or self._is_sharded() or not self.args.should_save:
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
            return
        self._digests.digest_present_files()
        with self._digests.follow_file(OPTIMIZER_FILE):
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Wait until the checkpoint has its name."""
        self._push_later = True

    def _correct_best_checkpoint(self, final: Path) -> None:
        """The best checkpoint's final place, where upstream saw the staging folder."""
        if (step := self.state.best_global_step) is None:
            return
        best = final.with_name(checkpoint_name(step))
        if best == final or best.is_dir():
            self.state.best_model_checkpoint = str(best)

    def _kept_names(self, final: Path) -> set[str]:
        best = self.state.best_model_checkpoint
        return {final.name} | ({Path(best).name} if best else set())

    def _advise_after_failure(self, parent: Path) -> str:
        newest = next(iter(list_checkpoints(parent).values()), None)
        return advise_resuming(parent, estimate_checkpoint_bytes(self, newest))

    def _is_sharded(self) -> bool:
        """Whether parameters are sharded, so that FSDP or DeepSpeed must save and load the weights."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """Upstream deletes the newest checkpoint here if the best is another; it is what a longer run goes on from.

        A run that was killed after its last save, before it had deleted older ones, deletes them now.
        """
        newest = next(iter(list_checkpoints(Path(self.args.output_dir)).values()), None)
        if self.args.should_save and newest is not None:
            remove_older_checkpoints(newest.parent, self.args.save_total_limit, self._kept_names(newest))
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.args.save_total_limit = limit
