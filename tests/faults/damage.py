"""Damaged files of a checkpoint or a model: every file, in every way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class DamageCase(NamedTuple):
    """What is done to one file. `kind` is flip, cut, delete, empty, swap or link; `offset` is for flip and cut."""

    file: str
    kind: str
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.file} {self.kind}{f' at {self.offset}' if self.kind in ('flip', 'cut') else ''}"

    def apply(self, folder: Path, other: Path) -> bool:
        """Damage the file in `folder`; `other` is the same folder of another step. False where nothing changes."""
        path, spare = folder / self.file, other / self.file
        before = path.read_bytes()
        if self.kind == "swap":
            if not spare.is_file():
                return False
            path.write_bytes(spare.read_bytes())
            spare.write_bytes(before)
            return path.read_bytes() != before
        if self.kind == "delete":
            path.unlink()
        elif self.kind == "link":
            path.unlink()
            path.symlink_to(spare)
            return spare.is_file() and spare.read_bytes() != before
        elif self.kind == "flip":
            path.write_bytes(before[: self.offset] + bytes([before[self.offset] ^ 0x10]) + before[self.offset + 1 :])
        else:
            path.write_bytes(before[: self.offset if self.kind == "cut" else 0])
        return True


def list_damages(folder: Path) -> Iterator[DamageCase]:
    """Every case for every file of `folder`."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size
        for offset in sorted({0, 1, 9, size // 4, size // 2, 3 * size // 4, size - 1} & set(range(size))):
            yield DamageCase(name, "flip", offset)
        for offset in sorted({1, size // 2, size - 1} & set(range(1, size))):
            yield DamageCase(name, "cut", offset)
        for kind in ("delete", "empty", "swap", "link"):
            yield DamageCase(name, kind)


def copy_run(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return target
