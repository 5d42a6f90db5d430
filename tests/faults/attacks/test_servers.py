"""What a hostile server answers: one sentence, or an answer that is scored; never a hang, and no key goes elsewhere."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.cli import main
from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.engines import server
from balanced_thinking.evaluation.engines.server import ServerEngine
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.system.fetching import read_retry_after

EXAMPLE = Example("one", "which ?", (), None, "red")
Connection = socket.socket


class RawServer:
    """Sends what `respond` writes to each connection, byte by byte, and keeps what it was sent."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.respond: Callable[[Connection], None] = lambda connection: None
        self.received: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with connection:
            try:
                self.received.append(connection.recv(1 << 16))
                self.respond(connection)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):  # what is not read resets the connection
                    pass
            except OSError:
                pass  # the client has closed the connection


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    monkeypatch.setattr(server, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    found = RawServer()
    yield found
    found.socket.close()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tiny("qwen2")[1]


def reply(body: bytes | str, status: str = "200 OK", *headers: str) -> Callable[[Connection], None]:
    data = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close", *headers]
    return lambda connection: connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)


def completion(content: Any, **further: Any) -> Callable[[Connection], None]:
    return reply(json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}], **further}))


def endless(head: bytes, chunk: bytes, pause: float = 0.0) -> Callable[[Connection], None]:
    def send(connection: Connection) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(chunk)
            time.sleep(pause)

    return send


def raw_bytes(data: bytes) -> Callable[[Connection], None]:
    return lambda connection: connection.sendall(data)


def head(line: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nConnection: close\r\n{line}\r\n\r\n".encode()


HEAD = head("Server: hostile")
REFUSED: list[tuple[str, Callable[[Connection], None], str]] = [
    # (what it does, how, what the sentence says)
    ("sends without an end", endless(HEAD, b"x" * 65536), "longer than"),
    (
        "announces an exabyte",
        endless(HEAD[:-2] + b"Content-Length: 1000000000000000000\r\n\r\n", b"x" * 65536),
        "longer",
    ),
    (
        "sends chunks without an end",
        endless(HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\nxxxx\r\n" * 9999),
        "longer",
    ),
    ("sends a byte now and then", endless(HEAD, b"x", 0.01), "no answer in"),
    ("sends a header now and then", endless(b"HTTP/1.1 200 OK\r\n", b"A", 0.01), "no answer in"),
    ("never says more than continue", endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001), "no answer in"),
    ("says nothing at all", lambda connection: time.sleep(3), "no answer in"),
    ("sends headers without an end", endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"), "cannot be read"),
    ("sends a header of megabytes", raw_bytes(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 2_000_000), "cannot be read"),
    ("closes at once", lambda connection: None, "cannot be read"),
    ("closes early", raw_bytes(head("Content-Length: 99") + b'{"choices"'), "cannot be read"),
    ("speaks another protocol", raw_bytes(b"SSH-2.0-OpenSSH_9.9\r\n"), "cannot be read"),
    ("streams", reply("data: {}\n\n", "200 OK", "Content-Type: text/event-stream"), "it streams, although"),
    ("asks to wait for hours", reply("later", "429 Busy", "Retry-After: 9999"), "and continue in 9,999 seconds"),
    ("asks to wait for ages", reply("later", "429 Busy", f"Retry-After: {'9' * 4000}"), "and continue in 999,999,999"),
    ("asks to wait for nonsense", reply("later", "503 Busy", "Retry-After: soon"), "answered 503: later"),
    ("sends a page", reply("<html><script>alert(1)</script>"), "cannot be read"),
    ("sends no UTF-8", reply(b'{"choices": "\xff\xfe"}'), "cannot be read"),
    ("nests a hundred thousand deep", reply("[" * 100_000), "nested too deeply"),
    ("nests objects", reply('{"a":' * 50_000), "nested too deeply"),
    ("nests the content", completion(json.loads("[" * 90 + "]" * 90)), "expected a text, or parts"),
    ("sends a number of 5,000 digits", reply(f'{{"choices": {"9" * 5000}}}'), "cannot be read"),
    ("sends a bomb", reply(gzip.compress(b"0" * 50_000_000), "200 OK", "Content-Encoding: gzip"), "is compressed"),
    ("sends null", reply("null"), "without a completion: None"),
    ("sends no choice", reply('{"choices": []}'), "without a completion"),
    ("sends a text of choices", reply('{"choices": "abc"}'), "without a completion"),
    ("sends a mapping of choices", reply('{"choices": {"0": {}}}'), "without a completion"),
    ("sends a text as message", reply('{"choices": [{"message": "red"}]}'), "without a completion"),
    ("sends a list as message", reply('{"choices": [{"message": [1, 2]}]}'), "without a completion"),
    ("sends a number as content", completion(5), "with the content 5"),
    ("sends true as content", completion(True), "with the content True"),
    ("sends a mapping as content", completion({"<answer>red</answer>": 1}), "with the content"),
    ("sends parts that are numbers", completion([1, 2]), "with the content"),
    ("sends parts with other texts", completion([{"text": {"value": "red"}}]), "with the content"),
    ("sends an error page of 3 MB", reply("no " * 1_000_000, "400 Bad Request"), "answered 400: no no"),
    ("sends a long error without an end", endless(b"HTTP/1.1 400 No\r\n\r\n", b"x" * 65536), "answered 400: xxx"),
    ("redirects to another host", reply("", "302 Found", "Location: http://192.0.2.1/v1"), "redirect to http://192"),
    ("redirects to this machine", reply("", "307 Moved", "Location: http://169.254.169.254/latest"), "not followed"),
    ("redirects to a file", reply("", "301 Moved", "Location: file:///etc/passwd"), "not followed"),
    ("redirects without a place", reply("", "308 Moved"), "an unknown address"),
    ("is busy for ever", reply("later", "503 Busy"), "answered 503: later"),
    ("has a status of its own", reply("what", "999 What"), "answered 999"),
]


@pytest.mark.parametrize(("how", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_server_that_cannot_be_used_is_one_sentence(
    how: Callable[[Connection], None], said: str, raw: RawServer, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MOST_BYTES", 300_000)
    raw.respond = how
    engine = ServerEngine(
        raw.address, tokenizer, served_model="x", timeout_seconds=0.25 if said == "no answer in" else 10
    )
    started = time.perf_counter()
    with pytest.raises(ConnectionError, match=said) as caught:
        engine.complete([EXAMPLE])
    assert len(str(caught.value)) < 1000
    assert time.perf_counter() - started < 3
    assert len(raw.received) <= 4  # retries are bounded


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("30", 30, 30),
        ("", 0, 0),
        ("soon", 0, 0),
        ("-5", 0, 0),
        ("nan", 0, 0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0),
        pytest.param(format_datetime(datetime.now(UTC) + timedelta(days=1)), 1, 86_400, id="tomorrow"),
    ],
)
def test_how_long_a_server_asks_to_wait(value: str, low: float, high: float) -> None:
    assert low <= read_retry_after({"retry-after": value}) <= high


ANSWERED: list[tuple[str, Any, str]] = [
    # (what its content is, the content, what counts as the completion)
    ("nothing", None, ""),
    ("half of a character", "<think>\ud800</think><answer>red</answer>", "\ufffd"),
    ("half of a character in parts", [{"type": "text", "text": "\udfff<answer>red</answer>"}], "\ufffd"),
    ("parts without text", [{"type": "image"}, {"type": "text", "text": "red"}], "red"),
    ("100 kB of closing tags", "</answer>" * 11_000, "</answer>"),
    ("100 kB of opening tags", "<think><answer>" * 6_600, "<think>"),
    ("100 kB of brackets", "<" * 100_000, "<"),
    ("escape codes of a terminal", "\x1b]0;owned\x07<answer>red</answer>", "red"),
]


@pytest.mark.parametrize(("content", "kept"), [row[1:] for row in ANSWERED], ids=[row[0] for row in ANSWERED])
def test_an_odd_answer_is_scored(content: Any, kept: str, raw: RawServer, tokenizer: Any) -> None:
    raw.respond = completion(content, id=7, usage={"completion_tokens": float("nan"), "prompt_tokens": -1})
    engine = ServerEngine(raw.address, tokenizer, served_model="x", timeout_seconds=5)
    started = time.perf_counter()
    (ids,) = engine.complete([EXAMPLE])
    prediction = engine.scorer.score_completion(EXAMPLE, ids)
    assert kept in prediction.completion
    assert time.perf_counter() - started < 3


def test_a_key_is_sent_to_no_other_host(raw: RawServer, tokenizer: Any) -> None:
    other = RawServer()
    raw.respond = reply("", "302 Found", f"Location: {other.address}/chat/completions")
    engine = ServerEngine(raw.address, tokenizer, served_model="x", timeout_seconds=1)
    with pytest.raises(ConnectionError, match="not followed"):
        engine.complete([EXAMPLE])
    other.socket.close()
    assert b"sk-secret" in raw.received[0]
    assert other.received == []


def test_a_list_of_100_000_models_is_shortened(raw: RawServer, tokenizer: Any) -> None:
    raw.respond = reply(json.dumps({"data": [{"id": f"m{i}"} for i in range(100_000)]}))
    with pytest.raises(ValueError, match=r"serves m0, m1, .* and 99990 more; say which one") as caught:
        ServerEngine(raw.address, tokenizer)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("models", ['[{"id": ["x"]}]', '[{"id": {"a": 1}}]', '"ab"', "7"])
def test_odd_names_of_models_are_no_crash(models: str, raw: RawServer, tokenizer: Any) -> None:
    raw.respond = reply(f'{{"data": {models}}}')
    with pytest.raises(ConnectionError, match="gave no list of models"):
        ServerEngine(raw.address, tokenizer)


def test_one_failure_ends_the_requests_that_still_wait(
    raw: RawServer, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would keep the process alive until their own time limit."""
    waiting = iter([True, True, False, True])

    def respond(connection: Connection) -> None:
        time.sleep(30) if next(waiting) else (time.sleep(0.1), reply("no", "403 Forbidden")(connection))

    raw.respond = respond
    engine = ServerEngine(raw.address, tokenizer, served_model="x", timeout_seconds=30)
    pools: list[ThreadPoolExecutor] = []
    monkeypatch.setattr(server, "ThreadPoolExecutor", lambda **how: pools.append(ThreadPoolExecutor(**how)) or pools[0])
    started = time.perf_counter()
    with pytest.raises(ConnectionError, match="answered 403"):
        engine.complete([EXAMPLE] * 4)
    pools[0].shutdown(wait=True)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://me:pw@localhost:1/v1", "give a key in OPENAI_API_KEY"),  # a secret on the command line
        ("http://localhost:nine/v1", "expected an address"),
        ("http://localhost:99999/v1", "expected an address"),
        ("http://[::1/v1", "expected an address"),
        ("http:///v1", "expected an address"),
        ("file:///etc/passwd", "expected an address"),
        ("gopher://localhost/v1", "expected an address"),
        ("http://localhost:1/v1\r\nX-Evil: 1", "cannot be read"),  # a header of its own
    ],
)
def test_an_address_that_is_none_is_refused(address: str, said: str, tokenizer: Any) -> None:
    with pytest.raises((ValueError, ConnectionError), match=said) as caught:
        ServerEngine(address, tokenizer)
    assert "pw" not in str(caught.value)


def test_from_the_command_line(raw: RawServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw.respond = reply("<html>\x1b[2J")
    words = ["eval", "--model", "world-base", "--server", raw.address, "--data", "world", "--data_options.n", "2"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert "cannot be read" in err.splitlines()[-1]
    assert "\x1b" not in err
