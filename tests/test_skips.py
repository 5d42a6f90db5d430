"""The closing summary of the suite, in a session of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, some_now

SKIPPED = """
import pytest

@pytest.mark.parametrize("case", range(3))
def test_with_data(case):
    pytest.skip("no data here")

@pytest.mark.skip
def test_without_a_reason(): ...

@pytest.mark.skipif(True, reason="no GPU")
def test_with_a_gpu(): ...
"""


def run_pytest(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider", "-c", "/dev/null"]
    command += ["--rootdir", str(folder), *options, str(folder)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", some_now(lambda options: not options, [(), ("-n", "2")]))
def test_skipped_tests_are_counted_by_reason(options: tuple[str, ...], tmp_path: Path) -> None:
    done = run_pytest(tmp_path, SKIPPED + "\ndef test_that_runs(): ...\n", *options)
    assert done.returncode == 0
    lines = [line.strip() for line in done.stdout.splitlines()]
    start = next(i for i, line in enumerate(lines) if "5 skipped" in line)
    assert lines[start + 1] == "3  no data here"
    assert set(lines[start + 2 : start + 4]) == {"1  unconditional skip", "1  no GPU"}


@pytest.mark.parametrize("options", some_now(lambda options: not options, [(), ("-n", "2")]))
def test_a_session_in_which_nothing_ran_has_failed(options: tuple[str, ...], tmp_path: Path) -> None:
    done = run_pytest(tmp_path, SKIPPED, *options)
    assert done.returncode == 1
    assert "no test ran: every one was skipped" in done.stdout


def test_collecting_is_no_failure(tmp_path: Path) -> None:
    assert run_pytest(tmp_path, SKIPPED, "--collect-only").returncode == 0
