"""The package's own source as syntax trees, for the tests that read it: each file is parsed once a process."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "balanced_thinking"


@cache
def tree_of(source: Path | str) -> ast.Module:
    """The tree of a file, or of a text."""
    return ast.parse(source.read_text(encoding="utf-8") if isinstance(source, Path) else source)


@cache
def nodes_of(source: Path | str) -> tuple[ast.AST, ...]:
    """Every node of the tree, as `ast.walk` gives them."""
    return tuple(ast.walk(tree_of(source)))
