"""What a model's folder would run if its own code were allowed: named, and not run. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.config.foreign_json import JsonError, read_json_file
from balanced_thinking.models.find import ModelNotFoundError

_FILES = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
_MOST_NAMED, _LONGEST = 6, 100
_SIGN = "trust_remote_code"  # in transformers' error


class OwnCodeError(ModelNotFoundError):
    """A model that cannot be loaded without running code that comes with it."""


def refuse_own_code(path: str, error: Exception) -> None:
    """Raises OwnCodeError where transformers' error is that the model has code of its own."""
    if _SIGN not in str(error):
        return
    named = list(_name_classes(Path(path)))
    shown = "; ".join(named[:_MOST_NAMED]) or f"what the files of {path} on the hub name in auto_map"
    raise OwnCodeError(
        f"{path} needs code of its own, which was not run: {shown}. No option runs the code of a configuration, a "
        "processor or a tokenizer: expected a model whose classes transformers has, so convert it or update "
        "transformers"
    ) from error


def _name_classes(folder: Path) -> Iterator[str]:
    """Each class that an `auto_map` names: who loads it, the class, its file or repository, and who says so."""
    for name in _FILES:
        try:
            found = read_json_file(folder / name)
        except (OSError, JsonError):
            continue
        mapping = found.get("auto_map") if isinstance(found, dict) else None
        for auto, value in mapping.items() if isinstance(mapping, dict) else ():
            for reference in value if isinstance(value, list) else [value]:
                if isinstance(reference, str):
                    yield f"{str(auto)[:_LONGEST]} of {name} would run {_describe_reference(folder, reference)}"


def _describe_reference(folder: Path, reference: str) -> str:
    """`file.Class` of the folder, or `owner/name--file.Class` of a repository."""
    repository, _, inner = reference[:_LONGEST].rpartition("--")
    module, _, kind = inner.rpartition(".")
    place: Any = f"the repository {repository}" if repository else folder
    return f"the class {kind} in {module}.py of {place}"
