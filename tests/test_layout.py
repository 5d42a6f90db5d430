"""The rooms of the package and the order of their imports, read from the source. docs/architecture.md explains them."""

from __future__ import annotations

import ast
import inspect
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.sources import PACKAGE, nodes_of

# Floors from the ground up. A room imports from lower floors; on one floor nobody imports from a neighbour.
FLOORS = (
    ("config",),
    ("system", "statistics", "html"),
    ("segments", "cpu"),
    ("scoring", "loss", "packing", "runs"),
    ("data",),
    ("models",),
    ("batch",),
    ("training", "evaluation", "lmms_tasks"),
    ("report", "inspection", "conformance", "estimate"),
    ("study", "export", "chat"),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# The report's own parts, in the order of their imports; the package itself, which writes a report, comes last.
REPORT = ("compare", "draw", "build", "write", "__init__")
NO_TORCH = ("config", "system", "segments", "statistics", "scoring", "runs", "report")
LONGEST, MEDIAN = 300, 130
PARAMETERS = 8  # of a function, `self` and `cls` aside
PUBLIC_LOSS = "weighted_linear_cross_entropy"  # its contract is older than the limit


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sources()}


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "recipes" not in path.relative_to(PACKAGE).parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module below the package) of every import of our own, those inside functions and for types included."""
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "balanced_thinking":
            below = (node.module or "").partition(".")[2]
            yield from ((node.lineno, below or alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            ours = (alias.name.partition(".") for alias in node.names)
            yield from ((node.lineno, below) for package, _, below in ours if package == "balanced_thinking")


def test_every_room_has_a_floor() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert rooms | {"html"} == set(FLOOR)


def test_the_root_holds_no_loose_module() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "html.py", "py.typed"}


def test_imports_go_down_only() -> None:
    upward = []
    for name, path in modules().items():
        room = name.partition(".")[0]
        if room in ("__init__", "__main__"):
            continue
        for line, target in imported(path):
            other = target.partition(".")[0]
            if other != room and FLOOR.get(other, -1) >= FLOOR[room]:
                upward.append(f"{path.relative_to(REPOSITORY)}:{line} imports {target}")
    assert not upward, "\n".join(["imports that go up, or to a neighbour:", *upward])


def test_a_report_computes_before_it_draws_and_draws_before_it_writes() -> None:
    upward = []
    for name, path in modules().items():
        part = [*name.split("."), ""][1]
        for line, target in imported(path) if name.startswith("report.") else ():
            room, _, below = target.partition(".")
            other = below.partition(".")[0] or "__init__"
            if room == "report" and other != part and REPORT.index(other) >= REPORT.index(part):
                upward.append(f"{path.relative_to(REPOSITORY)}:{line} imports {target}")
    assert not upward, "\n".join(upward)


def test_these_rooms_need_no_torch() -> None:
    """One process imports them, the lower ones first, because many imports are shared."""
    code = "import sys\n"
    for room in sorted(NO_TORCH, key=FLOOR.__getitem__):
        names = (name.removesuffix(".__init__") for name in modules() if name.split(".")[0] == room)
        code += f"import {', '.join(f'balanced_thinking.{name}' for name in names)}\n"
        code += f"assert not {{'torch', 'transformers', 'trl'}} & set(sys.modules), {room!r}\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_files_stay_small() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in sources()}
    long = {str(path.relative_to(REPOSITORY)): n for path, n in lines.items() if n > LONGEST}
    assert not long
    assert statistics.median(n for n in lines.values() if n > 10) <= MEDIAN


def is_triton_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A kernel takes pointers, sizes and constants one by one."""
    return any(ast.unparse(decorator) == "triton.jit" for decorator in function.decorator_list)


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def test_functions_take_few_parameters() -> None:
    many = []
    for path in sources():
        for node in nodes_of(path):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or is_triton_kernel(node):
                continue
            count = len(parameters_of(node))
            if count > PARAMETERS and node.name != PUBLIC_LOSS:
                many.append(f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name} has {count}")
    assert not many, "\n".join(many)


def test_the_public_loss_is_the_one_exception() -> None:
    from balanced_thinking import weighted_linear_cross_entropy

    assert len(inspect.signature(weighted_linear_cross_entropy).parameters) > PARAMETERS
