"""A page in a headless Chromium that is used by its keyboard alone: real key presses, over the debugging pipe."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# The browser reads commands from descriptor 3 and writes answers to 4.
LAUNCH = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowUp": (38, ""), "ArrowDown": (40, "")}
SHIFT = 8
TIMEOUT_SECONDS = 60


class Page:
    """One page: `press` a key, `ask` for the value of an expression, `call` a method of the browser's protocol.

    `events` are what the browser has said unasked, once a method such as `Network.enable` lets it.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._sent, self._read = 0, b""
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []

    def open(self, address: str, domains: Sequence[str] = ()) -> None:
        """Load an address, in a page of its own. `domains` of the protocol report their events from the beginning."""
        self._session, self.events = {}, []
        target = self.call("Target.createTarget", url="about:blank" if domains else address)["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in domains:
            self.call(f"{domain}.enable")
        if domains:
            self.call("Page.navigate", url=address)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.ask("document.readyState") != "complete" or self.ask("location.href") == "about:blank":
            assert time.monotonic() < deadline, f"{address} has not loaded"
            time.sleep(0.05)
        self.call("Page.bringToFront")

    def press(self, key: str, *, shift: bool = False) -> None:
        code, text = KEYS[key]
        about = {"key": key, "code": key.replace(" ", "Space"), "windowsVirtualKeyCode": code}
        about["modifiers"] = SHIFT if shift else 0
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def ask(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        command = {"id": self._sent, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (answer := self._next()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        """The next message, an answer or an event."""
        while b"\0" not in self._read:
            assert select.select([self._answers], [], [], TIMEOUT_SECONDS)[0], "the browser does not answer"
            found = os.read(self._answers, 2**16)
            assert found, "the browser has ended"
            self._read += found
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)


@contextmanager
def started(browser: str, flags: Sequence[str]) -> Iterator[Page]:
    """A browser until the end of the block, which has yet to open an address."""
    (to_read, commands), (answers, to_write) = os.pipe(), os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(to_read), str(to_write), browser, *flags, "--remote-debugging-pipe"],
        pass_fds=(to_read, to_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read), os.close(to_write)
    try:
        yield Page(commands, answers)
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)
        os.close(commands), os.close(answers)
