"""One request to a web server with hard limits: seconds in all, bytes of the answer, no redirect, no other scheme.

The seconds count from the first byte of the request to the last one of the answer, so that a server which sends a byte
a minute cannot hold a process. An answer is never unpacked, so that a small one stays small.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, NamedTuple

_CHUNK_BYTES = 1 << 16
_ERROR_BYTES = 4096  # of an answer that is no success: enough for its reason
SCHEMES = ("http", "https")

# From the name of a host and its port to the addresses to connect to, in this order. Raises OSError for a refusal.
ChooseAddresses = Callable[[str, int], list[str]]


class RequestRefusedError(OSError):
    """A request that was not made, or an answer that was not read to its end. The message says why."""


class Limits(NamedTuple):
    """Of one request: seconds in all and bytes of the answer's body."""

    seconds: float
    bytes: int


class Answer(NamedTuple):
    """Status, headers with names in lower case, and body; of an error or a redirect only the start of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Deadline:
    """Closes the connection of a request when its time is over, or when `abort` is called by another thread."""

    def __init__(self) -> None:
        self.is_over = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def watch_socket(self, connection: socket.socket) -> None:
        with self._lock:
            self._forget_socket()
            self._socket = connection.dup()  # TLS takes the connection's own handle away
        if self.is_over:
            self.abort()

    def abort(self) -> None:
        self.is_over = True
        with self._lock, suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def limit_seconds(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self.abort)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._forget_socket()

    def _forget_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def send_request(
    request: urllib.request.Request,
    limits: Limits,
    *,
    choose_addresses: ChooseAddresses | None = None,
    deadline: Deadline | None = None,
) -> Answer:
    """Send a request and read the complete answer, whatever its status; a redirect is not followed.

    Without `choose_addresses` the proxies of the environment are used. With it no proxy is: the connection goes to
    exactly the addresses that it returns. Raises TimeoutError, RequestRefusedError, and what `http.client` raises.
    """
    if urllib.parse.urlsplit(request.full_url).scheme not in SCHEMES:
        raise RequestRefusedError(f"{request.full_url[:100]} has no http or https address")
    deadline = deadline or Deadline()
    how = _Connecting(deadline, limits.seconds, choose_addresses)
    opener = urllib.request.OpenerDirector()  # no handler of redirects, files or other schemes
    opener.add_handler(urllib.request.ProxyHandler(None if choose_addresses is None else {}))
    opener.add_handler(_HttpHandler(how))
    opener.add_handler(_HttpsHandler(how))
    try:
        with deadline.limit_seconds(limits.seconds), opener.open(request, timeout=limits.seconds) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            failed = answer.status >= 300
            body = answer.read(_ERROR_BYTES) if failed else _read_body(answer, limits.bytes)
    except Exception as error:
        if deadline.is_over:  # whatever the closed connection looked like
            raise TimeoutError(f"no complete answer in {limits.seconds:.0f} seconds") from error
        raise
    if deadline.is_over:
        raise TimeoutError(f"no complete answer in {limits.seconds:.0f} seconds")
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise RequestRefusedError(f"the answer is compressed ({headers['content-encoding'][:40]}), which is not read")
    return Answer(answer.status, headers, body)


def read_retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that a busy server asks to wait, by its number or its date; 0 where it asks for none."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value[:12])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):  # no date, or one without a zone
        return 0.0


def _read_body(answer: Any, most: int) -> bytes:
    """The body. Raises RequestRefusedError where it is longer than `most` bytes or shorter than announced."""
    chunks, size = [], 0
    while chunk := answer.read(_CHUNK_BYTES):
        chunks.append(chunk)
        if (size := size + len(chunk)) > most:
            raise RequestRefusedError(f"the answer is longer than {most:,} bytes")
    if answer.length:  # what is left of the announced length
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(chunks)


class _Connecting(NamedTuple):
    deadline: Deadline
    seconds: float
    choose_addresses: ChooseAddresses | None


def _connect_socket(how: _Connecting, host: str, port: int) -> socket.socket:
    """The first connection that succeeds, to an address that was chosen and not looked up again."""
    places = how.choose_addresses(host, port) if how.choose_addresses else [host]
    failed: OSError = RequestRefusedError(f"{host} has no address")
    for place in places:
        try:
            found = socket.create_connection((place, port), how.seconds)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            how.deadline.watch_socket(found)
            return found
        except OSError as error:
            failed = error
    raise failed


class _HttpConnection(http.client.HTTPConnection):
    """Connects as `how` says."""

    def __init__(self, host: str, *, how: _Connecting, **options: Any) -> None:
        super().__init__(host, **options)
        self._create_connection = lambda place, *_: _connect_socket(how, *place)  # also for the tunnel of a proxy


class _HttpsConnection(http.client.HTTPSConnection):
    """The same with TLS; the certificate must be that of the host's name."""

    def __init__(self, host: str, *, how: _Connecting, **options: Any) -> None:
        super().__init__(host, context=ssl.create_default_context(), **options)
        self._create_connection = lambda place, *_: _connect_socket(how, *place)


class _HttpHandler(urllib.request.HTTPHandler):
    def __init__(self, how: _Connecting) -> None:
        super().__init__()
        self.how = how

    def http_open(self, req: urllib.request.Request) -> Any:
        connection: Any = partial(_HttpConnection, how=self.how)
        return self.do_open(connection, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, how: _Connecting) -> None:
        super().__init__()
        self.how = how

    def https_open(self, req: urllib.request.Request) -> Any:
        connection: Any = partial(_HttpsConnection, how=self.how)
        return self.do_open(connection, req)
