"""The page in a real browser: its script runs under its policy, every filter hides what it should."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from balanced_thinking.report import write_report
from tests.report import keyboard
from tests.report.synthetic import write_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
)


class Samples(HTMLParser):
    """The samples with their attributes, and the text of the count, in the page as the script left it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.articles: list[dict[str, str | None]] = []
        self.filters: dict[str, str | None] = {}
        self.count, self.in_count = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "article":
            self.articles.append(found)
        if found.get("id") == "filters":
            self.filters = found
        self.in_count = tag == "output"

    def handle_endtag(self, tag: str) -> None:
        self.in_count = False

    def handle_data(self, data: str) -> None:
        self.count += data if self.in_count else ""

    @property
    def shown(self) -> list[dict[str, str | None]]:
        return [article for article in self.articles if "hidden" not in article]


@pytest.fixture(scope="module")
def program() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH; install chromium to run these tests")
    return found


@pytest.fixture(scope="module")
def window(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[keyboard.Page]:
    """One browser for all pages: starting it is what takes the time."""
    flags = (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    with keyboard.started(program, flags) as browser:
        yield browser


SAID = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
Visit = Callable[[str], tuple[str, list[str]]]


@pytest.fixture
def browser(window: keyboard.Page) -> Visit:
    """(an address) -> the page after its script ran, and what the console said."""

    def visit(address: str) -> tuple[str, list[str]]:
        window.open(address, ("Page", "Log", "Runtime"))
        text = window.ask("document.documentElement.outerHTML")
        return text, [str(event["params"]) for event in window.events if event["method"] in SAID]

    return visit


@pytest.fixture(scope="module")
def page(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(runs, tmp_path_factory.mktemp("page") / "report.html").as_uri()


@pytest.mark.parametrize(
    ("state", "keeps"),
    [
        pytest.param("", lambda article: True, marks=pytest.mark.slow),
        pytest.param("#samples", lambda article: True, marks=pytest.mark.slow),  # a place on the page
        ("#family=no%20such%20family", lambda article: True),  # an old link
        ("#disagree", lambda article: "data-disagree" in article),
        ("#malformed", lambda article: "data-malformed" in article),
        pytest.param("#family=count", lambda article: article["data-family"] == "count", marks=pytest.mark.slow),
        ("#setting=ratio-40", lambda article: article["data-setting"] == "ratio-40"),
        ("#disagree&family=spatial", lambda a: "data-disagree" in a and a["data-family"] == "spatial"),
    ],
)
def test_every_filter_hides_the_right_samples_and_prints_the_count(
    browser: Visit, page: str, state: str, keeps: Callable[[dict[str, str | None]], bool]
) -> None:
    text, console = browser(page + state)
    samples = Samples(text)
    expected = [article for article in samples.articles if keeps(article)]
    assert console == []
    assert "hidden" not in samples.filters
    assert len(samples.articles) == 48
    assert [article["aria-label"] for article in samples.shown] == [article["aria-label"] for article in expected]
    assert samples.count == f"{len(expected)} of 48 samples shown"
    assert 0 < len(expected) < 48 or state in ("", "#samples", "#family=no%20such%20family")


def test_a_click_filters_and_is_kept_in_the_address(browser: Visit, page: str, tmp_path: Path) -> None:
    """A second script, with a hash of its own, uses the controls as a person would, and records what it finds."""
    text = Path(page.removeprefix("file://")).read_text(encoding="utf-8")
    steps = """
    const found = [];
    const record = () => found.push(location.hash + " " + document.getElementById("filter-count").textContent);
    document.getElementById("filter-disagree").click(); record();
    const family = document.getElementById("filter-family");
    family.value = "count"; family.dispatchEvent(new Event("change", {bubbles: true})); record();
    document.getElementById("filter-reset").click(); record();
    document.title = found.join("; ");
    """
    open_page = tmp_path / "open.html"
    text = re.sub(r"script-src &#39;sha256-[^;]*", "script-src &#39;unsafe-inline&#39;", text)
    open_page.write_text(text.replace("</body>", f"<script>{steps}</script></body>"), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", browser(open_page.as_uri())[0])
    assert title is not None
    records = title[1].replace("&amp;", "&").split("; ")
    assert [line.split()[0] for line in records] == ["#disagree", "#disagree&family=count", "#samples"]
    assert records[2] == "#samples 48 of 48 samples shown"
    shown = [int(line.split()[1]) for line in records]
    assert shown[1] < shown[0] < shown[2]


def test_the_policy_refuses_any_other_script(browser: Visit, page: str, tmp_path: Path) -> None:
    """Also shows that these tests would hear the console complain."""
    text = Path(page.removeprefix("file://")).read_text(encoding="utf-8")
    strange = tmp_path / "strange.html"
    strange.write_text(text.replace("</body>", '<script>document.title = "taken"</script></body>'), encoding="utf-8")
    after, console = browser(strange.as_uri())
    assert "<title>taken" not in after
    assert any("Content Security Policy" in line for line in console)
    for fault in ("throw new Error('told')", "console.info('told')"):
        strange.write_text(f"<script>{fault}</script>", encoding="utf-8")
        assert any("told" in line for line in browser(strange.as_uri())[1])


def test_without_a_script_all_samples_are_shown(page: str) -> None:
    samples = Samples(Path(page.removeprefix("file://")).read_text(encoding="utf-8"))
    assert len(samples.shown) == 48
    assert "hidden" in samples.filters


FOCUSED = "document.activeElement.id"
STATE = "location.hash + ' ' + document.getElementById('filter-count').textContent"


@pytest.fixture
def by_keyboard(window: keyboard.Page, page: str) -> keyboard.Page:
    """The page with the focus on its first filter, where only Tab has led."""
    window.open(page)
    for _ in range(100):
        window.press("Tab")
        if window.ask(FOCUSED).startswith("filter-"):
            break
    return window


def test_tab_reaches_every_filter_in_its_order_and_goes_on(by_keyboard: keyboard.Page) -> None:
    def visited(shift: bool) -> Iterator[str]:
        for _ in range(4):
            by_keyboard.press("Tab", shift=shift)
            yield by_keyboard.ask(FOCUSED)

    order = [f"filter-{name}" for name in ("disagree", "malformed", "family", "setting", "reset")]
    assert by_keyboard.ask(FOCUSED) == order[0]
    assert by_keyboard.ask("getComputedStyle(document.activeElement).outlineStyle") != "none"  # one sees where it is
    assert list(visited(shift=False)) == order[1:]
    assert list(visited(shift=True)) == order[-2::-1]
    for _ in order:
        by_keyboard.press("Tab")
    assert by_keyboard.ask("!!document.activeElement.closest('article')")  # no trap: the samples follow


def test_filters_work_by_space_arrows_and_enter(by_keyboard: keyboard.Page) -> None:
    def shown() -> tuple[str, int]:
        state, _, count = by_keyboard.ask(STATE).partition(" ")
        return state, int(count.split()[0])

    by_keyboard.press(" ")
    state, disagreeing = shown()
    assert state == "#disagree"
    assert 0 < disagreeing < 48
    by_keyboard.press("Tab")
    by_keyboard.press("Tab")
    by_keyboard.press("ArrowDown")
    family = by_keyboard.ask("document.activeElement.options[1].value")
    state, fewer = shown()
    assert state == f"#disagree&family={family}"
    assert 0 < fewer < disagreeing
    by_keyboard.press("ArrowUp")
    assert shown() == ("#disagree", disagreeing)
    by_keyboard.press("Tab")
    by_keyboard.press("ArrowDown")
    assert shown()[0] == "#disagree&setting=ratio-10"
    by_keyboard.press("Tab")
    by_keyboard.press("Enter")
    assert shown() == ("#samples", 48)
    assert by_keyboard.ask(FOCUSED) == "filter-reset"  # a filter does not take the focus away


@pytest.mark.parametrize("width", [400, 1300])
def test_a_page_is_as_wide_as_the_window_whatever_its_names(window: keyboard.Page, tmp_path: Path, width: int) -> None:
    for arm in ("sft", "checkpoint-" + "9" * 150):
        write_run(tmp_path / "runs" / arm / "seed-0", [True, False] * 9, split=f"world-{'x' * 90}")
    window.open(write_report(tmp_path / "runs", tmp_path / "report.html").as_uri())
    window.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    assert window.ask("document.documentElement.scrollWidth") <= width
