"""Replies as HTML. Every text is escaped: a model that writes a script has written a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from balanced_thinking.chat.turn import Progress, Turn
from balanced_thinking.html import template_environment
from balanced_thinking.report.compare.images import embed_image

_ASSETS = "balanced_thinking.chat.web"


def render_waiting(model: str, note: str = "") -> str:
    """A model that has not replied; `note` says why."""
    return _render("reply.html.j2", model=model, note=note, turn=None, segments=(), is_running=False, tokens={})


def render_progress(progress: Progress) -> str:
    """A reply so far, with its thinking unfolded."""
    note = f"{progress.tokens} tokens, {progress.seconds:.1f} s"
    return _render(
        "reply.html.j2",
        model=progress.model,
        note=note,
        turn=None,
        segments=list(progress.segments()),
        is_running=True,
        tokens={},
    )


def render_turn(turn: Turn) -> str:
    """A complete reply, with its thinking folded."""
    found = turn.prediction
    tokens = {} if found is None else {"thinking": found.think_tokens, "answer": found.answer_tokens}
    return _render(
        "reply.html.j2",
        model=turn.model,
        note=turn.summary(),
        turn=turn,
        segments=turn.segments(),
        is_running=False,
        tokens=tokens,
    )


def render_pictures(pictures: Sequence[Path], refusals: Sequence[str] = ()) -> str:
    """The pictures of the question, small, and what is wrong with those that cannot be used."""
    shown = [(path.name, embed_image(path, path.parent)) for path in pictures]
    return _render("pictures.html.j2", pictures=shown, refusals=list(refusals))


def render_head(models: Sequence[str], out: Path) -> str:
    """The title, and where answers are kept."""
    return _render("head.html.j2", models=list(models), out=out)


def _render(name: str, **values: Any) -> str:
    return _template(name).render(**values)


@cache
def _template(name: str) -> Template:
    return template_environment(_ASSETS).get_template(name)
