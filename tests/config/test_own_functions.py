"""`module:function`: where the file is looked for, what is refused by name, and what is recorded."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.own_functions import (
    describe_changed_functions,
    is_own_name,
    load_own_function,
    search_beside_recipe,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; what a test adds to the search path is taken away again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_function_is_found_in_the_working_directory_and_recorded(folder: Path) -> None:
    file = write(folder / "mine.py", "def two():\n    return 2\n")
    found = load_own_function("mine:two", "reward")
    assert found.call() == 2
    assert found.record() == {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert load_own_function("mine:two", "reward").call is found.call  # not imported again


def test_a_package_and_an_installed_module_have_functions_too(folder: Path) -> None:
    write(folder / "parts" / "__init__.py", "")
    write(folder / "parts" / "inner.py", "def three():\n    return 3\n")
    assert load_own_function("parts.inner:three", "scorer").call() == 3
    assert load_own_function("textwrap:dedent", "scorer").call("  a") == "a"


def test_an_edited_file_is_read_again_and_the_change_is_named(folder: Path) -> None:
    file = write(folder / "edited.py", "def value():\n    return 1\n")
    before = load_own_function("edited:value", "reward")
    write(file, "def value():\n    return 2222\n")
    os.utime(file, (1, 1))
    now = load_own_function("edited:value", "reward")
    assert (before.call(), now.call()) == (1, 2222)
    recorded = {"edited:value": before.record()}
    (said,) = describe_changed_functions(recorded, [now])
    assert before.sha256[:12] in said
    assert now.sha256[:12] in said
    assert describe_changed_functions(recorded, [before]) == []
    assert describe_changed_functions({}, [now]) == []  # a new reward is a change of the recipe, not of a file


def test_the_folder_of_a_recipe_is_searched_only_where_it_names_a_function(folder: Path) -> None:
    recipe = write(folder.parent / "recipes" / "r.yaml", "")
    write(recipe.with_name("beside.py"), "def f():\n    return 4\n")
    search_beside_recipe({"training": {"rewards": {"accuracy": 1.0}}, "data": "name:path"}, recipe)
    with pytest.raises(RecipeError, match="there is no module 'beside'"):
        load_own_function("beside:f", "reward")
    search_beside_recipe({"arms": {"a": {"training": {"rewards": {"beside:f": 1.0}}}}}, recipe)
    assert load_own_function("beside:f", "reward").call() == 4
    write(folder / "beside.py", "def f():\n    return 5\n")
    assert load_own_function("beside:f", "reward").call() == 5  # the working directory comes first


def test_a_process_that_is_started_later_looks_there_as_well(folder: Path) -> None:
    recipe = write(folder.parent / "recipes" / "study.yaml", "")
    write(recipe.with_name("inherited.py"), "def f():\n    return 6\n")
    search_beside_recipe({"evaluate": {"world": {"scorer": "inherited:f"}}}, recipe)
    done = subprocess.run([sys.executable, "-c", "import inherited; print(inherited.f())"], capture_output=True)
    assert done.stdout.split() == [b"6"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent:f", "the reward 'absent:f': there is no module 'absent' in .*expected a file absent.py"),
        ("refused:shor", "refused.py has no function 'shor' .did you mean 'short'"),
        ("refused:NUMBER", "has a value of type int, not a function"),
        ("broken:f", "broken.py cannot be imported: SyntaxError"),
        ("raising:f", "raising.py cannot be imported: ZeroDivisionError"),
        ("leaving:f", "leaving.py cannot be imported: SystemExit: 3"),
        ("yaml:short", "another module is named 'yaml' .*rename .*yaml.py"),
        ("../up:f", "is not a name; expected module:function"),
        ("mine:f()", "is not a name; expected module:function"),
        (":f", "is not a name; expected module:function"),
    ],
)
def test_what_cannot_be_loaded_is_refused_by_name(folder: Path, name: str, said: str) -> None:
    write(folder / "refused.py", "NUMBER = 1\ndef short():\n    return 1\n")
    write(folder / "broken.py", "def (:\n")
    write(folder / "raising.py", "1 / 0\n")
    write(folder / "leaving.py", "raise SystemExit(3)\n")
    write(folder / "yaml.py", "def short():\n    return 1\n")
    assert is_own_name(name)
    with pytest.raises(RecipeError, match=said):
        load_own_function(name, "reward")
