"""Variables of a chat template, such as `enable_thinking`, given their values in the template itself.

A template with its values is saved with the model. So training, evaluation, a server and other programs write the same
prompts, and nobody has to name the values again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jinja2.meta import find_undeclared_variables
from transformers.utils.chat_template_utils import _compile_jinja_template

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.models.templates import bound_chat_templates

bound_chat_templates()
# A line for each value, which leaves nothing in the prompt: jinja takes the new line away, here and in other engines.
_LINE = re.compile(r'\{% set (\w+) = ((?:"(?:[^"\\]|\\.)*"|[^"%])*) %\}\n')
# What a rendering itself gives to the template.
_GIVEN = ("messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now")


def fix_template_variables(processor: Any, values: Mapping[str, Any] | str) -> None:
    """Give the variables of a processor's chat template these values. Others that were given before keep theirs.

    Raises RecipeError for a variable that the template does not have, and for a value that is no text, number, true,
    false, or a list or mapping of these.
    """
    if not isinstance(values, Mapping):
        raise RecipeError(f"chat_template_kwargs is {values!r}; expected a mapping, such as {{enable_thinking: false}}")
    tokenizer = tokenizer_of(processor)
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    if not isinstance(template, str):
        raise RecipeError(
            "chat_template_kwargs needs a chat template, and the model has none, or several; set chat_template_path"
        )
    lines: dict[str, str] = {}
    while (found := _LINE.match(template)) and found[1] not in lines:  # a template's own line may read an earlier one
        lines[found[1]] = found[2]
        template = template[found.end() :]
    known = _variables_of(template)
    for name, value in values.items():
        if name not in known:
            raise RecipeError(
                f"chat_template_kwargs has {name!r}, which is no variable of the model's chat template"
                f"{did_you_mean(str(name), known)}; it has {', '.join(sorted(known)) or 'none'}"
            )
        lines[name] = _write_value(name, value)
    fixed = "".join(f"{{% set {name} = {text} %}}\n" for name, text in lines.items()) + template
    processor.chat_template = tokenizer.chat_template = fixed


def _variables_of(template: str) -> set[str]:
    environment = _compile_jinja_template(template).environment
    return find_undeclared_variables(environment.parse(template)).difference(_GIVEN)


def _write_value(name: str, value: Any) -> str:
    """As jinja reads it: JSON, without null."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError):
        text = ""
    if not text or "null" in re.sub(r'"(?:[^"\\]|\\.)*"', "", text):
        raise RecipeError(
            f"chat_template_kwargs.{name} is {value!r}; expected a text, a number, true, false, or a list or mapping "
            "of these"
        )
    return text
