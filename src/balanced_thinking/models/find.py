"""Find models by name without loading anything: no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balanced_thinking.config.errors import UsageError
from balanced_thinking.config.foreign_json import JsonError, read_json_file
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.models.base_places import find_base_folder, is_model_folder
from balanced_thinking.models.base_record import refuse_other_base
from balanced_thinking.models.revisions import pin_revision, split_revision
from balanced_thinking.models.verify import refuse_altered_model
from balanced_thinking.runs.checkpoints import list_checkpoints
from balanced_thinking.runs.paths import CONFIG, RunFiles
from balanced_thinking.system.files import expand_home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Models that are part of the package, each in a complete folder of its name beside this file.
EMBEDDED = ("world-base", "world-reasoner")
TINY_PREFIX = "tiny:"
TINY_ARCHITECTURES = ("qwen2_5_vl", "llava_next", "gemma3", "qwen2")
TINY_PATCH_SIDE = 14  # pixels
# The folder of a model with a tokenizer has at least one of the first; with an image processor one of the second.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


_MODEL_OR_RUN = ("config.json", "adapter_config.json", CONFIG, f"*/{CONFIG}")


class ModelNotFoundError(UsageError, FileNotFoundError):
    """There is no such model, or its folder lacks what training and evaluation need."""


@dataclass(frozen=True)
class TinySize:
    """Widths and depths of the tiny architectures. `hidden` is a multiple of `heads`.

    `max_image_tokens` limits the images of Qwen2.5-VL. `image_side` is the side in pixels, a multiple of 28, to which
    LLaVA-NeXT's tiles and Gemma 3's images are scaled.
    """

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    vision_hidden: int = 64
    vision_layers: int = 2
    max_image_tokens: int = 16
    image_side: int = 56

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    def text_config(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        return {
            "vocab_size": (len(tokenizer) + 7) // 8 * 8,
            "hidden_size": self.hidden,
            "intermediate_size": 3 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads // 2,
            "max_position_embeddings": 8192,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_range": 0.05,
        }

    def vision_config(self) -> dict[str, Any]:
        return {
            "hidden_size": self.vision_hidden,
            "intermediate_size": 2 * self.vision_hidden,
            "num_hidden_layers": self.vision_layers,
            "num_attention_heads": 4,
            "patch_size": TINY_PATCH_SIDE,
        }


def check_model(name: str) -> None:
    """Raises ModelNotFoundError if name and local files show that the model does not exist or is incomplete."""
    if name.startswith(TINY_PREFIX):
        check_architecture(name.removeprefix(TINY_PREFIX))
        return
    folder = Path(find_model_source(name))
    if not folder.is_dir():
        return  # a hub name: loading it finds out
    if (base := adapter_base_name(str(folder))) is not None:
        check_model(base)
        return
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(describe_missing_model(folder))
    _check_generation_config(folder / "generation_config.json")
    has_vision = "vision_config" in read_json_mapping(folder / "config.json")
    for what, names in (("tokenizer", _TOKENIZER_FILES), ("processor", _PROCESSOR_FILES if has_vision else ())):
        if names and not any((folder / file).is_file() for file in names):
            expected = f"expected {' or '.join(names)} beside config.json"
            raise ModelNotFoundError(f"{folder} has no {what}: {expected}{how_to_add_processor(folder)}")


def check_architecture(name: str) -> None:
    """Raises ModelNotFoundError for a tiny architecture that does not exist."""
    if name not in TINY_ARCHITECTURES:
        known = ", ".join(TINY_ARCHITECTURES)
        raise ModelNotFoundError(
            f"there is no tiny architecture {name!r}{did_you_mean(name, TINY_ARCHITECTURES)}; known: {known}"
        )


def describe_missing_model(folder: Path) -> str:
    """The message for a folder without a model, with what to do where it is a run, and its latest checkpoint."""
    held = list_checkpoints(RunFiles(folder).checkpoints) or list_checkpoints(folder)
    hint = f"; its latest checkpoint is {held[max(held)]}" if held else ""
    if RunFiles(folder).config.is_file():
        return f"{folder} is a run that has not finished: continue it with --out {folder} --resume{hint}"
    return f"{folder} holds no model: there is no config.json in it{hint}"


def how_to_add_processor(folder: Path | str) -> str:
    return f"; copy these files from the base model, or write them with processor.save_pretrained({str(folder)!r})"


def find_model_source(name: str) -> str:
    """The folder of an embedded model, of a run's model or of a checkpoint; a hub name is returned unchanged.

    Raises ModelNotFoundError for a name that must be a folder but does not exist, RecipeError for a revision of a
    folder, and DamagedFilesError for a folder of ours in which a file is not what was saved.
    """
    if (revision := split_revision(name).revision) is not None and not is_path(name):
        return pin_revision(name, revision)
    if name in EMBEDDED:
        return str(files("balanced_thinking") / "models" / name)
    folder = expand_home(name)
    if folder.is_dir():
        found = RunFiles(folder).model if is_run_folder(folder) else folder
        refuse_altered_model(found)
        return str(found)
    if is_path(name):
        beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
        # The command's own --out may be there already.
        folders = [str(Path(name).parent / place.name) for place in beside if _may_hold_model(place)]
        similar = did_you_mean(name, [*folders, *EMBEDDED])
        tiny = ", ".join(TINY_PREFIX + architecture for architecture in TINY_ARCHITECTURES)
        raise ModelNotFoundError(
            f"there is no model folder {name}{similar}; expected a run, a checkpoint's folder, a hub name such as "
            f"Qwen/Qwen2.5-VL-3B-Instruct, {', '.join(EMBEDDED)}, or one of {tiny}"
        )
    return name


def _may_hold_model(folder: Path) -> bool:
    """A run, an arm of a study, or a model's folder."""
    return any(next(folder.glob(name), None) for name in _MODEL_OR_RUN)


def is_path(name: str) -> bool:
    """Whether it must be a path: no OWNER/NAME of the hub, or OWNER is a folder with runs."""
    owner, slash, rest = split_revision(name).name.partition("/")
    if name.startswith((".", "/", "~")) or not slash or "/" in rest:
        return True
    return owner == "runs" or any(Path(owner).glob("*/provenance.json")) or any(Path(owner).glob("*/*/provenance.json"))


def adapter_base_name(path: str) -> str | None:
    """Where the base of the adapter in this folder is, as a folder or a hub name; None if the folder has no adapter.

    A folder that is not at its place any more is looked for beside the adapter (`find_base_folder`).

    Raises ModelNotFoundError, which names the adapter, where there is none, and OtherBaseError where its weights are
    not those that the adapter was trained on.
    """
    adapter = Path(path) / "adapter_config.json"
    if not adapter.is_file():
        return None
    config = read_json_mapping(adapter)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise ModelNotFoundError(f"{adapter} names no base model; set its base_model_name_or_path")
    if revision and not is_path(base) and not expand_home(base).is_dir():
        return pin_revision(base, revision)
    if (found := find_base_folder(Path(path), base)) is not None:
        return str(found)
    if (name := Path(base).name) in EMBEDDED:  # of an installation that is elsewhere now
        refuse_other_base(Path(path), base, Path(find_model_source(name)))
        return name
    if is_path(base):
        raise ModelNotFoundError(
            f"{path} is an adapter on the base model {base}, and there is no such folder, nor one beside the adapter; "
            f"copy the base there, or set base_model_name_or_path in {adapter}"
        )
    return base


def is_run_folder(folder: Path) -> bool:
    """Whether it is a run directory with a saved model."""
    return is_model_folder(RunFiles(folder).model)


def _check_generation_config(file: Path) -> None:
    """Raises ModelNotFoundError for settings at which transformers would end in an error of Python."""
    try:
        sound = not file.is_file() or isinstance(read_json_file(file), dict)
    except JsonError as error:
        raise ModelNotFoundError(str(error)) from None
    if not sound:
        raise ModelNotFoundError(f"{file} is not a JSON object; copy it from the base model, or delete it")


def read_json_mapping(path: Path) -> dict[str, Any]:
    """The object in a file of a model's folder, empty for another value. Raises ModelNotFoundError."""
    try:
        found = read_json_file(path)
    except JsonError as error:
        raise ModelNotFoundError(str(error)) from None
    return found if isinstance(found, dict) else {}
