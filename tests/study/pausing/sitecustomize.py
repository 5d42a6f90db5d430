"""Pauses a Python process at a given point. Python imports this module first where its folder is on PYTHONPATH.

PAUSE_AT=checkpoint-2 pauses before the first file or folder whose path contains it is opened, made or renamed.
PAUSE_MARKER=FILE: the process creates this file when it pauses, and continues once the file is gone.
"""

import os
import sys
import time
from typing import Any

_EVENTS = ("open", "os.mkdir", "os.rename")
_state = {"paused": False}


def _pause(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS or _state["paused"] or os.environ["PAUSE_AT"] not in _paths_as_text(arguments):
        return
    _state["paused"] = True  # before the marker, whose creation is an event, too
    marker = os.environ["PAUSE_MARKER"]
    os.close(os.open(marker, os.O_CREAT | os.O_WRONLY))
    while os.path.exists(marker):
        time.sleep(0.05)


def _paths_as_text(arguments: tuple[Any, ...]) -> str:
    """The paths among an event's arguments, in one text."""
    return " ".join(os.fsdecode(each) for each in arguments if isinstance(each, str | bytes | os.PathLike))


if "PAUSE_AT" in os.environ:
    sys.addaudithook(_pause)
