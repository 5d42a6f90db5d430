"""One training run from its recipe: data, model, trainer, and a run directory that explains itself."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from shlex import quote
from time import monotonic
from typing import Any, NamedTuple

from transformers import set_seed

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.mixture import describe_data
from balanced_thinking.data.permissions import permit
from balanced_thinking.data.recorded_places import is_recorded_place
from balanced_thinking.models.dtypes import dtype_name
from balanced_thinking.models.load import LoadedModel, ensure_saved
from balanced_thinking.models.revisions import split_revision
from balanced_thinking.runs.directory import (
    create_run,
    finish_run,
    hold_run,
    is_finished,
    read_provenance,
    refuse_existing_run,
    undo_failed_start,
)
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.system.memory import free_device_memory, peak_mib
from balanced_thinking.system.process import Clock
from balanced_thinking.training.auto_batch import (
    MicroBatchTooLargeError,
    describe_division,
    divide_smaller,
    keep_found_division,
    refuse_several_ranks,
)
from balanced_thinking.training.callbacks import MetricsFile, TrainingClock, show_progress
from balanced_thinking.training.changes import ScheduleChange, describe_resume_changes, read_resume_state
from balanced_thinking.training.checked_data import CheckedData, load_checked_data, on_first_rank
from balanced_thinking.training.checks import check_places
from balanced_thinking.training.early_stopping import has_stopped_early
from balanced_thinking.training.failed_saves import SaveFailedError, name_failed_save
from balanced_thinking.training.final_model import is_model_intact, save_final_model
from balanced_thinking.training.header import StartHeader
from balanced_thinking.training.health import conclude_health
from balanced_thinking.training.launcher import follow_launcher
from balanced_thinking.training.lora import describe_lora, make_lora_config
from balanced_thinking.training.model import keep_adapter_precision, load_training_model
from balanced_thinking.training.model_checks import hint_untrained_tags, load_training_processor
from balanced_thinking.training.nonfinite import skipped_updates
from balanced_thinking.training.own_rewards import try_own_rewards
from balanced_thinking.training.peers import LostRankError
from balanced_thinking.training.rank_change import refuse_other_division, refuse_other_ranks
from balanced_thinking.training.recipe import Recipe
from balanced_thinking.training.recorded_functions import record_own_functions, refuse_changed_functions
from balanced_thinking.training.resume import ResumeChoice, ResumeError, choose_state, describe_finished
from balanced_thinking.training.run_recipe import load_run_recipe
from balanced_thinking.training.sample_order import refuse_no_step
from balanced_thinking.training.sharded import refuse_save_without_weights
from balanced_thinking.training.space import advise_resuming, check_free_space
from balanced_thinking.training.stages import STAGE_CLASSES, training_arguments

logger = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    allow_partial_resume: bool = False,
    allow_changed_rewards: bool = False,
) -> Path:
    """Train, save the model to `out/model`, and return that folder.

    With `resume`, a run that has taken all its steps stays unchanged, and any other continues from its newest complete
    checkpoint. With `allow_partial_resume` it continues from complete weights where other state is lost, and with
    `allow_changed_rewards` where the file of an own reward or scorer has changed. Raises FolderBusyError where another
    process trains in `out`, and StoppedEarly where a signal or the time budget has ended the training.
    """
    began = monotonic()
    refuse_existing_run(out, resume=resume)
    start = undo_failed_start(out, except_after=(LostRankError, SaveFailedError))
    with hold_run(out), start, permit(urls=recipe.allow_urls):
        if resume and RunFiles(out).config.is_file():
            refuse_changed_functions(out, recipe.training, allow=allow_changed_rewards)
            recipe = keep_found_division(load_run_recipe(RunFiles(out).config), recipe)
        recipe = follow_launcher(recipe)
        while True:
            try:
                return _train_alone(recipe, out, resume=resume, allow_partial=allow_partial_resume, began=began)
            except MicroBatchTooLargeError as error:
                found = str(error)
            # Out of the handler, so that nothing of the failed step is kept alive.
            recipe, resume = divide_smaller(recipe), True
            free_device_memory()
            logger.warning("%s; the run goes on with %s", found, describe_division(recipe))


def _train_alone(recipe: Recipe, out: Path, *, resume: bool, allow_partial: bool, began: float) -> Path:
    """`train` by the only process that works in `out`, with one micro-batch. `began`: where the time budget starts."""
    refuse_existing_run(out, resume=resume)
    check_places(recipe)
    args = training_arguments(recipe, out)
    refuse_other_ranks(recipe.ranks, args.world_size)
    files = RunFiles(out)
    taken = _count_all_steps(files, recipe, args.max_steps) if resume else None
    if taken is not None and on_first_rank(lambda: is_model_intact(files.model, files.checkpoints)):
        logger.info("%s", describe_finished(out, args, taken))
        return files.model
    choice = _choose_beginning(files, recipe, args, allow_partial) if resume else None
    checkpoint = choice.path if choice else None
    processor = load_training_processor(recipe, args)
    data = load_checked_data(recipe, args, processor, out, resume=resume)
    try_own_rewards(args, data.training.rows, processor)
    refuse_no_step(recipe.stage, args, data.training.rows)
    set_seed(args.seed)
    loaded, trainer = _make_trainer(recipe, args, data, files, checkpoint)
    clock = TrainingClock()
    trainer.add_callback(clock)
    _configure_trainer(trainer, recipe, files, data.training.dropped)
    if choice:
        trainer.add_callback(ScheduleChange(trainer, read_resume_state(choice.path)))
    trainer.resume_choice, trainer.allow_partial_resume = choice, allow_partial
    # The directory is created only now, so that a failed start leaves nothing behind.
    if args.process_index == 0:
        create_run(out, recipe.to_yaml(), _describe_run(recipe, args, loaded, data), resume=resume)
        data.write_record(out)
    with trainer.stop_on_signals(began, _describe_continuation(recipe, out, args)):
        trainer.train(resume_from_checkpoint=checkpoint)
        spent = clock.time_spent()
        save_final_model(trainer, loaded, files.model)
        conclude_health(trainer.state, str(files.model))
        if trainer.is_world_process_zero():
            with name_failed_save(
                "the record of the run", files.provenance, lambda: advise_resuming(files.checkpoints)
            ):
                finish_run(out, **_training_totals(trainer, spent))
    return files.model


class _Start(NamedTuple):
    loaded: LoadedModel
    trainer: Any


def _make_trainer(recipe: Recipe, args: Any, data: CheckedData, files: RunFiles, checkpoint: str | None) -> _Start:
    """The model, with the adapter of the recipe, in its stage's trainer."""
    loaded = load_training_model(recipe, args, files.folder)
    adapter = None
    if recipe.lora is not None:
        adapter = make_lora_config(loaded.model, recipe.lora, checkpoint)
        logger.info("LoRA: %s", describe_lora(recipe.lora, adapter))
        hint_untrained_tags(loaded, args.reasoning_format, recipe.lora)
    revision = split_revision(loaded.source or "").revision
    if adapter is not None:
        if adapter.revision not in (None, revision):
            raise RecipeError(
                f"lora.revision is {adapter.revision!r}, but the base is {loaded.source or recipe.model}; give the "
                "revision of the base as model_options.revision, and leave lora.revision out"
            )
        adapter.revision = revision
    elif revision is not None:  # a reference model is loaded by a name, which has no revision
        loaded = replace(loaded, source=None)
    if recipe.lora is not None or (recipe.stage == "grpo" and args.beta):
        loaded = ensure_saved(loaded, files.base_model)
    trainer = STAGE_CLASSES[recipe.stage].trainer(
        loaded.model,
        args=args,
        train_dataset=data.training.rows,
        eval_dataset=data.validation.rows if data.validation else None,
        processing_class=loaded.processor,
        peft_config=adapter,
        callbacks=[MetricsFile(files.metrics)],
    )
    return _Start(loaded, trainer)


def _configure_trainer(trainer: Any, recipe: Recipe, files: RunFiles, dropped: int) -> None:
    """Set what a run adds to a trainer of its own, and refuse what cannot be known before there is one."""
    if recipe.quantization is not None:
        keep_adapter_precision(trainer.model)
    if recipe.lora is None:  # an adapter's weights are gathered in any case
        refuse_save_without_weights(trainer.accelerator.state.deepspeed_plugin)
    if recipe.stage == "sft":  # for rows that the check before the first step did not look at
        trainer.data_collator.drop_bad_rows = recipe.on_bad_row == "drop"
    refuse_several_ranks(recipe.auto_batch, trainer.args.world_size)
    trainer.auto_batch = recipe.auto_batch
    trainer.add_callback(StartHeader(recipe, trainer, files.folder, dropped))
    trainer.carried_files = (files.preflight,)
    show_progress(trainer)
    check_free_space(trainer)
    trainer.has_checked_space = True


def _choose_beginning(files: RunFiles, recipe: Recipe, args: Any, allow_partial: bool) -> ResumeChoice | None:
    """The checkpoint from which a run continues, with what changes in the log; None where it has not saved one yet.

    Raises ResumeError for a finished run without checkpoints: from the beginning, its model and metrics would be lost.
    """
    choice = on_first_rank(lambda: choose_state(files.folder, args, allow_partial))
    if choice is not None:
        refuse_other_division(choice.path, args)
        before = load_run_recipe(files.config)
        if is_recorded_place(recipe.data, before.data, files.folder):
            before = replace(before, data=recipe.data)
        if is_recorded_place(recipe.model, before.model, files.folder):
            before = replace(before, model=recipe.model)
        for line in describe_resume_changes(before, recipe):
            logger.info("%s", line)
    elif is_finished(files.folder):
        raise ResumeError(
            f"{files.folder} is finished and has no checkpoint to continue from; train its model further with --model "
            f"{quote(str(files.folder))} and another --out"
        )
    elif files.config.is_file():
        logger.info("%s has no checkpoint yet; training starts from the beginning", files.folder)
    return choice


def _describe_continuation(recipe: Recipe, out: Path, args: Any) -> str:
    launched = f", again on {args.world_size} ranks" if args.world_size > 1 else ""
    partial = " --allow-partial-resume" if args.save_only_model else ""
    return f"continue with: balanced {recipe.stage} --out {quote(str(out))} --resume{partial}{launched}"


def _count_all_steps(files: RunFiles, recipe: Recipe, max_steps: int) -> int | None:
    """The steps of a finished run that the recipe does not make longer; None for any other run."""
    about = read_provenance(files.folder)
    if about is None or about.finished is None:
        return None
    before = load_run_recipe(files.config).training
    if about.stopped_early:  # more steps change nothing: the evaluations that it has waited for are counted
        patience = recipe.training.get("early_stopping_patience")
        return None if patience is None or patience > before["early_stopping_patience"] else about.steps
    if max_steps > 0:
        return about.steps if about.steps == max_steps else None
    same = all(before.get(name) == recipe.training.get(name) for name in ("max_steps", "num_train_epochs"))
    return about.steps if same else None


def _describe_run(recipe: Recipe, args: Any, loaded: LoadedModel, data: CheckedData) -> dict[str, Any]:
    weighting = getattr(args, "chosen_weighting", "scale")
    plain = {"scale": "scale-sft", "uniform": "sft"}.get(weighting, weighting)
    return {
        "arm": recipe.arm or (plain if recipe.stage == "sft" else recipe.stage),
        "stage": recipe.stage,
        "seed": args.seed,
        "model": recipe.model,
        "data": describe_data(recipe.data),
        "own_functions": record_own_functions(recipe.training),
        "device": str(args.device),
        "dtype": dtype_name(loaded.model.dtype),
        "mixed_precision": args.mixed_precision,
        "examples": len(data.training.rows),
        "dropped": data.training.dropped,
        "validation_dropped": data.validation.dropped if data.validation else 0,
    }


def _training_totals(trainer: Any, spent: Clock) -> dict[str, Any]:
    state = trainer.state
    return {
        "train_seconds": round(spent.wall_seconds, 2),
        "train_cpu_seconds": round(spent.cpu_seconds, 2),
        "steps": state.global_step,
        "tokens": int(state.num_input_tokens_seen),
        "peak_mib": peak_mib(str(trainer.args.device)),
        "skipped_updates": skipped_updates(state) or None,
        "stopped_early": has_stopped_early(state, getattr(trainer.args, "early_stopping_patience", None)) or None,
    }
