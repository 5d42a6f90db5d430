"""Replies on a terminal: thinking dimmed or folded, the answer highlighted. Without colors where they do not belong."""

from __future__ import annotations

import re
import sys

from rich.console import Console
from rich.text import Text

from balanced_thinking.chat.turn import ANSWER, Progress, Turn
from balanced_thinking.report.compare.completions import Segment
from balanced_thinking.segments import ReasoningFormat
from balanced_thinking.system.text import show_controls

# The colors of the report's page, between those of its light and its dark form.
_STYLES = {"thinking": "dim #5a96c4", ANSWER: "bold #d08428", "good": "#2f9f7b", "bad": "#d0573f", "quiet": "dim"}
_LABELS = {"thinking": "thinking  ", ANSWER: "answer    "}
# The end of a text that may still change: a half character, or the beginning of a tag.
_UNSETTLED = re.compile(r"\ufffd*(?:<[^<>\s]{0,40})?$")


def make_console() -> Console:
    """Standard output. Colors only on a terminal, and not where NO_COLOR is set."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=True, markup=False, emoji=False)


class ReplyWriter:
    """Writes one model's reply while it is generated. Text of the model never controls the terminal.

    Args:
        show_thinking: all of it; otherwise its number of tokens.
    """

    def __init__(self, console: Console, name: str, *, show_thinking: bool) -> None:
        self._console, self._show_thinking = console, show_thinking
        self._written = 0  # characters of the completion
        self._kind = ""
        self._space = ""  # white space that is written once text of the same segment follows
        self._end_line()
        self._say(name, "bold")
        self._end_line()

    def follow(self, progress: Progress) -> None:
        unsettled = _UNSETTLED.search(progress.text)
        end = len(progress.text) if unsettled is None else unsettled.start()
        self._write(list(progress.segments()), end, progress.format)

    def finish(self, turn: Turn) -> None:
        if turn.refusal:
            self._say(f"not asked: {turn.refusal}", _STYLES["bad"])
            self._end_line()
            return
        segments = turn.segments()
        self._write(segments, len("".join(segment.text for segment in segments).rstrip()), turn.format)
        if self._kind:
            self._end_line()
        if not segments:
            self._say("the reply is empty", _STYLES["bad"])
            self._end_line()
        for flaw in turn.flaws:
            self._say(flaw, _STYLES["bad"])
            self._end_line()
        if turn.verdict:
            self._say(turn.verdict, _STYLES["good" if turn.verdict == "right" else "bad"])
            self._end_line()
        self._say(turn.summary(), _STYLES["quiet"])
        self._end_line()

    def _write(self, segments: list[Segment], end: int, format: ReasoningFormat) -> None:
        """Write the characters of the completion from those that are written up to `end`."""
        tags, start = format.tag_kinds, 0
        for segment in segments:
            kind = ANSWER if segment.kind == ANSWER else "thinking"
            for piece in segment.pieces:
                stop = start + len(piece.text)
                text = piece.text[max(self._written - start, 0) : max(end - start, 0)]
                start = stop
                if text and not (piece.is_tag and piece.text in tags):
                    self._write_text(text, kind)
        self._written = max(self._written, end)

    def _write_text(self, text: str, kind: str) -> None:
        if kind != self._kind:
            text = text.lstrip()
            if not text:
                return
            if self._kind:
                self._end_line()
            self._kind, self._space = kind, ""
            self._say(_LABELS[kind], _STYLES["quiet"])
            if kind != ANSWER and not self._show_thinking:
                self._say("folded; /think shows it", _STYLES["quiet"])
        if kind != ANSWER and not self._show_thinking:
            return
        text = self._space + text
        shown = text.rstrip()
        self._space = text[len(shown) :]
        self._say(shown, _STYLES[kind])

    def _say(self, text: str, style: str) -> None:
        self._console.print(Text(show_controls(text), style), end="")
        self._console.file.flush()

    def _end_line(self) -> None:
        self._console.print()
