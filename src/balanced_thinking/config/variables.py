"""Environment variables in the names of models and data: `$DATA/mine.jsonl`."""

from __future__ import annotations

import os
import re

from balanced_thinking.config.errors import RecipeError

_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)


def expand_variables(name: str, text: str) -> str:
    """The text with `$NAME` and `${NAME}` replaced. Raises RecipeError, with `name`, for a variable that is not set."""
    expanded = os.path.expandvars(text)
    if unset := _VARIABLE.search(expanded):
        variable = unset[1].strip("{}")
        raise RecipeError(f"{name} is {text!r}, but the environment variable {variable} is not set; export it first")
    return expanded
