"""Data sets: adapters turn them into Examples, checks name their problems.

An adapter of your own imports what it needs from here.
"""

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.load import load_data
from balanced_thinking.data.registry import register

__all__ = ["BadRow", "DataError", "Example", "load_data", "register"]
