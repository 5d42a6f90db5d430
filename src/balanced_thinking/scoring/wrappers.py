r"""What models write around an answer: openings (`The answer is`), wrappers (`**`, `\boxed{}`), sentences before it.

All of it is taken off before two answers are compared (`answers`) or read as quantities.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from balanced_thinking.scoring.characters import to_plain_characters
from balanced_thinking.scoring.options import TEXT_COMMANDS, match_option

_MAX_LAYERS = 8  # wrappers inside wrappers; limits the work on hostile text
_LATEX = re.compile(rf"\\(?:{TEXT_COMMANDS})\s*\{{(.*)\}}", re.DOTALL)
_PAIRS = (
    *((mark, mark) for mark in ("$$", "$", "***", "**", "*", "__", "_", "```", "`", '"', "'")),
    *(("“", "”"), ("‘", "’"), ("«", "»"), ("「", "」"), ("『", "』"), ("【", "】"), ("《", "》")),
    *(("\\(", "\\)"), ("\\[", "\\]"), ('["', '"]'), ("['", "']"), ("[[", "]]")),
    *(("<answer>", "</answer>"), ("<|begin_of_box|>", "<|end_of_box|>")),  # tags of another format
)
_OPENING = re.compile(
    r"[*_]{0,2}(?:(?:so|thus|hence|therefore),?\s)?\s*(?:the\s)?\s*(?:(?:final|correct|right|best)\s)?\s*"
    r"(?:ans|answer|option|choice)[*_]{0,2}\s*"
    r"(?:(?:is|(?:would|should|must|will)\sbe)\b(?:\s*:|(?!\s*:))|:|=|[.-](?=\s))[*_]{0,2}\s*(?=\S)"
    r"|[*_]{0,2}(?:the\s)?(?:final\s)?answer[*_]{0,2}\n(?=\S)"
    r"|i(?:['’]d|\swould|\swill)?\s(?:choose|pick|select|go\swith)\s(?:(?:option|choice|answer)\s)?(?=\S)"
    r"|it(?:['’]s|\sis)\s(?=\S)|#{1,6}\s(?=\S)"
    r"|(?:(?:la|die|a)\s)?(?:respuesta|réponse|antwort|resposta|risposta)(?:\s(?:correct[ae]|corretta|finale?))?"
    r"(?:\s(?:es|est|ist|é|è)\b:?|:)\s*(?=\S)|(?:ответ|答え|正解|정답)\s*[:は은]\s*(?=\S)"
    r"|[*_]{0,2}(?:最终|正确)?(?:答案|选项)(?:是|为|选)?\s*:?[*_]{0,2}\s*(?=\S)|[故应]?选择?\s*(?=[A-Za-z]\b)",
    re.IGNORECASE,
)
_VERDICT = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s)?(?:the\s)?(?:(?:option|choice|answer)\s)?(\(?[a-z]\)?)\sis\s"
    r"(?:(?:the\s)?(?:correct|right|best)(?:\s(?:answer|option|choice))?|the\sanswer)",
    re.IGNORECASE,
)
_JSON = re.compile(
    r"(?:json\s*)?\{(?:[^{}]*,)?\s*[\"'](?:final_)?answer[\"']\s*:\s*"
    r"(?:\"(?P<double>[^\"]+)\"|'(?P<single>[^']+)'|(?P<bare>[^\"'{}\[\],]+))\s*(?:,[^{}]*)?\}",
    re.IGNORECASE,
)
# A paragraph that gives the reason of the answer before it.
_EXPLANATION = re.compile(
    r"\n[*_# ]*(?:explanation|reasoning|rationale|justification|because|解释)\b.*", re.DOTALL | re.IGNORECASE
)
_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
# Around a box: what separates it from a sentence; a sign or nothing in front of it.
_APART_BEFORE, _APART_BEHIND = re.compile(r"(?:^|[\s:=$*(])$"), re.compile(r"[\s$*_)\]\\]*(?:$|\n|[.!?;](?:\s|$))")
_DENIED = re.compile(r"\bnot\s+[$*(\\]*$", re.IGNORECASE)
_BESIDE_BOX = re.compile(r"(?:^|\s|[$*(:])[+-]?\s?$")
_LAYOUT = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\!|\\,(?=\d{3}(?!\d))")
# One spelling of the same LaTeX: `\dfrac`, `\sqrt3`, `x^{2}`, and the characters that stand for commands.
_SPELLINGS = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"√\s?(\d+|[A-Za-z])(?!\w)|\\sqrt\s*(\d)(?!\d)"), r"\\sqrt{\1\2}"),
    (re.compile(r"\s?π"), r"\\pi"),
    (re.compile(r"([\^_])\{(\w)\}"), r"\1\2"),
)
_SUBSCRIPT = re.compile("(?<=[A-Za-z)])[₀-₉]+")  # of H₂O; but 101₂ is no 1012
_SPACE = re.compile(r"\\[,;: ]")
# What a text of several sentences ends with; GSM8K's solutions end with `#### 5`.
_CONCLUSION = re.compile(
    r".*(?:(?<!wrong )(?<!incorrect )(?<!not the )"
    r"\b(?:answer|option|choice)\s(?:is|(?:would|should|must|will)\sbe)\b:?|\banswer[*_]{0,2}:|\n#{4}|答案(?:是|为|选)?:?)"
    r"[*_]{0,2}\s*(?P<answer>[^\s.,;:!?][^\n]{0,200})",
    re.DOTALL | re.IGNORECASE,
)
# `Yes, it is.`, but not `No, wait. Yes.` or `No, I don't know`.
_YES_OR_NO = re.compile(
    r"(?:(?P<yes>yes|true)|(?P<no>no|false))\s?(?:[,.;:!\n]|-\s)"
    r"(?!.*\b(?:(?(yes)no|yes)|(?(yes)false|true)|wait|but|however|actually|know|sure|maybe|cannot)\b|.*\b[a-h]\W*$).*",
    re.DOTALL | re.IGNORECASE,
)
_CLOSERS = ".,;:。、"
_EXCLAMATION = re.compile(r"(?<=[^\W\d_]{3})!+$")  # not of `5!` and `n!`


def strip_answer(text: str) -> str:
    """The answer in plain characters, without what is wrapped around it. Letters keep their case.

    Of several sentences the conclusion at the end counts: `It has whiskers. So the answer is B.`
    """
    return strip_plain(collapse_white_space(to_plain_characters(text)))


@lru_cache(maxsize=64)  # a prediction is read again beside each choice and each right answer
def strip_plain(plain: str) -> str:
    """As `strip_answer`, of a text in plain characters."""
    text = _SPACE.sub(" ", _LAYOUT.sub("", _take_box(plain)))
    for written, spelling in _SPELLINGS:
        text = written.sub(spelling, text)
    text = _SUBSCRIPT.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    stripped = strip_around_answer(text)
    if match_option(stripped) is not None:
        return stripped
    concluded = _CONCLUSION.fullmatch(stripped)
    answer = concluded["answer"] if concluded else _EXPLANATION.sub("", stripped)
    return stripped if answer == stripped else strip_around_answer(answer)


def take_yes_or_no(text: str) -> str:
    """The `yes`, `no`, `true` or `false` that a sentence begins with: `Yes, it is.`; empty without one."""
    found = _YES_OR_NO.fullmatch(strip_answer(text))
    return (found["yes"] or found["no"]) if found else ""


def _take_box(text: str) -> str:
    """The content of the last `\\boxed{}` where it stands apart, behind other sentences; else the text.

    A sign, a unit or another option beside the box belongs to the answer: then only the box itself is taken off.
    """
    boxes = list(_BOX.finditer(text))
    depth, start = 1, boxes[-1].end() if boxes else len(text)
    for place, character in enumerate(text[start:], start):
        depth += (character == "{") - (character == "}")
        if not depth:
            before, inner, after = text[: boxes[-1].start()], text[start:place].strip(), text[place + 1 :]
            if not inner or _DENIED.search(before) or _BOX.search(before.rpartition("\n")[2]):
                return text
            if _APART_BEFORE.search(before) and _APART_BEHIND.match(after):
                return inner
            return before + inner + after if _BESIDE_BOX.search(before) else text
    return text


def collapse_white_space(text: str) -> str:
    """One space for each run of white space, but a line break for a run that has one: it separates options."""
    return "\n".join(line for line in (" ".join(line.split()) for line in text.splitlines()) if line)


def strip_around_answer(text: str) -> str:
    """Remove openings, wrappers and closing punctuation, one layer after the other; never the last character."""
    for _ in range(_MAX_LAYERS):
        before, text = text, text.strip()
        text = _unwrap_once(_EXCLAMATION.sub("", _strip_closers(text)))
        if verdict := _VERDICT.fullmatch(text):
            text = verdict[1]
        opening = _OPENING.match(text)
        text = text[opening.end() :] if opening else text
        if text == before:
            break
    return text


def _strip_closers(text: str) -> str:
    """The text without closing punctuation, which stays where it is all that there is: of `.`, and of `Answer: ;`."""
    opening = _OPENING.match(text)
    rest = text[opening.end() :] if opening else text
    return text.rstrip(_CLOSERS).rstrip() if rest.rstrip(_CLOSERS + " ") else text


def _unwrap_once(text: str) -> str:
    latex = _LATEX.fullmatch(text)
    if latex and has_balanced_braces(latex[1]):
        return latex[1]
    if json_answer := _JSON.fullmatch(text):
        return json_answer["double"] or json_answer["single"] or json_answer["bare"]
    for left, right in _PAIRS:
        inner = text[len(left) : -len(right)]
        if inner and text == left + inner + right and left not in inner and right not in inner:
            return inner
    # "(4)" is 4, but "(3, 4)" is an interval or a point
    return text[1:-1] if re.fullmatch(r"\([^(),]+\)|\{[^{},]+\}", text) else text


def has_balanced_braces(text: str) -> bool:
    """Whether each closing brace has an opening one before it, so that the outermost pair belongs together."""
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0
