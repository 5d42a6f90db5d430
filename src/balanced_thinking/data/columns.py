"""Reasoning and answer that are given apart: in columns, or as a turn's reasoning beside its content.

Such texts often carry tags of their own. One pair around each is taken off; an answer that has the tags of a completion
inside is parsed as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from balanced_thinking.data.values import RowProblemError
from balanced_thinking.scoring.answers import answers_match, parse_answer, same_wording
from balanced_thinking.scoring.wrappers import has_balanced_braces
from balanced_thinking.segments import FORMATS, ReasoningFormat, get_format, parse, recognise_format
from balanced_thinking.segments.scan import END_OF_TURN

FormatSpec = str | Mapping[str, Any] | ReasoningFormat
PROSE = "prose"
THINK_NAMES = "think|thinking|thought|thoughts|reason|reasoning|rationale|analysis|cot|scratchpad|reflection"
ANSWER_NAMES = "answer|final_answer|final answer|final|conclusion|solution"
# Around the names of tags: `<think>`, `<|begin_of_thought|>`, `[THINK]`, escaped ones.
_LEFT = r"(?:<\||<|\[|&lt;)"
_RIGHT = r"(?:\|>|>|\]|&gt;)"
_SPACE = r"(?:[a-z]{1,20}:)?"  # before a name: `<seed:think>`
_OPENING = rf"(?P<left>{_LEFT})\s*(?P<begin>(?:begin|start)_of_)?(?P<name>{{space}}(?:{{names}}))\s*{_RIGHT}"
_CLOSING = rf"(?P=left)\s*(?(begin)end_of_|/\s*)(?P=name)\s*{_RIGHT}"
_PAIR = rf"\s*(?P<pair>{_OPENING}(?P<inner>.*){_CLOSING})\s*"
_THINK_PAIR = re.compile(_PAIR.format(space=_SPACE, names=THINK_NAMES), re.IGNORECASE | re.DOTALL)
_ANSWER_PAIR = re.compile(_PAIR.format(space=_SPACE, names=ANSWER_NAMES), re.IGNORECASE | re.DOTALL)
_ANY_NAME = f"{THINK_NAMES}|{ANSWER_NAMES}"
_FIRST_TAG = re.compile(rf"(?P<tag>{_OPENING.format(space=_SPACE, names=_ANY_NAME)})", re.IGNORECASE)
_LAST_TAG = re.compile(
    rf"(?P<left>{_LEFT})\s*(?:/\s*|(?P<end>end_of_))(?P<name>{_SPACE}(?:{_ANY_NAME}))\s*{_RIGHT}\Z", re.IGNORECASE
)
# Harmony (gpt-oss) marks parts of a turn with special tokens.
_HARMONY = r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(?:{names})\s*<\|message\|>(?P<inner>.*)"
_HARMONY_PARTS = {
    part: re.compile(_HARMONY.format(names=names), re.DOTALL)
    for part, names in (("think", "analysis|commentary"), ("answer", "final"))
}
_HARMONY_MARK = re.compile(r"<\|channel\|>\s*\w+\s*<\|message\|>")
_TOKEN_ENDS = ("<|return|>", "<|call|>", *END_OF_TURN)
# Tokens that begin a turn, and one that ends it under a name that is not known.
_TURN_START = re.compile(r"<\|(?:im_start|start|start_header_id|begin_of_text|startoftext)\|>|<start_of_turn>|<bos>")
_TURN_END = re.compile(r"<\|[a-z_]{2,30}\|>\Z", re.IGNORECASE)
_MOST_TAG = 40  # characters
_KNOWN_TAGS = {tag for shape in FORMATS.values() for tag in shape.tag_kinds}


class Columns(NamedTuple):
    """Reasoning and answer without tags. `read_as`: the answer was a completion in this format."""

    think: str | None
    answer: str
    read_as: str | None = None


def split_columns(think: str | None, answer: str, format: FormatSpec = "auto") -> Columns:
    """Take the tags off. `format` is that of completions. Raises RowProblemError for an answer with odd tags."""
    answer = peel_tags(answer, format, "answer")
    think = _cut_answer(peel_tags(think or "", format, "think"), answer, format) or None
    _refuse_odd_tags(think or "", format)
    shape = _completion_format(answer, format)
    if shape is None:
        _refuse_odd_tags(answer, format, is_answer=True)
        return Columns(think, answer)
    parsed = parse(answer, shape)
    problems = [name for name in parsed.problems if name != "no_think"]
    if shape.think_close and not shape.prose and not parsed.think and not answer.startswith(shape.answer_open):
        problems.append("text_between")
    if problems or parsed.answer is None:
        raise RowProblemError(answer, *(problems or ("no_answer",)))
    if think and parsed.think and think != parsed.think:
        if shape.think_close:
            raise RowProblemError(f"{think} / {answer}", "multiple_thinks")
        return Columns(f"{think}\n\n{parsed.think}", parsed.answer)
    return Columns(think or parsed.think, parsed.answer, None if think else parsed.format)


def _cut_answer(think: str, answer: str, format: FormatSpec) -> str:
    """The reasoning without the answer in tags at its end: then its column was a completion.

    Raises RowProblemError if that is another answer than the row's.
    """
    if (start := _find_last_pair(think)) is None:
        return think
    inner = peel_tags(think[start:], format, "answer")
    if inner == think[start:]:  # a pair around reasoning
        return think
    written, right = parse_answer(inner), parse_answer(answer)
    if not (answers_match(written, right) or same_wording(written, right)):
        raise RowProblemError(f"reasoning that ends in another answer than {answer}: {think}", "tag_in_text")
    return peel_tags(think[:start], format, "think")


def _find_last_pair(text: str) -> int | None:
    """Where the pair of tags begins that ends with the text; None without one."""
    text = text.rstrip()
    last = _LAST_TAG.search(text, max(0, len(text) - _MOST_TAG))
    if last is None:
        return None
    name, begin = re.escape(last["name"]), "(?:begin|start)_of_" if last["end"] else ""
    starts = [found.start() for found in re.finditer(rf"{re.escape(last['left'])}\s*{begin}{name}\s*{_RIGHT}", text)]
    return starts[-1] if starts else None


def _refuse_odd_tags(text: str, format: FormatSpec, *, is_answer: bool = False) -> None:
    """Raise RowProblemError for a pair of tags of no format at the start of a text, or at the end of an answer.

    Brackets may be the text's own, and XML within such a pair is an answer in XML.
    """
    own = set() if format in ("auto", PROSE) else {*get_format(format).tag_kinds}
    text = text.strip()
    if (token := _find_turn_token(text, _KNOWN_TAGS | own)) or (token := _find_single_tag(text, _KNOWN_TAGS | own)):
        raise RowProblemError(f"{token} in: {text}", "tag_in_text")
    if (first := _FIRST_TAG.match(text)) is None and is_answer and (start := _find_last_pair(text)) is not None:
        first = _FIRST_TAG.match(text, start)
    if first is None or not _has_closing(text, first) or text[first.end() :].lstrip().startswith("<"):
        return
    if first["tag"] not in _KNOWN_TAGS | own and (first["left"] != "[" or first["tag"].isupper()):
        raise RowProblemError(f"{first['tag']} in: {text}", "tag_in_text")


def _find_turn_token(text: str, known: set[str]) -> str | None:
    """A token that separates turns or their parts, at an end of a text or, of Harmony, anywhere; not alone."""
    for found in (_TURN_START.match(text), _TURN_END.search(text), _HARMONY_MARK.search(text)):
        if found and found[0] != text and found[0] not in known:
            return found[0]
    return None


def _find_single_tag(text: str, known: set[str]) -> str | None:
    """An opening tag of no format at the start of a text, or a closing one at its end, without the other one."""
    first, last = _FIRST_TAG.match(text), _LAST_TAG.search(text, max(0, len(text) - _MOST_TAG))
    if first and first["left"] != "[" and first["tag"] not in known and not _has_closing(text, first):
        return first["tag"] if first["tag"] != text else None
    if last and last["left"] != "[" and last[0] not in known and _find_last_pair(text) is None:
        return last[0] if last[0] != text else None
    return None


def _has_closing(text: str, opening: re.Match[str]) -> bool:
    closing = f"end_of_{opening['name']}" if opening["begin"] else rf"/\s*{re.escape(opening['name'])}"
    return re.search(rf"{re.escape(opening['left'])}\s*{closing}\s*{_RIGHT}", text, re.IGNORECASE) is not None


def _completion_format(text: str, format: FormatSpec) -> ReasoningFormat | None:
    """The format whose answer, or whose closed reasoning, the text has; None for a text without."""
    shape = recognise_format(text) if format in ("auto", PROSE) else get_format(format)
    if shape.think_close and shape.think_close in text:
        return shape
    return shape if shape.answer_open and shape.answer_open in text else None


def peel_tags(text: str, format: FormatSpec, part: str) -> str:
    """The text of a column without the one pair of tags around it, and without outer white space.

    `part` is `think` or `answer`. Known are the tags of every format, and usual names in any case.
    """
    text = _peel_turn(text, part)
    for opening, closing in _known_pairs(format, part):
        if len(text) >= len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : len(text) - len(closing)]
            if _is_balanced(inner, opening, closing):
                return inner.strip()
    found = (_THINK_PAIR if part == "think" else _ANSWER_PAIR).fullmatch(text)
    if found is None or _has_tag(found["inner"], found["name"]) or (part == "answer" and _is_xml(found["inner"])):
        return text
    return found["inner"].strip()


def _peel_turn(text: str, part: str) -> str:
    """The text without the tokens that end a turn, and without the marks of Harmony around all of it."""
    text = text.strip()
    while (end := next((end for end in _TOKEN_ENDS if text.endswith(end)), None)) is not None:
        inner = text[: -len(end)].rstrip()
        if not inner or (end == "</s>" and "<s>" in inner):  # an answer about the token; struck text
            return text
        text = inner
    found = _HARMONY_PARTS[part].fullmatch(text)
    return found["inner"].strip() if found and not _HARMONY_MARK.search(found["inner"]) else text


def _is_xml(text: str) -> bool:
    """Whether an answer is XML itself, so that the pair around it may be a part of it."""
    return text.lstrip().startswith("<") and text.rstrip().endswith(">")


def _has_tag(text: str, name: str) -> bool:
    shape = rf"{_LEFT}\s*(?:/\s*|(?:begin|start|end)_of_)?{re.escape(name)}\s*{_RIGHT}"
    return re.search(shape, text, re.IGNORECASE) is not None


def peel_answer_name(text: str) -> str:
    """The answer of a completion without the one pair of tags around it that its format does not have."""
    found = _ANSWER_PAIR.fullmatch(text)
    return found["inner"].strip() if found and found["inner"].strip() else text


def _known_pairs(format: FormatSpec, part: str) -> Iterator[tuple[str, str]]:
    own = [] if format in ("auto", PROSE) else [get_format(format)]
    for shape in (*own, *FORMATS.values()):
        opening, closing = (getattr(shape, f"{part}_{side}") for side in ("open", "close"))
        if opening and closing:
            yield opening, closing


def _is_balanced(inner: str, opening: str, closing: str) -> bool:
    """Whether the tags around a text are one pair: inside, none of them closes it or opens another."""
    if not (opening.endswith("{") and closing == "}"):
        return opening not in inner and closing not in inner
    return has_balanced_braces(inner)
