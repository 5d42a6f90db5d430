"""Tables, one row at a time: parquet and Arrow files, folders of `save_to_disk`, and the hub, read by `datasets`.

Nothing of a data set is executed: `datasets` refuses loading scripts, and Arrow's formats hold values only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.data.bad_rows import DataError
from balanced_thinking.data.picture_files import UNREADABLE, open_picture_file
from balanced_thinking.data.table_bombs import read_arrow_batches, read_parquet_batches
from balanced_thinking.data.table_labels import find_labels, name_labels
from balanced_thinking.system.files import expand_home

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_FILE_NAME = re.compile(r"\.(?:jsonl?|ndjson|[ct]sv|parquet|arrow|tar|gz|tgz|zip|xlsx?|txt|ya?ml|py)$", re.IGNORECASE)
_MOST_SHORTENED = 64  # numbers of a list
_ROWS_PER_READ = 64  # pictures make rows large


def is_hub_name(path: str | Path) -> bool:
    """Whether the text is `owner/name` and there is no local path like it, nor a local folder `owner`."""
    text = str(path)
    looks_like_file = _FILE_NAME.search(text) is not None
    return _HUB_NAME.fullmatch(text) is not None and not looks_like_file and not Path(path).parent.is_dir()


def is_hub_or_parquet(path: str | Path) -> bool:
    """Whether it is a hub name, or a folder with parquet files in it or in its subfolders."""
    folder = expand_home(path)
    found = (next(folder.glob(pattern), None) for pattern in ("*.parquet", "*/*.parquet"))
    return is_hub_name(path) or (folder.is_dir() and any(found))


def stream_table(name: str, split: str, subset: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (position from 1, row) of a split of a data set on the hub; pictures are `{"bytes", "path"}`, not decoded.

    Raises DataError, with the splits or the subsets that there are, for what `datasets` cannot read.
    """
    rows = _explain_errors(name, lambda: _open_table(name, subset, split))
    schema = rows.features.arrow_schema if getattr(rows, "features", None) else None
    yield from enumerate(_clean_rows(_iterate_explaining(name, rows), schema), 1)


def _open_table(name: str, subset: str | None, split: str) -> Any:
    """The rows of a split, with pictures undecoded."""
    import datasets

    # Without the hub, nothing can be streamed, but a copy in the cache of `datasets` can be opened.
    offline = datasets.config.HF_HUB_OFFLINE
    rows = datasets.load_dataset(name, subset, split=split, streaming=not offline)
    if isinstance(rows, datasets.Dataset):
        rows = rows.to_iterable_dataset()
    return rows.decode(False) if hasattr(rows, "decode") else rows


def _clean_rows(rows: Iterable[dict[str, Any]], schema: Any) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow table with this schema: labels by their names, and short numbers."""
    narrow, labels = ({}, {}) if schema is None else (_narrow_columns(schema), find_labels(schema))
    for row in rows:
        named = {name: name_labels(row[name], known) for name, known in labels.items() if name in row}
        yield _shorten_row(row | named if named else row, narrow)


def _narrow_columns(schema: Any) -> dict[str, Any]:
    """The types of the columns with numbers of 16 and 32 bits."""
    return {field.name: field.type for field in schema if _is_narrow(field.type)}


def _shorten_row(row: dict[str, Any], narrow: Mapping[str, Any]) -> dict[str, Any]:
    """The row with such numbers as the shortest ones that mean the same: 0.1."""
    return row | {name: _shorten_floats(row[name], kind) for name, kind in narrow.items()} if narrow else row


def _is_narrow(kind: Any) -> bool:
    """Whether an Arrow type is, or holds, a float of fewer than 64 bits."""
    from pyarrow import types

    inner = [kind.field(place).type for place in range(kind.num_fields)]
    return types.is_float16(kind) or types.is_float32(kind) or any(map(_is_narrow, inner))


def _shorten_floats(value: Any, kind: Any) -> Any:
    import numpy as np
    from pyarrow import types

    if isinstance(value, float):
        narrow = np.float16 if types.is_float16(kind) else np.float32 if types.is_float32(kind) else float
        return float(str(narrow(value)))
    if isinstance(value, list) and len(value) <= _MOST_SHORTENED:  # an embedding is no answer
        return [_shorten_floats(one, kind.field(0).type) for one in value]
    if isinstance(value, dict):
        return {name: _shorten_floats(one, kind.field(name).type) for name, one in value.items()}
    return value


def stream_saved_table(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a folder that `Dataset.save_to_disk` wrote, which stays on disk."""
    from datasets import load_from_disk

    table = _explain_errors(str(folder), lambda: load_from_disk(str(folder)).with_format("arrow"))
    schema = table.features.arrow_schema  # that of a batch may lack the names of labels
    batches = _iterate_explaining(str(folder), table.iter(batch_size=_ROWS_PER_READ))
    yield from enumerate((row for batch in batches for row in _clean_rows(batch.to_pylist(), schema)), 1)


def stream_table_file(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a parquet file or of an Arrow file in either of its forms, a few at a time."""
    read = read_parquet_batches if file.suffix.lower() == ".parquet" else read_arrow_batches
    rows = (row for batch in read(file) for row in _clean_rows(batch.to_pylist(), batch.schema))
    yield from enumerate(_iterate_explaining(str(file), rows), 1)


def table_columns(file: Path) -> tuple[str, ...]:
    """The column names of a parquet file."""
    import pyarrow.parquet

    return tuple(_explain_errors(str(file), lambda: pyarrow.parquet.read_schema(file)).names)


def _iterate_explaining(place: str, rows: Iterable[Any]) -> Iterator[Any]:
    iterator, end = iter(rows), object()
    while (row := _explain_errors(place, lambda: next(iterator, end))) is not end:
        yield row


def _explain_errors(place: str, call: Callable[[], Any]) -> Any:
    """The result of a call into `datasets` or Arrow, whose errors become DataError.

    Of any type: both trust what they read, so that a wrong type in a file is, for instance, an AttributeError.
    """
    try:
        return call()
    except (BalancedThinkingError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{place} cannot be read: {_describe_error(error)}") from error


def _describe_error(error: Exception) -> str:
    """The first lines of an error, and the option that fixes what it names."""
    text = " ".join(str(error).split())[:400] or type(error).__name__
    if "onfig name is missing" in text or "BuilderConfig" in text:
        return f"{text}; choose one with --data_options.subset NAME"
    if re.search("(?:bad|unknown) split", text, re.IGNORECASE):
        return f"{text}; choose one with --split NAME"
    if "scripts are no longer" in text:
        return f"{text}; expected a data set of tables (parquet, JSON, CSV, tar), because no code of a set is run"
    if isinstance(error, ConnectionError) or "ffline" in text or "onnect" in text:
        return (
            f"{text}; expected a name that the hub has, or a local path: is it misspelt, or is the hub out of reach? "
            "HF_HUB_OFFLINE=1 reads the copy in the cache of `datasets`, if there is one"
        )
    return text


def ensure_local_files(path: str | Path, image_root: str | Path | None, *patterns: str) -> Path:
    """The local folder. For a hub name, download the matching files to the hub's cache.

    Raises DataError for a hub name without `image_root`: the pictures are published as archives or not at all.
    """
    if not is_hub_name(path):
        return expand_home(path)
    if image_root is None:
        raise DataError(
            f"the rows of {path} have no pictures; expected the folder of its pictures: get them and set "
            "--data_options.image_root FOLDER"
        )
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(path), repo_type="dataset", allow_patterns=list(patterns)))


def open_cell_image(cell: Any) -> Image.Image | Path | None:
    """A table's cell as an Example's image, not decoded yet; None for an empty cell. Raises what Pillow raises."""
    if isinstance(cell, bytes):
        cell = {"bytes": cell}
    if not isinstance(cell, Mapping):
        return cell
    if cell.get("bytes") is None:
        return Path(cell["path"]) if cell.get("path") else None
    opened = open_picture_file(cell["bytes"])
    opened.encoded = cell["bytes"]  # to store the picture as it was published
    return opened


def open_cell_images(*cells: Any) -> tuple[Image.Image | Path, ...] | None:
    """The pictures of these cells; None if one cannot be read."""
    try:
        return tuple(found for cell in cells if (found := open_cell_image(cell)) is not None)
    except UNREADABLE:
        return None
