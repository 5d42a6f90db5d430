"""Data sets: adapters turn them into Examples, checks name what is wrong with them. What an adapter of one's own needs
is imported from here."""

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.load import load_data
from balanced_thinking.data.registry import register

__all__ = ["BadRow", "Example", "load_data", "register"]
