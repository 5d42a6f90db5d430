"""The model's turn as text that follows the generation prompt, for templates that write the two in different ways.

A template may open the thinking in the prompt, or put an empty block there, or end the prompt in another white space
than it writes before the turn. The completion must then say the same after that prompt, or the row is refused.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from balanced_thinking.batch.turn_end import TurnEnd, TurnEnds
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.segments import ReasoningFormat, parse
from balanced_thinking.segments.opening import closes_thinking, remove_tags, split_opening_tag, split_prompt_end

_SHOWN = 80  # characters of a text in a message
_WITHOUT_THINKING = "If it has the variable enable_thinking, train with chat_template_kwargs: {enable_thinking: false}"


class Turn(NamedTuple):
    """A row's prompt as generation is fed it, and the assistant's text as the row has it.

    `header` is the part of the prompt after the text of its last message; `opened` the thinking that it has opened.
    """

    row_id: str
    prompt: str
    header: str
    spoken: str
    opened: str


class FittedTurn(NamedTuple):
    """The completion after a prompt, and its end token."""

    text: str
    end: str | None


class TurnFitter:
    """Fits completions in this format to their prompts, with an end that `ends` decides on."""

    def __init__(self, format: ReasoningFormat, ends: TurnEnds) -> None:
        self.format, self._ends = format, ends

    def fit_completion(self, turn: Turn, full: str) -> FittedTurn:
        """The completion to train on after the turn's prompt, from the rendering of the complete conversation.

        Raises RowError where no completion says after this prompt what the row says.
        """
        written = self._text_after_prompt(turn, full)
        spoken = turn.spoken.strip()
        start = written.find(spoken)
        if start >= 0 and not turn.opened and not written[:start].strip():
            body = written[: start + len(spoken)]  # the text itself: nothing is changed
        else:
            body = self._changed_body(turn, written)
        self._refuse_open_block(turn, body)
        return self._with_end(turn, body, written[len(body) :])

    def _text_after_prompt(self, turn: Turn, full: str) -> str:
        if full.startswith(turn.prompt):
            return full[len(turn.prompt) :]
        end = split_prompt_end(turn.prompt, self.format)
        rest = _text_after(end.before, full)
        if rest is None and (start := split_prompt_end(turn.header, self.format).before.strip()):
            # The template writes the messages before in another way once there is an answer.
            found = full.rfind(start)
            rest = _without_space_of(end.before, full[found + len(start) :]) if found >= 0 else None
        if rest is None:
            self._refuse_prompt(turn, full)
        opening = split_opening_tag(rest, self.format)
        if opening is None or not end.block:
            return rest
        if end.opened:
            return opening.rest
        # The prompt has an empty block already.
        return opening.after_empty_block if opening.after_empty_block is not None else rest

    def _changed_body(self, turn: Turn, written: str) -> str:
        """The part of the written text that says what the row says. Raises RowError if it says something else."""
        raw = parse(turn.spoken, self.format)
        body = written[: self._find_end_of_text(turn.spoken, written)]
        got = parse(body, self.format, opened=turn.opened)
        same = (got.think, got.answer) == (raw.think, raw.answer) and set(got.problems) <= set(raw.problems)
        if not same or _squeeze(turn.spoken, self.format) != _squeeze(body, self.format):
            self._refuse_change(turn, body, got.problems, opens_only=raw.think is None)
        return body

    def _find_end_of_text(self, spoken: str, written: str) -> int:
        """Where the assistant's text ends in what the template wrote: after its longest last part that is there."""
        spoken = spoken.strip()
        raw = parse(spoken, self.format)
        for start in (0, raw.spans[-1].start if raw.spans else 0, raw.answer_span[0] if raw.answer_span else 0):
            part = spoken[start:].strip()
            if part and (found := written.rfind(part)) >= 0:
                return found + len(part)
        return len(written)

    def _with_end(self, turn: Turn, body: str, written: str) -> FittedTurn:
        """The completion with its end token; text before that token must not be text after the answer."""
        end = self._ends.complete(written)
        if end.token is None:
            raise RowError(
                f"sample {turn.row_id}: the chat template ends the turn with {written!r}, which has no special token, "
                "and the tokenizer has no eos_token: a model would not learn to stop. Set eos_token",
                "no_end_token",
            )
        if not end.before.strip() or self._is_clean(turn, body, end):
            return FittedTurn(body + end.text, end.token)
        if written != self._ends.usual:
            problems = parse(body + end.before, self.format, opened=turn.opened).problems
            self._refuse_change(turn, body + end.before, problems, opens_only=False)
        # Characters that look like an end and are no token would be text after the answer: they are left out.
        return FittedTurn(body + end.text[len(end.before) :], end.token)

    def _is_clean(self, turn: Turn, body: str, end: TurnEnd) -> bool:
        before, after = (parse(text, self.format, opened=turn.opened) for text in (body, body + end.before))
        return before.answer == after.answer and set(after.problems) <= set(before.problems)

    def _refuse_open_block(self, turn: Turn, body: str) -> None:
        """Raises RowError for thinking that the prompt opens in tags unknown to the format, and that nothing closes."""
        end = split_prompt_end(turn.prompt, self.format)
        if end.opened and not turn.opened and not closes_thinking(body):
            raise RowError(
                f"sample {turn.row_id}: the generation prompt opens thinking ({end.block!r}), which a completion in "
                f"reasoning_format {self.format.name!r} never closes; choose one with thinking, or set another chat "
                "template",
                "prompt_mismatch",
            )

    def _refuse_prompt(self, turn: Turn, full: str) -> NoReturn:
        same = next((i for i, (a, b) in enumerate(zip(turn.prompt, full, strict=False)) if a != b), 0)
        same = max(0, same - 20)
        raise RowError(
            f"sample {turn.row_id}: the chat template writes another prompt for generation "
            f"({turn.prompt[same:][:_SHOWN]!r}) than before an answer ({full[same:][:_SHOWN]!r}), so a model would be "
            "trained after a prompt that it never gets; set another chat template",
            "prompt_mismatch",
            f"{turn.prompt[same:]!r}, not {full[same:][:_SHOWN]!r}",
        )

    def _refuse_change(self, turn: Turn, body: str, problems: tuple[str, ...], *, opens_only: bool) -> NoReturn:
        """`opens_only`: nothing is changed, but the prompt opens thinking that the row does not have."""
        shown = turn.spoken.strip()[:_SHOWN], body.strip()[:_SHOWN]
        named = f" ({', '.join(problems)})" if problems else ""
        if turn.opened and opens_only:
            raise RowError(
                f"sample {turn.row_id}: the generation prompt opens the thinking ({turn.opened!r}), but after it "
                f"{shown[0]!r} is no reasoning with an answer{named}; give the row reasoning, choose another "
                f"reasoning_format, or set another chat template. {_WITHOUT_THINKING}",
                "prompt_mismatch",
                f"{turn.opened!r} before {shown[0]!r}",
            )
        added = body[: max(0, body.find(turn.spoken.strip()))].strip()
        change = (
            f"writes {added[:_SHOWN]!r} before the text, but not at the end of its generation prompt" if added else ""
        )
        raise RowError(
            f"sample {turn.row_id}: the chat template {change or 'dropped the reasoning, or changed the answer'}: "
            f"{shown[0]!r} became {shown[1]!r}{named}. Set the processor's `chat_template` to one that keeps them, or "
            f"give prompts and completions as plain text{f'. {_WITHOUT_THINKING}' if added else ''}",
            "template_changes",
            f"{shown[0]!r} became {shown[1]!r}",
        )


def _text_after(before: str, full: str) -> str | None:
    """The text after `before`, whose last white space may differ; None where the text does not begin with it."""
    if full.startswith(before):
        return full[len(before) :]
    stem = before.rstrip()
    return _without_space_of(before, full[len(stem) :]) if full.startswith(stem) else None


def _without_space_of(before: str, text: str) -> str:
    """The text without the white space that a prompt ends with; where that is another one, without any at its start."""
    space = before[len(before.rstrip()) :]
    return text[len(space) :] if text.startswith(space) else text.lstrip()


def _squeeze(text: str, format: ReasoningFormat) -> str:
    """The text without tags and white space."""
    return "".join(remove_tags(text, format).split())
