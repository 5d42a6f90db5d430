"""The schemas of a row: ours, prompt + completion, and conversations. Each row is read by the schema that it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from balanced_thinking.data.prose import split_prose
from balanced_thinking.data.records import TURN_LISTS
from balanced_thinking.segments import parse

ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
PLACEHOLDER = "<image>"
PROSE = "prose"


class RowProblemError(Exception):
    """The row that is being read is bad. `problems` are keys of `PROBLEMS`; `text` is the text that has them."""

    def __init__(self, text: str, *problems: str) -> None:
        self.text, self.problems = text, problems


class Content(NamedTuple):
    """The content of a row. `read_as` is the format of the completion, None if the row has no completion."""

    question: str
    images: list[Any]
    think: str | None
    answer: str
    read_as: str | None = None


class Exchange(NamedTuple):
    """What the user said, what the assistant said, and the images in the user's turns."""

    question: str
    completion: str
    images: list[Any]


def read_content(record: dict[str, Any], format: str | Mapping[str, Any]) -> Content:
    """Read a row in any of the schemas. `format` is that of its completion. Raises RowProblemError."""
    images = to_list(first_nonempty_value(record, "images", "image"))
    turns = _find_turns(record)
    if turns is not None:
        exchange = _read_exchange(turns)
        return _read_completion(exchange._replace(images=images or exchange.images), format)
    if record.get("question") is None:
        raise RowProblemError(f"keys: {', '.join(record)}", "unknown_schema")
    think = first_nonempty_value(record, "think", "reasoning")
    return Content(
        question=to_text(record["question"], "question"),
        images=images,
        think=None if think is None else to_text(think, "think").strip() or None,
        answer="" if record.get("answer") is None else to_text(record["answer"], "answer").strip(),
    )


def _read_completion(exchange: Exchange, format: str | Mapping[str, Any]) -> Content:
    """Parse the completion of an exchange."""
    question, completion, images = exchange
    parsed = parse(completion, "auto" if format == PROSE else format)
    if not parsed.problems and parsed.answer is not None:
        return Content(question, images, parsed.think, parsed.answer, parsed.format)
    if format == PROSE and (found := split_prose(completion)) is not None:
        return Content(question, images, found[0] or None, found[1], PROSE)
    raise RowProblemError(completion, *(parsed.problems or ("no_answer",)))


def _find_turns(record: dict[str, Any]) -> list[Any] | None:
    """The turns of a row's conversation, or of its prompt and completion; None if it has neither."""
    turns = first_nonempty_value(record, *TURN_LISTS)
    if turns is not None:
        return to_list(turns)
    prompt = (
        first_nonempty_value(record, "prompt")
        if "answer" in record
        else first_nonempty_value(record, "prompt", "question")
    )
    if prompt is None or "completion" not in record:
        return None
    return [*_to_turns(prompt, "user"), *_to_turns(record["completion"], "assistant")]


def _to_turns(value: Any, role: str) -> list[Any]:
    """A prompt or a completion as turns; it may be plain text."""
    return [{"role": role, "content": value}] if isinstance(value, str) else to_list(value)


def _read_exchange(turns: list[Any]) -> Exchange:
    """The one exchange of a conversation, without system turns."""
    spoken = [(role, *_read_turn(turn)) for turn in turns if (role := _turn_role(turn)) != "system"]
    roles = [role for role, _, _ in spoken]
    if "assistant" not in roles:
        raise RowProblemError(" / ".join(text for _, text, _ in spoken), "no_answer")
    if roles.index("assistant") != len(roles) - 1:
        raise RowProblemError(f"turns: {', '.join(roles)}", "multi_turn")
    question = "\n".join(text for _, text, _ in spoken[:-1])
    return Exchange(question, spoken[-1][1], [image for _, _, images in spoken[:-1] for image in images])


def _turn_role(turn: Any) -> str:
    role = first_nonempty_value(turn, "role", "from") if isinstance(turn, dict) else None
    if role not in ROLES:
        raise RowProblemError(f"a turn without a role among {', '.join(ROLES)}: {turn}", "unknown_schema")
    return ROLES[role]


def _read_turn(turn: dict[str, Any]) -> tuple[str, list[Any]]:
    """(text, images) of a turn; the text has a placeholder for each image part."""
    content = first_nonempty_value(turn, "content", "value")
    if isinstance(content, str):
        return content, []
    parts = to_list(content)
    if not all(isinstance(part, dict) and part.get("type") in ("text", "image") for part in parts):
        found = f"content that is neither text nor parts of type text and image: {content}"
        raise RowProblemError(found, "unknown_schema")
    text = "".join(PLACEHOLDER if part["type"] == "image" else to_text(part.get("text"), "text") for part in parts)
    return text, [part["image"] for part in parts if part.get("image") is not None]


def first_nonempty_value(record: Mapping[str, Any], *keys: str) -> Any:
    """The first value that is not null or empty. Joined files have null for the keys that a row lacks."""
    return next((record[key] for key in keys if record.get(key) not in (None, "", [])), None)


def to_list(value: Any) -> list[Any]:
    """A list stays, None becomes [], another value becomes [value]."""
    return value if isinstance(value, list) else [] if value is None else [value]


def to_text(value: Any, key: str) -> str:
    """Text, or a number as text. Raises RowProblemError for another value of `key`."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise RowProblemError(f"{key} is neither text nor a number: {value!r}", "unknown_schema")
