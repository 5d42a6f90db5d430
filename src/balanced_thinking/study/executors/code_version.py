"""Which code a machine runs: versions of the packages that decide results, and a digest of this package's source."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import balanced_thinking

_COMPARED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")
_SOURCE = "balanced_thinking's source"


@cache
def source_digest() -> str:
    """SHA-256 over the names and contents of this package's modules: equal for the same commit, however installed."""
    root = Path(balanced_thinking.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def describe_code() -> dict[str, str]:
    """What must be the same on every machine that processes a study's runs."""
    python = ".".join(platform.python_version_tuple()[:2])
    versions = {name: _version_of(name) for name in ("balanced-thinking", *_COMPARED)}
    return {"python": python, **versions, _SOURCE: source_digest()}


def _version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def code_differences(there: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    """What differs, such as `torch 2.12.0 (here 2.13.0)`."""
    for name, ours in here.items():
        theirs = there.get(name, "none")
        if theirs != ours:
            shown = (theirs[:12], ours[:12]) if name == _SOURCE else (theirs, ours)
            yield f"{name} {shown[0]} (here {shown[1]})"
