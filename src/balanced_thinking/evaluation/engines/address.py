"""The address of a server of OpenAI's API."""

from __future__ import annotations

import urllib.parse

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.system.fetching import SCHEMES


def check_address(base_url: str) -> str:
    """The address of the API, without an end point or a slash. Raises RecipeError for one that no server has."""
    try:
        parts = urllib.parse.urlsplit(base_url)
        known = parts.scheme in SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is not a number, brackets without an end
        known = False
    if not known:
        raise RecipeError(f"the server is {base_url!r}; expected an address such as http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise RecipeError("the address of the server holds a name or a password; give a key in OPENAI_API_KEY instead")
    return base_url.rstrip("/").removesuffix("/chat/completions")
