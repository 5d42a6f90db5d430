"""Read the fields of other libraries' dataclasses from their source, because importing them takes seconds."""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from balanced_thinking.config.types import AdmittedTypes, Choices, drop_redundant_str

_NAMED: dict[str, Any] = {kind.__name__: kind for kind in (int, float, bool, str, dict, list, tuple)}


class SourceClass(NamedTuple):
    """A class in a file of an installed package."""

    package: str
    file: str
    name: str


class SourceError(ImportError):
    """A class or a name is not in the file where it was expected."""


def field_types(classes: Sequence[SourceClass], enumerations: Sequence[SourceClass] = ()) -> dict[str, AdmittedTypes]:
    """The types of each field in a dataclass's constructor, like `admitted_types` for an imported dataclass.

    classes: the bases of the dataclass in their order, then the dataclass itself. enumerations: those that its
    annotations name. Raises SourceError if one of them is not in its file.
    """
    choices = {source.name: Choices(tuple(_enumeration_values(_find_class(source)))) for source in enumerations}
    found: dict[str, AdmittedTypes] = {}
    for source in classes:
        for statement in _find_class(source).body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                if _is_argument(statement):
                    found[statement.target.id] = drop_redundant_str(_annotation_types(statement.annotation, choices))
                else:
                    found.pop(statement.target.id, None)
    return found


def dict_keys(package: str, file: str, name: str) -> list[str]:
    """The keys of a dict that a file of a package assigns to this name. Raises SourceError where it does not."""
    for statement in _parse_module(package, file).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Dict(keys=keys)) if found == name:
                return [str(key.value) for key in keys if isinstance(key, ast.Constant)]
    raise SourceError(f"{package}/{file} has no dict {name}")


def _find_class(source: SourceClass) -> ast.ClassDef:
    for statement in _parse_module(source.package, source.file).body:
        if isinstance(statement, ast.ClassDef) and statement.name == source.name:
            return statement
    raise SourceError(f"{source.package}/{source.file} has no class {source.name}")


@cache
def _parse_module(package: str, file: str) -> ast.Module:
    spec = find_spec(package)  # only for top-level packages: it would import the parents of others
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / file).is_file():
            return ast.parse(path.read_bytes())
    raise SourceError(f"there is no {package}/{file}")


def _is_argument(field: ast.AnnAssign) -> bool:
    """Whether the field is in the constructor: neither a ClassVar nor `field(init=False)`."""
    if isinstance(field.annotation, ast.Subscript) and ast.unparse(field.annotation.value).endswith("ClassVar"):
        return False
    options = field.value.keywords if isinstance(field.value, ast.Call) else []
    return not any(option.arg == "init" and ast.unparse(option.value) == "False" for option in options)


def _annotation_types(annotation: ast.expr, choices: dict[str, Choices]) -> Iterator[Any]:
    """The types of a union, without their arguments. A type that is neither built in nor an enumeration is its name."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            yield from _annotation_types(left, choices)
            yield from _annotation_types(right, choices)
        case ast.Constant(value=None):
            yield types.NoneType
        case ast.Constant(value=str() as text):
            yield from _annotation_types(ast.parse(text, mode="eval").body, choices)
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=members)):
            for member in members:
                yield from _annotation_types(member, choices)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=member):
            yield from (*_annotation_types(member, choices), types.NoneType)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=literal):
            members = literal.elts if isinstance(literal, ast.Tuple) else [literal]
            yield Choices(tuple(member.value for member in members if isinstance(member, ast.Constant)))
        case ast.Subscript(value=value):
            yield from _annotation_types(value, choices)
        case ast.Name(id=name):
            yield choices.get(name) or _NAMED.get(name, name)
        case _:
            yield ast.unparse(annotation)


def _enumeration_values(enumeration: ast.ClassDef) -> Iterator[Any]:
    for statement in enumeration.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            yield statement.value.value
