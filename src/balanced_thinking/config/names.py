"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

_LONGEST = 200  # characters of a name that is compared
_PREFIX = 4  # letters that say what a name begins with


def did_you_mean(name: str, known: Iterable[str], synonyms: Mapping[str, str] | None = None) -> str:
    """` (did you mean 'x'?)` with what the name is a synonym of, or begins, or resembles most; or an empty string."""
    if len(name) > _LONGEST:
        return ""
    known = list(known)
    longer = [other for other in known if len(name) >= _PREFIX and other.startswith(name)]
    meant = (synonyms or {}).get(name.lower()) or min(longer, key=len, default=None)
    matches = [meant] if meant else difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
