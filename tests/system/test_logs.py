"""The log on standard error: which level, which rank, and that nothing stays behind."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from balanced_thinking.system.logs import LOGGER, log_to_stderr

logger = logging.getLogger(f"{LOGGER}.test")


def say() -> None:
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(level, "%s", logging.getLevelName(level).lower())


@pytest.mark.parametrize(
    ("level", "rank", "shown"),
    [
        (logging.INFO, None, ["info", "warning", "error"]),
        (logging.DEBUG, "0", ["debug", "info", "warning", "error"]),
        (logging.WARNING, "0", ["warning", "error"]),
        (logging.INFO, "3", ["rank 3: error"]),  # the first rank alone says what is done
    ],
)
def test_what_is_shown(
    level: int, rank: str | None, shown: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with log_to_stderr(level):
        say()
    assert capsys.readouterr() == ("", "".join(f"{line}\n" for line in shown))


def test_nothing_stays_behind(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with log_to_stderr():
        say()
    capsys.readouterr()
    say()
    assert capsys.readouterr().err == ""
    assert "warning" in caplog.text  # to whoever configures the root logger
    assert logging.getLogger(LOGGER).handlers == []


def test_the_library_configures_no_handler() -> None:
    code = "import logging, balanced_thinking.data.load, balanced_thinking.study.run, balanced_thinking.runs.load\n"
    code += "assert not logging.getLogger('balanced_thinking').handlers and not logging.getLogger().handlers"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
