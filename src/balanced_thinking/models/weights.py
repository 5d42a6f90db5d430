"""Weights from files: complete, readable and finite. Whatever is not is refused by name, before anything is computed.

transformers and PEFT only warn of a tensor that a file lacks, and initialise it at random.
"""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftModel, PromptLearningConfig, get_peft_model_state_dict
from peft.utils.save_and_load import load_peft_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.integrations import is_fsdp_enabled

from balanced_thinking.config.errors import UsageError
from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.models.revisions import split_revision
from balanced_thinking.system.text import list_some

# In the order in which transformers and PEFT look for them; only the first that is there counts.
_MODEL_FILES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_ELSEWHERE = {"subfolder", "variant", "gguf_file", "state_dict"}  # options of from_pretrained that name other files
_POINTER = b"version https://git-lfs"
_IMPOSSIBLE_SIZE = re.compile("negative dimension|overflowed|Storage size|invalid shape")  # in what torch says
_NAMED = 4  # tensors in a message
# What torch and safetensors raise for a file that is torn or is something else.
_UNREADABLE = (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, OSError, ValueError)

# What transformers raises while it builds a model from a configuration that it did not check.
_CANNOT_BE_BUILT = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError),
    StrictDataclassError,
)


# Types of adapters beside prompts that are no change of the weights.
_NOT_MERGED = ("ADAPTION_PROMPT", "CARTRIDGE", "CPT", "POLY", "XLORA")


class WeightsError(UsageError, ValueError):
    """Weights that are not complete, not readable or not finite."""


class CheckedModel(NamedTuple):
    """A model, and the names of its tensors that its files do not give: they are random, as was allowed."""

    model: Any
    random_tensors: tuple[str, ...]


def load_checked_model(auto: Any, path: str, allow_missing: Sequence[str], options: Mapping[str, Any]) -> CheckedModel:
    """`auto.from_pretrained(path, **options)`, complete and finite.

    Raises WeightsError for a file that cannot be read, and for tensors that the files lack, have in another shape or
    that the model does not use, unless `allow_missing` (names or patterns) covers them.
    """
    if options.get("weights_only") is False:
        raise WeightsError("model_options.weights_only is false, which lets a file run code; leave it out")
    if not _ELSEWHERE & options.keys():
        check_weight_files(path)
    options = {**options, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        with _without_load_report():
            source = split_revision(path)
            model, found = auto.from_pretrained(source.name, **options, **source.options)
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(f"the weights of {path} cannot be read: {error}; download them again") from error
    except _CANNOT_BE_BUILT as error:
        if isinstance(error, RuntimeError) and not _IMPOSSIBLE_SIZE.search(str(error)):
            raise
        raise WeightsError(
            f"the model of {path} cannot be built ({type(error).__name__}: {str(error)[:400]}): the files of its "
            "configuration are damaged, or have values that no model has; copy them again from their source"
        ) from error
    random = refuse_incomplete(type(model).__name__, path, found, allow_missing)
    refuse_nonfinite(model.state_dict(), path)
    return CheckedModel(model, random)


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Leave out transformers' table of tensors that do not fit: our message, or the user's option, says the same."""

    def is_wanted(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return "LOAD REPORT" not in message or "CONVERSION" in message

    upstream = logging.getLogger("transformers.modeling_utils")
    upstream.addFilter(is_wanted)
    try:
        yield
    finally:
        upstream.removeFilter(is_wanted)


def check_weight_files(path: str) -> None:
    """Open the weight files of a local folder, without reading their tensors.

    Raises WeightsError for a file that is torn, a pickle that does more than hold tensors, and a shard that is missing.
    """
    for file in list_weight_files(path):
        _open_weight_file(file)


def list_weight_files(path: str) -> list[Path]:
    """The weight files of a local folder that would be loaded; none of a hub's name. Raises WeightsError where one is
    missing."""
    folder = Path(path)
    names = next(([name] for name in (*_MODEL_FILES, *_ADAPTER_FILES) if (folder / name).is_file()), [])
    found: list[Path] = []
    for name in names:
        shards = _read_shard_names(folder / name) if name.endswith(".index.json") else [name]
        absent = [shard for shard in shards if not (folder / shard).is_file()]
        if absent:
            raise WeightsError(
                f"{folder} lacks {_list_names(absent)}, of the {len(shards)} weight files that {name} names; copy "
                "the complete folder again"
            )
        found += [folder / shard for shard in shards]
    return found


def refuse_nonfinite_files(path: str) -> None:
    """`refuse_nonfinite` for the files of a local folder, one tensor in memory at a time: for a model that another
    program loads. Raises WeightsError."""
    check_weight_files(path)
    for file in list_weight_files(path):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118, it is no mapping
                    refuse_nonfinite({name: stored.get_tensor(name)}, str(file))
        else:
            refuse_nonfinite(torch.load(file, weights_only=True, mmap=zipfile.is_zipfile(file)), str(file))


def _read_shard_names(index: Path) -> list[str]:
    try:
        return sorted(set(read_json_file(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index} is not an index of weight files ({error!r}); copy it again") from None


def _open_weight_file(file: Path) -> None:
    with file.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise WeightsError(f"{file} is a pointer of Git LFS, not the weights; run `git lfs pull` in its folder")
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                pass
        else:
            torch.load(file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file))
    except _UNREADABLE as error:
        what = "holds more than tensors, and would run code" if "Weights only" in str(error) else "cannot be read"
        first = str(error).strip().partition("\n")[0][:200]
        raise WeightsError(
            f"{file} ({file.stat().st_size:,} bytes) {what}: {first}; expected complete weights, best as safetensors: "
            "copy the file again"
        ) from error


def refuse_incomplete(
    model: str, path: str, found: Mapping[str, Iterable[Any]], allow_missing: Sequence[str] = ()
) -> tuple[str, ...]:
    """Raises WeightsError for tensors that files and model do not share; returns the allowed ones that are random.

    `found` is transformers' loading info. `allow_missing` holds names, starts of names (`lm_head`) or patterns.
    """
    missing, unused = set(found["missing_keys"]), set(found["unexpected_keys"])
    shapes = {name: (tuple(was), tuple(needed)) for name, was, needed in found["mismatched_keys"]}
    if is_fsdp_enabled() and torch.distributed.get_rank() > 0:
        return ()  # only the first rank reads the files
    random = sorted(missing | shapes.keys())
    missing, unused = (
        {name for name in names if not _is_allowed(name, allow_missing)} for names in (missing - shapes.keys(), unused)
    )
    shapes = {name: pair for name, pair in shapes.items() if not _is_allowed(name, allow_missing)}
    faults = []
    if missing:
        faults.append(f"{_count(missing, 'tensor')} of {model} not in the files ({_list_names(missing)})")
    if shapes:
        texts = [f"{name} is {list(was)}, expected {list(needed)}" for name, (was, needed) in sorted(shapes.items())]
        faults.append(f"{_count(shapes, 'tensor')} of another shape ({_list_names(texts)})")
    if unused:
        faults.append(f"{_count(unused, 'tensor')} in the files that {model} does not use ({_list_names(unused)})")
    if faults:
        example = sorted([*missing, *shapes, *unused])[0]
        raise WeightsError(
            f"the weights in {path} do not fit the model: {'; '.join(faults)}. Expected exactly the tensors of the "
            "model: check that config.json belongs to the weights and that the download is complete. Where it is "
            f"meant, such as a new head, name them with --allow-missing {example}"
        )
    return tuple(random)


def _is_allowed(name: str, allowed: Sequence[str]) -> bool:
    return any(name.startswith(f"{one}.") or fnmatchcase(name, one) for one in allowed)


def _count(items: Any, what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def _list_names(names: Iterable[str]) -> str:
    """The first few in their order, and how many more there are."""
    return list_some(sorted(names), _NAMED)


@torch.no_grad()
def refuse_nonfinite(tensors: Mapping[str, Tensor], path: str) -> None:
    """Raises WeightsError that names the tensors with a NaN or an infinity. Reads each tensor once, without a copy."""
    broken, seen = [], set()
    for name, tensor in tensors.items():
        readable = tensor.is_floating_point() and tensor.dtype.itemsize > 1 and tensor.numel()
        if not readable or tensor.device.type == "meta" or tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        low, high = torch.aminmax(tensor)  # a NaN anywhere comes out as NaN
        if not (torch.isfinite(low) and torch.isfinite(high)):
            broken.append(name)
    if broken:
        raise WeightsError(
            f"{_count(broken, 'tensor')} in {path} {'has' if len(broken) == 1 else 'have'} values that are not finite "
            f"(NaN or infinite): {_list_names(broken)}. A training that diverged leaves such weights: use an earlier "
            "checkpoint, or copy the files again"
        )


def refuse_unmergeable(path: str) -> None:
    """Raises WeightsError for an adapter that cannot become a part of its base's weights, before anything is loaded."""
    config = read_json_file(Path(path) / "adapter_config.json")
    kind = str(config.get("peft_type")) if isinstance(config, dict) else "None"
    kind_class = PEFT_TYPE_TO_CONFIG_MAPPING.get(kind)
    found = ""
    if kind_class is None:
        found = f"the type {kind!r} (peft_type), which PEFT does not have here"
    elif issubclass(kind_class, PromptLearningConfig) or kind in _NOT_MERGED:
        found = f"the type {kind} (peft_type), which adds to the input or to the computation"
    elif config.get("alora_invocation_tokens"):
        found = "alora_invocation_tokens (aLoRA), which switch it on within a text"
    if found:
        raise WeightsError(
            f"the adapter {path} has {found}, so it cannot be merged into the weights of its base; expected one that "
            "changes weights, such as LoRA without alora_invocation_tokens: train such an adapter, or merge this one "
            "with the program that trained it, and give the merged model"
        )


def load_adapter_weights(model: Any, path: str, allow_missing: Sequence[str] = ()) -> PeftModel:
    """`model` with the adapter in the folder `path`, complete and finite. Raises WeightsError as for a model."""
    check_weight_files(path)
    try:
        adapted = PeftModel.from_pretrained(model, path)
        result = adapted.load_adapter(path, "default")  # once more: only this call reports what was loaded
    except (RuntimeError, KeyError) as error:  # another shape; a module that the base does not have
        raise WeightsError(
            f"the adapter {path} does not fit its base: {str(error).strip()[:400]}; check base_model_name_or_path in "
            "its adapter_config.json"
        ) from error
    found = {"missing_keys": result.missing_keys, "unexpected_keys": result.unexpected_keys, "mismatched_keys": ()}
    refuse_incomplete("the adapter", path, found, allow_missing)
    refuse_nonfinite(get_peft_model_state_dict(adapted), path)
    return adapted


def check_adapter_checkpoint(model: PeftModel, folder: str) -> None:
    """Raises WeightsError unless the adapter's weights in a checkpoint are exactly those that `model` trains."""
    check_weight_files(folder)
    needed = get_peft_model_state_dict(model)
    stored = load_peft_weights(folder, device="cpu")
    shapes = [
        (name, stored[name].shape, needed[name].shape)
        for name in stored.keys() & needed.keys()
        if stored[name].shape != needed[name].shape
    ]
    found: dict[str, Iterable[Any]] = {
        "missing_keys": needed.keys() - stored.keys(),
        "unexpected_keys": stored.keys() - needed.keys(),
        "mismatched_keys": shapes,
    }
    refuse_incomplete("the adapter", folder, found)
    refuse_nonfinite(stored, folder)
