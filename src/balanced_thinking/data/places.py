"""Where pictures are in a text: `<image>` and its other spellings -> a text without them, and offsets into it.

`<image>` itself counts in every row. Other spellings (`<IMAGE>`, `<image_1>`, `<|image_pad|>`, `[image]`) count only
where a text has no `<image>`; a number says which picture is meant. Tags and tokens around a placeholder are removed
with it. A model's own token within a line may be a mention, so such a row is refused, and so is one whose text names a
picture's file (`<img>a.png</img>`), or has a tag beside a placeholder that is not known.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from balanced_thinking.data.example import Turn
from balanced_thinking.data.picture_files import PICTURE_SUFFIXES
from balanced_thinking.data.values import RowProblemError

PLACEHOLDER = "<image>"
_PLAIN = re.compile(re.escape(PLACEHOLDER))
_NUMBERED = re.compile(r"<(?:(?:image|img|picture)[ _-]?|image id=)(\d{1,2})>", re.IGNORECASE)
_SPECIAL = re.compile(
    r"(?:<\|vision_start\|>)?<\|(?:image_pad|image)\|>(?:<\|vision_end\|>)?|<start_of_image>|<image_soft_token>|\[IMG\]"
    r"|<IMG_CONTEXT>|<\|image_1\|>|<\|media_pad\|>"
)
# A placeholder with tags around it, as templates write it: MiniCPM, XComposer; InternVL; Qwen; GLM; Llama 4; DeepSeek
# and Gemma; LLaVA; Idefics; Kimi.
_WRAPPED = re.compile(
    r"\(<image>\./</image>\)|<image>\s*(?:(?:\./|<unk>|<image>|<imagehere>)\s*)?</image>"
    r"|<img>\s*(?:<image>|(?:<img_context>)+)\s*</img>"
    r"|<\|vision_start\|><image><\|vision_end\|>"
    r"|<\|begin_of_image\|>(?:<image>|(?:<\|image\|>)*)<\|end_of_image\|>"
    r"|<\|image_start\|>(?:<image>|(?:<\|image\|>)*)<\|image_end\|>"
    r"|<(?:begin|start)_of_image>(?:<image>|<image_placeholder>|(?:<image_soft_token>)*)<end_of_image>"
    r"|<im_start>(?:<image>|(?:<im_patch>)*)<im_end>|<fake_token_around_image><image><fake_token_around_image>"
    r"|<\|media_start\|>image<\|media_content\|>(?:<image>|(?:<\|media_pad\|>)*)<\|media_end\|>",
    re.IGNORECASE,
)
# What is no part of a question: a tag directly beside a placeholder (here NUL), and a closing tag without an opening.
_TAG = r"</?\|?\w{0,40}?(?:image|img|vision|media|picture)\w{0,40}\|?>"
_BESIDE = re.compile(rf"\0\s*({_TAG})|({_TAG})\s*\0", re.IGNORECASE)
_SECTION = re.compile(r"<(\w+)>(?=[^<>\0]*[^\W\d_])[^<>\0]*</\1>")  # words about a picture, in tags of their own
_OPENING = re.compile(r"<(image|img|imagehere|picture|pic)\b", re.IGNORECASE)
_CLOSING = re.compile(r"</(image|img|imagehere|picture|pic)(?:[ _-]?\d{1,2})?\s*>", re.IGNORECASE)
_CASED = re.compile(re.escape(PLACEHOLDER), re.IGNORECASE)
# A picture named by its file within the text: Qwen-VL's and ms-swift's form, others' form, Markdown's, HTML's.
_FILE = rf"[^<>()\s]+\.(?:{'|'.join(PICTURE_SUFFIXES)})(?:\?[^<>()\s]*)?"
_SOURCE = rf"[^<>\"']{{1,300}}\.(?:{'|'.join(PICTURE_SUFFIXES)})(?:\?[^<>\s\"']*)?"
_DATA = r"data:image/[^<>()\s\"']+"
_NAMED = re.compile(
    rf"<(?P<tag>img|image)>\s*{_FILE}\s*</(?P=tag)>|!\[[^\]\n]*\]\((?:{_FILE}|{_DATA})(?:\s+\"[^\"\n]*\")?\)"
    rf"|<(?:img|image)\s(?:[^<>]{{0,200}}[\s\"'])?src\s*=\s*(?P<quote>[\"']?)(?:{_SOURCE}|{_DATA}|https?:[^<>\"']{{1,300}})"
    r"(?P=quote)(?:\s[^<>]{0,200})?/?>",
    re.IGNORECASE,
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
# Not the text of a link, nor of a command of LaTeX.
_OTHER = re.compile(
    r"<(?P<twin>img|pic|picture)>\s*</(?P=twin)>|<(?:image|img|pic|picture|photo|image_placeholder|imagehere)\s*/?>"
    r"|(?<![!\]\w])\[(?:image|img|pic|picture)\](?![\[(])"
    r"|\{\{ ?image ?\}\}|(?<![\w\\{}])\{image\}(?!\})",
    re.IGNORECASE,
)
# Video and sound: models' own tokens anywhere, and plain names with no word on one side of them in their line.
_MEDIA = re.compile(
    r"<\|(?:video|audio)(?:_pad)?\|>|<(?:video|audio)_pad>|^[^\w`\n]*<(video|audio)>|<(video|audio)>(?=[^\w`\n]*$)",
    re.IGNORECASE | re.MULTILINE,
)


class PlacedTexts(NamedTuple):
    """Texts without placeholders and the places of their pictures, and the pictures' order (indices)."""

    texts: list[str]
    places: list[tuple[int, ...]]
    order: list[int]


def place_images(texts: Sequence[str], images: int) -> PlacedTexts:
    """Remove the placeholders from the user's texts of a row with this number of pictures.

    Without any placeholder the pictures are before the first text. A text whose pictures are all at its start loses the
    white space around them; other white space stays. Raises RowProblemError.
    """
    if images:
        texts = [_WRAPPED.sub(PLACEHOLDER, text) for text in texts]
    joined = "\n".join(texts)
    _refuse_media(joined)
    _refuse_named_pictures(joined, images)
    pattern = _choose_pattern(joined, images)
    count = _count(pattern, joined)
    if pattern is None or not count:
        first, *others = texts or [""]
        return PlacedTexts(
            [first.strip(), *(text.strip() for text in others)],
            [(0,) * images, *[()] * len(others)],
            list(range(images)),
        )
    if pattern is _SPECIAL and images:
        _refuse_mentioned_tokens(joined)
    if count != images:
        raise RowProblemError(f"{count} placeholders, {images} images: {joined}", "image_count")
    _refuse_other_tags(joined, pattern)
    placed = [_cut_placeholders(text.strip(), pattern) for text in texts]
    order = list(range(images))
    if pattern is _NUMBERED:
        order = [int(found[1]) - 1 for found in pattern.finditer(joined)]
        if sorted(order) != list(range(images)):
            raise RowProblemError(f"each of {images} images must have one place: {joined}", "image_count")
    return PlacedTexts([turn.text for turn in placed], [turn.image_places for turn in placed], order)


def _refuse_media(text: str) -> None:
    """Raises RowProblemError for the place of video or sound. Within a line, or with a closing tag, it is HTML."""
    closed: dict[str, bool] = {}  # each name is looked for once
    for found in _MEDIA.finditer(text):
        name = (found[1] or found[2] or "").lower()
        if name and name not in closed:
            closed[name] = f"</{name}>" in text.lower()
        if not closed.get(name):
            raise RowProblemError(f"{f'<{name}>' if name else found[0]} in: {text}", "unread_media")


# Other tags of a page, or words about them: then `<img src="a.png">` is what the question is about.
_PAGE = re.compile(
    r"<(?:!doctype|html|head|body|div|a|p|ul|li|nav|script|style|button|form|table|span)\b|\b(?:html|css|tag|markup)\b",
    re.IGNORECASE,
)


def _refuse_named_pictures(text: str, images: int) -> None:
    """Raises RowProblemError for pictures that the text names by their files: nothing reads them there.

    Beside pictures of the row, Markdown and HTML may be a part of the question, and code is one anywhere. So is a page.
    """
    is_page = _PAGE.search(text) is not None
    for found in _NAMED.finditer(_CODE.sub("", text)):
        if is_page and not images and found[0].lower().startswith(("<img ", "<image ")):
            continue
        if not images or found["tag"] or "data:image/" in found[0].lower():
            raise RowProblemError(
                f"{found[0]} (write {PLACEHOLDER} there, and the path under images) in: {text}", "unread_image"
            )


def _choose_pattern(text: str, images: int) -> re.Pattern[str] | None:
    """The spelling of the placeholders; None if the text has none."""
    if PLACEHOLDER in text:
        return _PLAIN
    for pattern in (_CASED, _NUMBERED, _SPECIAL):
        if pattern.search(text):
            return pattern
    # A text about HTML may have <img> in it.
    return _OTHER if images and _count(_OTHER, text) == images and not _find_closing(_OTHER.sub("", text)) else None


def _count(pattern: re.Pattern[str] | None, text: str) -> int:
    return 0 if pattern is None else sum(1 for _ in pattern.finditer(text))


def _find_closing(text: str) -> str | None:
    """The first closing tag of a picture in a text that has no opening one."""
    opened = {found[1].lower() for found in _OPENING.finditer(text)}
    return next((found[0] for found in _CLOSING.finditer(text) if found[1].lower() not in opened), None)


def _refuse_other_tags(text: str, pattern: re.Pattern[str]) -> None:
    """Raises RowProblemError for tags around placeholders that would stay in the question."""
    marked = pattern.sub("\0", text)
    beside = _BESIDE.search(_SECTION.sub("-", marked))
    tag = (beside[1] or beside[2]) if beside else _find_closing(marked)
    if tag:
        raise RowProblemError(f"{tag} (write only {PLACEHOLDER} where a picture is) in: {text}", "unknown_placeholder")


def _refuse_mentioned_tokens(text: str) -> None:
    """Raises RowProblemError for a model's own token in the middle of a line: a mention of it is no place.

    Qwen's complete spelling, with the tokens around it, is one anywhere.
    """
    for line in text.split("\n"):
        others = _SPECIAL.sub(lambda found: " " * len(found[0]), line)
        first, last = len(others) - len(others.lstrip()), len(others.rstrip())
        for found in _SPECIAL.finditer(line):
            complete = found[0].startswith("<|vision_start|>") and found[0].endswith("<|vision_end|>")
            if not complete and first < found.start() and last > found.end():
                raise RowProblemError(
                    f"{found[0]} (write {PLACEHOLDER} where a picture is) in: {text}", "special_token"
                )


def _cut_placeholders(text: str, pattern: re.Pattern[str]) -> Turn:
    """The text without placeholders, and their offsets in it."""
    leading = re.match(rf"(?:(?:{pattern.pattern})\s*)+", text, pattern.flags)
    rest = text[leading.end() :] if leading else text
    places = [0] * len(pattern.findall(leading[0])) if leading else []
    pieces, start, length = [], 0, 0
    for found in pattern.finditer(rest):
        pieces.append(rest[start : found.start()])
        length += found.start() - start
        places.append(length)
        start = found.end()
    return Turn("user", "".join([*pieces, rest[start:]]), tuple(places))


def write_placeholders(text: str, places: Sequence[int]) -> str:
    """The text with a placeholder at each place: what `place_images` reads."""
    ends = [*places, len(text)]
    pieces = [text[: ends[0]], *(text[start:end] for start, end in itertools.pairwise(ends))]
    return PLACEHOLDER.join(pieces)
