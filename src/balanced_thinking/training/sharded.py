"""Checkpoints that FSDP2 has written in shards or gathered: read by fewer ranks, without FSDP too, and without pickle's
power to run code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.runs.manifest import Damage

# As accelerate names them: the folders of SHARDED_STATE_DICT, the files of FULL_STATE_DICT.
_WEIGHT_SHARDS, _OPTIMIZER_SHARDS, _INDEX = "pytorch_model_fsdp_0", "optimizer_0", ".metadata"
_GATHERED_WEIGHTS, _GATHERED_OPTIMIZER = "pytorch_model_fsdp.bin", "optimizer.bin"
_SHARDED, _GATHERED = "SHARDED_STATE_DICT", "FULL_STATE_DICT"
_FORM_FIELDS = ("state_dict_type", "state_dict_config", "optim_state_dict_config")
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_METADATA, _FILES = "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"
# All that torch writes into the index of shards. None of these runs code of the file.
_ALLOWED = {
    *((_METADATA, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *((_METADATA, name) for name in ("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata")),
    *((_METADATA, "_MEM_FORMAT_ENCODING"), (_FILES, "_StorageInfo"), (_FILES, "_StoragePrefix")),
    *(("torch", "Size"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict")),
    *((module, f"{kind}Path") for module in ("pathlib", "pathlib._local") for kind in ("Posix", "PurePosix")),
}


def find_writer(checkpoint: Path) -> str:
    """What has written the state of a checkpoint: `DeepSpeed`, `FSDP`, or `one process` (DDP is the same)."""
    if any(checkpoint.glob("global_step*")):
        return "DeepSpeed"
    return "FSDP" if find_state_form(checkpoint) else "one process"


def find_state_form(checkpoint: Path) -> str | None:
    """accelerate's name of the form in which FSDP has saved; None for a checkpoint that is not FSDP's."""
    if (checkpoint / _WEIGHT_SHARDS).is_dir():
        return _SHARDED
    return _GATHERED if (checkpoint / _GATHERED_WEIGHTS).is_file() else None


def refuse_other_writer(checkpoint: str, *, fsdp: bool, deepspeed: bool) -> None:
    """Raises RecipeError for a checkpoint that this kind of run cannot load. Without either, FSDP's are loaded too."""
    place = Path(checkpoint)
    written, here = find_writer(place), "DeepSpeed" if deepspeed else "FSDP" if fsdp else "one process"
    if written == here or (written, here) == ("FSDP", "one process"):
        return
    what = {"one process": "without FSDP and DeepSpeed"}
    with_written, with_here = what.get(written, f"with {written}"), what.get(here, f"with {here}")
    raise RecipeError(
        f"{place.name} was written {with_written}, and this run was started {with_here}, which cannot load it; "
        f"start it {with_written}"
    )


@contextmanager
def raising_errors_of_ranks() -> Iterator[None]:
    """Raise what went wrong on a rank while shards are written or read. torch raises a `BaseException` on all of them,
    which no handler of errors would take."""
    try:
        yield
    except CheckpointException as failed:
        rank, (error, _) = min(failed.failures.items(), key=lambda item: not isinstance(item[1][0], OSError))
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, f"{error.strerror} (on rank {rank})", error.filename) from failed
        raise RuntimeError(f"rank {rank} failed with {type(error).__name__}: {error}") from failed


@contextmanager
def reading_as_written(accelerator: Any, checkpoint: Path) -> Iterator[None]:
    """Read FSDP's state in the form in which it was saved, whatever form this run saves; tensors and numbers only."""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    form = find_state_form(checkpoint) if plugin is not None else None
    with _weights_only(), raising_errors_of_ranks():
        if plugin is None or form is None or form == plugin.state_dict_type.name:
            yield
            return
        own = {name: getattr(plugin, name) for name in _FORM_FIELDS}
        # Without the settings of the other form, accelerate makes those that belong to this one.
        plugin.state_dict_config = plugin.optim_state_dict_config = None
        plugin.set_state_dict_type(form)
        try:
            yield
        finally:
            for name, value in own.items():
                setattr(plugin, name, value)


def load_fsdp_weights(checkpoint: Path, model: Any) -> bool:
    """Load weights that FSDP has saved into a model that is not sharded; False without loading where there are none.

    Raises RuntimeError where a tensor of the model, or with an adapter one that is trained, is not among them.
    """
    form, adapter = find_state_form(checkpoint), isinstance(model, PeftModel)
    if form is None:
        return False
    if form == _SHARDED:
        # accelerate saves an adapter in shards under PEFT's names.
        state = {"model": get_peft_model_state_dict(model) if adapter else get_model_state_dict(model)}
        _read_shards(state, checkpoint / _WEIGHT_SHARDS)
        if adapter:
            set_peft_model_state_dict(model, state["model"])
            return True
        weights = state["model"]
    else:
        weights = torch.load(checkpoint / _GATHERED_WEIGHTS, map_location="cpu", weights_only=True)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if missing := sorted(trained - weights.keys()):
            raise RuntimeError(f"{checkpoint / _GATHERED_WEIGHTS} has no {', '.join(missing[:3])}")
    set_model_state_dict(model, weights, options=StateDictOptions(strict=not adapter))
    return True


def load_fsdp_optimizer(checkpoint: Path, model: Any, optimizer: Any) -> bool:
    """Load the optimizer's state as `load_fsdp_weights` loads weights."""
    form = find_state_form(checkpoint)
    if form is None:
        return False
    plain = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    if form == _SHARDED:
        state = {"optimizer": get_optimizer_state_dict(model, plain)}
        _read_shards(state, checkpoint / _OPTIMIZER_SHARDS)
        moments = state["optimizer"]
    else:
        moments = torch.load(checkpoint / _GATHERED_OPTIMIZER, map_location="cpu", weights_only=True)
    set_optimizer_state_dict(model, plain, moments)
    return True


def inspect_shard_indices(checkpoint: Path) -> Iterator[Damage]:
    """torch reads the index of shards with pickle, which could run code: only names that it writes itself may occur."""
    for file in sorted(checkpoint.glob(f"*/{_INDEX}")):
        name = file.relative_to(checkpoint).as_posix()
        try:
            with file.open("rb") as stream:
                _IndexReader(stream).load()
        except Exception as error:  # whatever a hostile pickle leads to
            yield Damage(name, f"cannot be read: {str(error)[:200] or type(error).__name__}")


class _IndexReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not is_dtype and (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no index of shards does")
        return super().find_class(module, name)


def _read_shards(state: dict[str, Any], folder: Path) -> None:
    with _weights_only(), raising_errors_of_ranks():
        load(state, storage_reader=FileSystemReader(folder), planner=DefaultLoadPlanner(), no_dist=True)


@contextmanager
def _weights_only() -> Iterator[None]:
    """torch's loader of shards would unpickle what is not a tensor."""
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before


def name_layers_to_shard(plugin: Any, model: Any) -> None:
    """Name the layers that FSDP makes its units, where the user has not: those of the model's own list that it has.

    accelerate refuses a list with a layer that the model lacks, such as Gemma 3's. `plugin` is None without FSDP.
    """
    if plugin is None or plugin.transformer_cls_names_to_wrap is not None:
        return
    present = {type(module).__name__ for module in model.modules()}
    if names := sorted(present & set(getattr(model, "_no_split_modules", None) or ())):
        plugin.transformer_cls_names_to_wrap = names


def refuse_unknown_ranks(ranks: int) -> None:
    """Raises RecipeError where accelerate counts other `ranks` than torch: the denominators of a step would be wrong.

    So it is with DeepSpeed on CPUs, unless accelerate has started the ranks for CPUs.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if distributed and (started := torch.distributed.get_world_size()) != ranks:
        raise RecipeError(
            f"{started} ranks were started, but accelerate counts {ranks}, so that each would take itself for all of "
            "them; on CPUs add --use_cpu true, on GPUs start the ranks with `accelerate launch` or torchrun"
        )


def refuse_forgotten_deepspeed(accelerator: Any) -> None:
    """Raises RecipeError where DeepSpeed was asked for, and accelerate has started something else.

    ACCELERATE_USE_CPU does that: weights that ZeRO-3 has divided would then run as they are.
    """
    asked = os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"
    if asked and accelerator.distributed_type != DistributedType.DEEPSPEED and accelerator.num_processes > 1:
        raise RecipeError(
            f"DeepSpeed was asked for (ACCELERATE_USE_DEEPSPEED), but accelerate uses {accelerator.distributed_type}; "
            "unset ACCELERATE_USE_CPU, or leave DeepSpeed out"
        )


def refuse_quantized_shards(quantization: str | None) -> None:
    """Raises RecipeError for a quantized base under FSDP or DeepSpeed: it is not shown that they train it exactly."""
    if quantization is not None:
        raise RecipeError(
            f"quantization is {quantization!r}, which is not supported with FSDP or DeepSpeed; start the ranks without "
            "them (plain data parallelism), or leave quantization out"
        )


def refuse_save_without_weights(plugin: Any) -> None:
    """Raises ValueError if ZeRO-3 would save a model without weights, which it does unless it gathers them."""
    option = "stage3_gather_16bit_weights_on_model_save"
    if plugin is not None and plugin.zero_stage == 3 and not plugin.deepspeed_config["zero_optimization"].get(option):
        raise ValueError(
            f"DeepSpeed's ZeRO-3 without {option} would save a model without weights; set it to true under "
            "zero_optimization, or zero3_save_16bit_model in accelerate's configuration"
        )
