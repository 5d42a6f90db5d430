r"""Numbers with their units, read from an answer by patterns only: no text of a model is ever evaluated as code.

Decimals (`1,200.50`, `1{,}200`, `1 200`, `.5`), fractions (`1/2`, `\frac{1}{2}`, `½`), mixed numbers (`1 1/2`,
`1\frac{1}{2}`), powers of ten (`3e8`, `3 \times 10^8`, `3×10⁸`), percentages (`50 %` is one half, and also 50), the
words from hundred to trillion, and units after the number or, for currencies, before it. Of an equation the right side
counts (`x = 5`). Digits and signs may be of any script (`characters`). Units are names, not factors: `5 cm` is
`5 centimeters`, but not `0.05 m`. Symbols of one or two letters are read as they are written: `5 N` has a unit, `5 n`
is algebra. A text with a letter that is not a unit (`5x`) is not a quantity.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from balanced_thinking.scoring.characters import to_plain_characters

_MAX_CHARACTERS = 64  # limits the arithmetic on hostile text
_MAX_POWER = 99
_SCALES = {"hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "mln": 6, "crore": 7, "billion": 9, "bn": 9}
_SCALES |= {"trillion": 12}
_SUPERSCRIPT = re.compile("[⁺⁻]?[⁰¹²³⁴-⁹]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
# Symbols that differ from algebra by their case alone, behind a number or a stroke -> names.
_SYMBOLS = {
    "N": "newton",
    "kN": "kilonewton",
    "J": "joule",
    "kJ": "kilojoule",
    "MJ": "megajoule",
    "W": "watt",
    "kW": "kilowatt",
    "MW": "megawatt",
    "kWh": "kilowatthour",
    "V": "volt",
    "kV": "kilovolt",
    "mV": "millivolt",
    "A": "ampere",
    "mA": "milliampere",
    "K": "kelvin",
    "C": "celsius",
    "F": "fahrenheit",
    "Pa": "pascal",
    "kPa": "kilopascal",
    "Hz": "hertz",
    "kHz": "kilohertz",
    "MHz": "megahertz",
    "GHz": "gigahertz",
    "L": "l",
    "Ω": "ohm",
    "kΩ": "kiloohm",
    "KB": "kilobyte",
    "kB": "kilobyte",
    "MB": "megabyte",
    "GB": "gigabyte",
    "TB": "terabyte",
    "eV": "electronvolt",
}
_GREEK = (
    (re.compile(r"\u2126|\\Omega(?![A-Za-z])"), "\u03a9"),
    (re.compile(r"\u00b5|\\mu(?![A-Za-z])\s?"), "\u03bc"),
)
# `3K` without a space may be three thousand.
_SYMBOL = re.compile(
    rf"(?<=[\d\s/{{}}~])(?<!\d(?=K))({'|'.join(sorted(_SYMBOLS, key=len, reverse=True))})(?![A-Za-z\d]|\s*[A-Za-z])"
)
# LaTeX and typography -> plain characters, applied in this order to text in lower case.
_PLAIN = (
    (re.compile(r"\{,\}|\\,(?=\d{3})"), ","),
    (re.compile(r"\\!|\\(?:left|right)(?![a-z])"), ""),
    (re.compile(r"\$([^$]+)\$|\*\*([^*]+)\*\*"), r" \1\2 "),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\[()\[\]]"), " "),
    (re.compile(r"^\s*(?:about|approximately|roughly|around|exactly)\s+"), ""),
    (re.compile(r"^\s*(?:negative|minus)\s+(?=[$\d.\\])"), "-"),
    (re.compile(r"\bus\$|\busd\s+(?=\d)"), "$"),
    (re.compile(r"(?<=\d)k$"), " thousand"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b"), "°"),
    (re.compile(r"\\(?:text|mathrm|textrm|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2 "),
    (re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*(\d)(?!\d)"), r" \1/\2 "),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*\{([^{}]*)\}"), r" \1/\2 "),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)(?!\d)"), r" \1/\2 "),
    (re.compile(r"\\(?:times|cdot)(?![a-z])|[×·]"), "*"),
    (re.compile(r"\^\s*\{\s*([-+]?\d+)\s*\}"), r"^\1"),
    (re.compile(r"^\s*([-+]?)\s*10\s*\^"), r"\g<1>1*10^"),
    (re.compile(r"\\[,;:! ]|~"), " "),
    (re.compile(r"\s+\^"), "^"),
    (re.compile(r"^\s*([-+]?)%\s*([\d.,]+)$"), r"\1\2%"),
    (re.compile(r"\bper cent\b"), "%"),
    (re.compile(r"(?<=[a-z])\s+per\s+(?=[a-z])"), "/"),
    (re.compile(r"(?<=\d)\s*x\s*(?=10\s*\^)"), "*"),
    (re.compile(r"(?:°|\bdeg(?:rees?)?)\s*c(?:elsius)?\b"), " celsius"),
    (re.compile(r"(?:°|\bdeg(?:rees?)?)\s*f(?:ahrenheit)?\b"), " fahrenheit"),
    (re.compile(r"(?<![a-z])([mck]?m|in|ft|yd|mi)([23])(?![\d^])"), r"\1^\2"),
)
_DECIMAL = r"(?:\d{1,3}(?:[, ]\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d+)(?:\.\d+)?|\.\d+"
_AMOUNT = re.compile(r"([$€£¥₹]\s?[\d.,]+)([MB])\b")  # `$5M`; without a currency M may be a unit
_QUANTITY = re.compile(
    r"(?P<sign>[-+]?)\s*(?P<currency>[$€£¥₹₩₽]?)\s*"
    r"(?:(?P<whole>\d+) (?P<over>\d+)/(?P<under>\d+)"
    rf"|(?P<above>[-+]?(?:{_DECIMAL}))(?:\s*/\s*(?P<below>[-+]?(?:{_DECIMAL})))?)"
    r"(?:e(?P<e>[-+]?\d+)|\s*\*\s*10\s*\^\s*\{?(?P<power>[-+]?\d+)\}?)?"
    rf"(?P<scale>(?:\s*(?:{'|'.join(_SCALES)})s?\b)*)(?: |-(?=[a-z]))?"
    r"(?P<unit>(?:[a-zµμ°%'\"$€£¥₹₩₽¢/. ]|\^[23])*)",
    re.ASCII,
)
# Words after a number that mean it is more than a number with a unit.
_NO_UNIT = frozenset(
    word
    for words in (
        "or and to is not no never isnt cannot at of by vs than about more less over under except without plus minus",
        "times mod if when suppose let assume twice double triple incorrect false doubt",
        "mil mille millones millon millionen milliarden milliards milioni tausend nan",
        "pi sqrt sin cos tan log ln squared cubed factorial negative below above infinity undefined unknown none wrong",
        "half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh sevenths eighth",
        "eighths ninth ninths tenth tenths hundredth hundredths thousandth thousandths millionth millionths dozen",
        "dozens zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen",
        "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety tens",
    )
    for word in words.split()
)
_GROUP = 3  # digits between separators of thousands
_EQUALS = re.compile(r"\s*(?:=|≈|\\approx(?![a-z])|(?<=[a-z°])\s(?:is|are|equals)(?=\s))\s*")
# Of an equation: a name (`x_1`, `area`, `\angle abc`, `p(a)`) or a calculation; not `2x`, which has another value.
_LEFT_SIDE = re.compile(
    r"\$?m?\s*(?:\\angle|∠)\s*\w{1,10}|\$?(?:[a-zα-ω]|\\(?:alpha|beta|gamma|theta|phi|lambda|mu|omega)\b)"
    r"(?:_\{?\w{1,10}\}?|[a-z ]{0,30}\d?)(?:\([\w ,]{1,20}\))?"
    r"|(?:[\d\s+*/().^×·÷%$-]|(?<=[\d\s])x(?=\s*\d)|\\(?:times|cdot|div))*\d[)\s$]*|"
)
_BARE_NUMBER = re.compile(r"[-+]?[\d.,]+")
_PIECE = re.compile(r"[a-z]{3,}(?:\^[23])?")  # of an unknown unit; shorter ones may be algebra
_MAX_UNIT_WORDS = 3
_UNITS = {
    name: unit
    for unit, names in {
        "%": "percent pct",
        "$": "dollar dollars usd",
        "€": "euro euros eur",
        "£": "gbp",
        "¢": "cent cents",
        "mi/h": "mph",
        "km/h": "kph kmh kmph",
        "mm": "millimeter millimeters millimetre millimetres",
        "cm": "centimeter centimeters centimetre centimetres",
        "m": "meter meters metre metres",
        "km": "kilometer kilometers kilometre kilometres",
        "in": "inch inches",
        "ft": "foot feet",
        "yd": "yard yards",
        "mi": "mile miles",
        "mg": "milligram milligrams",
        "g": "gram grams",
        "kg": "kilogram kilograms",
        "lb": "lbs pound pounds",
        "oz": "ounce ounces",
        "ml": "milliliter milliliters millilitre millilitres",
        "l": "liter liters litre litres",
        "s": "sec secs second seconds",
        "min": "mins minute minutes",
        "h": "hr hrs hour hours",
        "°": "degree degrees deg",
        "newton": "newtons",
        "joule": "joules",
        "watt": "watts",
        "volt": "volts",
        "ampere": "amperes amp amps",
        "kelvin": "kelvins",
        "pascal": "pascals",
        "kilopascal": "kilopascals kpa",
        "ohm": "ohms",
        "kilojoule": "kilojoules",
        "kilowatt": "kilowatts",
        "byte": "bytes",
        "kilobyte": "kilobytes",
        "megabyte": "megabytes",
        "gigabyte": "gigabytes",
        "ms": "millisecond milliseconds",
        "nm": "nanometer nanometers nanometre nanometres",
        "um": "μm µm micrometer micrometers micrometre micrometres",
        "dm": "decimeter decimeters decimetre decimetres",
    }.items()
    for name in names.split()
}
_KNOWN = {unit + power for unit in {*_UNITS, *_UNITS.values()} for power in ("", "^2", "^3")} | {
    *"¥₹₩₽",
    "per",
    "sq",
    "cu",
}
_POWERS = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}


@dataclass(frozen=True)
class Quantity:
    """A value, and the name of its unit if one is given. `percent`: it was written as a percentage."""

    value: Fraction
    unit: str | None
    percent: bool = False

    def agrees_with(self, other: Quantity) -> bool:
        """Equal values in the same unit. A side without a unit takes the other's, and one without `%` too."""
        if (self.percent and other.unit) or (other.percent and self.unit):  # `50 %` and `0.5 cm`
            return self.percent == other.percent and (self.value, self.unit) == (other.value, other.unit)
        same = self.value == other.value or self._is_percentage_of(other) or other._is_percentage_of(self)
        return same and (None in (self.unit, other.unit) or self.unit == other.unit)

    def _is_percentage_of(self, bare: Quantity) -> bool:
        """`50 %` of `50`. A number up to 1 may be a share, so it is taken as it is."""
        return self.percent and not bare.percent and abs(bare.value) > 1 and self.value * 100 == bare.value


def parse_quantity(text: str) -> Quantity | None:
    """The quantity that a text states; None if the text is anything else."""
    if len(text) > _MAX_CHARACTERS:
        return None
    for written, letter in _GREEK:
        text = written.sub(letter, text)
    text = _AMOUNT.sub(lambda found: found[1] + {"M": " million", "B": " billion"}[found[2]], text)
    text = _SYMBOL.sub(lambda found: f" {_SYMBOLS[found[1]]}", text).lower()
    text = _VULGAR.sub(
        lambda found: " " + unicodedata.normalize("NFKC", found[0]).replace("\N{FRACTION SLASH}", "/"), text
    )
    text = to_plain_characters(_SUPERSCRIPT.sub(lambda found: "^" + unicodedata.normalize("NFKC", found[0]), text))
    *left, text = _EQUALS.split(text)
    if not all(map(_is_left_side, left)):
        return None
    for pattern, plain in _PLAIN:
        text = pattern.sub(plain, text)
    found = _QUANTITY.fullmatch(" ".join(text.split()))
    if found is None:
        return None
    value, unit = _parse_value(found), _parse_unit(found["currency"], found["unit"])
    if value is None or unit is None:
        return None
    percent = unit.startswith("%")
    if percent:
        value, unit = value / 100, unit[1:].strip()
    return Quantity(value, unit or None, percent)


def take_right_side(text: str) -> str:
    """The right side of an equation that says what its left side is (`x = 5`); any other text as it is."""
    *left, right = _EQUALS.split(text) if len(text) <= _MAX_CHARACTERS else [text]
    return right if all(_is_left_side(part.lower()) for part in left) else text


def _is_left_side(text: str) -> bool:
    """Whether the text left of an equals sign says what the right side is, and does not deny or contradict it."""
    return bool(_LEFT_SIDE.fullmatch(text)) and not _BARE_NUMBER.fullmatch(text) and not _NO_UNIT & {*text.split()}


def _parse_value(found: re.Match[str]) -> Fraction | None:
    whole, above, below = (
        found["whole"] or "0",
        found["over"] or found["above"],
        found["under"] or found["below"] or "1",
    )
    if found["whole"] and len(above) == _GROUP and int(above) >= int(below):  # `1 200/3` is no mixed number
        whole, above = "0", whole + above
    over, under = (Fraction(re.sub("[, ]", "", part)) for part in (above, below))
    power = int(found["e"] or found["power"] or 0) + sum(
        _SCALES[word.removesuffix("s")] for word in found["scale"].split()
    )
    if under == 0 or abs(power) > _MAX_POWER or (found["sign"] and above[0] in "+-"):
        return None
    value = (int(whole) + over / under) * Fraction(10) ** power
    return -value if found["sign"] == "-" else value


def _parse_unit(currency: str, text: str) -> str | None:
    """The canonical name of the unit, "" if there is none; None if the words are not a unit."""
    text = re.sub(r"^\s*per ", "/", text) if currency else text
    words = text.replace(".", "").replace("%", " % ").split()
    if len(words) > _MAX_UNIT_WORDS or _NO_UNIT & set(words) or (currency and words and not text.startswith("/")):
        return None
    pieces = [piece for word in words for piece in word.split("/")]
    if not all(_PIECE.fullmatch(piece) or piece in _KNOWN or (currency and not piece) for piece in pieces):
        return None
    names = ["/".join(_UNITS.get(piece, piece) for piece in word.split("/")) for word in words]
    if len(names) == 2 and (power := _POWERS.get(names[0])):
        names = [names[1] + power]
    return currency + " ".join(names)
