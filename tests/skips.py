"""Hooks of pytest: a closing count of skipped tests by reason. A session in which nothing ran has failed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

_RAN = ("passed", "failed", "error", "xfailed", "xpassed")


def _skip_reasons(reports: list[Any]) -> Counter[str]:
    """How many tests were skipped for each reason."""
    reasons: Counter[str] = Counter()
    for report in reports:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[text.removeprefix("Skipped: ").removeprefix("Skipped").strip() or "no reason given"] += 1
    return reasons


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the number of skipped tests for each reason, the most frequent first."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    terminalreporter.section(f"{len(skipped)} skipped")
    for reason, count in _skip_reasons(skipped).most_common():
        terminalreporter.line(f"{count:4d}  {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a session in which every test was skipped: pytest itself would exit with 0."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    is_worker = hasattr(session.config, "workerinput")  # of pytest-xdist, which sees a part of the tests only
    if reporter is None or is_worker or session.config.option.collectonly:
        return
    if session.exitstatus == pytest.ExitCode.OK and not any(reporter.stats.get(kind) for kind in _RAN):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.line("no test ran: every one was skipped", red=True)
