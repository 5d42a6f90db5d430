"""Load the examples of a split, with named problems for the rows that cannot be used.

    load_data("world", split="test", options={"n": 400})
    load_data("my/data.jsonl", on_bad_row="drop")

`registry` says which data sets there are and how to add one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from inspect import Parameter, signature
from itertools import chain, islice
from typing import Any, NamedTuple

from balanced_thinking.data.bad_rows import BadRow, BadRowsError, DataError, UnknownDataError, format_bad_rows
from balanced_thinking.data.checks import check_examples
from balanced_thinking.data.columns import FormatSpec
from balanced_thinking.data.example import Example
from balanced_thinking.data.mixture import ID_MARK, DataNames, DataPart, describe_data, list_parts
from balanced_thinking.data.options import check_known_name, check_options, list_options
from balanced_thinking.data.registry import DataSource, import_adapter, resolve_data
from balanced_thinking.data.splits import check_split, select_split
from balanced_thinking.system.files import expand_home
from balanced_thinking.system.progress import track_progress


@dataclass(frozen=True)
class LoadedData:
    """The good rows as examples, and the bad rows with their problems."""

    examples: list[Example]
    bad_rows: tuple[BadRow, ...] = ()

    @property
    def dropped(self) -> int:
        """How many rows were left out."""
        return len(self.bad_rows)

    def table(self) -> str:
        """The bad rows as text."""
        return format_bad_rows(self.bad_rows)


@dataclass
class DataStream(Iterator[Example]):
    """Iterates over the good rows. `bad_rows` has the bad ones that were met so far.

    With `strict`, bad rows raise BadRowsError after the last row.
    """

    data: str
    rows: Iterator[Example | BadRow]
    strict: bool
    bad_rows: list[BadRow] = field(default_factory=list)

    def __next__(self) -> Example:
        for row in self.rows:
            if isinstance(row, Example):
                return row
            self.bad_rows.append(row)
        if self.bad_rows and self.strict:
            raise BadRowsError(self.data, self.bad_rows)
        raise StopIteration


class BenchmarkItems(NamedTuple):
    """A benchmark's test items, and how many of its rows cannot be read."""

    examples: list[Example]
    unreadable: int


def load_data(
    data: DataNames,
    *,
    split: str = "train",
    format: str | Mapping[str, Any] = "auto",
    on_bad_row: str = "error",
    limit: int | None = None,
    verify_images: bool = False,
    options: Mapping[str, Any] | None = None,
) -> LoadedData:
    """Load the examples of one split. `stream_data` gives them one at a time.

    Args:
        data: a name (`world`), a name and a path (`puzzlevqa:folder`), the path of a file or folder, or a name on the
            hub (`derek-thomas/ScienceQA`; of a copy: `scienceqa:owner/name`), which is downloaded. Or a list of these
            or of mappings with the keys `data`, `split`, `limit`, `data_options` and others (`mixture`): their rows
            follow each other, and `<name>:` is put before their ids. Weights are for training only.
        format: the reasoning format to read completions with, if the data have completions.
        on_bad_row: `error` raises after all rows are read; `drop` leaves bad rows out and keeps them in `bad_rows`.
        limit: read at most this many rows, good or bad.
        verify_images: open every image file; otherwise only check that it exists.
        options: the data set's own options, which are the keyword arguments of its `load`. With `hash_split: true`,
            data without splits are divided into `train`, `validation` and `test` by a hash of the pictures (`splits`).
            With `think: drop` the reasoning is left out, for training on answers alone.

    Raises:
        BadRowsError: there are bad rows.
        DataError: an unknown name, split or option, an option of a wrong type, or a path without data.
    """
    stream = stream_data(
        data,
        split=split,
        format=format,
        on_bad_row=on_bad_row,
        limit=limit,
        verify_images=verify_images,
        options=options,
    )
    return LoadedData(list(stream), tuple(stream.bad_rows))


def stream_data(
    data: DataNames,
    *,
    split: str = "train",
    format: str | Mapping[str, Any] = "auto",
    on_bad_row: str = "error",
    limit: int | None = None,
    verify_images: bool = False,
    written_as: FormatSpec | None = None,
    options: Mapping[str, Any] | None = None,
) -> DataStream:
    """The examples of one split, one at a time, so that a large set needs no more memory than a small one.

    Arguments and errors are those of `load_data`; BadRowsError comes after the last row. With
    `written_as`, the format that training writes, rows that cannot be written so are bad rows (`check_examples`).
    """
    if on_bad_row not in ("error", "drop"):
        raise UnknownDataError(f"on_bad_row is {on_bad_row!r}; expected 'error' or 'drop'")
    if limit is not None and limit < 1:
        raise UnknownDataError(f"limit is {limit}; expected at least 1 row, or none for all")
    parts = list_parts(data, split, limit, options)
    streams = [_open_part(part, format, verify_images=verify_images, written_as=written_as) for part in parts]
    if not isinstance(data, str):
        streams = [_prefix_ids(rows, part.name) for rows, part in zip(streams, parts, strict=True)]
    return DataStream(describe_data(data), chain.from_iterable(streams), on_bad_row == "error")


def _open_part(
    part: DataPart, format: str | Mapping[str, Any], *, verify_images: bool, written_as: FormatSpec | None
) -> Iterator[Example | BadRow]:
    """The checked rows of one data set. Names, splits and options are checked now, and rows are read later."""
    source = resolve_data(part.data)
    own = dict(part.options)
    check_known_name(part.data, "think", thinking := str(own.pop("think", "keep")), ("keep", "drop"))
    if own.pop("hash_split", False):
        check_split(part.split, f"{part.data} with hash_split")
        whole = "all" if source.dataset == "jsonl" and expand_home(source.path or "").is_file() else "train"
        rows: Iterable[Example | BadRow] = select_split(_load_rows(source, whole, {"format": format}, own), part.split)
    else:
        rows = _load_rows(source, part.split, {"format": format}, own)
    if thinking == "drop":
        rows = _drop_thinking(rows)
    checked = check_examples(rows, verify_images=verify_images, written_as=written_as)
    return track_progress(islice(checked, part.limit), f"rows of {part.data} read")


def _drop_thinking(rows: Iterable[Example | BadRow]) -> Iterator[Example | BadRow]:
    return (replace(row, think=None) if isinstance(row, Example) else row for row in rows)


def _prefix_ids(rows: Iterable[Example | BadRow], name: str) -> Iterator[Example | BadRow]:
    """Ids that are unique in a list of data sets, and that say which set a bad row is in."""
    for row in rows:
        yield replace(row, id=name if row.id is None else f"{name}{ID_MARK}{row.id}")


def check_first_row(
    data: DataNames,
    split: str,
    options: Mapping[str, Any],
    *,
    format: str | Mapping[str, Any] = "auto",
    on_bad_row: str = "error",
    limit: int | None = None,
) -> None:
    """Check that a split has a good row, and read no further than the first one.

    Arguments are those of `load_data`. Raises DataError if the data, the split or an option does not exist, or if no
    row is good. With `on_bad_row="error"`, a bad row before the first good one raises BadRowsError.
    """
    if not isinstance(data, str):
        for part in list_parts(data, split, limit, options):
            check_first_row(part.data, part.split, part.options, format=format, on_bad_row=on_bad_row, limit=part.limit)
        return
    rows = stream_data(data, split=split, format=format, on_bad_row=on_bad_row, limit=limit, options=options)
    if next(rows, None) is None:
        why = f": {format_bad_rows(rows.bad_rows)}" if rows.bad_rows else ""
        raise DataError(f"{data}, split {split!r}, has no row to use{why}")
    if rows.bad_rows and on_bad_row == "error":
        deque(rows, maxlen=0)  # raises with all of them


def load_test_items(data: str) -> BenchmarkItems:
    """The test items of a benchmark as published, without checks, because published answers may be withheld.

    The adapter's `TEST` says which split and which options give all of them. Raises DataError if none can be read.
    """
    source = resolve_data(data)
    options = dict(getattr(import_adapter(source.dataset), "TEST", {}))
    rows = list(track_progress(_load_rows(source, options.pop("split", "test"), {}, options), f"rows of {data} read"))
    examples = [row for row in rows if isinstance(row, Example)]
    if not examples:
        raise DataError(f"{data}: none of the {len(rows)} rows of its test split can be read")
    return BenchmarkItems(examples, len(rows) - len(examples))


def choose_read_format(training_format: str | Mapping[str, Any] | None) -> str | Mapping[str, Any]:
    """The format to read completions with, given the format that a run trains in.

    A custom format reads its own completions. For a built-in one the tags decide, so that data in one format can train
    another.
    """
    return training_format if isinstance(training_format, Mapping) else "auto"


def _load_rows(
    source: DataSource, split: str, defaults: dict[str, Any], options: dict[str, Any]
) -> Iterable[Example | BadRow]:
    """Call the data set's `load`. `defaults` are options that it need not have."""
    name, path = source
    load: Callable[..., Iterable[Example | BadRow]] = import_adapter(name).load
    parameters = signature(load).parameters
    if path is None and parameters["path"].default is Parameter.empty:
        raise UnknownDataError(f"data set {name!r} needs a path: write {name}:PATH")
    known = list_options(load)
    for key in options:
        check_known_name(f"data set {name!r}", "option", key, known)
    check_options(name, load, options)
    taken = {key: value for key, value in defaults.items() if key in known}
    return load(path, split=split, **{**taken, **options})
