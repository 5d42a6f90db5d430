"""The schemas of a row: ours, prompt + completion, and conversations. Each row is read by the schema that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from balanced_thinking.data.columns import PROSE, Columns, FormatSpec, peel_answer_name, peel_tags, split_columns
from balanced_thinking.data.example import Turn
from balanced_thinking.data.keys import ALTERNATIVE_KEYS, ANSWER_KEYS, TURN_LISTS
from balanced_thinking.data.listed_turns import refuse_unread_turns
from balanced_thinking.data.places import place_images
from balanced_thinking.data.prose import split_prose
from balanced_thinking.data.row_parts import read_choices, read_history, read_images, read_row_reasoning, read_system
from balanced_thinking.data.turn_media import refuse_unread_pictures
from balanced_thinking.data.turns import Message, Talk, is_part, read_talk, role_of
from balanced_thinking.data.unread import refuse_other_pictures, refuse_unfilled_places
from balanced_thinking.data.values import (
    EMPTY_CELLS,
    RowProblemError,
    is_missing,
    is_null,
    refuse_many,
    split_list_text,
    to_answers,
    to_list,
    to_text,
)
from balanced_thinking.segments import Parsed, parse, render


@dataclass(frozen=True)
class Content:
    """The content of a row, or of one exchange of its conversation.

    read_as: the format of the completion, None if the row has no completion. images: of `history`, then of `question`.
    unread: texts of the turns that are not read, by their keys.
    """

    question: str
    images: list[Any]
    think: str | None = None
    answer: str = ""
    read_as: str | None = None
    alternatives: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    system: str | None = None
    history: tuple[Turn, ...] = ()
    image_places: tuple[int, ...] = ()
    unread: Mapping[str, Any] = field(default_factory=dict)


def read_contents(
    record: Mapping[str, Any], format: FormatSpec = "auto", turns: str = "last"
) -> list[Content | RowProblemError]:
    """Read a row in any of the schemas: its last exchange, or every one with `turns="all"`.

    `format` is that of its completions. An exchange that cannot be read is in the list as its RowProblemError. Raises
    RowProblemError for what makes the complete row unreadable.
    """
    spoken = _find_turns(record)
    if spoken is None and record.get("question") is None and ("question" not in record or "answer" not in record):
        raise RowProblemError(f"keys: {', '.join(record)}", "unknown_schema")
    refuse_unfilled_places(record)
    marks = ("kto_tag",) if spoken is None else ("kto_tag", "label")
    if mark := next((name for name in marks if record.get(name) is False), None):
        text = f"{mark}: False, as of replies that are not wanted (if it means something else, rename the column)"
        raise RowProblemError(text, "not_for_training")
    talk = read_talk([*read_history(record), *(_question_turns(record) if spoken is None else spoken)])
    spoken_images = [image for message in talk.messages for image in message.images]
    images = read_images(record) or spoken_images
    refuse_other_pictures(images, spoken_images, "in a turn, beside the images of the row")
    refuse_unread_pictures(talk.unread_pictures, images)
    common = Content(
        question="",
        images=images,
        choices=read_choices(record),
        system=read_system(record, talk.system),
        unread={f"turn.{key}": value for message in talk.messages for key, value in message.unread.items()},
    )
    refuse_many(common.images, "images")
    exchanges = _split_exchanges(talk, common, turns == "all")
    found: list[Content | RowProblemError] = []
    for content, reply in exchanges:
        if reply.untrained and len(exchanges) > 1:
            continue  # it stays before the others
        try:
            if reply.untrained:
                raise RowProblemError(f"{reply.untrained}: {reply.text}", "not_for_training")
            if content is not exchanges[-1][0]:
                found.append(_add_completion(replace(content, choices=()), reply, format))
            elif spoken is not None:
                said = _add_completion(content, _with_row_thinking(reply, record), format)
                found.append(_add_row_values(_add_answer_column(said, record, format), record, format))
            else:
                read = _add_columns(content, record, format)
                _refuse_other_completion(record, read.think)
                found.append(_add_row_values(read, record, format))
        except RowProblemError as error:
            found.append(error)
    if not found:
        raise RowProblemError(f"every reply: {talk.messages[-1].untrained}", "not_for_training")
    return found


def _find_turns(record: Mapping[str, Any]) -> list[Any] | None:
    """The turns of a row's conversation, or of its prompt and completion; None if it has neither."""
    first, *rest = find_schema_keys(record)
    if first in TURN_LISTS:
        turns = record[first]
        listed = split_list_text(turns) if isinstance(turns, str) else None
        if listed is None:
            refuse_unread_turns(turns, first)
        return listed or to_list(turns)
    if "completion" not in rest:
        return None
    return [*_to_turns(record[first], "user"), *_to_turns(record["completion"], "assistant")]


def find_schema_keys(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The names under which a row has its conversation, its prompt and completion, or its question and answer."""
    for name in TURN_LISTS:
        if not is_null(record.get(name)):
            return (name, "answer")
    prompts = ("prompt", "question") if is_null(record.get("answer")) else ("prompt",)
    prompt = next((name for name in prompts if not is_null(record.get(name))), None)
    if prompt is None or "completion" not in record:
        return ("question", "answer")
    return (prompt, "completion", "answer")


def _to_turns(value: Any, role: str) -> list[Any]:
    """A prompt or a completion as turns; it may be plain text."""
    refuse_unread_turns(value, "prompt" if role == "user" else "completion")
    is_content = isinstance(value, str) or (isinstance(value, list) and value and all(map(is_part, value)))
    if role == "user" and isinstance(value, str) and is_missing(value):
        value = ""
    return [{"role": role, "content": value}] if is_content else to_list(value)


def _question_turns(record: Mapping[str, Any]) -> list[Any]:
    """A question as turns; the answer is read later, because it need not be a text."""
    question = record.get("question")
    refuse_unread_turns(question, "question")
    if isinstance(question, list) and question and all(map(role_of, question)):
        return [*question, {"role": "assistant", "content": ""}]
    content = (
        question if isinstance(question, list) else to_text(None if is_missing(question) else question, "question")
    )
    if isinstance(content, list) and len(content) > 1 and all(isinstance(part, str) for part in content):
        raise RowProblemError(
            f"question is a list of {len(content)} texts, as a file has that holds each column as one list; expected "
            f"one row per line: {content}",
            "not_text",
        )
    return [{"role": "user", "content": content}, {"role": "assistant", "content": ""}]


def _split_exchanges(talk: Talk, common: Content, every: bool) -> list[tuple[Content, Message]]:
    """The last question with what was said and shown before it, and the assistant's reply; or `every` such one."""
    users, replies = talk.messages[::2], talk.messages[1::2]
    placed = place_images([message.text for message in users], len(common.images))
    images = [common.images[k] for k in placed.order]
    history: list[Turn] = []
    found, shown, last = [], 0, len(replies) - 1
    for k, (text, places, reply) in enumerate(zip(placed.texts, placed.places, replies, strict=True)):
        shown += len(places)
        kept = places if any(places) else ()  # () puts them before the text
        if every or k == last:  # each copies what was said before it
            content = replace(common, question=text, images=images[:shown], image_places=kept, history=tuple(history))
            found.append((content, reply))
        history += [Turn("user", text, places), Turn("assistant", _write_reply(reply))]
    return found


def _write_reply(reply: Message) -> str:
    """What an earlier turn of the assistant said, its reasoning included."""
    return reply.text if reply.reasoning is None else render(reply.reasoning, reply.text, "deepseek-r1")


def _refuse_other_completion(record: Mapping[str, Any], think: str | None) -> None:
    """Raise RowProblemError for a question and an answer without reasoning, beside a completion that has it."""
    completion = record.get("completion")
    if think or not isinstance(completion, str) or _parse_any(completion).think is None:
        return
    raise RowProblemError(
        f"reasoning under completion, which is not read beside question and answer (call the question prompt): "
        f"{completion}",
        "unknown_schema",
    )


@lru_cache(maxsize=1)  # a row's reply is looked at twice
def _parse_any(text: str) -> Parsed:
    return parse(text, "auto")


def _with_row_thinking(reply: Message, record: Mapping[str, Any]) -> Message:
    """The reply with the reasoning of the row, if it has none itself."""
    if reply.reasoning is not None or _parse_any(reply.text).think is not None:
        return reply
    return reply._replace(reasoning=read_row_reasoning(record))


def _add_completion(content: Content, reply: Message, format: FormatSpec) -> Content:
    """Parse what the assistant said."""
    if reply.reasoning is not None:
        found = split_columns(reply.reasoning, reply.text, format)
        if not found.answer:
            raise RowProblemError(content.question, "no_answer")
    else:
        try:
            found = _parse_completion(reply.text, format, content.question)
        except RowProblemError as error:
            if not reply.unread:
                raise
            names = ", ".join(f"turn.{key}" for key in reply.unread)
            raise RowProblemError(f"{error.text} (not read: {names})", *error.problems) from error
    return replace(content, think=found.think, answer=found.answer, read_as=found.read_as)


def _parse_completion(completion: str, format: FormatSpec, question: str) -> Columns:
    parsed = _parse_any(completion) if format in (PROSE, "auto") else parse(completion, format)
    if not parsed.problems and parsed.answer is not None:
        return Columns(parsed.think, peel_answer_name(parsed.answer), parsed.format)
    if format == PROSE and (found := split_prose(completion)) is not None:
        return Columns(found[0] or None, found[1], PROSE)
    raise RowProblemError(completion if completion.strip() else question, *(parsed.problems or ("no_answer",)))


def _add_columns(content: Content, record: Mapping[str, Any], format: FormatSpec) -> Content:
    """Read the columns of the reasoning and the answer."""
    text = read_row_reasoning(record)
    key = next((key for key in ANSWER_KEYS if not is_null(record.get(key))), ANSWER_KEYS[0])
    answers = to_answers(record.get(key), key)
    if not answers:
        return replace(content, think=text)  # an empty answer is a problem that `check_examples` names
    if format == PROSE and text is None and (found := split_prose(answers[0])) is not None:
        return replace(content, think=found[0] or None, answer=found[1], read_as=PROSE)
    first = split_columns(text, answers[0], format)
    others = (split_columns(None, answer, format).answer for answer in answers[1:])
    return replace(content, think=first.think, answer=first.answer, read_as=first.read_as, alternatives=tuple(others))


def _add_answer_column(content: Content, record: Mapping[str, Any], format: FormatSpec) -> Content:
    """Add the right answer beside a conversation, whose completion often ends in a sentence around it.

    Not of a row with choices: letters and texts are one answer anyway, and a number may be a choice's position.
    """
    if content.choices:
        return content
    try:
        given = [peel_tags(answer, format, "answer") for answer in to_answers(record.get("answer"))]
    except RowProblemError:  # a value that is no text is not needed
        return content
    return replace(content, alternatives=tuple(answer for answer in given if answer and answer != content.answer))


def _add_row_values(content: Content, record: Mapping[str, Any], format: FormatSpec) -> Content:
    """Add the other right answers of a row, without tags."""
    written = (answer for key in ALTERNATIVE_KEYS for answer in to_answers(record.get(key), key))
    given = (split_columns(None, answer, format).answer for answer in written if answer not in EMPTY_CELLS)
    others = tuple(dict.fromkeys(one for one in (*content.alternatives, *given) if one != content.answer))
    return content if others == content.alternatives else replace(content, alternatives=others)
