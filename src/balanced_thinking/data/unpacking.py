"""Files that gzip packed, of which a small one may be a very large one."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import DataError

MOST_RATIO = 100  # unpacked to packed; texts have 3 to 20
FREE_BYTES = 2**26  # unpacked, before the ratio counts


class _Unpacked(io.RawIOBase):
    """The unpacked bytes. Raises DataError where they are out of proportion to the packed ones."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._packed = file.open("rb")
        self._unpacked = gzip.GzipFile(fileobj=self._packed)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._unpacked.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        part = self._unpacked.read(len(buffer))
        buffer[: len(part)] = part
        if (size := self._unpacked.tell()) > max(FREE_BYTES, MOST_RATIO * self._packed.tell()):
            raise DataError(
                f"{self._file} unpacks to more than {MOST_RATIO} times its size ({size >> 20} MiB so far); unpack it "
                "yourself if you know what it is"
            )
        return len(part)

    def close(self) -> None:
        self._unpacked.close()
        self._packed.close()
        super().close()


def open_unpacked(file: Path) -> io.BufferedReader:
    """A stream of the unpacked bytes. Reading raises what `gzip` raises, and DataError for a bomb."""
    return io.BufferedReader(_Unpacked(file), 2**16)
