"""The trained model of a run, saved as its checkpoints are: complete under its name, or not at all."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from balanced_thinking.models.adapters import name_base_absolutely, record_base
from balanced_thinking.models.load import LoadedModel
from balanced_thinking.models.quantization import write_base_quantization
from balanced_thinking.runs.checkpoints import list_checkpoints, set_aside
from balanced_thinking.runs.manifest import (
    ABOUT_FORMAT,
    DamagedFilesError,
    describe_damages,
    find_damage,
    is_sealed,
    seal_folder,
)
from balanced_thinking.runs.staging import publish_folder, remove_folder, staging_folder
from balanced_thinking.segments.formats import ReasoningFormat
from balanced_thinking.training.failed_saves import name_failed_save
from balanced_thinking.training.space import advise_resuming, estimate_model_bytes

logger = logging.getLogger(__name__)


def is_model_intact(folder: Path, checkpoints: Path) -> bool:
    """Whether a finished run's model is what was saved; false where it must be saved again from a checkpoint.

    A damaged one is then set aside. Raises DamagedFilesError where there is no checkpoint to save it from.
    """
    problem = _model_problem(folder)
    if problem is None:
        return True
    if not list_checkpoints(checkpoints):
        raise DamagedFilesError(
            f"the run is finished, but {problem}, and there is no checkpoint in {checkpoints} to save it from again; "
            "copy the model back, or train again with another --out"
        )
    aside = f"; it is kept as {set_aside(folder)}" if folder.is_dir() else ""
    logger.warning("the run is finished, but %s%s. The model is saved again from a checkpoint", problem, aside)
    return False


def _model_problem(folder: Path) -> str | None:
    if not folder.is_dir():
        return f"{folder} is missing"
    damages = find_damage(folder) if is_sealed(folder) else []  # an older version sealed none
    return f"{folder} is not what was saved: {describe_damages(damages)}" if damages else None


def save_final_model(trainer: Any, loaded: LoadedModel, folder: Path) -> None:
    """Save model and processor to `folder`, in the place of a model of an earlier try, on every rank together.

    Raises SaveFailedError for a disk that refuses, and RuntimeError where the saved folder would hold no weights.
    """
    if trainer.is_fsdp_enabled:  # with the default, shards, transformers would save no model
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    staged, first = staging_folder(folder), trainer.is_world_process_zero()
    checkpoints = Path(trainer.args.output_dir)
    advise = partial(advise_resuming, checkpoints, estimate_model_bytes(trainer))
    with name_failed_save("the trained model", folder, advise):
        try:
            if first:
                remove_folder(staged)
                staged.mkdir()  # the run's folder is there; if it is gone, it must not be made anew
            trainer.save_model(str(staged))
            if first:
                loaded.processor.save_pretrained(str(staged))
                name_base_absolutely(staged)
                (staged / "README.md").unlink(missing_ok=True)  # PEFT's, full of blanks; `balanced export` writes one
                write_base_quantization(loaded.model, staged)
                _refuse_no_weights(staged, trainer)
                about = {"kind": "model", "step": trainer.state.global_step}
                seal_folder(staged, about=about | record_base(staged) | record_format(trainer.args))
                publish_folder(staged, folder)
        finally:
            if first:
                shutil.rmtree(staged, ignore_errors=True)


def record_format(args: Any) -> dict[str, Any]:
    """The reasoning format as the arguments name or define it, for a manifest's `about`."""
    form = getattr(args, "reasoning_format", None)
    form = asdict(form) if isinstance(form, ReasoningFormat) else form
    return {} if form is None else {ABOUT_FORMAT: form}


def _refuse_no_weights(folder: Path, trainer: Any) -> None:
    if not [*folder.glob("*.safetensors"), *folder.glob("*model*.bin")]:
        raise RuntimeError(
            f"{folder} has no weights after saving; expected *.safetensors or *model*.bin. The checkpoints in "
            f"{trainer.args.output_dir} have them: check how accelerate's or DeepSpeed's configuration saves shards"
        )
