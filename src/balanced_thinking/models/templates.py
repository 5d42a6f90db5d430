"""Chat templates from strangers: rendered by transformers in jinja's sandbox, here with an end and a size.

The sandbox keeps a template from Python and from files, but not from loops in loops and from texts of gigabytes. Each
way to too much time or memory is bounded: turns of loops and macros, operators, methods of texts, filters, and the
rendered text. Ordinary templates render the same text as without it.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import transformers.utils.chat_template_utils as chat_template_utils
from jinja2 import Template, nodes, pass_context
from jinja2.exceptions import TemplateError, TemplateRuntimeError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_STEPS = 300_000  # turns of all loops and macros of one rendering
MOST_CHARACTERS = 2**26  # of a text that is built
MOST_ITEMS = 2**20  # of a list that is built, and the largest width or count
LONGEST_TEMPLATE = 2**20  # characters; usual ones have some thousands
_MOST_BITS = 20_000  # of an integer
_WIDTHS = re.compile(r"\d{5,}|\*")  # in a format
_SIZED_METHODS = ("center", "ljust", "rjust", "zfill", "expandtabs", "splitlines")
_SIZED_FILTERS = ("batch", "center", "indent", "slice", "tojson", "truncate", "wordwrap")
_ENDLESS = (RecursionError, ArithmeticError, MemoryError)
_RENDERING = threading.local()


def _refuse_size(what: str, size: int, most: int) -> None:
    if size > most:
        raise TemplateRuntimeError(f"the template builds {what} of {size:,}; at most {most:,} are allowed")


@pass_context
def _count_step(_: Any, value: str) -> str:
    """Nothing to write, once in every turn of a loop and in every call of a macro."""
    _RENDERING.steps = getattr(_RENDERING, "steps", 0) + 1
    if _RENDERING.steps > MOST_STEPS:
        raise TemplateRuntimeError(f"the template has not ended after {MOST_STEPS:,} turns of its loops")
    return value


def _join_bounded(parts: Iterable[Any], separator: str = "") -> str:
    texts, size = [], 0
    for part in parts:
        texts.append(text := str(part))
        size += len(text) + len(separator)
        _refuse_size("a text", size, MOST_CHARACTERS)
    return separator.join(texts)


class _Bounding(NodeTransformer):
    """Counts the turns of loops and macros, and gives `~` a limit."""

    def _count_turns(self, node: Any) -> Any:
        self.generic_visit(node)
        step = nodes.Filter(nodes.Const(""), "count_step", [], [], None, None, lineno=node.lineno)
        node.body.insert(0, nodes.Output([step], lineno=node.lineno))
        return node

    visit_For = visit_Macro = visit_CallBlock = _count_turns

    def visit_Concat(self, node: Any) -> Any:  # noqa: N802, as jinja names it
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "join_bounded", [], [], None, None, lineno=node.lineno)


class BoundedTemplate(Template):
    """A template whose rendering ends."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        """As jinja renders it. Raises TemplateError where that takes too long or too much memory."""
        _RENDERING.steps = 0
        try:
            return super().render(*args, **kwargs)
        except (*_ENDLESS, TypeError) as error:
            raise TemplateRuntimeError(f"the template cannot be rendered ({type(error).__name__}: {error})") from error


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """jinja's sandbox, with limits."""

    template_class = BoundedTemplate
    concat = staticmethod(_join_bounded)  # of what a template, a macro or a block writes
    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.globals.pop("lipsum", None)  # as much text as is asked for
        self.filters |= {"count_step": _count_step, "join_bounded": _join_bounded}

    def from_string(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        """As jinja compiles it. Raises TemplateError also for what is too long or nested too deeply."""
        if isinstance(source, str) and len(source) > LONGEST_TEMPLATE:
            raise TemplateError(f"the template has {len(source):,} characters; expected at most {LONGEST_TEMPLATE:,}")
        self.filters |= {name: _bound_filter(self.filters[name]) for name in _SIZED_FILTERS}
        self.filters |= {"join": _bound_join(self.filters["join"]), "replace": _bound_replace(self.filters["replace"])}
        self.filters["format"] = _bound_format(self.filters["format"])
        try:
            return super().from_string(source, *args, **kwargs)
        except _ENDLESS as error:
            raise TemplateError(f"the template cannot be compiled ({type(error).__name__}: {error})") from error

    def _parse(self, *args: Any) -> Any:
        return _Bounding().visit(super()._parse(*args))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right`. Raises TemplateRuntimeError for a result that is too large."""
        if operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            _refuse_size("a value", len(left) + len(right), MOST_CHARACTERS if isinstance(left, str) else MOST_ITEMS)
        elif operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(right, 0) if operator == "**" else left.bit_length() + right.bit_length()
            _refuse_size("a number (in bits)", bits, _MOST_BITS)
        elif operator == "*" and isinstance(left, (str, list, tuple, int)):
            many, count = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(many, (str, list, tuple)) and isinstance(count, int):
                most = MOST_CHARACTERS if isinstance(many, str) else MOST_ITEMS
                _refuse_size("a value", len(many) * max(count, 0), most)
        elif operator == "%" and isinstance(left, str) and _WIDTHS.search(left):
            raise TemplateRuntimeError(f"the template formats with {left[:60]!r}")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, as jinja has it
        """Call a function or a method, of a text only with a result that is not too large."""
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps `format`
        text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(text, str):
            if name in _SIZED_METHODS:
                _refuse_numbers((*args, *kwargs.values()))
            elif name == "replace" and len(args) > 1:
                _refuse_replacement(text, args[0], args[1])
            elif name == "join" and args:
                return _join_texts(text, args[0])
            elif name in ("format", "format_map") and _WIDTHS.search(text):
                raise TemplateRuntimeError(f"the template formats with {text[:60]!r}")
        return super().call(__context, __obj, *args, **kwargs)


def _join_texts(separator: str, parts: Iterable[Any]) -> str:
    """`str.join`, which takes nothing but texts."""
    texts: list[str] = []
    size = 0
    for text in parts:
        if not isinstance(text, str):
            raise TypeError(f"sequence item {len(texts)}: expected str instance, {type(text).__name__} found")
        texts.append(text)
        size += len(text) + len(separator)
        _refuse_size("a text", size, MOST_CHARACTERS)
    return separator.join(texts)


def _refuse_numbers(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int):
            _refuse_size("a width or a count", value, MOST_ITEMS // 16)


def _refuse_replacement(text: Any, old: Any, new: Any) -> None:
    if isinstance(text, str) and isinstance(old, str) and isinstance(new, str) and len(new) > len(old):
        _refuse_size("a text", text.count(old) * len(new) + len(text), MOST_CHARACTERS)


def _bound_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, for widths and counts that are not too large."""

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _refuse_numbers((*args[1:], *kwargs.values()))
        return function(*args, **kwargs)

    return bounded


def _bound_join(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def bounded(context: Any, value: Any, d: str = "", attribute: Any = None) -> Any:
        items = list(value)
        _refuse_size("a text", len(items) * len(str(d)), MOST_CHARACTERS)
        if attribute is None:
            _join_bounded(items)
        return function(context, items, d, attribute)

    return bounded


def _bound_replace(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def bounded(context: Any, s: str, old: str, new: str, count: int | None = None) -> Any:
        _refuse_replacement(str(s), old, new)
        return function(context, s, old, new, count)

    return bounded


def _bound_format(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def bounded(value: str, *args: Any, **kwargs: Any) -> Any:
        if _WIDTHS.search(str(value)):
            raise TemplateRuntimeError(f"the template formats with {str(value)[:60]!r}")
        return function(value, *args, **kwargs)

    return bounded


def bound_chat_templates() -> None:
    """Have transformers compile every chat template in the bounded sandbox; again it does nothing."""
    chat_template_utils.ImmutableSandboxedEnvironment = BoundedEnvironment
