"""Which files the header of a folder's README.md names for a split, as on the hub.

`datasets` also reads such a header. But it would read any file of the disk, fetch web addresses, write out aliases of
YAML, and end the process at JSON that is nested deeply. So the files are found here, and our own readers read them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.config.yaml import MOST_BYTES, read_yaml
from balanced_thinking.data.bad_rows import DataError
from balanced_thinking.data.walking import walk_files
from balanced_thinking.system.text import list_some

logger = logging.getLogger(__name__)
_BLOCK = re.compile(r"\s{0,1000}---\n(.*?)\n---[ \t]*(?:\n|$)", re.DOTALL)
_DEEPEST = 10  # levels of folders in which patterns look
_MOST_PATTERNS = 100  # with a * or the like, each of which is compared with each file
_FETCHED = re.compile("://|::")  # an address, and a chain of file systems
_USED = {"config_name", "data_files", "data_dir", "default"}


class NamedFiles(NamedTuple):
    """Files of a split that a header names. folder: in which they are; files: None for all of the folder."""

    folder: Path
    files: list[Path] | None


def find_named_files(folder: Path, split: str, subset: str | None) -> NamedFiles | None:
    """The files of a split by the folder's header; None where it names none and the user asks for no subset.

    Raises DataError for a header that cannot be read, for files outside of the folder, and for an unknown split or
    subset.
    """
    file = folder / "README.md"
    configs = _read_configs(file) if file.is_file() else []
    if not configs:
        if subset is None:
            return None
        raise DataError(f"{folder} has no subsets, so that there is no {subset!r}; leave out --data_options.subset")
    config = _choose_config(configs, subset, file)
    if ignored := sorted(str(key) for key in config.keys() - _USED):
        logger.warning("%s: %s of a subset is not used", file, ", ".join(ignored)[:200])
    inside = folder / str(config.get("data_dir") or "")
    patterns = _choose_patterns(config.get("data_files"), split, file)
    return NamedFiles(inside, None if patterns is None else list(_match_files(inside, patterns, file)))


def _read_configs(file: Path) -> list[dict[Any, Any]]:
    with file.open("rb") as stream:
        text = stream.read(MOST_BYTES + 1).decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    block = _BLOCK.match(text)
    if block is None and len(text) > MOST_BYTES and text.startswith("---\n"):
        raise DataError(f"{file} has a header of more than {MOST_BYTES:,} bytes; shorten it, or name a file of rows")
    if block is None or "configs" not in block[1]:
        return []
    try:
        header = read_yaml(block[1], str(file))
    except RecipeError as error:
        raise DataError(f"{error}; or name a file of rows") from None
    configs = header.get("configs", []) if isinstance(header, dict) else []
    if not isinstance(configs, list) or not all(isinstance(one, dict) for one in configs):
        raise DataError(f"{file} has configs that are not a list of mappings; correct them, or name a file of rows")
    for config in configs:
        named = [config.get("data_files"), config.get("data_dir")]
        if any(_FETCHED.search(text) or _leads_out(text) for text in _list_texts(named)):
            raise DataError(f"{file} names files outside of its folder; expected a folder that has its data: get them")
    return configs


def _leads_out(name: str) -> bool:
    path = PureWindowsPath(name)  # it knows both kinds of slash, and drives
    return bool(path.anchor) or ".." in path.parts or name.startswith("~")


def _list_texts(value: Any) -> Iterator[str]:
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _list_texts(inner)
    if isinstance(value, str):
        yield value


def _choose_config(configs: list[dict[Any, Any]], subset: str | None, file: Path) -> dict[Any, Any]:
    names = [str(config.get("config_name", "default")) for config in configs]
    if subset is not None:
        if subset in names:
            return configs[names.index(subset)]
        raise DataError(f"{file} has no subset {subset!r}{did_you_mean(subset, names)}; it has {_show_names(names)}")
    usual = [config for config, name in zip(configs, names, strict=True) if config.get("default") or name == "default"]
    if usual or len(configs) == 1:
        return (usual or configs)[0]
    raise DataError(f"{file} has the subsets {_show_names(names)}; choose one with --data_options.subset NAME")


def _choose_patterns(named: Any, split: str, file: Path) -> list[str] | None:
    """The patterns of a split's files; None where the header has none."""
    if named is None:
        return None
    splits: dict[str, Any] = {"train": named}  # as on the hub, files without a split are those for training
    if isinstance(named, dict):
        splits = {str(key): value for key, value in named.items()}
    elif isinstance(named, list) and all(isinstance(one, dict) for one in named):
        splits = {str(one.get("split")): one.get("path") for one in named}
    if split not in splits:
        known = f"{did_you_mean(split, splits)}; it has {_show_names(list(splits))}"
        raise DataError(f"{file} has no split {split!r}{known}; choose one with --split NAME")
    patterns = splits[split] if isinstance(splits[split], list) else [splits[split]]
    if not all(isinstance(one, str) for one in patterns):
        raise DataError(f"{file} has data_files {str(patterns)[:100]}; expected names of files as texts")
    return patterns


def _match_files(folder: Path, patterns: Sequence[str], file: Path) -> Iterator[Path]:
    names = {str(PurePosixPath(pattern)) for pattern in patterns}
    wild = [PurePosixPath(name).parts for name in names if set(name) & set("*?[")]
    if len(wild) > _MOST_PATTERNS:
        raise DataError(f"{file} has {len(wild)} patterns of data_files; expected at most {_MOST_PATTERNS}")
    for found in walk_files(folder, _DEEPEST):
        place = found.relative_to(folder)
        if place.as_posix() in names or any(_match_parts(place.parts, parts) for parts in wild):
            yield found


def _match_parts(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches; `**` stands for any number of folders. In time that grows with both lengths alone."""
    reached = _pass_stars({0}, pattern)
    for name in names:
        stay = {k for k in reached if pattern[k : k + 1] == ("**",)}
        go_on = {k + 1 for k in reached - stay if k < len(pattern) and fnmatchcase(name, pattern[k])}
        reached = _pass_stars(stay | go_on, pattern)
    return len(pattern) in reached


def _pass_stars(reached: set[int], pattern: Sequence[str]) -> set[int]:
    for k, part in enumerate(pattern):
        if part == "**" and k in reached:
            reached.add(k + 1)
    return reached


def _show_names(names: Sequence[str]) -> str:
    return list_some([name[:60] for name in names], 20)
