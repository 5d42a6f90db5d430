"""Disks that are full, read-only or gone. Mounting needs root; without it these tests are skipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def need_mounts(folder: Path) -> None:
    """Skips the test where this user may not mount."""
    probe = folder / "probe"
    probe.mkdir()
    with pytest_skip_without_mounts(), mounted_disk(probe, 1 << 20):
        pass


@contextmanager
def pytest_skip_without_mounts() -> Iterator[None]:
    try:
        yield
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("no disk can be mounted here: run as root, on Linux")


@contextmanager
def mounted_disk(place: Path, size: int, *options: str) -> Iterator[Path]:
    """A disk of `size` bytes at `place`, in memory."""
    place.mkdir(exist_ok=True)
    run_mount("-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", str(place))
    try:
        yield place
    finally:
        while os.path.ismount(place):
            subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


def run_mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def resize_disk(place: Path, size: int) -> None:
    run_mount("-o", f"remount,size={size}", str(place))


def fill_disk(place: Path) -> Path:
    """Leave no byte free; returns the file that is in the way."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return filler


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """As after an error of the disk: what is open stays open, whatever is opened for writing fails."""
    run_mount("--bind", str(place), str(place))
    run_mount("-o", "remount,bind,ro", str(place))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)
