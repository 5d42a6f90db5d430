"""Mulberry-SFT (HuanjinYao/Mulberry-SFT): `mulberry_sft.json` and `mulberry_images/`, unpacked from its archive.

Rows have no id and are named by their position. Reasoning is everything before `### The final answer is:`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from balanced_thinking.data.adapters import jsonl
from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.options import require_train_split
from balanced_thinking.data.tables import ensure_local_files

HUB = ("HuanjinYao/Mulberry-SFT",)
FILE, PICTURES = "mulberry_sft.json", "mulberry_images"


def recognises(path: Path) -> bool:
    """Whether it is a folder with the set's file."""
    return (path / FILE).is_file()


def load(path: str | Path, *, split: str = "train", image_root: str | Path | None = None) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per row. Raises DataError for another folder or split."""
    require_train_split("Mulberry-SFT", split)
    folder = ensure_local_files(path, image_root, FILE)
    if not recognises(folder):
        raise DataError(f"{folder} is not Mulberry-SFT: expected {FILE} in it")
    yield from jsonl.load(folder / FILE, split="all", image_root=image_root or folder / PICTURES)
