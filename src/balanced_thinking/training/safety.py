"""What both trainers add to transformers': exact resuming, a stop before a bad update, faster products on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.utils import is_torch_bf16_gpu_available, is_torch_tf32_available

from balanced_thinking.batch.turn_end import add_stop_token
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.cpu.attention import fast_matmuls_and_attention
from balanced_thinking.cpu.products import limit_onednn_caches
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.system.process import usable_cores
from balanced_thinking.training.checkpoints import CheckpointWriter
from balanced_thinking.training.early_stopping import EvaluationCheck
from balanced_thinking.training.launcher import launched_precision, precision_arguments
from balanced_thinking.training.loading import CheckpointReader
from balanced_thinking.training.memory_watch import MemoryWatch
from balanced_thinking.training.nonfinite import FiniteUpdates
from balanced_thinking.training.sharded import (
    name_layers_to_shard,
    refuse_forgotten_deepspeed,
    refuse_unknown_ranks,
)
from balanced_thinking.training.stopping import StoppingTrainer
from balanced_thinking.training.streams import refuse_empty_stream
from balanced_thinking.training.trained_parameters import refuse_bias_without_base, refuse_nothing_to_train

_WORKERS = 4  # processes that decode and process images while the GPU computes


def set_device_defaults(args: Any) -> None:
    """Set what depends on the device, before TRL applies its own defaults.

    TRL's default of bfloat16 is an error on a machine without a GPU that supports it. Pinned memory helps only beside a
    GPU; so do workers, because a CPU that trains has no cores left for them.
    """
    if (asked := launched_precision(args.bf16, args.fp16)) is not None and not getattr(args, asked):
        for name, value in precision_arguments(asked).items():
            setattr(args, name, value)
    if args.bf16 is None and not args.fp16 and not is_torch_bf16_gpu_available():
        args.bf16 = False
    args.dataloader_pin_memory = args.dataloader_pin_memory and torch.cuda.is_available()
    if args.dataloader_num_workers is None:
        args.dataloader_num_workers = min(_WORKERS, usable_cores()) if torch.cuda.is_available() else 0


def refuse_unsupported_precision(arguments: Mapping[str, Any]) -> None:
    """Raises RecipeError for a number type that this machine does not compute in, which upstream would say later and in
    words of its own."""
    on_cpu = bool(arguments.get("use_cpu")) or not torch.accelerator.is_available()
    where = "on a CPU" if on_cpu else "by the GPU of this machine"
    for name in ("bf16", "bf16_full_eval"):
        if arguments.get(name) and not arguments.get("use_cpu") and not is_torch_bf16_gpu_available():
            cure = "leave it out, or add --use_cpu true to have a CPU do it, slowly" if on_cpu else "leave it out"
            raise RecipeError(f"{name} is true, but bfloat16 is not supported {where}; {cure}")
    if arguments.get("tf32") and not is_torch_tf32_available():
        raise RecipeError(f"tf32 is true, but it is not supported {where}; leave it out")
    for name in ("fp16", "fp16_full_eval"):
        if arguments.get(name) and on_cpu:
            raise RecipeError(f"{name} is true, but float16 is not supported {where}; leave it out")


def refuse_several_gpus(args: Any) -> None:
    """Raises ValueError where one process sees several GPUs.

    transformers would divide each batch among replicas (`nn.DataParallel`) and average their losses. TRL refuses that
    too, but only after it has loaded data and model.
    """
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs are visible to one process, but one process cannot train exactly on several: start one "
            "per GPU with `accelerate launch -m balanced_thinking.cli sft ...` (or grpo), or make one GPU visible with "
            "CUDA_VISIBLE_DEVICES=0"
        )


def refuse_shards_in_one_process(args: Any, ranks: int | None) -> None:
    """Raises ValueError for FSDP in a process that no launcher has started: it has nobody to share the model with.

    `ranks`: those that the recipe is meant for, which a dry run does not have.
    """
    if args.fsdp and (ranks or args.world_size) == 1 and not torch.distributed.is_initialized():
        raise ValueError(
            "fsdp shards a model among ranks, and this is one process; start it with `accelerate launch -m "
            "balanced_thinking ...` or torchrun, leave fsdp out, or for a dry run set ranks"
        )


def refuse_split_examples(plan: Any) -> None:
    """Raises ValueError for an accelerate plan under which a rank has only a part of an example."""
    for name in ("cp", "sp", "tp"):
        if plan is not None and getattr(plan, f"{name}_enabled", False):
            raise ValueError(
                f"{name}_size > 1 cannot be exact with segment weights: a rank would see only part of an example. "
                f"Set parallelism_config.{name}_size=1, and use DDP, FSDP or ZeRO-3 instead"
            )


def refuse_vllm_without_gpu(args: Any) -> None:
    """Raises ValueError where a vLLM could not take the weights of each step (vLLM 0.32, TRL 1.16).

    On a CPU it packs them when it starts, and then has no place for others. A server gets them by NCCL alone.
    """
    if getattr(args, "use_vllm", False) and args.device.type == "cpu":
        reason = {
            "server": "TRL sends them to a server by NCCL, between CUDA devices",
            "colocate": "on a CPU vLLM packs its weights at the start and takes no others",
        }.get(args.vllm_mode, "it needs CUDA")
        raise ValueError(
            f"use_vllm is true, but the device here is a CPU, where vLLM cannot take new weights after each step: "
            f"{reason}. Set use_vllm: false, or train on a GPU"
        )


class SafeTrainer(StoppingTrainer, FiniteUpdates, MemoryWatch, CheckpointReader, CheckpointWriter):
    """A mixin for a `Trainer`: complete checkpoints, exact resuming, and no update that is not finite."""

    model: Any
    processing_class: Any
    train_dataset: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        limit_onednn_caches()
        super().__init__(*args, **kwargs)
        refuse_bias_without_base(self.model)
        add_stop_token(self.model, self.processing_class)
        refuse_unknown_ranks(self.accelerator.num_processes)
        refuse_forgotten_deepspeed(self.accelerator)
        name_layers_to_shard(getattr(self.accelerator.state, "fsdp_plugin", None), self.model)
        self.add_callback(EpochSetter)  # type: ignore[attr-defined]
        self.add_callback(EvaluationCheck)  # type: ignore[attr-defined]

    def train(self, *args: Any, **kwargs: Any) -> Any:
        refuse_nothing_to_train(self.model)  # here, because a frozen model can be evaluated
        with fast_matmuls_and_attention():
            found = super().train(*args, **kwargs)
        refuse_empty_stream(self.train_dataset, self.state.global_step)
        return found

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> Any:
        """As upstream; an evaluation has all rows, also where `dataloader_drop_last` leaves some out of training."""
        drops = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drops and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drops

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        with self._keep_checkpoint_of_bad_row():
            return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        with self._keep_checkpoint_of_bad_row():  # GRPO opens its pictures here
            return super().training_step(*args, **kwargs)

    @contextmanager
    def _keep_checkpoint_of_bad_row(self) -> Iterator[None]:
        """Save what was learned before a row stops the training. Several ranks keep the last checkpoint they have."""
        try:
            yield
        except RowError as error:
            step = self.state.global_step
            if step == 0 or self.accelerator.num_processes > 1:
                raise RowError(_own_message(error), error.problem) from error
            if self.stopping.saved_at != step:  # else the checkpoint is exact, and this one would not be
                self._save_checkpoint(self.model, trial=None)
            raise RowError(
                f"{_own_message(error)}. Training stopped at this row after step {step}, and checkpoint-{step} in "
                f"{self.args.output_dir} is kept: continue past the row with --resume --on_bad_row drop",
                error.problem,
            ) from error


def _own_message(error: RowError) -> str:
    """The message without the traceback that torch puts before that of a worker process."""
    return str(error).rpartition(f"{RowError.__name__}: ")[2].strip()


class EpochSetter(TrainerCallback):
    """Sets the epoch of the sampler.

    When several ranks resume within an epoch, the loader that skips the earlier batches does not set it. Without this,
    the order of the first epoch would come again.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        if hasattr(train_dataloader, "set_epoch"):
            train_dataloader.set_epoch(int(state.epoch or 0))
