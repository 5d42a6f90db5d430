"""Safety by construction, read from the source: nothing of ours runs, unpickles or fetches what a file says."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.audit import read_audit
from tests.conftest import REPOSITORY
from tests.sources import nodes_of

SOURCES = sorted((REPOSITORY / "src").rglob("*.py"))
# Names that are never called, and what is called in their place.
FORBIDDEN_CALLS = {
    "eval": "a parser",
    "exec": "a function",
    "compile": "a function",
    "os.system": "subprocess with a list",
    "os.popen": "subprocess with a list",
    "yaml.load": "yaml.safe_load",
    "yaml.unsafe_load": "yaml.safe_load",
    "yaml.full_load": "yaml.safe_load",
    "pickle.load": "JSON or safetensors",
    "pickle.loads": "JSON or safetensors",
    "pickle.Unpickler": "JSON or safetensors",
    "torch.jit.load": "safetensors",
    "numpy.load": "safetensors",
    "np.load": "safetensors",
    "urllib.request.urlopen": "system.fetching",
    "urllib.request.urlretrieve": "system.fetching",
    "tempfile.mktemp": "tempfile.mkstemp",
    "shutil.unpack_archive": "a reader with limits",
}
FORBIDDEN_IMPORTS = ("cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "requests", "httpx")
_PROGRAMS = ("run", "Popen", "call", "check_call", "check_output")


def calls(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, ast.Call]]:
    for node in nodes:
        if isinstance(node, ast.Call):
            yield _name_of(node.func), node


def _name_of(node: ast.expr) -> str:
    """`ast.unparse` of a name with dots, in a tenth of its time."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{_name_of(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ast.unparse(node)


def keyword(call: ast.Call, name: str) -> object:
    """The constant that a call gives for an argument; None where it gives none."""
    return next(
        (one.value.value for one in call.keywords if one.arg == name and isinstance(one.value, ast.Constant)), None
    )


def _loads_safely(name: str, call: ast.Call) -> bool:
    """Whether it is `yaml.load` with a loader of `config/yaml.py`, all of which are kinds of SafeLoader."""
    return name == "yaml.load" and len(call.args) == 2 and ast.unparse(call.args[1]) == "loader"


def find_dangers(nodes: Sequence[ast.AST]) -> Iterator[str]:
    for node in nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        forbidden = {*FORBIDDEN_IMPORTS, *(["pickle"] if isinstance(node, ast.ImportFrom) else [])}
        yield from (f"line {node.lineno}: imports {name}" for name in names if name.split(".")[0] in forbidden)
    for name, call in calls(nodes):
        if name in FORBIDDEN_CALLS and not _loads_safely(name, call):
            yield f"line {call.lineno}: {name}; use {FORBIDDEN_CALLS[name]}"
        if name == "torch.load" and keyword(call, "weights_only") is not True:
            yield f"line {call.lineno}: torch.load without weights_only=True"
        if keyword(call, "shell") or keyword(call, "trust_remote_code"):
            yield f"line {call.lineno}: shell or trust_remote_code"
        module, _, function = name.rpartition(".")
        if module == "subprocess" and function in _PROGRAMS and call.args:
            first = call.args[0]
            if isinstance(first, ast.JoinedStr) or (isinstance(first, ast.Constant) and isinstance(first.value, str)):
                yield f"line {call.lineno}: a program from a text"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY / "src")))
def test_no_source_does_what_a_file_says(path: Path) -> None:
    assert not list(find_dangers(nodes_of(path)))


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import dill",
        "from pickle import load",
        "import pickle\npickle.loads(x)",
        "import yaml\nyaml.load(x)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "subprocess.run('ls', check=True)",
        "subprocess.run(f'ls {x}')",
        "subprocess.run(['ls'], shell=True)",
        "os.system('ls')",
        "import requests",
        "urllib.request.urlopen(x)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
    ],
)
def test_each_danger_is_found(source: str) -> None:
    assert list(find_dangers(nodes_of(source)))


@pytest.mark.parametrize(
    "source", ["torch.load(path, weights_only=True)", "subprocess.run(['ls'])", "yaml.safe_load(x)"]
)
def test_what_is_safe_is_not(source: str) -> None:
    assert not list(find_dangers(nodes_of(source)))


@pytest.mark.parametrize(
    ("result", "said", "code"),
    [
        ("", "nothing was checked", 1),  # the database could not be reached
        ('{"dependencies": []}', "0 of 0 packages could not be checked", 1),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', "1 of 1 packages could not be checked", 1),
        ('{"dependencies": [{"name": "a", "vulns": []}]}', "1 packages checked, 0 with", 0),
        ('{"dependencies": [{"name": "a", "vulns": [{"id": "CVE-1"}]}]}', "a has CVE-1", 1),
    ],
)
def test_an_audit_that_checked_nothing_has_not_passed(result: str, said: str, code: int) -> None:
    sentence, found = read_audit(result)
    assert said in sentence
    assert found == code
