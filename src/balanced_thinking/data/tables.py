"""Data sets as tables, and by their names on the hub: parquet folders and `owner/name` are read by `datasets`."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from balanced_thinking.data.checks import UNREADABLE

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def is_hub_name(path: str | Path) -> bool:
    """Whether it reads `owner/name`, and there is neither such a path nor a folder `owner` here."""
    return _HUB_NAME.fullmatch(str(path)) is not None and not Path(path).parent.is_dir()


def is_table(path: str | Path) -> bool:
    """Whether it is a hub name, or a folder with parquet files in it or one level below."""
    place = Path(path).expanduser()
    held = (next(place.glob(pattern), None) for pattern in ("*.parquet", "*/*.parquet"))
    return is_hub_name(path) or (place.is_dir() and any(held))


def stream_table(path: str | Path, split: str, subset: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(place from 1, row) of a split, streamed; pictures as `{"bytes", "path"}`. Raises what `datasets` does."""
    from datasets import Image as Picture
    from datasets import load_dataset

    place = str(path) if is_hub_name(path) else str(Path(path).expanduser())
    rows = load_dataset(place, subset, split=split, streaming=True)
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, Picture):
            rows = rows.cast_column(column, Picture(decode=False))
    yield from enumerate(rows, 1)


def ensure_local_files(path: str | Path, image_root: str | Path | None, *patterns: str) -> Path:
    """A local folder as it is; of a hub name the files that match, downloaded to the hub's cache.

    Raises ValueError for a hub name without a folder of its pictures, which are published as archives or not at all.
    """
    if not is_hub_name(path):
        return Path(path).expanduser()
    if image_root is None:
        raise ValueError(
            f"the rows of {path} come without pictures: get those, too, and name their folder by "
            "--data_options.image_root FOLDER"
        )
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(path), repo_type="dataset", allow_patterns=list(patterns)))


def open_cell_image(cell: Any) -> Image.Image | Path | None:
    """A table's cell as an Example's image, not decoded yet; None where it is empty. Raises what Pillow does."""
    if not isinstance(cell, Mapping):
        return cell
    if cell.get("bytes") is None:
        return Path(cell["path"]) if cell.get("path") else None
    opened = Image.open(io.BytesIO(cell["bytes"]))
    opened.encoded = cell["bytes"]  # type: ignore[attr-defined]  # so that it is stored as it was published
    return opened


def open_cell_images(*cells: Any) -> tuple[Image.Image | Path, ...] | None:
    """The pictures of these cells; None where one cannot be read."""
    try:
        return tuple(found for cell in cells if (found := open_cell_image(cell)) is not None)
    except UNREADABLE:
        return None
