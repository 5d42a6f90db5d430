"""Pictures that rows name by a web address, where the user allows it: fetched once, with limits, from public hosts.

The host's name is looked up once; its addresses are checked, and the connection goes to exactly these. So no second
answer of a name server can lead to this machine or to its network, and no proxy of the environment is used. Each
redirect is checked in the same way. A picture stays in the cache: later epochs and resumed runs read the same bytes.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import socket
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from balanced_thinking.data.picture_files import UNREADABLE, open_picture_file
from balanced_thinking.data.values import RowProblemError
from balanced_thinking.system.fetching import SCHEMES, Answer, Limits, RequestRefusedError, send_request
from balanced_thinking.system.files import cache_folder

PROBLEM = "unfetched_image"
_MOST_HOPS, _LONGEST_ADDRESS = 4, 4096
_LIMITS = Limits(seconds=30.0, bytes=64 << 20)
_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address behind a gateway


def fetch_picture(address: str) -> Path:
    """The file of a picture, which is fetched if it is not in the cache. Raises RowProblemError, which says why not."""
    place = cache_folder() / "pictures" / hashlib.sha256(address.encode("utf-8", "replace")).hexdigest()
    if place.is_file():
        return place
    try:
        data = _fetch_bytes(address)
        open_picture_file(data)
    except (*UNREADABLE, http.client.HTTPException) as error:
        raise RowProblemError(f"{address[:200]}: {str(error)[:200] or type(error).__name__}", PROBLEM) from error
    _store_bytes(data, place)
    return place


def choose_public_addresses(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises RequestRefusedError if one is not public, such as this machine."""
    found = list(dict.fromkeys(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    for address in found:
        if not is_public_address(address):
            raise RequestRefusedError(f"{host} is {address}, which is no public address")
    return found


def is_public_address(text: str) -> bool:
    """Whether anyone may be there: not loopback, private, link-local, reserved or multicast, in any spelling."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public_address(str(inner))
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _fetch_bytes(address: str) -> bytes:
    for _ in range(_MOST_HOPS):
        _check_address(address)
        request = urllib.request.Request(address, headers={"User-Agent": "balanced-thinking", "Accept": "image/*"})
        answer = send_request(request, _LIMITS, choose_addresses=choose_public_addresses)
        if answer.status not in _REDIRECTS:
            return _successful_body(answer)
        address = urllib.parse.urljoin(address, answer.headers.get("location", ""))
    raise RequestRefusedError(f"more than {_MOST_HOPS - 1} redirects")


def _successful_body(answer: Answer) -> bytes:
    if answer.status != 200:
        raise RequestRefusedError(f"the server answered {answer.status}")
    return answer.body


def _check_address(address: str) -> None:
    """Raises RequestRefusedError for other schemes and for an address with a name or a password in it."""
    if len(address) > _LONGEST_ADDRESS or not address.isascii():
        raise RequestRefusedError(f"expected an address of at most {_LONGEST_ADDRESS} ASCII characters")
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise RequestRefusedError(f"the scheme is {parts.scheme[:20]!r}; expected http or https")
    if parts.username is not None or parts.password is not None:
        raise RequestRefusedError("the address has a name or a password, which is not sent")


def _store_bytes(data: bytes, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{place.name[:16]}", dir=place.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(partial).replace(place)
