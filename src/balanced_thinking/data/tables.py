"""Tables: parquet folders, and data sets on the hub by their `owner/name`, both read by `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from balanced_thinking.data.bad_rows import DataError
from balanced_thinking.data.picture_files import UNREADABLE, open_picture_file

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def is_hub_name(path: str | Path) -> bool:
    """Whether the text is `owner/name` and there is no local path like it, nor a local folder `owner`."""
    return _HUB_NAME.fullmatch(str(path)) is not None and not Path(path).parent.is_dir()


def is_hub_or_parquet(path: str | Path) -> bool:
    """Whether it is a hub name, or a folder with parquet files in it or in its subfolders."""
    folder = Path(path).expanduser()
    found = (next(folder.glob(pattern), None) for pattern in ("*.parquet", "*/*.parquet"))
    return is_hub_name(path) or (folder.is_dir() and any(found))


def stream_table(path: str | Path, split: str, subset: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (position from 1, row) of a split; pictures are `{"bytes", "path"}`. Raises what `datasets` raises."""
    from datasets import Image as Picture
    from datasets import load_dataset

    place = str(path) if is_hub_name(path) else str(Path(path).expanduser())
    rows = load_dataset(place, subset, split=split, streaming=True)
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, Picture):
            rows = rows.cast_column(column, Picture(decode=False))
    yield from enumerate(rows, 1)


def ensure_local_files(path: str | Path, image_root: str | Path | None, *patterns: str) -> Path:
    """The local folder. For a hub name, download the matching files to the hub's cache.

    Raises DataError for a hub name without `image_root`: the pictures are published as archives or not at all.
    """
    if not is_hub_name(path):
        return Path(path).expanduser()
    if image_root is None:
        raise DataError(
            f"the rows of {path} have no pictures; expected the folder of its pictures: get them and set "
            "--data_options.image_root FOLDER"
        )
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(path), repo_type="dataset", allow_patterns=list(patterns)))


def open_cell_image(cell: Any) -> Image.Image | Path | None:
    """A table's cell as an Example's image, not decoded yet; None for an empty cell. Raises what Pillow raises."""
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
