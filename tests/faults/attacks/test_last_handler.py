"""No error of any kind ends a command in a traceback: a known one is a sentence, any other a file and a sentence."""

from __future__ import annotations

import csv
import io
import json
import lzma
import pickle
import queue
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import jinja2
import pyarrow as pa
import pytest
import yaml
from huggingface_hub import errors as hub_errors
from PIL import Image
from safetensors import SafetensorError

from balanced_thinking.cli import main
from balanced_thinking.cli.commands import COMMANDS
from balanced_thinking.study import worker
from balanced_thinking.system.crash import find_crash_files

CONVERT = ["convert", "world", "--out"]


class WordlessError(Exception):
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Panic(BaseException):
    """Libraries in Rust panic with an error that is no Exception."""


class MutePipe(io.StringIO):
    """A standard error that nobody reads any more."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | Callable[[], Any]], None]:
    """Lets the command `convert` raise an error, or do something else that fails."""

    def prepare(failure: BaseException | Callable[[], Any]) -> None:
        def run(_: Any) -> None:
            if isinstance(failure, BaseException):
                raise failure
            failure()

        monkeypatch.setitem(COMMANDS, "convert", replace(COMMANDS["convert"], run=run))

    return prepare


def recurse_forever() -> None:
    recurse_forever()


def lose_a_thread() -> None:
    thread = threading.Thread(target=lambda: {}["lost"])
    thread.start()
    thread.join()


UNEXPECTED: list[tuple[Any, str]] = [
    # (what is raised, its type in the sentence)
    (KeyError("missing"), "KeyError"),
    (TypeError("'NoneType' object is not iterable"), "TypeError"),
    (AssertionError(), "AssertionError"),
    (RuntimeError("nobody knows this one"), "RuntimeError"),
    (NotImplementedError("later"), "NotImplementedError"),
    (recurse_forever, "RecursionError"),  # a thousand frames
    (WordlessError(), "WordlessError"),  # its text raises
    (ExceptionGroup("two", [KeyError("a"), TypeError("b")]), "ExceptionGroup"),
    (Panic("called `Option::unwrap()` on a `None` value"), "Panic"),  # not an Exception
    (AttributeError("\ud800 half a character"), "AttributeError"),  # cannot be written as UTF-8
    (LookupError("x" * 20_000_000), "LookupError"),  # a text of 20 MB
    (lose_a_thread, "KeyError"),  # in another thread
]


@pytest.mark.parametrize(("failure", "kind"), UNEXPECTED)
def test_an_unexpected_error_leaves_a_sentence_and_a_file(
    failure: Any, kind: str, fail_with: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(failure)
    code = main([*CONVERT, str(tmp_path / "x.jsonl")])
    err, (file,) = capsys.readouterr().err, find_crash_files()
    assert code == (0 if failure is lose_a_thread else 1)
    assert (err.count("\n"), "Traceback" in err) == (1, False)
    assert f"an unexpected error of type {kind}; its details are in {file}" in err
    text = file.read_text(encoding="utf-8")
    assert kind in text
    assert "command: " in text
    assert "torch: " in text
    assert len(text) < 2_000_000


KNOWN: list[BaseException] = [
    SafetensorError("Error while deserializing header: header too small"),
    json.JSONDecodeError("Expecting value", "", 0),
    zipfile.BadZipFile("File is not a zip file"),
    zlib.error("Error -3 while decompressing data"),
    lzma.LZMAError("Corrupt input data"),
    tarfile.ReadError("unexpected end of data"),
    struct.error("unpack requires a buffer of 4 bytes"),
    csv.Error("field larger than field limit (131072)"),
    pickle.UnpicklingError("invalid load key, 'x'."),
    EOFError(),  # without words
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    PermissionError(13, "Permission denied", "x"),
    IsADirectoryError(21, "Is a directory", "x"),
    OSError(28, "No space left on device", "x"),
    OSError(36, "File name too long", "x"),
    OSError(40, "Too many levels of symbolic links", "x"),
    OSError(122, "Disk quota exceeded", "x"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory"),
    RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed."),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:5423"),
    BrokenProcessPool("A process in the process pool was terminated abruptly"),
    subprocess.CalledProcessError(1, ["git"]),
    queue.Empty(),
    yaml.YAMLError("found an undefined alias"),
    jinja2.UndefinedError("'message' is undefined"),
    jinja2.TemplateSyntaxError("unexpected '%'", 3),
    pa.ArrowInvalid("Not a parquet file"),
    pa.ArrowNotImplementedError("Unsupported cast"),
    pa.ArrowTypeError("Expected bytes, got a 'dict' object"),
    pa.ArrowKeyError("Column not found"),
    Image.DecompressionBombError("Image size (400000000 pixels) exceeds limit"),
    httpx2.ConnectError("[Errno -2] Name or service not known"),
    httpx2.ReadTimeout("timed out"),
    httpx2.InvalidURL("Invalid port: 'x'"),
    hub_errors.OfflineModeIsEnabled("offline mode is enabled"),
    hub_errors.LocalEntryNotFoundError("not in the cache"),
    hub_errors.HFValidationError("Repo id must be in the form 'namespace/repo_name'"),
    hub_errors.EntryNotFoundError("config.json is not there"),
]


@pytest.mark.parametrize("error", KNOWN, ids=lambda error: type(error).__name__)
def test_an_ordinary_error_has_its_sentence(
    error: BaseException, fail_with: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(error)
    assert main([*CONVERT, str(tmp_path / "x.jsonl")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("balanced convert: ")
    assert err.removeprefix("balanced convert: ").strip()
    assert "Traceback" not in err
    assert find_crash_files() == []


def test_a_model_with_code_of_its_own_says_what_would_run(fail_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(ValueError("The repository x contains custom code.\nPlease pass the argument `trust_remote_code=True`"))
    assert main([*CONVERT, "x.jsonl"]) == 1
    assert "auto_map in the model's config.json and tokenizer_config.json names the files" in capsys.readouterr().err


def test_the_file_tells_no_secrets(fail_with: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    monkeypatch.setenv("HARMLESS", "not-to-be-copied")
    fail_with(KeyError("asked https://me:my-password@host/v1 with sk-from-the-environment and hf_on_the_line"))
    main([*CONVERT, str(tmp_path / "x.jsonl"), "--data_options.token", "hf_on_the_line"])
    (file,) = find_crash_files()
    text = file.read_text()
    for secret in ("sk-from-the-environment", "my-password", "hf_on_the_line", "not-to-be-copied"):
        assert secret not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_file_is_in_the_folder_of_the_results(fail_with: Any, tmp_path: Path) -> None:
    fail_with(KeyError("x"))
    out = tmp_path / "runs"
    out.mkdir()
    for _ in range(2):  # each has a name of its own
        main([*CONVERT, str(out)])
    assert len(list(out.glob("balanced-crash-*.txt"))) == 2


def test_an_error_while_the_file_is_written_still_ends_in_a_sentence(
    fail_with: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no folder"))
    fail_with(KeyError("x"))
    assert main([*CONVERT, "x.jsonl"]) == 1
    assert "an unexpected error of type KeyError; its details could not be written" in capsys.readouterr().err


def test_a_closed_standard_error_is_no_second_error(fail_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(KeyError("x"))
    monkeypatch.setattr(sys, "stderr", MutePipe())
    assert main([*CONVERT, "x.jsonl"]) == 1
    assert len(find_crash_files()) == 1


def test_verbose_also_shows_the_traceback(fail_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(KeyError("x"))
    assert main([*CONVERT, "x.jsonl", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupts_and_exits_are_no_crashes(fail_with: Any) -> None:
    fail_with(KeyboardInterrupt())
    assert main([*CONVERT, "x.jsonl"]) == 130
    fail_with(SystemExit(2))
    with pytest.raises(SystemExit):
        main([*CONVERT, "x.jsonl"])
    assert find_crash_files() == []


@pytest.mark.parametrize(
    ("error", "said", "files"),
    [(KeyError("x"), "an unexpected error of type KeyError", 1), (zlib.error("Error -3"), "Error -3", 0)],
)
def test_the_process_of_a_study_ends_in_a_sentence(
    error: Exception,
    said: str,
    files: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: Path) -> None:
        raise error

    (tmp_path / "arm").mkdir()
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path), "arm"])
    monkeypatch.setattr(worker, "load_study", fail)
    assert worker.main() == 1
    err = capsys.readouterr().err
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
    assert len(list((tmp_path / "arm").glob("balanced-crash-*"))) == files


def test_a_log_line_reaches_the_terminal_without_control_characters(
    fail_with: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(ValueError("\x1b]0;owned\x07 \x1b[2J\r evil \u202e live \x9b31m \ud800"))
    assert main([*CONVERT, "x.jsonl"]) == 1
    err = capsys.readouterr().err
    assert not set(err) & set("\x1b\x07\r\u202e\x9b\ud800")
    assert "\\x1b]0;owned\\x07" in err
