"""The last handler: an error that nobody expected becomes a file with its traceback, one sentence, and exit code 1.

The file says the versions, the command and the time. It holds no environment, no values of variables, and no secret
that the command line or the environment names.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from balanced_thinking.system.process import utc_now
from balanced_thinking.system.text import shorten_text, show_controls

FAILED = 1
_PREFIX, _SUFFIX = "balanced-crash-", ".txt"
_VERSIONED = ("balanced-thinking", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "huggingface-hub")
SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
_CREDENTIALS = re.compile(r"://[^/\s'\"@]{1,200}@")  # no open repeat: a text of a million letters is read once
_SHORTEST_SECRET = 6  # characters; shorter values are words such as "true"
_FRAMES = 200  # of one traceback: an endless recursion has a thousand alike
_MOST = 1_000_000  # characters of a traceback: an error's text may be a complete file
_HIDDEN = "***"


class Crash(NamedTuple):
    """An unexpected error: what ran, where its file should be, and whether the traceback is shown too."""

    command: Sequence[str]
    folder: Path | None = None
    verbose: bool = False


def run_with_last_handler(run: Callable[[], int], crash: Crash) -> int:
    """The exit code of `run`. Any error is reported in one sentence and gives 1; interrupts and exits pass.

    BaseException, because a panic in a library that is written in Rust is no Exception. An error in another thread is
    reported in the same way and does not change the exit code.
    """
    before, threading.excepthook = threading.excepthook, lambda lost: _report_crash(lost.exc_value or OSError(), crash)
    try:
        return run()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        _report_crash(error, crash)
        return FAILED
    finally:
        threading.excepthook = before


def find_crash_files(*folders: Path) -> list[Path]:
    """The files of this handler in these folders and in the system's temporary folder, sorted."""
    places = {*folders, Path(tempfile.gettempdir())}
    return sorted(file for place in places for file in place.glob(f"{_PREFIX}*{_SUFFIX}"))


def _report_crash(error: BaseException, crash: Crash) -> None:
    """Print the sentence. What fails here is left out of it, because there is no handler after this one."""
    kind, place = type(error).__name__, None
    with suppress(Exception):  # also RecursionError and MemoryError: then the sentence has no file
        place = write_crash_file(error, crash)
    where = f"its details are in {place}; report them with that file" if place else "its details could not be written"
    program = " ".join(crash.command[:2]) or "balanced"
    lines = [f"{program}: an unexpected error of type {kind}; {where}"]
    if crash.verbose:
        lines.append(_hide_secrets(_format_traceback(error), crash.command))
    with suppress(Exception):  # standard error may be closed
        sys.stderr.write(f"{show_controls(chr(10).join(lines))}\n")
        sys.stderr.flush()


def write_crash_file(error: BaseException, crash: Crash) -> Path:
    """Write what is known of an error, in the folder if it can be written to, else in the system's temporary one.

    The name is unique and only the user can read the file. Raises OSError where neither folder takes it.
    """
    text = _describe_crash(error, crash.command).encode(errors="backslashreplace")
    failed: OSError | None = None
    for folder in _writable_folders(crash.folder):
        try:
            handle, name = tempfile.mkstemp(_SUFFIX, _PREFIX, folder)
            with os.fdopen(handle, "wb") as file:
                file.write(text)
            return Path(name)
        except OSError as full:
            failed = full
    raise failed or FileNotFoundError("no folder for the error's file")


def _writable_folders(folder: Path | None) -> Iterator[Path]:
    if folder is not None and folder.is_dir():
        yield folder
    yield Path(tempfile.gettempdir())


def _describe_crash(error: BaseException, command: Sequence[str]) -> str:
    lines = [
        f"time: {utc_now()}",
        f"command: {_describe_command(command)}",
        f"python: {platform.python_version()} on {platform.system()} {platform.machine()}",
        *(f"{name}: {_installed_version(name)}" for name in _VERSIONED),
        "",
        _format_traceback(error),
    ]
    return _hide_secrets("\n".join(lines), command) + "\n"


def _format_traceback(error: BaseException) -> str:
    """The traceback, shortened; the error's type alone where not even that can be written."""
    try:
        return shorten_text("".join(traceback.format_exception(error, limit=-_FRAMES)), _MOST)
    except Exception:  # an error whose text cannot be made, or no memory for it
        return type(error).__name__


def _installed_version(name: str) -> str:
    try:
        return metadata.version(name)
    except Exception:  # as the rest of this file: nothing here may hide the error itself
        return "unknown"


def _describe_command(words: Sequence[str]) -> str:
    """The words of the command line; the values of options with names such as `hub_token` are hidden."""
    shown, hide = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        secret = word.startswith("-") and SECRET_NAME.search(name) is not None
        shown.append(_HIDDEN if hide else f"{name}={_HIDDEN}" if secret and equals else word)
        hide = secret and not equals
    return " ".join(repr(word) if " " in word else word for word in shown)


def _hide_secrets(text: str, command: Sequence[str]) -> str:
    """The text without what the environment and the command line keep secret, and without credentials of addresses."""
    values = {value for name, value in os.environ.items() if SECRET_NAME.search(name)}
    values |= {value for name, value in _named_values(command) if SECRET_NAME.search(name)}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, _HIDDEN)
    return _CREDENTIALS.sub(f"://{_HIDDEN}@", text)


def _named_values(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for place, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            yield name, value if equals else next(iter(words[place + 1 :]), "")


def named_folder(words: Sequence[str], option: str = "--out") -> Path | None:
    """The folder that a command line names for its results, or that of the file that it names."""
    found = [value for name, value in _named_values(words) if name == option and value]
    if not found:
        return None
    place = Path(found[-1])
    with suppress(OSError, ValueError):  # a name that no file system takes
        return place if place.is_dir() else place.parent if place.is_file() else None
    return None


def is_verbose(words: Sequence[str]) -> bool:
    """Whether a command line asks for details."""
    return any(word in ("-v", "--verbose") for word in words)


def this_command(words: Sequence[str]) -> tuple[str, ...]:
    """The command line with the name of its program."""
    program = Path(sys.argv[0]).name
    return ("balanced" if program.endswith(".py") or not program else program, *words)
