r"""The numeric scorer: quantities that are the same, quantities that are not, then properties."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balanced_thinking.scoring.quantities import parse_quantity
from balanced_thinking.scoring.scorers import score_numeric

SAME = [
    ("12", "12.0"),  # plain numbers, as `exact` has it
    ("1,200", "1200"),  # thousands
    ("1,234,567.5", "1234567.50"),  # more of them
    ("1{,}200", "1200"),  # in LaTeX
    (r"1\,200", "1200"),  # LaTeX's thin space
    ("1 200", "1200"),  # a space
    ("1\u202f200", "1200"),  # a narrow one
    (".5", "0.5"),  # no leading zero
    ("+5", "5"),  # sign
    ("−5", "-5"),  # typographic minus
    ("1/2", "0.5"),  # a fraction
    ("3 / 4", "0.75"),  # with spaces
    ("2/4", "1/2"),  # not in lowest terms
    ("1,000/2", "500"),  # thousands above the line
    ("-1/2", "-0.5"),  # a negative one
    (r"\frac{1}{2}", "0.5"),  # LaTeX
    (r"\dfrac{1}{2}", "1/2"),  # its sizes
    (r"\tfrac{3}{4}", "0.75"),  # its sizes
    (r"-\frac{1}{2}", "-0.5"),  # sign before
    (r"\frac{-1}{2}", "-0.5"),  # sign above
    (r"$\frac{1}{2}$", "1/2"),  # in mathematics
    (r"\boxed{\frac{1}{2}}", "0.5"),  # boxed
    (r"\boxed{12}", "12"),  # boxed
    (r"\boxed{5\text{ cm}}", "5 cm"),  # boxed with its unit
    ("½", "0.5"),  # one character
    ("2½", "2.5"),  # behind a integer
    ("1 1/2", "1.5"),  # mixed
    (r"1\frac{1}{2}", "3/2"),  # mixed in LaTeX
    ("-1 1/2", "-1.5"),  # the sign is the whole number's
    ("1 200/3", "400"),  # thousands, not mixed
    ("50 %", "0.5"),  # a percentage
    ("50%", "1/2"),  # without a space
    (r"50\%", "50 %"),  # LaTeX
    ("50 percent", "50%"),  # a word
    ("12.5%", "1/8"),  # with decimals
    ("3e8", "300000000"),  # powers of ten
    ("3E8", "3e8"),  # in capitals
    ("1.5e-3", "0.0015"),  # negative ones
    (r"3 \times 10^8", "3e8"),  # in LaTeX
    (r"3 \times 10^{-2}", "0.03"),  # with braces
    (r"3\cdot 10^{2}", "300"),  # with a dot
    ("3 × 10^8", "3e8"),  # a cross
    ("2 million", "2,000,000"),  # words
    ("1.5 thousand", "1500"),  # words
    ("3 hundred", "300"),  # words
    ("5 cm", "5"),  # a unit on one side only
    ("5", "5 cm"),  # on the other
    ("5cm", "5 cm"),  # no space
    ("5 centimeters", "5 cm"),  # its names
    ("5 centimetres", "5 cm"),  # in British spelling
    ("5 cm.", "5 cm"),  # full stop
    (r"5\text{ cm}", "5 cm"),  # text in LaTeX
    (r"5 \mathrm{cm}", "5 cm"),  # roman type
    ("5 square meters", "5 m^2"),  # areas
    ("5 m²", "5 sq m"),  # areas
    ("5 cubic feet", "5 ft^3"),  # volumes
    ("5 km/h", "5 km/h"),  # speeds
    ("30°", "30 degrees"),  # angles
    (r"30^\circ", "30"),  # LaTeX's
    (r"30^{\circ}", "30°"),  # with braces
    ("$4.50", "4.5"),  # currency
    ("$4.50", "4.5 dollars"),  # its name
    (r"\$4.50", "$4.50"),  # LaTeX's
    ("€5", "5 euros"),  # another one
    ("-$5", "-5"),  # a debt
    ("12 apples", "12"),  # what is counted
    ("12 apples", "12 apples"),  # on both sides
    ("3 lbs", "3 pounds"),  # short names
    ("The answer is 5 cm.", "5"),  # in a sentence
    ("**5 cm**", "5 cm"),  # in markdown
    (r"5 \text{cm}^2", "5 cm^2"),  # a power behind its text
    ("50 per cent", "50%"),  # two words
    ("１２．５", "25/2"),  # full-width digits
    ("２７％", "0.27"),  # and sign
    ("٢٧٪", "0.27"),  # Arabic
    ("٢٧ ٪", "27 percent"),  # with a space
    ("২৭ %", "0.27"),  # Bengali
    ("२७%", "27 %"),  # Devanagari
    ("๒๗ %", "27/100"),  # Thai
    ("%27", "0.27"),  # as in Turkish
    ("－１／２", "-0.5"),  # a fraction
    ("1⁄2", "0.5"),  # its own stroke
    ("３×１０^８", "3e8"),  # a power of ten
    ("3×10⁸", "3e8"),  # raised
    ("3×10⁻²", "0.03"),  # and negative
    ("５ｃｍ", "5 cm"),  # a unit
    ("5㎝", "5 cm"),  # in one character
    ("5㎡", "5 m^2"),  # an area
    ("27℃", "27 °C"),  # degrees
    ("￥500", "¥500"),  # a currency
    ("₹१,००,०००", "100000"),  # grouped as in India
    ("٣٫٥ km", "3.5 km"),  # Arabic decimals
    ("5 m/s", "5 meters/second"),  # names on both sides of a stroke
    ("dog", "dog"),  # texts go on as `exact` has it
    ("(B)", "b."),  # letters, too
]

DIFFERENT = [
    (None, "5"),  # nothing extracted
    ("", "5"),  # nothing said
    ("13", "12"),  # another number
    ("1/3", "0.33"),  # no rounding
    ("0.333", "1/3"),  # none at all
    ("2/1", "1/2"),  # upside down
    ("1/0", "0"),  # no quotient
    ("1/0", "1/0.0"),  # not even with itself
    ("0.5 %", "0.5"),  # a number up to 1 may be the share itself
    ("1 %", "1"),  # likewise
    ("50 %", "5"),  # another percentage
    ("5 cm", "5 m"),  # another unit
    ("5 cm", "0.05 m"),  # units are names
    ("5 cm", "5 cm^2"),  # a length is not an area
    ("5 m^2", "5 m^3"),  # an area no volume
    ("$5", "€5"),  # another currency
    ("12 apples", "12 pears"),  # other things
    ("1 1/2", "11/2"),  # mixed, not put together
    (r"1\frac{1}{2}", "5.5"),  # likewise
    ("5x", "5"),  # algebra
    ("5 x", "5"),  # with a space
    ("2pi", "2"),  # a constant
    (r"2\pi", "2"),  # in LaTeX
    (r"\sqrt{2}", "2"),  # a root
    ("2^2", "4"),  # no arithmetic
    ("2+2", "4"),  # none
    ("2*2", "4"),  # none
    ("5!", "5"),  # factorial
    ("2^3", "2"),  # a power is not a unit
    ("3²", "3"),  # nor here
    ("5x^2", "5"),  # algebra
    ("3xy", "3"),  # algebra
    ("2 ab", "2"),  # algebra
    ("5/x", "5"),  # a quotient
    ("8/", "8"),  # half of one
    ("5 trillion", "5"),  # more than a number
    ("5 dozen", "5"),  # likewise
    ("3 fifths", "3"),  # a fraction in words
    ("5 squared", "5"),  # a power in words
    ("5 below zero", "5"),  # a sign in words
    ("5 or 6", "5"),  # two answers
    ("5 and more", "5"),  # no unit
    ("5 to 6", "5"),  # a range
    ("5-6", "5"),  # a range
    ("5, 6", "5"),  # a list
    ("(3, 4)", "3"),  # a point
    ("12:30", "12"),  # a time
    ("5 of the apples", "5"),  # a sentence
    ("5 is the right one here", "5"),  # a sentence
    ("1e400", "1e401"),  # beyond what is read
    ("1e999999999", "0"),  # soon
    ("-5", "5"),  # sign
    ("--5", "5"),  # two signs
    ("1,2", "12"),  # two numbers
    ("12,00", "1200"),  # no thousands
    ("1 20", "120"),  # nor here
    ("x = 5", "6"),  # an equation
    ("－３", "3"),  # its sign
    ("5㎝", "5㎜"),  # another unit
    ("five", "5"),  # no words for digits
    ("B", "2"),  # a letter is not a number
    ("A", "B"),  # nor another letter
    ("__import__('os').getpid()", "1"),  # never run
]

SAME += [
    ("50 %", "50"),  # the sign left out
    ("60 percent", "60"),
    ("5 pct", "5%"),
    ("-20 %", "-20"),
    ("٢٧٪", "27"),  # in any script
    ("10 N", "10N"),  # symbols that differ from algebra by their case
    ("9.8 N", "9.8"),
    ("5 V", "5.0 volts"),
    ("5 W", "5 watts"),
    ("20 C", "20°C"),
    ("5 kJ", "5 kilojoules"),
    ("300 K", "300 kelvin"),
    ("50 Hz", "50 hertz"),
    ("5 N/m", "5 newtons/meter"),
    (r"5\ \Omega", "5\N{GREEK CAPITAL LETTER OMEGA}"),
    ("5 \N{OHM SIGN}", "5 ohms"),
    ("5 ms", "5 milliseconds"),
    ("5 nm", "5"),
    ("5 μm", "5 um"),
    ("2 GB", "2 gigabytes"),
    (r"3\times10^{8}", "3e8"),  # LaTeX as models write it
    (r"6.02\times10^{23}", r"6.02\times 10^{23}"),
    (r"3\cdot10^8", "3e8"),
    (r"9.11\times 10^{-31}", "9.11e-31"),
    ("10^3", "1000"),
    ("10^{-3}", "0.001"),
    (r"12\text{ cm}^{2}", "12"),
    ("12 cm^{2}", "12 cm^2"),
    (r"12 \mathrm{~cm}^{2}", "12 cm²"),
    (r"5 \text{ m/s}^{2}", "5 m/s^2"),
    (r"\frac{1}2", "1/2"),
    (r"\frac1{2}", "1/2"),
    (r"\cfrac{1}{2}", "1/2"),
    (r"\frac{1}{-2}", "-0.5"),
    (r"\left(5\right)", "5"),
    ("{5}", "5"),
    ("$5$ cm", "5 cm"),
    ("**5** cm", "5 cm"),
    (r"5,\!000", "5000"),
    (r"1\,1/2", "1.5"),
    (r"-\boxed{5}", "-5"),
    ("x = 5", "5"),  # the right side of an equation
    ("$x=5$", "5"),
    ("x=5", "x = 5.0"),
    ("AB = 5 cm", "5"),
    ("x_1 = 5", "5"),
    (r"\angle ABC = 30^\circ", "30"),
    ("2 + 3 = 5", "5"),
    ("=5", "5"),
    ("x ≈ 3.14", "3.14"),
    ("#### 5", "5"),  # as GSM8K ends
    ("5 hundred thousand", "500000"),  # scales behind one another
    ("2 hundred million", "200,000,000"),
    ("5 millions", "5000000"),  # in the plural
    ("5 mln", "5 million"),
    ("3 crore", "30000000"),
    ("$5 million", "5000000 dollars"),
    ("25°C", "25"),
    ("25 °C", "25 degrees Celsius"),
    ("77 °F", "77 degrees fahrenheit"),
    ("60 km per hour", "60 km/h"),
    ("60 mph", "60 miles per hour"),
    ("5 x 10^3", "5000"),  # a letter for the cross
    ("5 cm2", "5 cm^2"),
    ("⅙", "1/6"),  # every fraction that is one character
    ("1½", "1.5"),
    ("50¢", "50 cents"),
    (r"\frac12", "1/2"),  # braces left out
    ("$18 per day", "18"),  # a rate
    ("$18/day", "$18 per day"),
    ("US$18", "$18"),
    ("USD 4.50", "$4.5"),
    ("US$5 million", "$5M"),  # short scales
    ("$2.5B", "2.5 billion"),
    ("5k", "5000"),
    ("$5K", "5,000"),
    ("negative 3", "-3"),  # signs in words
    ("minus $5", "-5"),
    ("about 18", "18"),
    (r"\(5\) cm", "5 cm"),
    ("5-inch", "5 in"),
    (r"\angle A = 30^\circ", "30"),  # names that are letters of units
    ("m∠A = 30°", "30"),
    (r"\theta = 30^\circ", "30"),
    ("α = 30°", "30"),
    ("P(A) = 1/2", "0.5"),
    ("f(2) = 5", "5"),
    ("9 x 2 = 18", "18"),
    (r"$9 \times 2 = 18$", "18"),
    ("The area is 24 cm²", "24"),
    ("angle ABC is 30°", "30"),
    ("There are 5 apples", "5"),
    (r"x = 2\sqrt{3}", r"2\sqrt{3}"),  # what is not a quantity
    ("y = 2x + 3", "2x+3"),
]
DIFFERENT += [
    ("50 cm", "50%"),  # a percentage has no other unit
    ("0.5 cm", "50%"),
    ("50%", "50 apples"),
    ("$5 per day", "$5 per week"),
    ("$5M", "5"),
    ("$5M", "$5B"),
    ("5k", "5"),
    ("5k m", "5000"),
    ("5 mil", "5"),  # thousand, in Spanish
    ("5 millones", "5"),
    ("5-", "5"),
    ("10 minus 5", "-5"),
    ("about 5 or 6", "5"),
    ("The area is not 24", "24"),
    ("The area is 24 or 25", "24"),
    ("The wrong value is 24", "24"),
    ("If x is 24", "24"),
    ("half of x is 24", "24"),
    ("5 is 24", "24"),
    ("2f(x) = 5", "5"),
    ("1/x = 5", "5"),
    ("x/2 = 5", "5"),
    ("-x = 5", "5"),
    (r"\theta \neq= 30", "30"),
    (r"2x = 2\sqrt{3}", r"2\sqrt{3}"),
    (r"x = 2\sqrt{3} or x = \sqrt{3}", r"\sqrt{3}"),
    ("x =", "y ="),
    ("5 hundred thousand", "500"),
    ("5 millions", "5"),
    ("5 mln", "5"),
    ("5 n", "5"),  # algebra, not newtons
    ("5 N", "5 V"),
    ("3K", "3"),  # three thousand
    ("2x = 10", "10"),  # x is not 10
    (r"x \not= 5", "5"),
    (r"x \neq= 5", "5"),
    (r"\sqrt{x}=5", "5"),
    ("f'=5", "5"),
    ("3 = 5", "5"),
    ("no = 5", "5"),
    (r"\boxed{5} cm", "5 m"),
    (r"1\,1/2", "5.5"),
    ("x = 5 or x = 6", "6"),
    ("x = 5, y = 6", "6"),
    ("5 = x", "5"),
    ("1 third", "1"),  # parts
    ("1 half", "1"),
    ("7 tenths", "7"),
    ("5 tens", "5"),
    ("5 except two", "5"),
    ("5 undefined", "5"),
    ("25 °C", "25 °F"),
    (r"\frac123", "1/2"),  # whose digits are whose?
]


@pytest.mark.parametrize(("prediction", "gold"), SAME)
def test_these_are_the_same_quantity(prediction: str, gold: str) -> None:
    assert score_numeric(prediction, gold) == 1.0
    assert score_numeric(gold, prediction) == 1.0


@pytest.mark.parametrize(("prediction", "gold"), DIFFERENT)
def test_these_are_different_quantities(prediction: str | None, gold: str) -> None:
    assert score_numeric(prediction, gold) == 0.0
    if prediction is not None:
        assert score_numeric(gold, prediction) == 0.0


def test_a_number_that_two_choices_share_is_not_an_answer() -> None:
    assert score_numeric("5", "5 cm", ("5 cm", "5 m")) == 0.0
    assert score_numeric("5 centimeters", "5 cm", ("5 cm", "5 m")) == 1.0
    assert score_numeric("5", "5 cm", ("5 cm", "6 cm")) == 1.0
    assert score_numeric("5 centimeters", "C", ("3 cm", "4 cm", "5 cm")) == 1.0  # gold is a letter
    assert score_numeric("4 centimeters", "C", ("3 cm", "4 cm", "5 cm")) == 0.0


def test_a_letter_with_the_value_of_another_choice_is_not_an_answer() -> None:
    angles = ("30°", "45°", "60°")
    for prediction in ("A. 45", "A. $45^\\circ$", "(A) 45 degrees"):
        assert score_numeric(prediction, "A", angles) == score_numeric(prediction, "B", angles) == 0.0
    assert score_numeric("B. 45", "B", angles) == 1.0
    assert score_numeric("B. $45^\\circ$", "45°", angles) == 1.0


NUMBERS = st.fractions(max_denominator=999).map(lambda f: f % 100_000)
FORMS = ["{n}/{d}", r"\frac{{{n}}}{{{d}}}", r"\boxed{{\frac{{{n}}}{{{d}}}}}", "The answer is {n}/{d}.", "**{n} / {d}**"]
UNITS = st.sampled_from(["", " cm", " kg", " m^2", " apples", "°"])


@given(NUMBERS, st.sampled_from(FORMS), st.sampled_from(FORMS), UNITS)
def test_formatting_never_changes_the_value(value, left: str, right: str, unit: str) -> None:
    ours, gold = (form.format(n=value.numerator, d=value.denominator) for form in (left, right))
    assert score_numeric(ours, gold) == 1.0
    assert score_numeric(ours, right.format(n=value.numerator + value.denominator, d=value.denominator)) == 0.0
    assert score_numeric(f"{value.numerator}{unit}", str(value.numerator)) == 1.0


KNOWN = st.sampled_from([text for pair in (*SAME, *DIFFERENT) for text in pair if text is not None])


@given(KNOWN, KNOWN)
def test_symmetric(a: str, b: str) -> None:
    assert score_numeric(a, b) == score_numeric(b, a)


@settings(deadline=500)
@given(st.text(alphabet="0123456789+-*/^{}\\.,%$e cmfratx", max_size=60))
def test_any_text_is_read_quickly(text: str) -> None:
    found = parse_quantity(text)
    assert found is None or any(digit in text for digit in "0123456789")


@given(st.sampled_from("ABCDEFGH"), st.sampled_from("ABCDEFGH"))
def test_a_letter_never_matches_another_letter(a: str, b: str) -> None:
    assert score_numeric(a, b) == float(a == b)


@pytest.mark.parametrize("unit", ["1,", "1 ", r"\frac{", "1/", "$", "e1", "m ", "^2", "-"])
def test_hostile_repetition_is_read_quickly(unit: str) -> None:
    start = time.process_time()
    for count in (20_000, 64 // len(unit), 30):
        assert score_numeric(unit * count, "5") == 0.0
    assert time.process_time() - start < 1.0
