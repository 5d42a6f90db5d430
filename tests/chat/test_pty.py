"""The conversation in a real terminal, by its keyboard: the long form, because a process takes seconds to start."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest

TIMEOUT_SECONDS = 100
CTRL_C, CTRL_D = b"\x03", b"\x04"


class Screen:
    """What a program writes to its terminal, and the keys that it is given."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self.text, self._seen = descriptor, "", 0

    def wait_for(self, text: str) -> None:
        """Read until the text is written, after the one that was waited for before."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (found := self.text.find(text, self._seen)) < 0:
            assert time.monotonic() < deadline, f"{text!r} was not written: {self.text[-2000:]}"
            if select.select([self._descriptor], [], [], 1)[0]:
                self.text += os.read(self._descriptor, 2**16).decode(errors="replace")
        self._seen = found + len(text)

    def press(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)


@pytest.mark.slow
def test_ctrl_c_stops_a_reply_and_ctrl_d_ends_the_program(tmp_path: Path, picture: Path) -> None:
    words = ["chat", "world-reasoner", "--out", str(tmp_path / "out"), "--image", str(picture), "--quiet"]
    process, descriptor = pty.fork()
    if process == 0:
        os.environ |= {"TERM": "xterm", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
        os.execv(sys.executable, [sys.executable, "-m", "balanced_thinking", *words])
    screen = Screen(descriptor)
    try:
        screen.wait_for("> ")
        screen.press(b"which shape has the tile at center ?\r")
        screen.wait_for("thinking  ")
        screen.press(CTRL_C)
        screen.wait_for("stopped by you")
        screen.wait_for("> ")
        screen.press(b"which shape has the tile at center ?\r")
        screen.wait_for("ended by its")
        screen.wait_for("> ")
        screen.press(CTRL_D)
        screen.wait_for(str(tmp_path / "out"))
        assert os.waitpid(process, 0)[1] == 0
    except BaseException:
        os.kill(process, signal.SIGKILL)
        raise
    finally:
        os.close(descriptor)
    lines = (tmp_path / "out/world-reasoner/eval/chat/predictions.jsonl").read_text().splitlines()
    assert ["stopped_by" in line for line in lines] == [True, True]
