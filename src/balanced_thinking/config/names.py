"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def did_you_mean(name: str, known: Iterable[str], synonyms: Mapping[str, str] | None = None) -> str:
    """` (did you mean 'x'?)` with what the name is a synonym of, or the most similar known name, or an empty string."""
    meant = (synonyms or {}).get(name.lower())
    matches = [meant] if meant else difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
