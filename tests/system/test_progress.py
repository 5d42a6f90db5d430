"""Progress without a terminal: a line now and then, by a clock of the test's own. On one: a bar, never both."""

from __future__ import annotations

import sys

import pytest

from balanced_thinking.system import progress
from balanced_thinking.system.logs import LOGGER, log_to_stderr
from balanced_thinking.system.progress import count_progress, should_show_bars, track_progress


class Clock:
    """Each look at it is a second later."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


def lines(
    n: int, seconds: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **how: int
) -> list[str]:
    """What is said of `n` pieces of work that take so many seconds each."""
    monkeypatch.setattr(progress, "time", Clock(seconds))
    with log_to_stderr():
        assert list(track_progress(iter(range(n)), "samples", **how)) == list(range(n))
    return capsys.readouterr().err.splitlines()


def test_a_line_says_how_much_is_done_of_how_much(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = lines(40, 6.0, monkeypatch, capsys, total=40)
    assert said[0] == "samples: 4 of 40 (10%) after 0:00:24"
    assert len(said) == 10  # one at each tenth


def test_slow_work_says_something_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = lines(12, 15.0, monkeypatch, capsys, total=1000)
    assert said[:2] == ["samples: 2 of 1,000 (0%) after 0:00:30", "samples: 4 of 1,000 (0%) after 0:01:00"]


def test_short_work_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(40, 0.1, monkeypatch, capsys, total=40) == []


def test_work_of_unknown_length_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(5000, 0.015625, monkeypatch, capsys)[0] == "samples: 1,920 after 0:00:30"


def test_lines_are_plain_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "time", Clock(10.0))
    with log_to_stderr():
        list(track_progress(range(40), "samples", at_once=True))
    assert not {"\r", "\x1b"} & set(capsys.readouterr().err)


def test_a_terminal_gets_a_bar_and_no_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with log_to_stderr(), count_progress("samples", 40, at_once=True) as advance:
        for _ in range(40):
            advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert "40/40" in err
    assert "of 40" not in err


@pytest.mark.parametrize(("level", "shown"), [("INFO", True), ("WARNING", False), ("NOTSET", True)])
def test_the_level_of_the_log_hides_bars(level: str, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(logging.getLogger(LOGGER), "level", getattr(logging, level))
    assert should_show_bars() == shown
    monkeypatch.setenv("RANK", "1")
    assert not should_show_bars()
