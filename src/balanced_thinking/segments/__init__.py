"""Reasoning formats: text -> thinking, answer and named problems; spans -> one segment per token.

The one parser behind training labels, rewards and evaluation. Pure Python: it imports at once.
"""

from balanced_thinking.segments.formats import FORMATS, ReasoningFormat, get_format, recognise, render
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
    "generated_segments",
    "get_format",
    "parse",
    "recognise",
    "render",
    "token_segments",
]
