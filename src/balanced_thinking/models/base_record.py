"""Which weights an adapter was trained on: recorded in its manifest, and compared before it is used. No torch.

A base that was trained again under the same name would answer otherwise without a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import UsageError
from balanced_thinking.runs.manifest import MANIFEST, DamagedFilesError, is_sealed, read_about, read_manifest

ABOUT_BASE = "base"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
_WHOLE_BYTES = 64 << 20  # a file up to this size is read completely
_BLOCK_BYTES = 64 << 10  # of a larger one so many bytes at evenly spaced places, its header and its end among them
_BLOCKS = 256


class OtherBaseError(UsageError, ValueError):
    """The base of an adapter does not have the weights that it was trained on."""


def describe_base(folder: Path) -> dict[str, Any]:
    """What a manifest says of the base in `folder`: its weight files by name, each with its size and digests.

    `sha256` is of the complete file, where a manifest has it; `sample` of a large file's parts, at most 16 MiB of them.
    """
    names = sorted({file.name for pattern in _WEIGHTS for file in folder.glob(pattern) if file.is_file()})
    try:
        sealed = read_manifest(folder).files if is_sealed(folder) else {}
    except DamagedFilesError:  # loading it says what is wrong
        sealed = {}
    described: dict[str, Any] = {}
    for name in names:
        about = (folder / name).stat()
        sample = _digest_sample(folder / name, about.st_size, about.st_mtime_ns, about.st_ino)
        described[name] = {"bytes": about.st_size, "sample": sample}
        if name in sealed and sealed[name].bytes == about.st_size:
            described[name]["sha256"] = sealed[name].sha256
    return described


def read_base_record(adapter: Path) -> dict[str, Any] | None:
    """What the manifest of an adapter's folder says of its base; None in an older one, and in one of others."""
    found = read_about(adapter).get(ABOUT_BASE)
    return found if isinstance(found, dict) and found else None


def compare_base(record: Mapping[str, Any], folder: Path) -> str | None:
    """What differs between the recorded base and the model in `folder`, in words; None where nothing does."""
    found = describe_base(folder)
    known, present = _names_that_count(record), _names_that_count(found)
    for name in known:
        if name not in present:
            return f"{name} is not there"
        was, now = record[name], found[name]
        if now["bytes"] != was.get("bytes"):
            return f"{name} has {now['bytes']:,} bytes, expected {was.get('bytes'):,}"
        digest = "sha256" if {"sha256"} <= now.keys() & was.keys() else "sample"
        if now[digest] != was.get(digest):
            return f"{name} has other content than it had then"
    extra = present - known
    return f"{min(extra)} was not there" if extra else None


def _names_that_count(described: Mapping[str, Any]) -> set[str]:
    """The weight files that are loaded: beside safetensors no .bin is."""
    return {name for name in described if name.endswith(".safetensors")} or set(described)


def refuse_other_base(adapter: Path, base: str, folder: Path) -> None:
    """Raises OtherBaseError where the weights in `folder` are not those that the adapter was trained on."""
    record = read_base_record(adapter)
    difference = compare_base(record, folder) if record is not None else None
    if difference is not None:
        raise OtherBaseError(
            f"{adapter} is an adapter on the base model {base}, which is not the model that it was trained on: in "
            f"{folder}, {difference}. Bring that model back to its place, or train the adapter again; to use it on the "
            f"present one nevertheless, delete {adapter / MANIFEST}"
        )


@lru_cache(maxsize=256)
def _digest_sample(file: Path, size: int, _modified: int, _inode: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        if size <= _WHOLE_BYTES:
            while block := stream.read(1 << 20):
                digest.update(block)
        else:
            for number in range(_BLOCKS):
                stream.seek(number * (size - _BLOCK_BYTES) // (_BLOCKS - 1))
                digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()
