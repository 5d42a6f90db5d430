"""One process at a time: who gets a folder, who is refused, and what is left behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from balanced_thinking.config.errors import UsageError
from balanced_thinking.system import lock_claim, lock_owner, locks
from balanced_thinking.system.locks import FolderBusyError, hold_file, hold_folder
from tests.system.other_process import end_process, fork_process, held_by_another_process, names_in, run_at_once


def refused(folder: Path, purpose: str = "training") -> str:
    """The message of the refusal."""
    with pytest.raises(FolderBusyError) as caught, hold_folder(folder, purpose):
        pass
    return str(caught.value)


@pytest.fixture
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundredfold: a heartbeat every 0.15 s, and silence for 0.6 s is the end."""
    monkeypatch.setattr(lock_owner, "BEAT_SECONDS", 0.15)
    monkeypatch.setattr(lock_owner, "STALE_SECONDS", 0.6)
    monkeypatch.setattr(locks, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(lock_claim, "_POLL_SECONDS", 0.02)


def without_locks(monkeypatch: pytest.MonkeyPatch, code: int = errno.ENOLCK) -> None:
    """As on a mount that has no locks."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)


def on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is now one of another machine, whose system knows nothing of the locks of the first."""
    monkeypatch.setattr(lock_owner, "machine_id", lambda: "another start of another machine")
    monkeypatch.setattr(socket, "gethostname", lambda: "other-host")
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


def test_the_refusal_names_the_holder_and_what_to_do(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with held_by_another_process(run, "training") as child:
        before = names_in(tmp_path)
        message = refused(run)
        assert f"{run} is in use: process {child} on {socket.gethostname()} has been training in it since " in message
        assert message.endswith("UTC; wait for it, stop it, or choose another --out")
        assert names_in(tmp_path) == before == ["run", "run/.lock"]
        about = json.loads((run / ".lock").read_text())
        assert about.keys() >= {"pid", "process_started", "host", "machine", "user", "command", "purpose", "started"}
    assert issubclass(FolderBusyError, UsageError)
    assert issubclass(FolderBusyError, BlockingIOError)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path, "training") as child:
        end_process(child, signal.SIGKILL)
        assert names_in(tmp_path) == [".lock"]
        with hold_folder(tmp_path, "training"):
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        assert not names_in(tmp_path)


def test_a_child_that_outlives_a_killed_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A worker that loads data is forked while its parent holds the folder, and inherits the open file."""
    reading, writing = os.pipe()

    def hold_and_fork() -> None:
        with hold_folder(tmp_path, "training"):
            worker = fork_process(signal.pause)
            os.write(writing, f"{worker}\n".encode())
            signal.pause()

    holder = fork_process(hold_and_fork)
    worker = int(os.read(reading, 100))
    try:
        refused(tmp_path)
        end_process(holder, signal.SIGKILL)
        os.kill(worker, 0)  # it lives
        with hold_folder(tmp_path, "training"):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(reading)
        os.close(writing)


def test_a_forked_child_that_ends_does_not_release_what_its_parent_holds(tmp_path: Path) -> None:
    with hold_folder(tmp_path, "training"):
        assert end_process(fork_process(lambda: refused(tmp_path)), 0) == 0
        holding = hold_folder(tmp_path / "other", "training")
        holding.__enter__()

        def leave() -> None:
            holding.__exit__(None, None, None)

        assert end_process(fork_process(leave), 0) == 0
        assert end_process(fork_process(lambda: refused(tmp_path / "other")), 0) == 0
        holding.__exit__(None, None, None)
    assert not names_in(tmp_path)


def test_one_thread_may_nest_and_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    said: list[str] = []
    with hold_folder(tmp_path, "training"):
        with hold_folder(tmp_path / "link", "evaluating"):
            pass
        other = threading.Thread(target=lambda: said.append(refused(tmp_path)))
        other.start()
        other.join()
        assert end_process(fork_process(lambda: refused(tmp_path)), 0) == 0  # the inner block has not released it
    assert f"process {os.getpid()}" in said[0]


def test_waiting_gets_the_folder_when_the_other_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with held_by_another_process(tmp_path, "training") as child, caplog.at_level("INFO"):
        threading.Timer(0.1, lambda: os.kill(child, signal.SIGKILL)).start()
        with hold_folder(tmp_path, "training", wait=True):
            pass
    assert f"waiting until {tmp_path} is free: process {child}" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("written", [False, True], ids=["empty", "written to"])
def test_a_folder_that_was_made_goes_unless_something_is_in_it(written: bool, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()

    def fail() -> None:
        with hold_folder(tmp_path / "runs/new/run", "training"):
            if written:
                (tmp_path / "runs/new/run/config.yaml").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names_in(tmp_path / "runs") == (["new", "new/run", "new/run/config.yaml"] if written else [])


def test_of_many_starts_in_a_new_folder_one_wins_and_is_unharmed(tmp_path: Path) -> None:
    """Each start makes the folder, and what is refused or fails removes what it made: never that of the winner."""
    run = tmp_path / "runs/run"

    def start() -> None:
        try:
            with hold_folder(run, "training"):
                (run / "config.yaml").open("x").close()
                time.sleep(0.3)
                assert (run / "config.yaml").exists()
        except FolderBusyError:
            os._exit(2)

    assert run_at_once(start, 6) == [0] + [2] * 5
    assert names_in(tmp_path) == ["runs", "runs/run", "runs/run/config.yaml"]


def test_a_start_that_fails_beside_others_harms_none(tmp_path: Path) -> None:
    run = tmp_path / "runs/run"

    def fail_often() -> None:
        for _ in range(20):
            try:
                with hold_folder(run, "training"):
                    raise KeyError
            except (FolderBusyError, KeyError):
                pass

    assert run_at_once(fail_often, 3) == [0, 0, 0]
    left = [path for path in tmp_path.rglob("*") if not path.is_dir()]  # an empty folder stays where two tried at once
    assert not left


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_without_locks_the_heartbeat_of_the_holder_refuses(
    code: int, fast_clock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_locks(monkeypatch, code)
    with held_by_another_process(tmp_path, "training") as child, caplog.at_level("INFO"):
        assert f"process {child}" in refused(tmp_path)
        assert "looking for up to 1 s" in caplog.text
        assert len(caplog.records) == 1
        end_process(child)
        with hold_folder(tmp_path, "training"):  # this machine knows at once that the holder has ended
            pass


def test_without_locks_one_of_many_starts_wins(
    fast_clock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch)

    def start() -> None:
        try:
            with hold_folder(tmp_path / "run", "training"):
                (tmp_path / "run/config.yaml").open("x").close()
                time.sleep(0.4)
        except FolderBusyError:
            os._exit(2)

    assert run_at_once(start, 4) == [0] + [2] * 3


def test_a_holder_on_another_machine_is_heard(
    fast_clock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount keeps locks local, so that this machine's lock is given although another machine holds the folder."""
    with held_by_another_process(tmp_path, "training") as child:
        on_another_machine(monkeypatch)
        assert f"process {child} on {json.loads((tmp_path / '.lock').read_text())['host']}" in refused(tmp_path)
        assert names_in(tmp_path) == [".lock"]


def test_a_silent_holder_on_another_machine_is_replaced_after_a_while(
    fast_clock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with held_by_another_process(tmp_path, "training") as child:
        on_another_machine(monkeypatch)
        end_process(child)
        os.utime(tmp_path / ".lock")  # its last heartbeat
        began = time.monotonic()
        with caplog.at_level("INFO"), hold_folder(tmp_path, "training"):
            assert json.loads((tmp_path / ".lock").read_text())["host"] == "other-host"
        assert 0.4 < time.monotonic() - began < 5
        assert "has not been heard of for" in caplog.text
    old = tmp_path / ".lock"
    with held_by_another_process(tmp_path, "training") as child:
        monkeypatch.undo()
        end_process(child)
        os.utime(old, (time.time() - 61, time.time() - 61))
        on_another_machine(monkeypatch)
        began = time.monotonic()
        with hold_folder(tmp_path, "training"):
            assert time.monotonic() - began < 1  # silent for long: no need to wait


def test_a_holder_that_was_replaced_ends(fast_clock: None, tmp_path: Path) -> None:
    """A machine was suspended, another took the folder over, and the first wakes up: two must not write there."""
    with held_by_another_process(tmp_path, "training") as child:
        record = json.loads((tmp_path / ".lock").read_text())
        (tmp_path / ".lock").write_text(json.dumps(record | {"token": "of another", "host": "other-host"}))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert (tmp_path / ".lock").exists()  # it belongs to the other now


def test_a_claim_that_a_kill_left_behind_does_not_stand_in_the_way(
    fast_clock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_by_another_process(tmp_path, "training") as child:
        record = (tmp_path / ".lock").read_text()
        end_process(child)
    claim = tmp_path / ".lock.claim"
    for content in (record, record[:40], ""):
        claim.write_text(content)
        with hold_folder(tmp_path, "training"):
            assert names_in(tmp_path) == [".lock"]


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "text"])
def test_what_is_not_a_lock_is_left_as_it_is(kind: str, tmp_path: Path) -> None:
    victim, place = tmp_path / "victim", tmp_path / "run/.lock"
    place.parent.mkdir()
    victim.write_text("precious")
    {
        "link": lambda: place.symlink_to(victim),
        "folder": place.mkdir,
        "pipe": lambda: os.mkfifo(place),
        "text": lambda: place.write_text("precious"),
    }[kind]()
    assert f"{place} is not a" in refused(place.parent)
    assert victim.read_text() == "precious"
    assert names_in(tmp_path) == ["run", "run/.lock", "victim"]


def test_half_a_record_is_no_holder(tmp_path: Path) -> None:
    for content in (b"", b"\0" * 100, b'{"token": "a', b"{" * 9):
        (tmp_path / ".lock").write_bytes(content)
        with hold_folder(tmp_path, "training"):
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_file_is_held_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with hold_file(path, "writing"):
        assert names_in(tmp_path) == [".rows.jsonl.lock"]

        def try_it() -> None:
            with pytest.raises(FolderBusyError, match=r"rows\.jsonl is in use"), hold_file(path, "writing"):
                pass

        assert end_process(fork_process(try_it), 0) == 0
    assert not names_in(tmp_path)


def test_a_lock_file_that_its_last_holder_has_removed_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking it, the last holder removes it and another process makes it anew."""
    lock, place = lock_claim.lock_descriptor, tmp_path / ".lock"

    def lock_late(descriptor: int) -> bool | None:
        monkeypatch.undo()
        place.unlink()
        place.touch()
        return lock(descriptor)

    monkeypatch.setattr(lock_claim, "lock_descriptor", lock_late)
    with hold_folder(tmp_path, "training"):
        assert json.loads(place.read_text())["pid"] == os.getpid()
        assert end_process(fork_process(lambda: refused(tmp_path)), 0) == 0
