"""Reasoning formats: text -> thinking, answer and named problems; spans -> one segment per token.

Training labels, rewards and evaluation use this same parser. It is pure Python and imports at once.
"""

from balanced_thinking.segments.formats import FORMATS, ReasoningFormat, get_format, recognise_format, render
from balanced_thinking.segments.labels import label_segments
from balanced_thinking.segments.opening import find_opened
from balanced_thinking.segments.parser import ANSWER, IGNORE, PROBLEMS, THINK, Parsed, Span, parse
from balanced_thinking.segments.tokens import generated_segments, token_segments

__all__ = [
    "ANSWER",
    "FORMATS",
    "IGNORE",
    "PROBLEMS",
    "THINK",
    "Parsed",
    "ReasoningFormat",
    "Span",
    "find_opened",
    "generated_segments",
    "get_format",
    "label_segments",
    "parse",
    "recognise_format",
    "render",
    "token_segments",
]
