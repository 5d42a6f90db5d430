"""Variables of a chat template, such as `enable_thinking`, given their values in the template itself.

A template with its values is saved with the model. So training, evaluation, a server and other programs write the same
prompts, and nobody has to name the values again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.models.processor_parts import tokenizer_of

# `+%}` keeps a new line that follows, which transformers' environment would remove.
_SET = "{{% set {name} = {value} +%}}"
_IS_SET = re.compile(r"\{% set (\w+) = [^%]* \+%\}")
_WORD = re.compile(r"[A-Za-z_]\w*")


def fix_template_variables(processor: Any, values: Mapping[str, Any]) -> None:
    """Give the variables of a processor's chat template these values. Again, the new values take the old ones' place.

    Raises RecipeError for a variable that the template does not have, and for a value that is no text, number, true,
    false, or a list or mapping of these.
    """
    tokenizer = tokenizer_of(processor)
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    if not isinstance(template, str):
        raise RecipeError("chat_template_kwargs needs a chat template, and the model has none or several")
    while (found := _IS_SET.match(template)) and found[1] in values:
        template = template[found.end() :]
    words = {*_WORD.findall(template)}
    for name, value in values.items():
        if name not in words:
            raise RecipeError(
                f"chat_template_kwargs has {name!r}, which the model's chat template does not read"
                f"{did_you_mean(name, words)}"
            )
        template = _SET.format(name=name, value=_write_value(name, value)) + template
    processor.chat_template = tokenizer.chat_template = template


def _write_value(name: str, value: Any) -> str:
    """As jinja reads it: JSON, without null."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        text = ""
    if not text or "null" in re.sub(r'"(?:[^"\\]|\\.)*"', "", text) or "%" in text:
        raise RecipeError(
            f"chat_template_kwargs.{name} is {value!r}; expected a text without %, a number, true, false, or a list or "
            "mapping of these"
        )
    return text
