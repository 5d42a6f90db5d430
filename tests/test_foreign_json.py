"""JSON and YAML are read where their depth and size are bounded, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.sources import nodes_of

PACKAGE = REPOSITORY / "src" / "balanced_thinking"
JSON_READERS = {"load", "loads", "JSONDecoder"}
YAML_WRITERS = {"safe_dump", "dump"}
# Module -> why it may read JSON or YAML itself.
ALLOWED = {
    "config/foreign_json.py": "measures the depth first",
    "config/yaml.py": "bounds size, depth and aliases",
    "evaluation/pictures.py": "a text that transformers has just written in this process",
    "export/plain_answers.py": "a program that imports nothing of ours; texts that this package has written",
    "training/grpo_resume.py": "a text that it has just written itself",
}


def find_readers(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Each use of a reader of JSON, and of anything of YAML that can read, be it called or passed on."""
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            yaml_call = node.value.id == "yaml" and node.attr.endswith(("load", "load_all", "parse", "compose"))
            if (node.value.id == "json" and node.attr in JSON_READERS) or yaml_call:
                yield f"line {node.lineno}: {name}"
        elif isinstance(node, ast.ImportFrom) and node.module in ("json", "yaml"):
            names = {alias.name for alias in node.names} - YAML_WRITERS
            if node.module == "yaml" or names & JSON_READERS:
                yield from (f"line {node.lineno}: from {node.module} import {name}" for name in sorted(names))


def test_only_bounded_readers_are_used() -> None:
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if uses := list(find_readers(nodes_of(path))):
            found[Path(path).relative_to(PACKAGE).as_posix()] = uses
    assert {name: uses for name, uses in found.items() if name not in ALLOWED} == {}
    assert set(found) == set(ALLOWED), "a module of the list reads no JSON any more"


def test_each_kind_of_use_is_found() -> None:
    uses = (
        "json.loads(x)",
        "json.load(f)",
        "for read in (json.loads, g): pass",
        "from json import loads",
        "yaml.load(x)",
    )
    uses += ("yaml.safe_load(x)", "yaml.full_load_all(x)", "from yaml import safe_load", "json.JSONDecoder()")
    assert all(len(list(find_readers(nodes_of(use)))) == 1 for use in uses)
    assert not list(find_readers(nodes_of("json.dumps(x); yaml.safe_dump(x); yaml.YAMLError; read_json(x)")))
