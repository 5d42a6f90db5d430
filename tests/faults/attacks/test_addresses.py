"""Pictures at web addresses: never fetched unless allowed, and then from public hosts, within limits, once."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from balanced_thinking.data import remote
from balanced_thinking.data.permissions import permit
from balanced_thinking.data.unread import resolve_image
from balanced_thinking.data.values import RowProblemError
from balanced_thinking.system.fetching import Limits
from tests.faults.attacks.test_servers import RawServer, endless, reply


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RawServer]:
    """A server on this machine that stands for the public host `pictures.example`."""
    monkeypatch.setenv("BALANCED_THINKING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a proxy would look the name up again
    found = RawServer()
    found.port = found.socket.getsockname()[1]  # type: ignore[attr-defined]
    public = remote.choose_public_addresses

    def choose(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host == "pictures.example" else public(host, port)

    monkeypatch.setattr(remote, "choose_public_addresses", choose)
    monkeypatch.setattr(remote, "_LIMITS", Limits(seconds=0.5, bytes=100_000))
    yield found
    found.socket.close()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


def address(raw: Any, path: str = "a.png") -> str:
    return f"http://pictures.example:{raw.port}/{path}"


def resolve(entry: Any) -> Any:
    with permit(urls=True):
        return resolve_image(entry, Path())


def test_nothing_is_fetched_unless_the_user_allows_it(raw: RawServer) -> None:
    with pytest.raises(RowProblemError) as caught:
        resolve_image(address(raw), Path())
    assert caught.value.problems == ("remote_image",)
    assert raw.received == []


def test_a_picture_is_fetched_once(raw: RawServer) -> None:
    raw.respond = reply(png())
    first, second = resolve(address(raw)), resolve({"url": address(raw)})
    assert first == second
    assert first.read_bytes() == png()
    assert len(raw.received) == 1
    assert b"Host: pictures.example" in raw.received[0]


def test_a_redirect_to_a_public_host_is_followed(raw: RawServer) -> None:
    answers = iter([reply("", "302 Found", "Location: /b.png"), reply(png())])
    raw.respond = lambda connection: next(answers)(connection)
    assert resolve(address(raw)).read_bytes() == png()


REFUSED: list[tuple[str, Any, str]] = [
    # (what the server does, how, what the row's message says)
    ("redirects to this machine", reply("", "302 Found", "Location: http://127.0.0.1:1/"), "no public address"),
    (
        "redirects to a cloud's secrets",
        reply("", "307 Found", "Location: http://169.254.169.254/"),
        "no public address",
    ),
    ("redirects to a file", reply("", "301 Moved", "Location: file:///etc/passwd"), "expected http or https"),
    ("redirects with a password", reply("", "301 Moved", "Location: http://a:b@pictures.example/"), "a password"),
    ("redirects in a circle", reply("", "301 Moved", "Location: /a.png"), "more than 3 redirects"),
    ("sends without an end", endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 9999), "longer than"),
    ("sends a byte now and then", endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.05), "no complete answer"),
    ("sends a page", reply("<html>"), "a web page"),
    ("sends SVG", reply("<svg onload=alert(1)>"), "SVG"),
    ("sends EPS", reply("%!PS-Adobe-3.0 EPSF-3.0\n"), "EPS"),
    ("sends nothing", reply(""), "an empty file"),
    ("says that there is none", reply(png(), "404 Not Found"), "answered 404"),
    ("compresses", reply(png(), "200 OK", "Content-Encoding: gzip"), "compressed"),
]


@pytest.mark.parametrize(("how", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_picture_of_a_public_host_is_a_bad_row(how: Any, said: str, raw: RawServer, tmp_path: Path) -> None:
    raw.respond = how
    with pytest.raises(RowProblemError, match=said) as caught:
        resolve(address(raw))
    assert caught.value.problems == ("unfetched_image",)
    assert not list(tmp_path.glob("cache/pictures/*"))


@pytest.mark.parametrize(
    "place",
    [
        "http://localhost/",
        "http://127.0.0.1/",
        "http://127.1/",  # short
        "http://2130706433/",  # as one number
        "http://0x7f000001/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://255.255.255.255/",
        "ftp://192.0.2.1/",
        "s3://bucket/a.png",
        "http://user:password@192.0.2.1/",
        "https:///a.png",
        "http://" + "a" * 5000,
        "http://[::1",
        "http://host:port/",
    ],
)
def test_no_address_of_this_machine_or_its_network_is_asked(place: str, raw: RawServer) -> None:
    with pytest.raises(RowProblemError) as caught:
        resolve(place)
    assert caught.value.problems == ("unfetched_image",)
    assert raw.received == []


def test_a_name_that_changes_its_address_is_asked_once(raw: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the first answer is public, the second one is this machine."""
    answers = iter(["93.184.216.34", "127.0.0.1"])
    connected: list[Any] = []

    def connect(place: Any, *_: Any) -> Any:
        connected.append(place)
        raise ConnectionRefusedError

    def look_up(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 80))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(RowProblemError):
        resolve("http://rebinding.example/")
    assert connected == [("93.184.216.34", 80)]
