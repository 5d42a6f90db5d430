"""Functions of the user's own, named `module:function`, such as `my_rewards:short`. No torch.

The module is a file in the working directory, one beside the recipe, or an installed one. Importing it runs it, as any
Python file that the user names; nothing that a model wrote is ever run.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean

_OURS = "__balanced_thinking_own__"  # marks modules that were imported here
_SCORER_KEYS = ("scorer", "reward_scorer", "validation_scorer")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class OwnFunction(NamedTuple):
    """A function of the user's, the file that it is in, and that file's SHA-256."""

    name: str
    call: Callable[..., Any]
    file: Path
    sha256: str

    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Its parameters by name. Raises RecipeError for what has no signature."""
        try:
            return inspect.signature(self.call).parameters
        except (ValueError, TypeError) as error:
            raise RecipeError(f"{self.name} has no signature that Python can read; wrap it in a function") from error

    def record(self) -> dict[str, str]:
        """What a run records of it."""
        return {"file": str(self.file), "sha256": self.sha256}


def is_own_name(name: object) -> TypeGuard[str]:
    """Whether a name means a function of the user's own."""
    return isinstance(name, str) and ":" in name


def search_beside(file: Path) -> None:
    """From now on, also look for modules in the folder of a file: of a recipe, or of a module that a run recorded.

    Processes that are started later look there as well, such as the workers of a study.
    """
    if (folder := str(file.absolute().parent)) not in sys.path:
        sys.path.append(folder)
        inherited = [folder for folder in (os.environ.get("PYTHONPATH"),) if folder]
        os.environ["PYTHONPATH"] = os.pathsep.join([*inherited, folder])


def search_beside_recipe(values: Any, file: Path) -> None:
    """`search_beside`, where a recipe's values name a function of the user's own as a scorer or a reward."""
    if any(True for _ in _own_names(values)):
        search_beside(file)


def _own_names(values: Any) -> Iterator[str]:
    """The names of own functions anywhere in a recipe, a study or a file of benchmarks."""
    if isinstance(values, list | tuple):
        yield from (name for value in values for name in _own_names(value))
    for key, value in values.items() if isinstance(values, Mapping) else ():
        if key in _SCORER_KEYS and is_own_name(value):
            yield value
        elif key == "rewards" and isinstance(value, Mapping):
            yield from filter(is_own_name, value)
        else:
            yield from _own_names(value)


def load_own_function(name: str, kind: str) -> OwnFunction:
    """The function that `module:function` names; `kind` is what messages call it, such as `reward`.

    Raises RecipeError where there is no such module or function, and where the module cannot be imported.
    """
    if not _NAME.fullmatch(name):
        raise RecipeError(f"the {kind} {name!r} is not a name; expected module:function, such as my_{kind}s:short")
    module, _, function = name.partition(":")
    file = _find_file(module)
    if file is None:
        raise RecipeError(
            f"the {kind} {name!r}: there is no module {module!r} in {Path.cwd()}, beside the recipe or installed; "
            f"expected a file {module.replace('.', '/')}.py with the function {function}"
        )
    return _load_from(name, kind, file, file.stat().st_mtime_ns)


def describe_changed_functions(recorded: Mapping[str, Any], now: Iterable[OwnFunction]) -> list[str]:
    """In words, which functions have a file of other contents than `recorded`, name -> `OwnFunction.record`."""
    changed = []
    for one in now:
        before = recorded.get(one.name)
        if isinstance(before, Mapping) and before.get("sha256") != one.sha256:
            old = str(before.get("sha256"))[:12]
            changed.append(f"{one.name}: the SHA-256 of {one.file} was {old}... and is {one.sha256[:12]}...")
    return changed


def _find_file(module: str) -> Path | None:
    """The file of a module, found without importing anything: the working directory comes first."""
    for folder in (Path.cwd(), *map(Path, sys.path)):
        place = folder.joinpath(*module.split("."))
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if file.is_file():
                return file.absolute()
    return None


@cache
def _load_from(name: str, kind: str, file: Path, changed_ns: int) -> OwnFunction:
    """`changed_ns` is the file's time, so that a file that was edited is read again."""
    module, _, function = name.partition(":")
    try:
        found = _import_file(module, file, changed_ns)
    except RecipeError as error:
        raise RecipeError(f"the {kind} {name!r}: {error}") from error
    if not callable(call := getattr(found, function, None)):
        known = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
        what = "has no function" if call is None else f"has a value of type {type(call).__name__}, not a function, as"
        raise RecipeError(f"the {kind} {name!r}: {file} {what} {function!r}{did_you_mean(function, known)}")
    return OwnFunction(name, call, file, hashlib.sha256(file.read_bytes()).hexdigest())


@cache
def _import_file(module: str, file: Path, changed_ns: int) -> Any:
    """Import a module from this very file. Raises RecipeError where it fails, or where another has its name."""
    folder = str(file.parents[len(module.split(".")) - (file.name != "__init__.py")])
    if hasattr(sys.modules.get(module), _OURS):  # imported here before, from another folder or before it was edited
        del sys.modules[module]
    is_new = module not in sys.modules
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise RecipeError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    if folder not in sys.path:  # for what the module imports later
        sys.path.append(folder)
    other = getattr(found, "__file__", None)
    if other is None or not file.samefile(other):
        raise RecipeError(f"another module is named {module!r} ({other or 'built in'}); rename {file}")
    if is_new:
        setattr(found, _OURS, True)
    return found
