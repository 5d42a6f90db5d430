"""Data sets: adapters turn them into Examples, checks name what is wrong with them.

    load_data("world", split="test", options={"n": 400})
    load_data("my/data.jsonl", on_bad_row="drop")

To add a data set, write one module with `load(path, *, split, **options)` that yields one `Example` or `BadRow` a row,
and name it in `DATASETS` (or call `register`). A module with `recognises(path)` is found by a bare path, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, signature  # by name: this package has a module `inspect` of its own
from itertools import islice
from pathlib import Path
from typing import Any

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.data.bad_rows import BadRow, BadRowsError, bad_rows_table
from balanced_thinking.data.checks import check_examples
from balanced_thinking.data.example import Example
from balanced_thinking.data.options import check_options
from balanced_thinking.data.splits import check_split, select_split
from balanced_thinking.system.progress import track

# name -> module, imported when it is asked for
DATASETS = {
    "world": "balanced_thinking.data.world",
    "puzzlevqa": "balanced_thinking.data.adapters.puzzlevqa",
    "scienceqa": "balanced_thinking.data.adapters.scienceqa",
    "iconqa": "balanced_thinking.data.adapters.iconqa",
    "chartqa": "balanced_thinking.data.adapters.chartqa",
    "mathvista": "balanced_thinking.data.adapters.mathvista",
    "tabmwp": "balanced_thinking.data.adapters.tabmwp",
    "vision-r1-cold": "balanced_thinking.data.adapters.vision_r1",
    "llava-cot": "balanced_thinking.data.adapters.llava_cot",
    "vlaa-thinking": "balanced_thinking.data.adapters.vlaa_thinking",
    "mulberry": "balanced_thinking.data.adapters.mulberry",
    "jsonl": "balanced_thinking.data.adapters.jsonl",
}


@dataclass(frozen=True)
class LoadedData:
    """The good rows as examples, the others as they were found."""

    examples: list[Example]
    bad_rows: tuple[BadRow, ...] = ()

    @property
    def dropped(self) -> int:
        """How many rows were left out."""
        return len(self.bad_rows)

    def table(self) -> str:
        """The bad rows as text."""
        return bad_rows_table(self.bad_rows)


def load_data(
    data: str,
    *,
    split: str = "train",
    format: str | Mapping[str, Any] = "auto",
    on_bad_row: str = "error",
    limit: int | None = None,
    verify_images: bool = False,
    options: Mapping[str, Any] | None = None,
) -> LoadedData:
    """The examples of one split; `stream_data` gives them one at a time.

    Args:
        data: a name (`world`), a name and a path (`puzzlevqa:folder`), the path of a file or folder, or a name on the
            hub (`derek-thomas/ScienceQA`; of a copy: `scienceqa:owner/name`), which is downloaded.
        format: the reasoning format that completions are read with, where the data holds completions.
        on_bad_row: `error` raises once all rows are read; `drop` leaves bad rows out and keeps them in `bad_rows`.
        limit: rows to read at most, good or bad.
        verify_images: also open every image file, not only look whether it is there.
        options: the data set's own, the keyword arguments of its `load`; and `hash_split` (true), which makes `train`,
            `validation` and `test` of data without splits, by a hash of the pictures (`splits`).

    Raises:
        BadRowsError: there are bad rows. ValueError: an unknown name, split or option, an option of another type than
            its `load` says, or a path that leads nowhere.
    """
    bad_rows: list[BadRow] = []
    examples = stream_data(
        data,
        split=split,
        format=format,
        on_bad_row=on_bad_row,
        limit=limit,
        verify_images=verify_images,
        options=options,
        bad_rows=bad_rows,
    )
    return LoadedData(list(examples), tuple(bad_rows))


def stream_data(
    data: str,
    *,
    split: str = "train",
    format: str | Mapping[str, Any] = "auto",
    on_bad_row: str = "error",
    limit: int | None = None,
    verify_images: bool = False,
    reasoned: bool = False,
    options: Mapping[str, Any] | None = None,
    bad_rows: list[BadRow] | None = None,
) -> Iterator[Example]:
    """The examples of one split, one at a time, so that a long set takes no more memory than a short one.

    Arguments and errors are those of `load_data`. What is wrong with a row is told after the last one; `bad_rows`, a
    list, takes the bad rows as they are met. `reasoned`: rows without reasoning are bad ones.
    """
    if on_bad_row not in ("error", "drop"):
        raise ValueError(f"on_bad_row is {on_bad_row!r}; expected 'error' or 'drop'")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected at least 1 row, or none for all")
    name, path = resolve_data(data)
    own = dict(options or {})
    if own.pop("hash_split", False):
        check_split(split, f"{data} with hash_split")
        whole = "all" if name == "jsonl" and not Path(path or "").is_dir() else "train"
        rows: Iterable[Example | BadRow] = select_split(_load_rows(name, path, whole, {"format": format}, own), split)
    else:
        rows = _load_rows(name, path, split, {"format": format}, own)
    checked = check_examples(rows, verify_images=verify_images, reasoned=reasoned)
    found: list[BadRow] = [] if bad_rows is None else bad_rows
    return _collect_bad_rows(data, islice(checked, limit), found, on_bad_row == "error")


def check_first_row(
    data: str,
    split: str,
    options: Mapping[str, Any],
    *,
    format: str | Mapping[str, Any] = "auto",
    on_bad_row: str = "error",
    limit: int | None = None,
) -> None:
    """Look whether there is such data with a row to use, reading no more than it takes to find one.

    Arguments are those of `load_data`. Raises ValueError where the data, its split or an option does not exist or where
    no row is good, BadRowsError where one before the first good one is bad and none may be.
    """
    bad_rows: list[BadRow] = []
    rows = stream_data(
        data, split=split, format=format, on_bad_row=on_bad_row, limit=limit, options=options, bad_rows=bad_rows
    )
    if next(rows, None) is None:
        why = f": {bad_rows_table(bad_rows)}" if bad_rows else ""
        raise ValueError(f"{data}, split {split!r}, has no row to use{why}")
    if bad_rows and on_bad_row == "error":
        deque(rows, maxlen=0)  # raises with all of them


def load_test_items(data: str) -> tuple[list[Example], int]:
    """The test items of a benchmark as they are published, unchecked (answers may be withheld), and how many of its
    rows could not be read.

    Which split that is and which options take all of it is said by the adapter's `TEST`. Raises ValueError for none.
    """
    name, path = resolve_data(data)
    options = dict(getattr(import_module(DATASETS[name]), "TEST", {}))
    rows = list(track(_load_rows(name, path, options.pop("split", "test"), {}, options), f"rows of {data} read"))
    examples = [row for row in rows if isinstance(row, Example)]
    if not examples:
        raise ValueError(f"{data}: none of the {len(rows)} rows of its test split can be read")
    return examples, len(rows) - len(examples)


def _collect_bad_rows(
    data: str, rows: Iterable[Example | BadRow], bad_rows: list[BadRow], strict: bool
) -> Iterator[Example]:
    for row in track(rows, f"rows of {data} read"):
        if isinstance(row, BadRow):
            bad_rows.append(row)
        else:
            yield row
    if bad_rows and strict:
        raise BadRowsError(data, bad_rows)


def _load_rows(
    name: str, path: str | None, split: str, defaults: dict[str, Any], options: dict[str, Any]
) -> Iterable[Example | BadRow]:
    load: Callable[..., Iterable[Example | BadRow]] = import_module(DATASETS[name]).load
    parameters = signature(load).parameters
    if path is None and parameters["path"].default is Parameter.empty:
        raise ValueError(f"data set {name!r} needs a path: write {name}:PATH")
    known = [key for key in parameters if key not in ("path", "split")]
    for key in options:
        if key not in known:
            raise ValueError(
                f"data set {name!r} has no option {key!r}{did_you_mean(key, known)}; known: {', '.join(known)}"
            )
    check_options(name, load, options)
    taken = {key: value for key, value in defaults.items() if key in known}
    return load(path, split=split, **{**taken, **options})


def resolve_data(data: str) -> tuple[str, str | None]:
    """`data` as a name of `DATASETS` and a path (None where it gives none). Raises ValueError when nothing fits."""
    if not isinstance(data, str):
        raise ValueError(f"data is {data!r}; expected a data set's name or a path as text")
    name, _, path = data.partition(":")
    if name in DATASETS:
        return name, path or None
    names = ", ".join(DATASETS)
    expected = f"expected one of {names} (as NAME or NAME:PATH), a .jsonl, .json or .csv file, or a folder of data"
    place = Path(data).expanduser()
    if not place.exists():
        for owner, module in DATASETS.items():
            if data in getattr(import_module(module), "HUB", ()):
                return owner, data
        raise ValueError(f"there is no data set and no path {data!r}{did_you_mean(name, DATASETS)}; {expected}")
    for name, module in DATASETS.items():
        recognises = getattr(import_module(module), "recognises", None)
        if recognises is not None and recognises(place):
            return name, data
    raise ValueError(f"no data set recognises {data!r}; {expected}")


def completion_format(reasoning_format: str | Mapping[str, Any] | None) -> str | Mapping[str, Any]:
    """What completions in the data are read with, given the format that a run trains in: one's own where it is one's
    own, else whichever built-in one their tags show, so that data in one format can train another."""
    return reasoning_format if isinstance(reasoning_format, Mapping) else "auto"


def result_folder_name(data: str, split: str) -> str:
    """The name of a result's folder, `<data>-<split>`: two data sets never share one just for the split's name.

    A named data set goes by its name, a path by its file's stem, or its folder's name where the stem is the split.
    A split's name may hold a slash, the folder's not: reports look for results in one folder, not deeper or elsewhere.
    """
    folder = split.replace("/", "-")
    name, _, path = data.partition(":")
    if name in DATASETS and name != "jsonl":
        return f"{name}-{folder}"
    place = Path(path if name == "jsonl" and path else data).expanduser().resolve()
    stem = place.stem if place.suffix.lower() in (".jsonl", ".json", ".csv") else place.name
    return f"{place.parent.name if stem == split else stem}-{folder}"


def register(name: str, module: str) -> None:
    """Make the module at this import path known as a data set. Raises ValueError for a taken name or a colon in it."""
    if ":" in name or DATASETS.get(name, module) != module:
        raise ValueError(f"the name {name!r} cannot be registered: it has a colon or stands for {DATASETS.get(name)}")
    DATASETS[name] = module
