"""LLaVA-CoT-100k (Xkev/LLaVA-CoT-100k): `train.jsonl`, and next to it the folders of its picture archive.

A conversation may have several exchanges. As in the authors' training, each becomes one example, `<id>-<k>`, with the
same picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.options import require_train_split
from balanced_thinking.data.reading import RecordPlace, read_rows
from balanced_thinking.data.records import read_records
from balanced_thinking.data.sources import find_split_files
from balanced_thinking.data.tables import ensure_local_files
from balanced_thinking.system.files import expand_home

HUB = ("Xkev/LLaVA-CoT-100k",)
FILE = "train.jsonl"
_START_BYTES = 2**16


def recognises(path: Path) -> bool:
    """Whether it is a folder with a `train.jsonl` whose answers are written in LLaVA-CoT's tags."""
    if find_split_files(path) != [path / FILE]:  # a folder with other splits, too, is a user's own
        return False
    with (path / FILE).open("rb") as stream:
        return b"<SUMMARY>" in stream.read(_START_BYTES)


def load(
    path: str | Path,
    *,
    split: str = "train",
    image_root: str | Path | None = None,
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per exchange. Raises DataError for another folder or split."""
    require_train_split("LLaVA-CoT-100k", split)
    folder = ensure_local_files(path, image_root, FILE)
    if not (folder / FILE).is_file():
        raise DataError(f"{folder} is not LLaVA-CoT-100k: expected {FILE} in it")
    root = expand_home(image_root) if image_root is not None else folder
    for row, record in read_records(folder / FILE):
        parts = [record] if isinstance(record, BadRow) else _split_exchanges(row, record)
        yield from read_rows((RecordPlace(row, "llava-cot", root), part) for part in parts)


def _split_exchanges(row: int, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per pair of turns. A row whose turns are not pairs stays as it is."""
    turns = record.get("conversations")
    if not isinstance(turns, list) or len(turns) <= 2 or len(turns) % 2:
        yield record
        return
    name = record.get("id") or f"row-{row:06d}"
    for k in range(0, len(turns), 2):
        yield record | {"id": f"{name}-{k // 2}", "conversations": turns[k : k + 2]}
