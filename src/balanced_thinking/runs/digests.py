"""Digests of files that are still being written, so that a save does not read them once more at its end."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from balanced_thinking.runs.manifest import FileDigest, digest_file, list_files
from balanced_thinking.system.files import sync_file

_BUFFER = 1 << 20  # bytes read at a time
_WRITTEN_AT_ONCE = 32 << 20  # bytes that the system is asked to write to the disk, while the file grows
_PATIENCE_SECONDS = 0.005  # between two looks at a file that has not grown


class BackgroundDigests:
    """Computes digests of the files of `folder` in threads, while this process writes other ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(2, "digests")
        self._found: dict[str, Future[FileDigest | None]] = {}
        self._written: dict[str, int] = {}  # when the files that were present were last written, in nanoseconds

    def digest_present_files(self) -> None:
        """Write the files that are there to the disk and digest them. One that is written again has no digest."""
        for name in list_files(self._folder):
            if name not in self._found:
                self._written[name] = (self._folder / name).lstat().st_mtime_ns
                self._found[name] = self._pool.submit(_sync_and_digest, self._folder / name)

    @contextmanager
    def follow_file(self, name: str) -> Iterator[None]:
        """Digest the file `name` while the block writes it from its first byte to its last, without going back."""
        done = threading.Event()
        self._found[name] = self._pool.submit(_digest_growing_file, self._folder / name, done)
        try:
            yield
        finally:
            done.set()

    def collect_digests(self) -> dict[str, FileDigest]:
        """Wait for all digests. A file that could not be read has none: the error comes again when it is sealed."""
        found = {name: one.result() for name, one in self._found.items()}
        self.close()
        return {name: digest for name, digest in found.items() if digest is not None and self._is_unchanged(name)}

    def _is_unchanged(self, name: str) -> bool:
        return name not in self._written or (self._folder / name).lstat().st_mtime_ns == self._written[name]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _sync_and_digest(path: Path) -> FileDigest | None:
    try:
        sync_file(path)
        return digest_file(path)
    except OSError:
        return None


def _digest_growing_file(path: Path, done: threading.Event) -> FileDigest | None:
    """The digest of all that is in the file when `done` is set; None where there is no such file."""
    while not path.exists():
        if done.wait(_PATIENCE_SECONDS):
            break
    digest, size, asked, buffer = hashlib.sha256(), 0, 0, memoryview(bytearray(_BUFFER))
    try:
        with path.open("rb", buffering=0) as file:
            while True:
                finished = done.is_set()  # before the read: what is read after it is the end
                if count := file.readinto(buffer):
                    digest.update(buffer[:count])
                    size += count
                    if size - asked >= _WRITTEN_AT_ONCE:
                        _begin_writing(file.fileno(), asked, size - asked)
                        asked = size
                elif finished:
                    return FileDigest(size, digest.hexdigest())
                else:
                    done.wait(_PATIENCE_SECONDS)
    except OSError:
        return None


def _begin_writing(descriptor: int, start: int, length: int) -> None:
    """Have the system begin to write a part of a file, without waiting, so that little is left for the last sync."""
    if hasattr(os, "posix_fadvise"):  # Linux begins to write what it is told to forget
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)
