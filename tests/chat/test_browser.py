"""The page of `balanced chat --web` in a headless Chromium: a dropped picture, the keyboard, no foreign request."""

from __future__ import annotations

import importlib.util
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from balanced_thinking.chat.keep import Keeper
from balanced_thinking.chat.web.page import find_port, launch_page, make_page
from balanced_thinking.config.errors import RecipeError
from tests.chat.scripted import GOOD, HOSTILE, ScriptedSession
from tests.report import keyboard
from tests.report.test_browser import BROWSERS, FLAGS

TIMEOUT_SECONDS = 60
DOMAINS = ("Page", "Network", "Runtime", "Log")


class Served(NamedTuple):
    address: str
    out: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed; `make test-chat` installs it in an environment of its own")
    out, session = tmp_path_factory.mktemp("chat") / "out", ScriptedSession()
    page, port = make_page(session, Keeper(out, session)), find_port("127.0.0.1", 0)
    launch_page(page, "127.0.0.1", port)
    yield Served(f"http://127.0.0.1:{port}/", out)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def page(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[keyboard.Page]:
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH; install chromium to run these tests")
    flags = (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    with keyboard.started(program, flags) as found:
        found.open(served.address, DOMAINS)
        wait_for(found, "document.querySelector('#question textarea') !== null")
        yield found


def wait_for(page: keyboard.Page, expression: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while page.ask(expression) is not True:
        assert time.monotonic() < deadline, f"never true: {expression}"
        time.sleep(0.05)


def reply_of(model: str) -> str:
    return f"document.querySelector('article[aria-label=\"Reply of {model}\"]')"


def write_question(page: keyboard.Page, text: str) -> None:
    page.ask(
        "document.querySelector('#question textarea').focus(); document.querySelector('#question textarea').select()"
    )
    page.call("Input.insertText", text=text)
    page.press("Enter")


def drop_file(page: keyboard.Page, path: Path) -> None:
    """Drag a file from outside onto the zone of pictures."""
    zone = page.ask(
        "(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector('#pictures').getBoundingClientRect())"
    )
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, x=zone[0], y=zone[1], data=data)


def test_two_models_answer_side_by_side_to_a_dropped_picture(
    page: keyboard.Page, picture: Path, served: Served
) -> None:
    drop_file(page, picture)
    wait_for(page, "document.querySelector('.pictures img') !== null")
    write_question(page, "which color ?")
    wait_for(page, f"/malformed/.test({reply_of(HOSTILE)}.innerText)")
    assert "ended by its closed answer" in page.ask(f"{reply_of(GOOD)}.innerText")
    left, right = (page.ask(f"{reply_of(name)}.getBoundingClientRect().x") for name in (GOOD, HOSTILE))
    assert left < right
    line = (served.out / "good/eval/chat/predictions.jsonl").read_text()
    assert "images/1-0.png" in line
    # Tab leads through the controls to the folded thinking, and Enter opens it.
    assert page.ask(f"{reply_of(GOOD)}.querySelector('details').open") is False
    visited = []
    for _ in range(20):
        page.press("Tab")
        visited.append(page.ask("document.activeElement.id || document.activeElement.tagName"))
        assert page.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # one sees where it is
        if visited[-1] == "SUMMARY":
            break
    assert visited == ["INPUT", "ask", "stop", "SUMMARY"]
    page.press("Enter")
    assert page.ask(f"{reply_of(GOOD)}.querySelector('details').open") is True


def test_text_of_a_model_does_nothing(page: keyboard.Page) -> None:
    assert page.ask("document.title") == "Balanced Thinking"
    assert page.ask(f"{reply_of(HOSTILE)}.querySelectorAll('script, img, style').length") == 0
    shown = page.ask(f"{reply_of(HOSTILE)}.querySelector('.text').textContent")
    assert "${document.title='taken'}" in shown
    assert "{{7*7}}" in shown


def test_a_right_answer_scores_one_question(page: keyboard.Page) -> None:
    box = "document.querySelector('#answer input, #answer textarea')"
    page.ask(f"{box}.focus()")
    page.call("Input.insertText", text="red")
    page.press("Enter")
    wait_for(page, f"/✓ right/.test({reply_of(GOOD)}.innerText)")
    wait_for(page, f"/✗ wrong: the right answer is red/.test({reply_of(HOSTILE)}.innerText)")
    assert page.ask(f"{box}.value") == ""


def test_stop_ends_a_reply(page: keyboard.Page) -> None:
    write_question(page, "answer slowly")
    wait_for(page, f"{reply_of(GOOD)}.ariaBusy === 'true'")
    page.ask("document.querySelector('#stop').click()")
    wait_for(page, f"/stopped by you/.test({reply_of(GOOD)}.innerText)")
    wait_for(page, f"/not asked: stopped/.test({reply_of(HOSTILE)}.innerText)")


def test_what_cannot_be_asked_is_said(page: keyboard.Page, tmp_path: Path) -> None:
    page.ask("document.querySelector('#question textarea').select()")
    page.call("Input.insertText", text=" ")
    page.ask("document.querySelector('#ask').click()")
    wait_for(page, "/the question is empty/.test(document.querySelector('#problem').innerText)")
    damaged = tmp_path / "no picture.png"
    damaged.write_text("<svg>")
    page.ask("document.querySelector('#pictures button[aria-label=\"Clear\"]').click()")
    wait_for(page, "document.querySelector('.pictures img') === null")
    drop_file(page, damaged)
    wait_for(page, "/no picture.png cannot be used: SVG/.test(document.body.innerText)")


def test_nothing_is_asked_of_another_host_and_the_console_is_silent(page: keyboard.Page, served: Served) -> None:
    """The last test: it looks at all that the others have caused."""
    page.ask("1")
    sent = [
        event["params"]["request"]["url"] for event in page.events if event.get("method") == "Network.requestWillBeSent"
    ]
    assert len(sent) > 10
    assert [url for url in sent if not url.startswith((served.address, "data:", "blob:"))] == []
    assert errors_in(page.events) == []


def errors_in(events: list[dict[str, Any]]) -> list[Any]:
    found = []
    for event in events:
        about = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            found.append(about)
        elif event.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            found.append(about["entry"])
        elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] == "error":
            found.append(about["args"])
    return found


def test_a_request_for_another_name_is_refused(served: Served) -> None:
    """A page elsewhere could have its own name point to this machine."""
    request = urllib.request.Request(served.address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
    with urllib.request.urlopen(served.address) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_a_port_in_use_is_named(served: Served) -> None:
    port = int(served.address.rstrip("/").rpartition(":")[2])
    with pytest.raises(RecipeError, match=f"port {port} .*--port"):
        find_port("127.0.0.1", port)
