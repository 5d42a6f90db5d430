"""Rows -> the texts of prompt and completion, by the chat template.

The prompt is what generation feeds: the template's rendering with `add_generation_prompt`. The completion is what the
template writes after it for the assistant's turn. Where it does not begin its rendering of the complete conversation
with the generation prompt, the completion is fitted to it; where that changes what the row says, the row is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from balanced_thinking.batch.messages import merge_reasoning, separate_reasoning, template_messages
from balanced_thinking.batch.special_tokens import SpecialTokens
from balanced_thinking.batch.turn_end import TEMPLATE_ERRORS, TurnEnds
from balanced_thinking.batch.turns import FittedTurn, Turn, TurnFitter
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.models.processor_parts import takes_pictures, tokenizer_of
from balanced_thinking.models.templates import bound_chat_templates
from balanced_thinking.segments import ReasoningFormat, find_opened, get_format
from balanced_thinking.segments.scan import END_OF_TURN, strip_space_and_turn_end

bound_chat_templates()
_SHOWN = 80  # characters of a text in a message
_PART_KEYS = re.compile(r"""['"]type['"]: ?['"](?:text|image)['"]""")  # of a part as Python or JSON writes it


class RenderedPrompt(NamedTuple):
    """A prompt as text, the thinking that it has opened, and what follows the last message's text in it."""

    text: str
    opened: str
    header: str


class RenderedRow(NamedTuple):
    """A row as text. `opened`: the thinking that the prompt has opened. `end`: the token that ends the completion."""

    prompt: str
    completion: str
    opened: str
    end: str | None


class RowRenderer:
    """Renders rows with the chat template of a processor, or of a text-only model's tokenizer.

    The completions are in this reasoning format.
    """

    def __init__(
        self,
        processor: Any,
        format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
    ) -> None:
        self.processor, self.format = processor, get_format(format)
        self._sees = takes_pictures(processor)
        self._special = SpecialTokens(processor, self.format)
        self._fitter = TurnFitter(self.format, TurnEnds(processor))

    def render_prompt(self, row: Mapping[str, Any]) -> RenderedPrompt:
        """The text that generation is fed: of messages with the start of the model's turn, of a text as it is.

        Raises RowError for special tokens in the messages' texts, and for messages that the template refuses.
        """
        if isinstance(row["prompt"], str):
            self._refuse_lost_pictures(row, row["prompt"])
            return RenderedPrompt(row["prompt"], find_opened(row["prompt"], self.format), "")
        messages = self._messages(row, row["prompt"])
        self._refuse_special_tokens(row, messages)
        text = self._apply_template(row, messages, start_turn=True)
        _refuse_printed_parts(row, messages, text)
        self._refuse_lost_pictures(row, text)
        _refuse_lost_texts(row, messages, text, _find_picture_mark(self.processor, text))
        last = next((one for message in reversed(messages) for one in reversed(_texts_of(message))), "").strip()
        found = text.rfind(last) if last else -1
        header = text[found + len(last) :] if found >= 0 else ""
        return RenderedPrompt(text, find_opened(text, self.format, header=header), header)

    def find_opened(self, prompt: Any, images: Sequence[Any] = ()) -> str:
        """The thinking that a prompt of messages, or a text, has opened; "" where the template refuses it.

        Messages that hold their pictures, as TRL gives them to rewards, need no `images`.
        """
        if isinstance(prompt, str):
            return find_opened(prompt, self.format)
        plain = [_with_empty_places(message) for message in prompt]
        held = [part for message in plain for part in _parts_of(message) if part.get("type") == "image"]
        try:
            return self.render_prompt({"id": "?", "prompt": plain, "images": images or held}).opened
        except RowError:
            return ""

    def render_row(self, row: Mapping[str, Any]) -> RenderedRow:
        """A row of `prompt`, `completion`, `images` and `id`, in texts or messages.

        Raises RowError where the template refuses the messages, changes what they say, or writes another prompt for
        training than for generation; and for special tokens in their texts.
        """
        if isinstance(row["prompt"], str):
            return self._join_texts(row)
        reply = merge_reasoning(row["completion"][-1], self.format, row["id"])
        self._refuse_special_tokens(row, [reply])
        prompt = self.render_prompt(row)
        turn = Turn(row["id"], prompt.text, prompt.header, reply["content"], prompt.opened)
        try:
            fitted = self._fit_reply(row, turn, reply)
        except RowError:
            # Templates of reasoning models take the reasoning under a name of its own, and some only there.
            apart = separate_reasoning(reply, self.format)
            found = None if apart is None else self._try_reply(row, turn, apart)
            if found is None:
                raise
            fitted = found
        return RenderedRow(prompt.text, fitted.text, prompt.opened, fitted.end)

    def _try_reply(self, row: Mapping[str, Any], turn: Turn, reply: Mapping[str, Any]) -> FittedTurn | None:
        try:
            return self._fit_reply(row, turn, reply)
        except RowError:
            return None

    def _fit_reply(self, row: Mapping[str, Any], turn: Turn, reply: Mapping[str, Any]) -> FittedTurn:
        messages = self._messages(row, [*row["prompt"], *row["completion"][:-1], reply])
        return self._fitter.fit_completion(turn, self._apply_template(row, messages, start_turn=False))

    def _join_texts(self, row: Mapping[str, Any]) -> RenderedRow:
        """A row of plain texts stays as it is, except for the end token, which it has once.

        Raises RowError for an end of the turn in the completion before its end.
        """
        tokenizer, completion = tokenizer_of(self.processor), row["completion"]
        eos, body = tokenizer.eos_token, completion.rstrip()
        ended = bool(eos) and body.endswith(eos)
        written = {"role": "completion", "content": body[: -len(eos)] if ended else _without_end(body)}
        self._refuse_special_tokens(row, [written], {*END_OF_TURN, eos, tokenizer.pad_token})
        prompt = self.render_prompt(row)
        return RenderedRow(prompt.text, completion if ended else completion + (eos or ""), prompt.opened, eos)

    def _messages(self, row: Mapping[str, Any], messages: Any) -> list[dict[str, Any]]:
        return template_messages(messages, len(row["images"]) if self._sees else None, row.get("id", "?"))

    def _apply_template(self, row: Mapping[str, Any], messages: list[dict[str, Any]], *, start_turn: bool) -> str:
        try:
            return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=start_turn)
        except TEMPLATE_ERRORS as error:
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise RowError(
                f"sample {row.get('id', '?')}: the chat template refuses its messages ({roles}): {error}. Change the "
                "roles of the row, leave its system text out, or set another chat template",
                "template_refuses",
                f"{error} ({roles})",
            ) from error

    def _refuse_lost_pictures(self, row: Mapping[str, Any], prompt: str) -> None:
        """Raises RowError if a prompt has another number of places for pictures than the row has pictures."""
        mark = _find_picture_mark(self.processor, prompt) or getattr(self.processor, "image_token", None)
        pictures = len(row.get("images") or [])
        if not self._sees or not isinstance(mark, str) or (places := prompt.count(mark)) == pictures:
            return
        own = isinstance(row["prompt"], str)
        if own and not places and not getattr(self.processor, "chat_template", None):
            return  # processors without a template, such as PaliGemma's, put pictures first by themselves
        writer, problem = ("the text", "image_count") if own else ("the chat template", "template_changes")
        raise RowError(
            f"sample {row.get('id', '?')}: {writer} has {places} {mark} for the {pictures} pictures of the row; "
            f"expected one for each. Change the row{'' if own else ', or set another chat template'}",
            problem,
            f"{pictures} pictures and {places} {mark} in the prompt",
        )

    def _refuse_special_tokens(
        self, row: Mapping[str, Any], messages: list[dict[str, Any]], among: Collection[str | None] | None = None
    ) -> None:
        for message in messages:
            for text in _texts_of(message):
                tokens = self._special.find_all(text)
                if (found := next((one for one in tokens if among is None or one.token in among), None)) is not None:
                    where, around = message.get("role"), text[max(0, found.start - 20) : found.start + 40]
                    raise RowError(
                        f"sample {row.get('id', '?')}: the {where}'s text has the special token {found.token!r} "
                        f"({around!r}), which the tokenizer would not read as text; write it in another way, or leave "
                        "such rows out with --on-bad-row drop",
                        "special_token",
                        f"{found.token} in the {where}'s text: {around}",
                    )


def _without_end(text: str) -> str:
    """The text without end tokens of any model, which the parser leaves out, too."""
    return text[slice(*strip_space_and_turn_end(text, 0, len(text)))]


def _texts_of(message: Mapping[str, Any]) -> list[str]:
    return [part["text"] for part in _parts_of(message) if part.get("text")]


def _parts_of(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content") or ""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _with_empty_places(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with places for pictures instead of pictures."""
    if not isinstance(content := message.get("content"), list | tuple):
        return message
    return {**message, "content": [{"type": "image"} if part.get("type") == "image" else part for part in content]}


def _find_picture_mark(processor: Any, prompt: str) -> str | None:
    """What the template writes for a picture; None where the processor does not say so."""
    names = ("image_token", "boi_token", "start_image_token", "fake_image_token")
    marks = (getattr(processor, name, None) for name in names)
    return next((mark for mark in marks if isinstance(mark, str) and mark and mark in prompt), None)


def _refuse_printed_parts(row: Mapping[str, Any], messages: list[dict[str, Any]], prompt: str) -> None:
    """Raises RowError if the template expects a text as the content, and so wrote a list of parts as Python does."""
    texts = [(message, text) for message in messages for text in _texts_of(message)]
    if texts and _PART_KEYS.search(prompt) and not any(_PART_KEYS.search(text) for _, text in texts):
        raise _template_changes_error(row, "prints the list of parts instead of text", *texts[0])


def _refuse_lost_texts(row: Mapping[str, Any], messages: list[dict[str, Any]], prompt: str, mark: str | None) -> None:
    """Raises RowError if a text of the system or the user is not in the prompt, or a picture beside a text moved.

    Templates may leave earlier turns of the assistant without their reasoning, which is how the models are used.
    """
    place = 0  # where the text before ends in the prompt
    for message in messages:
        if message.get("role") == "assistant":
            continue
        pictured, first = False, True
        for part in _parts_of(message):
            pictured = pictured or part.get("type") == "image"
            if not (text := (part.get("text") or "").strip()):
                continue
            start, moved = prompt.find(text, place), pictured and not first
            if start < 0 and text not in prompt:
                raise _template_changes_error(row, "leaves out text", message, text)
            if moved and not prompt[place:start].strip():
                raise _template_changes_error(row, "moves the picture before text", message, text)
            place, pictured, first, last = max(place, start + len(text)), False, False, text
        if pictured and not first and mark is not None and mark not in prompt[place:]:
            raise _template_changes_error(row, "moves the picture after text", message, last)


def _template_changes_error(row: Mapping[str, Any], fate: str, message: Mapping[str, Any], text: str) -> RowError:
    return RowError(
        f"sample {row.get('id', '?')}: the chat template {fate} of the {message.get('role')} ({text[:_SHOWN]!r}); "
        "set another chat template, or leave that out of the row",
        "template_changes",
        f"the template {fate} {text[:_SHOWN]!r}",
    )
