"""The path of a picture that a row names, and whether it leads out of the data's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from balanced_thinking.data.permissions import current_permissions

_SystemPath: Any = type(Path())  # Python 3.11 makes subclasses of the system's own class only


class RowPath(_SystemPath):
    """A path that remembers the data's folder: that of the rows' file, or the option `image_root`."""

    data_folder: Path | None = None

    def __reduce__(self) -> Any:
        return make_row_path, (self.data_folder, str(self))


def make_row_path(folder: Path | None, name: str | Path) -> Path:
    """The path of a picture; a relative name starts at the data's folder."""
    path = RowPath(name) if folder is None else RowPath(folder, name)
    path.data_folder = folder
    return path


def may_be_copied(image: Any) -> bool:
    """Whether a picture of a row may be copied into results or pages.

    A file outside the data's folder may not, unless the user allows it: a row could name any picture of this machine.
    Training and generation still read it.
    """
    folder = getattr(image, "data_folder", None)
    if folder is None or current_permissions().outside:
        return True
    try:
        return image.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # a circle of links, or a name that no file system takes
        return False
