"""Characters of other scripts and widths as plain ones, so that `Ｂ`, `１２` and `٢٧٪` are read like `B`, `12`, `27%`.

Only forms of one character change: full-width and small forms, circled and mathematical letters, squared units, the
decimal digits of every script, and the signs of numbers. Accents, ligatures and superscripts stay.
"""

from __future__ import annotations

import re
import unicodedata

# Compatibility forms whose plain character means the same in an answer.
_FORMS = re.compile(
    "["
    "\u2103\u2109"  # degrees Celsius and Fahrenheit as one character
    "\u249c-\u24e9"  # letters in brackets and in circles
    "\u3371-\u33df"  # squared units
    "\ufe50-\ufe6b\uff01-\uffee"  # small, full-width and half-width forms
    "\U0001d400-\U0001d7ff"  # mathematical letters and digits
    "]+"  # half-width signs combine with the letter before them
)
_WIDE_MARK = re.compile("([\uff0e\uff1a])(?=[^\\W\\d_]{2})")  # a full-width mark has its own space
_SIGNS = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),  # hyphens, dashes of a digit's width, the minus sign
    "\u066a": "%",  # Arabic
    "\u066b": ".",
    "\u066c": ",",
    "\u060c": ",",
    "\u061b": ";",
    "\u06d4": ".",
    "\u0964": ".",  # danda, the full stop of Indian scripts
    "\uff61": "\u3002",  # the half-width ideographic full stop
    "\u2018": "'",  # typographic quotes and apostrophes
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2044": "/",  # fraction slash
    "\u2215": "/",
}
# Marks of direction and width that no reader sees; joiners stay, because they change letters.
_INVISIBLE = "\u00ad\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_TABLE = str.maketrans(_SIGNS | dict.fromkeys(_INVISIBLE, ""))
# Letters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han.
UNSPACED = "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_OTHER_DIGIT = re.compile(r"[^\D0-9]")


def to_plain_characters(text: str) -> str:
    """The text with plain digits, signs, widths and letter forms; composed (NFC). Letters keep their case."""
    if text.isascii():
        return text
    text = _WIDE_MARK.sub(r"\1 ", unicodedata.normalize("NFC", text))
    text = _FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return _OTHER_DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text.translate(_TABLE))
