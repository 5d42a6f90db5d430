"""The base class of the errors that this package raises for its users, and those of a request that cannot be met."""

from __future__ import annotations


class BalancedThinkingError(Exception):
    """An error that the user can fix. Each subclass is also the built-in type that fits: ValueError, RuntimeError ...

    Its message says what was found, what was expected and which option or file to change.
    """


class UsageError(BalancedThinkingError):
    """A request that cannot be met as it is: nothing was started. The commands end with exit code 2 then."""


class RecipeError(UsageError, ValueError):
    """A recipe or an option that cannot be used."""


class FileInTheWayError(UsageError, FileExistsError):
    """What would be written is there already."""
