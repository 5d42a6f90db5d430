"""Files that appear complete or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from balanced_thinking.system.files import open_atomically, write_atomically
from tests.system.other_process import names_in, run_at_once


def test_two_writers_of_one_file_leave_one_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"

    def write() -> None:
        for text in ("a" * 200_000, "b" * 300_000) * 5:
            write_atomically(path, text)
            assert path.read_text() in ("a" * 200_000, "b" * 300_000)

    assert run_at_once(write, 2) == [0, 0]
    assert names_in(tmp_path) == ["page.html"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / ("long name " * 20)
    write_atomically(path, "old")

    def fail() -> None:
        with open_atomically(path) as file:
            file.write("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (names_in(tmp_path), path.read_text()) == ([path.name], "old")


def test_a_device_is_written_to_and_never_replaced() -> None:
    write_atomically(Path("/dev/null"), "text")
    assert Path("/dev/null").is_char_device()
