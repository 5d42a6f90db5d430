"""What only Unix has is imported where it is used: elsewhere the package imports, and says what is missing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import balanced_thinking
from balanced_thinking.system import lock_owner, memory
from balanced_thinking.system.locks import FolderBusyError, hold_folder
from tests.sources import tree_of
from tests.system.other_process import held_by_another_process

SOURCE = Path(balanced_thinking.__file__).parent
UNIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}

_IMPORT_ALL = """
import builtins, importlib, pkgutil, sys
UNIX_ONLY = set(sys.argv[1:])
plain = builtins.__import__

def without(name, globals=None, *rest, **named):
    # Other libraries know by themselves what they find on Windows.
    if name in UNIX_ONLY and (globals or {}).get("__name__", "").startswith("balanced_thinking"):
        raise ImportError(f"no module named {name}")
    return plain(name, globals, *rest, **named)

builtins.__import__ = without
import balanced_thinking
names = [m.name for m in pkgutil.walk_packages(balanced_thinking.__path__, "balanced_thinking.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""


@pytest.mark.slow
def test_every_module_imports_without_what_only_unix_has() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, *sorted(UNIX_ONLY)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 90


def test_no_module_imports_at_its_top_what_only_unix_has() -> None:
    """Those that no other module imports, too."""
    for path in SOURCE.rglob("*.py"):
        for node in tree_of(path).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert UNIX_ONLY.isdisjoint(names), path


def test_where_the_system_has_no_locks_the_record_of_the_holder_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # and no msvcrt
    monkeypatch.setattr(lock_owner, "BEAT_SECONDS", 0.05)
    with (
        held_by_another_process(tmp_path / "run", "training"),
        pytest.raises(FolderBusyError, match="has been training in it since"),
        hold_folder(tmp_path / "run", "training"),
    ):
        pass
    with hold_folder(tmp_path / "run", "training"):
        pass
    assert not list((tmp_path / "run").iterdir())


def test_the_peak_is_windows_own_where_there_is_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=7 * 2**20))
    monkeypatch.setattr(psutil, "Process", lambda: found)
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory.peak_mib() == 7
