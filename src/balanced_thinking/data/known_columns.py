"""The columns of other tools' data under our names, one record at a time, before the reader of rows sees it.

| whose | columns |
| --- | --- |
| ms-swift | `query`, `response`, `history`, `system`, `images`; `messages` without a reply beside `solution` |
| Alpaca, LLaMA-Factory | `instruction`, `input`, `output`, `history`, `system`, `images` |
| R1-V, Open-R1, EasyR1 | `problem`, `solution` or `answer`, `image` or `images` |
| verl | `prompt` (messages), `reward_model.ground_truth`, `images` |
| The Cauldron | `texts` (`user`, `assistant`), `images` |
| ms-swift's ShareGPT | `conversation` (`human`, `assistant`) |
| LMSYS, WildChat | `conversation` (turns) |
| imagefolder | `file_name` or `file_names` |

A column of ours in the record comes before a foreign one of the same meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from balanced_thinking.data.keys import ANSWER_KEYS, CLAIMED, NUMBERED_IMAGE, OPTIONAL, THINK_KEYS, TURN_LISTS
from balanced_thinking.data.listed_turns import split_question_text, split_turns_text
from balanced_thinking.data.picture_files import PICTURE_STARTS
from balanced_thinking.data.turns import is_part, role_of
from balanced_thinking.data.unread import describe_picture
from balanced_thinking.data.values import RowProblemError, first_nonempty_value, is_missing, is_null, to_text
from balanced_thinking.segments import parse

QUESTIONS = ("problem", "query", "instruction")
ANSWERS = ("solution", "response", "output", "ground_truth")
PICTURES = ("image", "images")
FILE_NAMES = ("file_name", "file_names")  # of an imagefolder
# Columns that are pictures if they hold a picture's bytes. Their paths are not read: the name alone may mislead.
OTHER_PICTURES = ("decoded_image", "img", "imgs", "picture", "pictures", "photo", "jpg", "jpeg", "png", "webp")
_SCHEMAS = (*TURN_LISTS, "prompt", "question")
_PAIR_LISTS = {"texts": "user", "conversation": "human", "conversations": "human"}  # and what asks, beside `assistant`
_NO_INPUT = "<noinput>"  # of Alpaca's own generated instructions
_SAID_KEYS = ("role", "from", "content", "value", "text")  # of a turn
_PLAIN = (str, int, float, list, tuple, dict, NoneType)
_FOREIGN_PICTURES = frozenset({*FILE_NAMES, *OTHER_PICTURES})


def adapt_record(record: dict[str, Any]) -> dict[str, Any]:
    """The record with our names where it has only foreign ones. Values stay as they are, except pictures.

    Pictures become paths or `{"bytes", "path"}`. `find_lost_picture` names those that are then under no name of ours.
    """
    adapted = _adapt_open_turns(_adapt_pictures(_adapt_turns(_split_texts(record))))
    if any(_is_given(adapted, name) for name in TURN_LISTS):
        return adapted
    if _is_given(adapted, "prompt") and "completion" in adapted:
        return adapted
    if _is_given(adapted, "question"):
        return adapted if _is_answered(adapted) else _adapt_answer(adapted)
    return _adapt_texts(adapted)


def has_schema(record: Mapping[str, Any]) -> bool:
    """Whether an adapted record can be read as a question with its answer, or as a conversation."""
    if any(_is_given(record, name) for name in TURN_LISTS) or "question" in record:
        return True
    return _is_given(record, "prompt") and "completion" in record


def find_lost_picture(record: Mapping[str, Any]) -> str | None:
    """The name of a column with a picture's bytes, in an adapted record that has no other picture; None without one."""
    lost = next((key for key, value in record.items() if not _is_read(key) and _is_picture(value)), None)
    shown = lost is None or any(_is_given(record, name) for name in PICTURES)
    if shown or any(_has_picture_part(record.get(name)) for name in (*TURN_LISTS, "prompt", "question")):
        return None
    return lost


def keep_plain_values(record: dict[str, Any]) -> dict[str, Any]:
    """The record without the bytes that are under no name of ours, and with dates and the like as text.

    Of a picture its path stays, or how long it is: `find_unread_pictures` names it.
    """
    plain = {}
    for key, value in record.items():
        if _is_read(key):
            plain[key] = value
        elif not _holds_bytes(value):
            plain[key] = value if isinstance(value, _PLAIN) else str(value)
        elif _is_picture(value):
            plain[key] = _describe_pictures(value)
    return plain


def _describe_pictures(cell: Any) -> Any:
    if isinstance(cell, list | tuple):
        return [_describe_pictures(one) for one in cell if one is not None]
    return (cell.get("path") if isinstance(cell, Mapping) else None) or describe_picture(cell)


def _is_read(name: str) -> bool:
    return name in CLAIMED or name in OPTIONAL or NUMBERED_IMAGE.fullmatch(name) is not None


def _is_given(record: Mapping[str, Any], name: str) -> bool:
    return not is_null(record.get(name))


def _split_texts(record: dict[str, Any]) -> dict[str, Any]:
    """The record with lists of turns and of parts where tables have them as texts."""
    split = {name: split_turns_text(record.get(name)) for name in (*TURN_LISTS, "completion")}
    split |= {name: split_question_text(record.get(name)) for name in ("prompt", "question", *QUESTIONS)}
    changed = {
        name: value for name, value in split.items() if isinstance(record.get(name), str) and value != record[name]
    }
    return record | changed if changed else record


def _adapt_turns(record: dict[str, Any]) -> dict[str, Any]:
    """Turns as a list of objects: older versions of `datasets` store them as an object of lists."""
    turns = split_turns_text(record.get("conversation"))
    if isinstance(turns, list) and any(map(role_of, turns)) and not any(_is_given(record, name) for name in _SCHEMAS):
        record = {key: value for key, value in record.items() if key != "conversation"} | {"conversations": turns}
    for name in TURN_LISTS:
        turns = record.get(name)
        if isinstance(turns, Mapping) and turns and all(isinstance(value, list) for value in turns.values()):
            columns = [[(key, value) for value in values] for key, values in turns.items()]
            record = record | {name: [dict(turn) for turn in zip(*columns, strict=False)]}
    if isinstance(record.get("json"), Mapping):  # a sample of WebDataset, as `datasets` reads it
        record = {key: value for key, value in record.items() if key != "json"} | dict(record["json"])
    for name, user in _PAIR_LISTS.items():
        pairs, needed = record.get(name), {user, "assistant"}
        if isinstance(pairs, list) and pairs and all(isinstance(pair, Mapping) and needed <= {*pair} for pair in pairs):
            turns = [{"role": role, "content": pair[role]} for pair in pairs for role in (user, "assistant")]
            record = {key: value for key, value in record.items() if key != name} | {"messages": turns}
    return record


def _adapt_open_turns(record: dict[str, Any]) -> dict[str, Any]:
    """Turns that end with the question, beside an answer, as a prompt: data for reinforcement learning."""
    name = next((name for name in TURN_LISTS if _is_given(record, name)), None)
    turns = record.get(name) if name else None
    if not isinstance(turns, list) or not (_is_answered(record) or any(_is_given(record, one) for one in ANSWERS)):
        return record
    roles = [role_of(turn) for turn in turns]
    if "assistant" in roles or roles[-1] != "user" or _is_given(record, "question"):
        return record
    return {key: value for key, value in record.items() if key != name} | {"prompt": turns}


def _adapt_texts(record: dict[str, Any]) -> dict[str, Any]:
    """Question and answer from the columns of other tools."""
    if _is_given(record, "prompt"):
        return _adapt_prompt(record)
    source = next((name for name in QUESTIONS if _is_given(record, name)), None)
    if source is None:
        return record
    question, used = record[source], {source, "question"}
    if source == "instruction":
        used.add("input")
        question = _join_input(question, record.get("input"))
    return {"question": question, **_adapt_answer({key: value for key, value in record.items() if key not in used})}


def _join_input(instruction: Any, given: Any) -> Any:
    """An instruction and its input as one text. Both as an object, which no reader takes, where one is no text."""
    if is_missing(given) or given == _NO_INPUT:
        return instruction
    try:
        return f"{to_text(instruction, 'instruction')}\n{to_text(given, 'input')}"
    except RowProblemError:
        return {"instruction": instruction, "input": given}


def _adapt_prompt(record: dict[str, Any]) -> dict[str, Any]:
    """A prompt without a completion, as data for reinforcement learning have it: its last turn is the question."""
    rest = _adapt_answer({key: value for key, value in record.items() if key not in ("prompt", "question")})
    prompt = record["prompt"]
    if not _is_answered(rest):
        return record
    if not isinstance(prompt, list):
        return {"question": prompt, **rest}
    if all(map(is_part, prompt)) or (len(prompt) == 1 and isinstance(prompt[0], str)):
        return {"question": prompt, **rest}
    if not all(isinstance(turn, Mapping) for turn in prompt):
        return record
    *earlier, last = prompt
    if role_of(last) != "user":
        return record
    if earlier and _is_given(rest, "history"):
        return record
    question = first_nonempty_value(last, "content", "value", "text")
    if any(not is_null(value) for key, value in last.items() if key not in _SAID_KEYS):
        question = [last]  # a turn with pictures, for example
    return {"question": question, **rest, **({"history": earlier} if earlier else {})}


def _is_answered(record: Mapping[str, Any]) -> bool:
    return any(_is_given(record, name) for name in ANSWER_KEYS)


def _adapt_answer(record: dict[str, Any]) -> dict[str, Any]:
    """`answer` from the column that another tool has for it; a solution beside an answer is its reasoning."""
    verl = record.get("reward_model")
    if isinstance(verl, Mapping) and "ground_truth" in verl and not _is_answered(record):
        return record | {"answer": verl["ground_truth"]}
    source = next((name for name in ANSWERS if _is_given(record, name)), None)
    if source is None:
        return record
    rest = {key: value for key, value in record.items() if key != source}
    if not _is_answered(record):
        return rest | {"answer": record[source]}  # the reader takes the reasoning out of it
    is_reasoning = isinstance(record[source], str) and source != "ground_truth"
    if not is_reasoning or not all(is_missing(record.get(name)) for name in THINK_KEYS):
        return record
    written = parse(record[source], "auto")
    # A box in the solution is a part of the reasoning, and text may follow it.
    think = written.think if written.answer is not None and written.format != "boxed" else record[source]
    repeated = think is None or think.strip() == str(record.get("answer")).strip()
    return record if repeated else rest | {"think": think}


def _adapt_pictures(record: dict[str, Any]) -> dict[str, Any]:
    """The pictures under `image` or `images`, from a column of another name if these have none, or only a path.

    MathVista has a path in `image` and the picture itself in `decoded_image`.
    """
    if _FOREIGN_PICTURES.isdisjoint(record) and all(isinstance(record.get(name), str | None) for name in PICTURES):
        return record  # most rows
    adapted = record | {name: _adapt_cell(record[name]) for name in PICTURES if name in record}
    given = [name for name in PICTURES if _is_given(adapted, name)]
    embedded = next((name for name in OTHER_PICTURES if _is_picture(record.get(name))), None)
    source = embedded or next((name for name in FILE_NAMES if _is_given(record, name)), None)
    only_paths = all(isinstance(adapted[name], str) for name in given)  # the same pictures as in the other column
    if source is None or (given and not (embedded and only_paths)):
        return adapted
    rest = {key: value for key, value in adapted.items() if key != source and key not in PICTURES}
    return rest | {"images" if isinstance(record[source], list) else "image": _adapt_cell(record[source])}


def _adapt_cell(cell: Any) -> Any:
    """A cell's picture or pictures as a path, as `{"bytes", "path"}`, or None for an empty cell."""
    if isinstance(cell, list | tuple):
        return [_adapt_cell(one) for one in cell]
    if isinstance(cell, bytes | bytearray):
        return {"bytes": bytes(cell), "path": None}
    if isinstance(cell, Mapping) and {*cell} <= {"bytes", "path"} and all(one in (None, "") for one in cell.values()):
        return None  # bytes of length 0 are a picture, a damaged one
    return cell


def _is_picture(value: Any) -> bool:
    """Whether a cell is a picture, or a list of pictures."""
    if isinstance(value, list | tuple):
        return any(_is_picture(one) for one in value)
    data = value.get("bytes") if isinstance(value, Mapping) and {*value} <= {"bytes", "path"} else value
    return isinstance(data, bytes | bytearray) and bytes(data[:8]).startswith(PICTURE_STARTS)


def _has_picture_part(turns: Any) -> bool:
    if isinstance(turns, list | tuple):
        return any(_has_picture_part(turn) for turn in turns)
    if not isinstance(turns, Mapping):
        return False
    return turns.get("type") in ("image", "image_url") or _has_picture_part(turns.get("content"))


def _holds_bytes(value: Any) -> bool:
    if isinstance(value, bytes | bytearray | memoryview):
        return True
    if isinstance(value, Mapping):
        return any(_holds_bytes(inner) for inner in value.values())
    return isinstance(value, list | tuple) and any(_holds_bytes(inner) for inner in value)
