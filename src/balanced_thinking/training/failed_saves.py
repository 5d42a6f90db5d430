"""A save that the disk refuses: full, a quota, read-only, gone. One error says what was needed and how to go on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from balanced_thinking.config.errors import BalancedThinkingError

# What safetensors (Rust) and torch (its zip writer) say of an error of the system, which they do not pass on as one.
_WRAPPED = re.compile(
    r"os error \d+|no space left|quota exceeded|read-only file system|input/output error|\bI/O error|inline_container"
    r"|PytorchStreamWriter|file write failed|iostream error|cannot be opened|parent directory .* does not exist",
    re.IGNORECASE,
)


class SaveFailedError(BalancedThinkingError, OSError):
    """Something could not be written to the disk. What was saved before is as it was."""


@contextmanager
def name_failed_save(what: str, place: Path, advise: Callable[[], str]) -> Iterator[None]:
    """Raises SaveFailedError for whatever the disk refuses in the block.

    Args:
        what: the thing that is saved, such as `checkpoint-12`.
        place: its path.
        advise: says what to do; called after the block has cleaned up.
    """
    try:
        yield
    except SaveFailedError:
        raise
    except Exception as error:
        reason = find_disk_error(error)
        if reason is None:
            raise
        raise SaveFailedError(f"{what} could not be saved as {place}: {reason}. {advise()}") from error


def find_disk_error(error: BaseException | None) -> str | None:
    """What the system said, if it refused to write; None for any other error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return f"{error.strerror}" + (f" ({error.filename})" if error.filename else "")
        said = str(error).strip().partition("\n")[0][:200]
        if isinstance(error, (OSError, RuntimeError, SafetensorError)) and _WRAPPED.search(said):
            return f"a file could not be written completely ({said})"
        error = error.__cause__
    return None


def free_bytes(place: Path) -> int:
    """Of the file system that holds `place`, or would hold it; 0 where that is gone."""
    try:
        existing = next(one for one in (place, *place.absolute().parents) if one.exists())
        return shutil.disk_usage(existing).free
    except (OSError, StopIteration):
        return 0
