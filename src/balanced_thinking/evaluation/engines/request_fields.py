"""Fields of a request that only some OpenAI-compatible servers take. What one refuses is not sent to it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from balanced_thinking.system.fetching import Answer

_REFUSED = (400, 422)
# Fields that a request can do without, and what follows.
_OPTIONAL = {
    "repetition_penalty": "the server's own penalty applies, if it has one",
    "seed": "its answers cannot be repeated",
    "skip_special_tokens": "tags that are special tokens may be missing in its answers",
    "stop_token_ids": "its answers end where the server's own settings say",
}
# Values that limit nothing: only with these can a request do without the field.
_NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
_OPTIONAL |= {field: f"the server's own {field} applies, if it has one" for field in _NEUTRAL}
_LIMIT, _NEWER_LIMIT = "max_tokens", "max_completion_tokens"
_REPEATED = re.compile(r"""\\?["']input\\?["']\s*:""")
_TAKES_NEWER_LIMIT = re.compile(rf"\b{_NEWER_LIMIT}\b\W*instead")


def refusal_text(answer: Answer) -> str:
    """What a server said of a request, without the request itself: some repeat it, and its words are not what is
    wrong."""
    return _REPEATED.split(answer.body.decode(errors="replace"), maxsplit=1)[0]


class RequestFields:
    """What one server takes; it is shared by the threads that ask it."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # of fields that are sent under another name, or under none

    def fit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body with the fields that the server takes."""
        names = {field: self._names.get(field, field) for field in body}
        return {name: body[field] for field, name in names.items() if name}

    def learn(self, sent: Mapping[str, Any], answer: Answer) -> str | None:
        """What is sent otherwise from now on, as a sentence's end; None if the refusal is about something else."""
        if answer.status not in _REFUSED:
            return None
        said = refusal_text(answer)
        if _LIMIT in sent and _TAKES_NEWER_LIMIT.search(said):
            self._names[_LIMIT] = _NEWER_LIMIT
            return f"takes {_NEWER_LIMIT} in the place of {_LIMIT}"
        for field, follows in _OPTIONAL.items():
            is_needed = field not in sent or sent[field] != _NEUTRAL.get(field, sent[field])
            if not is_needed and re.search(rf"\b{field}\b", said):
                self._names[field] = ""
                return f"does not take {field}, which is left out: {follows}"
        return None
