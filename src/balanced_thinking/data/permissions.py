"""What rows and runs of strangers may do, which only the user can allow: ask web servers, and show other files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Permissions:
    """outside: pictures outside the data's or the run's folder are copied into results and pages. urls: pictures that
    rows name by a web address are fetched."""

    outside: bool = False
    urls: bool = False


_CURRENT: ContextVar[Permissions] = ContextVar("permissions", default=Permissions())  # noqa: B039  (it is frozen)


def current_permissions() -> Permissions:
    return _CURRENT.get()


@contextmanager
def permit(*, outside: bool | None = None, urls: bool | None = None) -> Iterator[None]:
    """Within it these are allowed or forbidden; None leaves one as it is. In other threads nothing is allowed."""
    given = {name: value for name, value in (("outside", outside), ("urls", urls)) if value is not None}
    token = _CURRENT.set(replace(_CURRENT.get(), **given))
    try:
        yield
    finally:
        _CURRENT.reset(token)
