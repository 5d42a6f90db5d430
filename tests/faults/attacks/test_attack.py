"""The helper of the attacks: an attack that is effective fails its test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.attacks.attack import TookTooLong, run_balanced, watch_attack

# What an attack must not do, and what is said of it.
EFFECTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("a file beside the folder", lambda folder: (folder.parent / "beside.txt").write_text("x"), "changed outside"),
    ("a folder above", lambda folder: (folder / ".." / "made").mkdir(), "changed outside"),
    ("a rename out of it", lambda folder: os.rename(folder.parent / "beside.txt", folder / "in"), "changed outside"),
    ("a name that is asked", lambda _: socket.getaddrinfo("localhost", 80), "a network was asked"),
    ("a connection", lambda _: socket.socket().connect_ex(("127.0.0.1", 9)), "a network was asked"),
    ("a program", lambda _: subprocess.run([sys.executable, "--version"], capture_output=True), "program was started"),
    ("memory", lambda _: len(bytearray(os.urandom(80 * 2**20))), "took "),
]


@pytest.mark.parametrize(("effect", "said"), [row[1:] for row in EFFECTS], ids=[row[0] for row in EFFECTS])
def test_an_effect_is_seen(effect: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    (tmp_path / "beside.txt").write_text("x")
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(AssertionError, match=said), watch_attack(folder, memory_mib=64):
        effect(folder)


def test_a_hang_is_cut_off(tmp_path: Path) -> None:
    with pytest.raises(TookTooLong), watch_attack(tmp_path, seconds=0.05):
        time.sleep(5)


def test_what_is_written_inside_is_no_effect(tmp_path: Path) -> None:
    with watch_attack(tmp_path) as watch:
        (tmp_path / "x").write_text("x")
        time.sleep(0.01)
    assert watch.seconds >= 0.01


def test_a_command_returns_its_code_and_what_it_said(tmp_path: Path) -> None:
    result = run_balanced(["inspect", "nothing.jsonl"], tmp_path)
    assert result.code == 2
    assert "nothing.jsonl" in result.sentence
