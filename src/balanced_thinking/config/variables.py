"""Environment variables in the names of models and data: `$DATA/mine.jsonl`."""

from __future__ import annotations

import os
import re
from typing import Any

from balanced_thinking.config.errors import RecipeError

_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)


def expand_variables(name: str, text: str) -> str:
    """The text with `$NAME` and `${NAME}` replaced. Raises RecipeError, with `name`, for a variable that is not set."""
    expanded = os.path.expandvars(text)
    if unset := _VARIABLE.search(expanded):
        variable = unset[1].strip("{}")
        raise RecipeError(f"{name} is {text!r}, but the environment variable {variable} is not set; export it first")
    return expanded


def expand_data_names(data: Any) -> Any:
    """The name of a data set, an entry of a list, or a list of these, with the variables of each name replaced."""
    if isinstance(data, str):
        return expand_variables("data", data)
    if isinstance(data, dict):
        return {**data, "data": expand_data_names(data["data"])} if isinstance(data.get("data"), str) else data
    return [expand_data_names(entry) for entry in data] if isinstance(data, list) else data
