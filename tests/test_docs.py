"""What a stranger reads: links lead somewhere, commands parse, code runs, tables list every option, lines are short."""

from __future__ import annotations

import dataclasses
import re
import shlex
import unicodedata
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import balanced_thinking
from balanced_thinking import ScaleGRPOConfig, ScaleSFTConfig
from balanced_thinking.cli.commands import read_command_line
from balanced_thinking.config.types import typed_arguments
from balanced_thinking.segments import FORMATS
from balanced_thinking.training.arguments import SYNONYMS, argument_types
from balanced_thinking.training.recipe import Recipe, load_recipe
from tests.test_layout import FLOORS

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
ARCHIVE = DOCS / "results" / "archive.md"
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.glob("*.md"), ARCHIVE, *REPOSITORY.glob("*/README.md")])
RUN = ("README.md", "docs/start.md", "docs/evaluation.md", "docs/data.md", "docs/other-tools.md")
# Entries of the log from this day on are in the new form; the others stay as they were written.
NEW_FORM = "2026-11-28"
WIDTH, README_LINES = 120, 150
CONFIGS = {"sft": ScaleSFTConfig, "grpo": ScaleGRPOConfig}
# Idioms that a reader whose second language is English has to read twice; STYLE says what stands in their place.
IDIOMS = re.compile(r"\bmend(?:s|ed)?\b|told apart|whichever way it fell|\bbut for\b|\bis no YAML\b", re.IGNORECASE)

by_name = {str(page.relative_to(REPOSITORY)): page for page in PAGES}
pages = pytest.mark.parametrize("name", by_name)


def text_of(name: str) -> str:
    """A page's text, of the log only what is in the new form."""
    text = by_name[name].read_text(encoding="utf-8")
    if name != "docs/LOG.md":
        return text
    head, *entries = re.split(r"(?m)^(?=## )", text)
    return head + "".join(entry for entry in entries if entry[3:13] >= NEW_FORM)


def without_code(text: str) -> str:
    return re.sub(r"(?ms)^```.*?^```", "", text)


def links_of(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(text))
    return [link for link in found if not re.match(r"https?:|mailto:", link)]


def slugs(text: str) -> set[str]:
    """Anchors that are the same on GitHub and on the site, which make them by two rules."""
    titles = [re.sub(r"[`*]", "", title) for title in re.findall(r"(?m)^#+ (.+)$", without_code(text))]
    github = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    plain = [unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode() for title in titles]
    site = [re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in plain]
    return {one for one, other in zip(github, site, strict=True) if one == other}


@pages
def test_every_link_leads_somewhere(name: str) -> None:
    page, lost = by_name[name], []
    for link in links_of(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in slugs(target.read_text(encoding="utf-8"))):
            lost.append(link)
    assert lost == []


@pages
def test_lines_are_short_except_where_they_cannot_be_broken(name: str) -> None:
    def unbroken(line: str) -> bool:
        return line.lstrip().startswith("|") or " " not in line.strip().removeprefix("- ")[:WIDTH]

    lines = re.sub(r"(?ms)^```text$.*?^```$", "", text_of(name)).splitlines()  # a command's output stays as it is
    assert [line for line in lines if len(line) > WIDTH and not unbroken(line)] == []


def test_the_readme_is_a_first_screen() -> None:
    text = by_name["README.md"].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES
    order = [
        "**Fine-tune",
        "![",
        "## Install",
        "```python",
        "## Command line",
        "| this package | the others |",
        "## Results",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    blocks = python_blocks("README.md")
    assert len([line for line in blocks[0].splitlines() if line.strip()]) == 6


def test_a_release_has_at_most_fifteen_lines() -> None:
    releases = re.split(r"(?m)^## .*$", by_name["CHANGELOG.md"].read_text(encoding="utf-8"))[1:]
    assert [len(release.strip().splitlines()) for release in releases if len(release.strip().splitlines()) > 15] == []


@pages
def test_words_are_plain(name: str) -> None:
    assert IDIOMS.findall(text_of(name)) == []


def test_words_are_plain_in_the_source_and_the_recipes() -> None:
    files = [file for folder in ("src", "recipes", "examples") for file in (REPOSITORY / folder).rglob("*")]
    texts = {file: file.read_text(encoding="utf-8") for file in files if file.suffix in (".py", ".yaml", ".j2", ".js")}
    assert len(texts) > 100
    found = {str(file.relative_to(REPOSITORY)): IDIOMS.findall(text) for file, text in texts.items()}
    assert {file: idioms for file, idioms in found.items() if idioms} == {}


def python_blocks(name: str) -> list[str]:
    return re.findall(r"(?ms)^```python\n(.*?)^```", by_name[name].read_text(encoding="utf-8"))


@pages
def test_python_on_every_page_compiles(name: str) -> None:
    for block in python_blocks(name):
        compile(block, name, "exec")


@pytest.mark.parametrize(("name", "place"), [(name, k) for name in RUN for k in range(len(python_blocks(name)))])
def test_python_of_the_first_pages_runs(name: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = re.sub(r'"n": (?:64|100|400)', '"n": 8', python_blocks(name)[place])
    exec(compile(block, name, "exec"), {})


def test_names_of_other_tools_lead_to_the_name_of_their_row() -> None:
    """A name may be in several rows; what the error message suggests for it is in the first cell of one of them."""
    rows = re.findall(r"(?m)^\| (`.+?) \| (.+)$", text_of("docs/other-tools.md").partition("## Options")[2])
    ours: dict[str, set[str]] = {}
    for first, others in rows:
        heads = {name.removeprefix("training.").partition(".")[0] for name in re.findall(r"`([\w.]+)", first)}
        for name in re.findall(r"`([a-z_]+)[`: ]", others):
            ours.setdefault(name, set()).update(heads)
    named = ours.keys() - {"trl", "swift", "llamafactory", "default", "last_round"}
    assert len(named) > 40
    known = {*(field.name for field in dataclasses.fields(Recipe)), *argument_types("sft")}
    wrong = {name for name in named if SYNONYMS.get(name, name).partition(".")[0] not in ours[name] | {name} & known}
    assert wrong == set()


def commands_of(name: str) -> list[list[str]]:
    """The words of every `balanced ...` that a page shows, in blocks of shell and in running text."""
    text = by_name[name].read_text(encoding="utf-8")
    shell = "\n".join(re.findall(r"(?ms)^```(?:bash|shell)\n(.*?)^```", text))
    lines = shell.replace("\\\n", " ").splitlines()
    loops = [re.fullmatch(r"for \w+ in .*?; do (.*); done", line) for line in lines]
    lines = [loop[1] if loop else line for line, loop in zip(lines, loops, strict=True)]
    lines += [" ".join(code.split()) for code in re.findall(r"`(balanced [^`]+)`", without_code(text))]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]  # BALANCED_THINKING_DATA=data
        if words[:3] == ["accelerate", "launch", "-m"]:
            words = ["balanced", *words[4:]]
        if words[:1] == ["balanced"] and "..." not in words:
            found.append(words[1:])
    return found


@pages
def test_every_command_parses(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The real parser takes it, and training knows every option; nothing is run."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("BALANCED_THINKING_DATA", "data")
    monkeypatch.setenv("BALANCED_THINKING_MODEL", "model")
    for words in commands_of(name):
        if len(words) == 1 and "-" not in words[0]:
            words = [words[0], "--help"]  # a command that is only named, such as `balanced study`
        try:
            arguments, _ = read_command_line(words)
        except SystemExit as end:
            shown = end.code == 0  # --help and --version
            assert shown, (words, capsys.readouterr().err)
            continue
        if (schema := CONFIGS.get(arguments.command)) is not None:
            recipe = load_recipe(arguments.config, arguments.overrides, default_stage=arguments.command)
            typed_arguments(schema, recipe.training)


@pytest.mark.parametrize("owner", [Recipe, ScaleSFTConfig, ScaleGRPOConfig], ids=lambda owner: owner.__name__)
def test_the_training_page_lists_every_option_with_its_default(owner: type) -> None:
    rows = re.findall(r"(?m)^\| (`[^|]+) \|[^|]*(?:\\\|[^|]*)*\| ([^|]*) \|$", by_name["docs/training.md"].read_text())
    listed: dict[str, set[str]] = {}
    for names, default in rows:
        found = re.findall(r"`([\w]+)`", names)
        values = [value.strip(" `") for value in default.split(",")]
        for place, option in enumerate(found):
            listed.setdefault(option, set()).add(values[place] if len(values) == len(found) else default.strip(" `"))
    own = [f for f in dataclasses.fields(owner) if f.name in owner.__annotations__ and f.name != "stage"]
    assert [f.name for f in own if f.name not in listed] == []
    wrong = {
        f.name: listed[f.name]
        for f in own
        if type(f.default) in (bool, int, float) and f.default not in map(yaml.safe_load, listed[f.name])
    }
    assert wrong == {}


def test_the_api_page_lists_every_public_name() -> None:
    page = by_name["docs/api.md"].read_text(encoding="utf-8")
    assert sorted(re.findall(r"(?m)^::: balanced_thinking\.(\w+)$", page)) == sorted(balanced_thinking.__all__)


def test_the_data_page_shows_every_format() -> None:
    page = by_name["docs/data.md"].read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"| `{name}`" not in page] == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"(?m)^([\w-]+):", (REPOSITORY / "Makefile").read_text()))
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    named = set(workflow["jobs"]["check"]["strategy"]["matrix"]["target"])
    assert named == set(re.findall(r"(?m)^make (\w+)", (REPOSITORY / ".ci" / "run").read_text()))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named |= set(re.findall(r"(?m)^(?: {4})?make ([\w-]+)", text)) | set(re.findall(r"`make ([\w-]+)`", text))
    assert named - targets == set()


def test_the_readme_names_the_versions_that_the_suite_passed_with() -> None:
    table = re.search(
        r"(?ms)^\| The suite passed with \|.*?\n\n", by_name["docs/upstream.md"].read_text(encoding="utf-8")
    )
    assert table is not None
    names, _, pinned, newest, *_ = ([cell.strip() for cell in row.split("|")[2:-1]] for row in table[0].splitlines())
    constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert [f"{name.lower()}=={version}" for name, version in zip(names, pinned, strict=True)] == [
        line for name in names for line in constraints if line.startswith(f"{name.lower()}==")
    ]
    passed = [
        f"{name} {one}" if one == other else f"{name} {one} and {other}"
        for name, one, other in zip(names, pinned, newest, strict=True)
    ]
    assert f"Tested on Linux with {', '.join(passed)}" in " ".join(
        by_name["README.md"].read_text(encoding="utf-8").split()
    )


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert f'version = "{citation["version"]}"' in (REPOSITORY / "pyproject.toml").read_text()
    assert citation["references"][0]["identifiers"][0]["value"] in by_name["README.md"].read_text()


def test_the_architecture_page_lists_every_room_on_its_floor() -> None:
    page = by_name["docs/architecture.md"].read_text(encoding="utf-8")
    floors = {
        int(floor): set(re.findall(r"`(\w+)`", rooms))
        for floor, rooms in re.findall(r"(?m)^\| (\d+) \| (.+) \|$", page)
    }
    assert floors == {floor: set(rooms) for floor, rooms in enumerate(FLOORS, 1)}
    described = set(re.findall(r"(?m)^\| `(\w+)(?:/|\.py)` \|", page))
    assert described == {room for rooms in FLOORS for room in rooms}


def test_the_places_where_things_are_added_exist() -> None:
    page = by_name["docs/architecture.md"].read_text(encoding="utf-8")
    table = page[page.index("## Adding things") :]
    names = re.findall(r"`((?:\w+\.)+)(\w+)(?:\(.*?\))?`", table)
    rooms = {room for floor in FLOORS for room in floor}
    ours = [(f"balanced_thinking.{module[:-1]}", name) for module, name in names if module.split(".")[0] in rooms]
    assert len(ours) >= 9
    assert [place for place in ours if not hasattr(import_module(place[0]), place[1])] == []
    assert [path for path in re.findall(r"`(tests/\S+\.py)`", table) if not (REPOSITORY / path).is_file()] == []
