"""What a server answers: HTTP of any kind on a real connection, for the list of models and for completions.

An input is a byte for the request that it answers, one for how it is wrapped, then the answer: raw bytes of HTTP, or a
body that gets a correct head.
"""

from __future__ import annotations

import random
import socket
import threading
from functools import cache
from typing import Any

from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.engines import server
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.segments import FORMATS
from tests.faults.fuzz.target import Target
from tests.faults.fuzz.values import FRAGMENTS, mutate_bytes, nasty_text, nasty_value, nest_deeply, write_json

_FORMATS = tuple(FORMATS)
_EXAMPLE = Example("x", "Which ?", (), None, "red", choices=("red", "blue"))
_STATUS = (b"200 OK", b"201 Created", b"301 Moved", b"400 Bad", b"429 Busy", b"500 X", b"204 None", b"999 Y", b"x", b"")
_HEADERS = (
    b"Location: http://10.0.0.1/\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"X" * 70_000,
)
_HEADERS += (
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999\r\n",
    b"A: b\r\n" * 200,
    b": \r\n",
)
_HEADERS += (b"Connection: keep-alive\r\n", b"Content-Type: text/html; charset=\xff\r\n", b"\r\n")


class _Server:
    """Answers every request with `answer`."""

    def __init__(self) -> None:
        self.answer = b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(5)
            head = b""
            while b"\r\n\r\n" not in head and (chunk := connection.recv(1 << 16)):
                head += chunk
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0].strip()
            rest = int(length or 0) - len(head.partition(b"\r\n\r\n")[2])
            while rest > 0 and (chunk := connection.recv(1 << 16)):
                rest -= len(chunk)
            connection.sendall(self.answer)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):  # what is not read resets the connection
                pass
        except OSError:
            pass  # the client has closed it


@cache
def _engine() -> Any:
    server._FIRST_PAUSE_SECONDS = 0.0
    return server.ServerEngine(_server().address, build_tiny("qwen2")[1], served_model="m", timeout_seconds=20.0)


@cache
def _server() -> _Server:
    return _Server()


def close() -> None:
    _server().socket.close()
    for made in (_engine, _server):
        made.cache_clear()


def generate(rng: random.Random) -> bytes:
    asks_for_models = rng.random() < 0.2
    wrapped = rng.random() < 0.75
    body = write_json(rng, _models(rng) if asks_for_models else _completion(rng))
    if rng.random() < 0.02:
        body = nest_deeply(rng, body)
    if not wrapped:
        headers = b"".join(rng.choice(_HEADERS) for _ in range(rng.randrange(3)))
        body = (
            rng.choice((b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/9.9 ", b""))
            + rng.choice(_STATUS)
            + b"\r\n"
            + headers
            + b"\r\n"
            + body
        )
    return bytes([asks_for_models, rng.randrange(128) * 2 + wrapped]) + body


def _completion(rng: random.Random) -> Any:
    content = rng.choice(
        ("<think>It is red.</think><answer>red</answer>", nasty_text(rng), nasty_text(rng), nasty_value(rng))
    )
    if rng.random() < 0.1:
        content = [{"type": "text", "text": content}, nasty_value(rng)]
    message = {"role": "assistant", "content": content}
    if rng.random() < 0.2:
        message[rng.choice(("reasoning", "reasoning_content", "refusal", "tool_calls"))] = nasty_value(rng)
    choice = {"message": message, "finish_reason": rng.choice(("stop", "length", None, nasty_value(rng)))}
    answer = {"choices": [choice], "id": nasty_value(rng)}
    part = rng.random()
    if part < 0.1:
        answer["choices"] = rng.choice((nasty_value(rng), [nasty_value(rng)], []))
    elif part < 0.2:
        choice["message"] = nasty_value(rng)
    return answer if rng.random() < 0.95 else nasty_value(rng)


def _models(rng: random.Random) -> Any:
    models = [{"id": rng.choice(("m", nasty_text(rng), nasty_value(rng)))} for _ in range(rng.randrange(3))]
    return rng.choice(({"data": models}, {"data": nasty_value(rng)}, nasty_value(rng)))


def run(data: bytes) -> None:
    kind, how, answer = (data[:1] or b"\0")[0], (data[1:2] or b"\1")[0], data[2:]
    if how % 2:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
    place, engine = _server(), _engine()
    place.answer = answer
    engine.configure(_FORMATS[how // 2 % len(_FORMATS)], 64)
    try:
        if kind % 2:
            assert isinstance(engine._only_listed_model(), str)
            return
        (ids,) = engine.complete([_EXAMPLE])
    except (ConnectionError, ValueError) as error:
        if place.address in str(error) or "the server" in str(error):
            return
        raise
    scored = engine.scorer.score_completion(_EXAMPLE, ids)
    assert 0.0 <= scored.score <= 1.0
    assert len(scored.completion) <= len(answer) + 100


def mutate(rng: random.Random, data: bytes) -> bytes:
    return data[:2] + mutate_bytes(rng, data[2:], FRAGMENTS)


TARGET = Target("server", generate, run, mutate, close, prepare=_engine)
