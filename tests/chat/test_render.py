"""The HTML of replies: escaped, folded, marked."""

from __future__ import annotations

from pathlib import Path

import pytest

from balanced_thinking.chat.question import Question
from balanced_thinking.chat.turn import Progress, Turn
from balanced_thinking.chat.web.page import SEGMENTS_CSS, refuse_missing_gradio
from balanced_thinking.chat.web.render import render_pictures, render_progress, render_turn, render_waiting
from balanced_thinking.config.errors import RecipeError
from tests.chat.scripted import FORMAT, GOOD, HOSTILE, TEXTS, ScriptedSession


def turn_of(name: str, answer: str | None = None) -> Turn:
    events = ScriptedSession().ask(Question("which color ?", answer=answer))
    return next(event for event in events if isinstance(event, Turn) and event.model == name)


def test_thinking_is_folded_once_it_is_complete() -> None:
    running = render_progress(Progress(GOOD, TEXTS[GOOD][:20], FORMAT, "", 5, 0.1))
    assert '<details class="segment think" open>' in running
    assert 'aria-busy="true"' in running
    complete = render_turn(turn_of(GOOD))
    assert '<details class="segment think"><summary class="label">thinking, 12 tokens</summary>' in complete
    assert "<code>&lt;answer&gt;</code>red<code>&lt;/answer&gt;</code>" in complete
    assert "30 tokens/s, ended by its closed answer" in complete
    assert "verdict" not in complete


def test_text_of_a_model_is_text() -> None:
    page = render_turn(turn_of(HOSTILE))
    assert "<script" not in page
    assert "<img" not in page
    assert "<style" not in page
    assert "&lt;script&gt;" in page


def test_malformed_replies_and_verdicts_are_marked() -> None:
    malformed = render_turn(turn_of(HOSTILE))
    assert '<p class="flaw">malformed: ' in malformed
    assert "--max-new-tokens" in malformed
    assert "✓ right" in render_turn(turn_of(GOOD, "red"))
    assert "✗ wrong: the right answer is &lt;b&gt;" in render_turn(turn_of(GOOD, "<b>"))


def test_pictures_are_shown_with_their_names(picture: Path) -> None:
    named = picture.rename(picture.with_name('"><b>.png'))
    page = render_pictures([named], ["<i> is damaged"])
    assert 'src="data:image/png;base64,' in page
    assert "<b>" not in page
    assert "&lt;i&gt; is damaged" in page
    assert "not asked" in render_waiting("m", "not asked")


def test_the_colors_are_those_of_the_report() -> None:
    for name in ("--think:", "--answer-wash:", ".segment {", "prefers-color-scheme: dark"):
        assert name in SEGMENTS_CSS


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install 'balanced-thinking\[chat\]'"):
        refuse_missing_gradio()
