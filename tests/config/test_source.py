"""Fields read from source are those of the imported classes, and nothing is imported for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from balanced_thinking.config.source import SourceClass, SourceError, field_types
from balanced_thinking.config.types import Choices

SOURCE = '''
"""A package of somebody's, which cannot be imported."""
import not_installed
from enum import Enum
from typing import ClassVar, Literal, Optional, Union

class Speed(Enum):
    """Docstring."""
    SLOW = "slow"
    FAST = "fast"

class Base:
    limit: int = field(default=3)
    hidden: str = "x"
    shared: ClassVar[int] = 1

class Config(Base):
    hidden: str = field(init=False)
    speed: Speed | str = "slow"
    names: Optional[Union[list[str], str]] = None
    form: "dict[str, int] | None" = None
    bias: Literal["none", "all"] = "none"
    other: not_installed.Thing | None = None
    plain = 5
    def method(self): ...
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "somebodys").mkdir()
    (tmp_path / "somebodys" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "somebodys" / "config.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return "somebodys"


def test_types_of_every_field_that_the_constructor_takes(package: str) -> None:
    base, config = (SourceClass(package, "config.py", name) for name in ("Base", "Config"))
    found = field_types([base, config], [SourceClass(package, "config.py", "Speed")])
    assert found == {
        "limit": {int},
        "speed": {Choices(("slow", "fast"))},  # `| str` means the name of a speed
        "names": {list, str, type(None)},
        "form": {dict, type(None)},
        "bias": {Choices(("none", "all"))},
        "other": {"not_installed.Thing", type(None)},
    }


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (("nobodys", "config.py", "Config"), "there is no nobodys/config.py"),
        (("somebodys", "options.py", "Config"), "there is no somebodys/options.py"),
        (("somebodys", "config.py", "Options"), "somebodys/config.py has no class Options"),
    ],
)
def test_a_class_that_is_not_there_is_named(source: tuple[str, str, str], said: str, package: str) -> None:
    with pytest.raises(SourceError, match=said):
        field_types([SourceClass(*source)])
