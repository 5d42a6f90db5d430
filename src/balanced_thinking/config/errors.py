"""The base class of the errors that this package raises for its users, and the error of a wrong recipe or option."""

from __future__ import annotations


class BalancedThinkingError(Exception):
    """An error that the user can fix. Each subclass is also the built-in type that fits: ValueError, RuntimeError ...

    Its message says what was found, what was expected and which option or file to change.
    """


class RecipeError(BalancedThinkingError, ValueError):
    """A recipe or an option that cannot be used."""
