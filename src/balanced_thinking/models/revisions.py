"""A revision of a model on the hub is a part of its name: `OWNER/NAME@REVISION`. No torch."""

from __future__ import annotations

import re
from typing import NamedTuple

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.system.files import expand_home

_PINNED = re.compile(r"((?!\.)[\w.-]+/[\w.-]+)@([\w./-]+)")


class HubSource(NamedTuple):
    """What `from_pretrained` takes: a name, or a folder, and the options that choose the revision."""

    name: str
    options: dict[str, str]

    @property
    def revision(self) -> str | None:
        return self.options.get("revision")


def split_revision(name: str) -> HubSource:
    """The name without its revision, and the revision as an option; a folder's name is never taken apart."""
    found = _PINNED.fullmatch(name)
    if found is None or expand_home(name).is_dir():
        return HubSource(name, {})
    return HubSource(found[1], {"revision": found[2]})


def pin_revision(name: str, revision: object) -> str:
    """`name` with a revision, where one is given. Raises RecipeError for a model that is not on the hub, and for two
    different revisions."""
    if revision is None:
        return name
    plain, named = split_revision(name)
    if named and named != {"revision": revision}:
        raise RecipeError(f"the model is {name}, and model_options.revision is {revision!r}; leave one of them out")
    pinned = f"{plain}@{revision}"
    if expand_home(plain).is_dir() or split_revision(pinned).revision is None:
        raise RecipeError(
            f"the revision is {revision!r}, but only a model on the hub (OWNER/NAME) has one, which {plain} is not; "
            "leave it out"
        )
    return pinned
