"""What we take from upstream beyond its documented interface: `docs/upstream.md` lists it. These tests compare the list
with the installed libraries and with our own code."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

import balanced_thinking
from balanced_thinking.cli.ending import closing_progress_bars
from tests.sources import tree_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "upstream.md"
SOURCE = Path(balanced_thinking.__file__).parent
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "tqdm", "tokenizers")
# Imports from inside of these are written down. torch's submodules are documented, except those with an underscore.
DEEP = ("transformers", "trl", "peft", "accelerate")
# What ours are set on objects that are not upstream's: argparse's, jinja's, Pillow's, tokenizers', autograd's context,
# a logger, sys.
NOT_UPSTREAM = {
    "__class__",  # of a layer that an estimate stores in 4 bits
    "MAX_IMAGE_PIXELS",  # of Pillow, while it opens a picture
    *("content_digest", "content_name", "encoded", "epilog", "fieldnames", "filters", "globals", "grads"),
    *(
        "pre_tokenizer",
        "normalizer",
        "decoder",
        "propagate",
        "excepthook",
        "eos_token",
        "pad_token",
        "daemon",
        "MAX_IMAGE_PIXELS",
    ),
    # of a model that we built ourselves
    *("chat_template", "eos_token_id", "pad_token_id"),
    # of a configuration that we shrink
    *("mm_tokens_per_image", "image_seq_length", "image_size", "image_grid_pinpoints", "generation_config"),
    # of our own configs, before TRL sees them
    *("bf16", "dataloader_num_workers"),
}


@dataclass(frozen=True)
class Row:
    """A row of the page: `name` is a dotted name, a file of a library, or `$VARIABLE in FILE`."""

    name: str
    parameters: tuple[str, ...] | None
    places: tuple[str, ...]
    scope: str
    why: str
    test: str

    @property
    def shown(self) -> str:
        return self.name if self.parameters is None else f"{self.name}({', '.join(self.parameters)})"

    @property
    def last(self) -> str:
        """What our code calls it."""
        if self.name.startswith("$"):
            return self.name[1:].split()[0]
        return Path(self.name).parent.name if "/" in self.name else self.name.rpartition(".")[2]

    def complain(self, found: str) -> str:
        verb = "relies" if len(self.places) == 1 else "rely"
        return f"{' and '.join(self.places)} {verb} on {self.shown}: now {found}; see docs/upstream.md"


def _rows() -> list[Row]:
    rows = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| `"):
            continue
        upstream, where, scope, why, test = (cell.strip() for cell in line.strip("|").split(" | "))
        name, _, rest = upstream.strip("`").partition("(")
        names = tuple(filter(None, rest.removesuffix(")").split(", "))) if rest else None
        rows.append(Row(name, names, tuple(re.findall(r"`([^`]+)`", where)), scope, why, test.strip("`")))
    return rows


ROWS = _rows()
LASTS = {row.last for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.places[0]}-{row.name}")
def test_upstream_has_what_we_rely_on(row: Row) -> None:
    _compare(row)


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("trl.SFTTrainer._prepare_dataset", ("dataset", "packing"), "it takes (dataset, processing_class, args, "),
        ("trl.SFTTrainer._prepare_data", None, "trl.SFTTrainer has no _prepare_data"),
        ("trl.GRPOTrainer._tokenizers", None, "trl.GRPOTrainer has no _tokenizers"),  # of instances
        ("trl.data_utils.apply_template", None, "trl.data_utils has no apply_template"),
        ("transformers.Trainer.log", ("logs", "...", "step"), "it takes (logs, start_time)"),
        ("trl/chat_templates/none.jinja", None, "there is no such file"),
        ("$NO_CAPACITY in torch/lib/*torch_cpu*", None, "it is not read there"),
    ],
)
def test_a_change_upstream_fails_with_the_name_of_the_spot(
    name: str, parameters: tuple[str, ...] | None, said: str
) -> None:
    row = Row(name, parameters, ("training/sft.py", "batch/collator.py"), "run", "why", "test_it")
    with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
        _compare(row)
    message = str(caught.value)
    assert message.startswith(f"training/sft.py and batch/collator.py rely on {row.shown}: now {said}")


def _compare(row: Row) -> None:
    if row.name.startswith("$"):
        variable, file = row.name[1:].split(" in ")
        folder = _folder(file)
        places = sorted(folder.glob(file.partition("/")[2]))
        assert any(variable.encode() in place.read_bytes() for place in places), row.complain("it is not read there")
        return
    if "/" in row.name:
        assert (_folder(row.name) / row.name.partition("/")[2]).is_file(), row.complain("there is no such file")
        return
    try:
        found = _find(row.name)
    except LookupError as error:
        pytest.fail(row.complain(str(error)))
    if row.parameters is not None:
        now = _parameters(found)
        pattern = "".join("(?:[^,]+,)*" if name == "..." else re.escape(name) + "," for name in row.parameters)
        assert re.fullmatch(pattern, "".join(f"{name}," for name in now)), row.complain(f"it takes ({', '.join(now)})")


def _folder(file: str) -> Path:
    return Path(importlib.import_module(file.partition("/")[0]).__file__ or "").parent


@cache
def _find(name: str) -> Any:
    """The object of a dotted name; None for an attribute that only instances have. Raises LookupError where it is
    gone."""
    parts = name.split(".")
    found: Any = None
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        break
    else:
        raise LookupError(f"{parts[0]} is not installed")
    for place, part in enumerate(parts[cut:], cut):
        if hasattr(found, part):
            found = getattr(found, part)
        elif inspect.isclass(found) and place == len(parts) - 1 and _is_set_in(found, part):
            return None
        else:
            raise LookupError(f"{'.'.join(parts[:place])} has no {part}")
    return found


def _is_set_in(kind: type, name: str) -> bool:
    """Whether a class or one of its bases declares the attribute, or sets it on `self`."""
    pattern = re.compile(rf"\bself\.{name}\b\s*(?:,[^=\n]*|:[^=\n]+)?=")
    for base in kind.__mro__:
        if name in getattr(base, "__annotations__", {}):
            return True
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):  # of C
            continue
        if pattern.search(source):
            return True
    return False


def _parameters(found: Any) -> list[str]:
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [marks.get(p.kind, "") + p.name for p in inspect.signature(found).parameters.values()]
    return names[1:] if names[:1] == ["self"] else names


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.places[0]}-{row.name}")
def test_a_row_says_where_why_and_what_holds_it(row: Row) -> None:
    assert row.scope
    assert row.why
    for place in row.places:
        file = SOURCE / place
        assert file.is_file(), f"{row.name}: there is no {place}"
        mentioned = re.search(rf"{re.escape(row.last)}(?!\w)", file.read_text(encoding="utf-8"))
        assert mentioned, f"{place} mentions no {row.last}: remove it from the row of {row.name}"
    assert row.test == "names only" or row.test in _tests(), f"{row.name}: there is no test {row.test}"


@cache
def _tests() -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    return {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}


def test_open_progress_bars_are_found_and_closed() -> None:
    bar = tqdm(total=2, file=io.StringIO())
    with closing_progress_bars():
        pass
    assert bar.disable  # as a closed one is


def test_no_row_stands_twice() -> None:
    keys = [(row.name, place) for row in ROWS for place in row.places]
    # A field may be both: given another default, and set for a while.
    assert {key for key in keys if keys.count(key) > 1} <= {("trl.SFTConfig.packing", "training/sft.py")}
    assert len(ROWS) > 100


def _modules() -> Iterator[str]:
    for module in pkgutil.walk_packages([str(SOURCE)], "balanced_thinking."):
        if not module.name.endswith("__main__"):
            yield module.name


def _own_classes() -> Iterator[type]:
    for name in _modules():
        for kind in vars(importlib.import_module(name)).values():
            if inspect.isclass(kind) and kind.__module__ == name:
                yield kind


def _in_body(kind: type, file: str) -> set[str]:
    """The names that a class's own text defines: not what a decorator or a metaclass adds."""
    (body,) = (
        node.body for node in ast.walk(_trees()[file]) if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    names = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    for node in body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            names.add(node.target.id)
    return names


@cache
def _overrides() -> set[tuple[str, str, str]]:
    """(file, base class, name) of each name of an upstream class that one of ours defines anew; through mixins too."""
    found = set()
    for kind in _own_classes():
        for place, ours in enumerate(kind.__mro__):
            if not ours.__module__.startswith("balanced_thinking"):
                continue
            file = Path(inspect.getsourcefile(ours) or "").relative_to(SOURCE).as_posix()
            for name in _in_body(ours, file):
                for base in kind.__mro__[place + 1 :]:
                    if base.__module__.partition(".")[0] in LIBRARIES and name in vars(base):
                        found.add((file, f"{base.__module__}.{base.__qualname__}", name))
                        break
    return found


def test_every_override_of_an_upstream_method_or_field_is_on_the_page() -> None:
    overrides = _overrides()
    assert ("training/sft.py", "trl.trainer.sft_trainer.SFTTrainer", "compute_loss") in overrides
    listed = [(row, *row.name.rpartition(".")[::2]) for row in ROWS if "/" not in row.name]
    for file, base, name in sorted(overrides):
        own = inspect.getattr_static(_find(base), name)
        rows = [
            row
            for row, kind, last in listed
            if last == name and file in row.places and inspect.getattr_static(_find(kind), name, None) is own
        ]
        assert rows, f"{file} overrides {base}.{name}, which is not in docs/upstream.md with this file"


@cache
def _trees() -> dict[str, ast.Module]:
    return {path.relative_to(SOURCE).as_posix(): tree_of(path) for path in sorted(SOURCE.rglob("*.py"))}


@cache
def _defined() -> set[str]:
    """Every name that our code defines: functions, classes, variables, fields, and what is set on `self`."""
    names = set()
    for tree in _trees().values():
        declared = {node.target for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and node.value is None}
        for node in ast.walk(tree):
            if node in declared:  # says what upstream sets
                continue
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
                names.add(node.attr)
    return names


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _overridden() -> set[str]:
    return {name for _, _, name in _overrides()}


def test_every_private_name_of_upstream_is_on_the_page() -> None:
    standard = {
        "_asdict",
        "_replace",
        "_fields",
        "_actions",
        "_get_formatter",
        "_get_help_string",
        "_exit",
        "_run_exitfuncs",
    }  # Python's own
    for file, tree in _trees().items():
        for name in _private_names(tree):
            ours = name in _defined() and name not in _overridden()
            assert ours or name in standard | LASTS, f"{file} uses {name}, which is not in docs/upstream.md"


def _private_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        if name and name.startswith("_") and not name.startswith("__"):
            yield name


def test_every_import_from_inside_of_a_library_is_on_the_page() -> None:
    listed = {(place, row.last) for row in ROWS for place in row.places}
    found = 0
    for file, tree in _trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None or "." not in node.module:
                continue
            library, *inside = node.module.split(".")
            if library in DEEP or (library in LIBRARIES and any(name.startswith("_") for name in inside)):
                for alias in node.names:
                    found += 1
                    assert (file, alias.name) in listed, f"{file} imports {node.module}.{alias.name}: list it"
    assert found > 20


def test_everything_that_is_set_on_objects_of_upstream_is_on_the_page() -> None:
    listed = {(place, row.last) for row in ROWS for place in row.places}
    for file, tree in _trees().items():
        if file.startswith(("report/", "runs/", "cli/")):  # no object of upstream gets there
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store) or _is_self(node.value):
                continue
            ours = node.attr in _defined() and (file, node.attr) not in listed
            assert ours or node.attr in NOT_UPSTREAM or (file, node.attr) in listed, (
                f"{file}, line {node.lineno}, sets {ast.unparse(node)}: list it, or add it to NOT_UPSTREAM"
            )
