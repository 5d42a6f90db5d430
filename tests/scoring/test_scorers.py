r"""The exact scorer: one table of cases, then properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balanced_thinking.scoring.scorers import SCORERS, get_scorer, score_exact

ANIMALS = ("cat", "dog", "a red bird")
NUMBERS = ("6", "3", "4", "2")

SAME = [
    ("dog", "dog"),  # the same
    ("Dog", "dog"),  # case
    ("  a  red\n bird ", "A red bird"),  # white space
    ("dog.", "dog"),  # full stop
    ('"dog"', "dog"),  # quotes
    ("“dog”", "dog"),  # typographic quotes
    ("**dog**", "dog"),  # markdown
    ("`dog`", "dog"),  # code
    ("(dog)", "dog"),  # brackets
    ("*Dog*.", "dog"),  # several layers
    ("Final Answer: dog", "dog"),  # opening
    ("Final Answer:dog", "dog"),  # as Vision-R1-cold writes it
    ("dog", "Final Answer: dog"),  # and as gold
    ("The answer is dog.", "dog"),  # a sentence
    ("So, the correct answer is: dog", "dog"),  # a longer opening
    ("Therefore the final answer is dog", "dog"),  # another one
    ("**Answer:** dog", "dog"),  # opening in markdown
    ("**Final Answer: dog**", "dog"),  # all of it in markdown
    ("answer = dog", "dog"),  # equals sign
    ("B", "B"),  # letters
    ("b", "B"),  # lower case
    ("(B)", "B"),  # brackets
    ("[B]", "B"),  # square ones
    ("B.", "B"),  # a dot
    ("b)", "B"),  # half a bracket
    ("B:", "B"),  # a colon
    ("**B**", "B"),  # markdown
    ("B. dog", "B"),  # letter and text
    ("(B) dog", "B"),  # the same in brackets
    ("(B). dog", "B"),  # as Vision-R1-cold writes it
    ("B) dog", "B"),  # half a bracket and text
    ("B: dog", "B"),  # colon and text
    ("B", "B. dog"),  # gold with its text
    ("option B", "B"),  # in words
    ("Option (B)", "B"),  # in words and brackets
    ("choice b.", "B"),  # other words
    ("Final Answer: option B", "B"),  # opening and words
    ("The correct option is (B) dog.", "B"),  # everything at once
    ("Final Answer:C", "c"),  # gold in lower case
    ("(A). text", "text"),  # a letter before the right text
    ("B. dog", "dog"),  # likewise
    (r"\boxed{B}", "B"),  # LaTeX
    (r"\boxed{\text{B}}", "(B)"),  # nested LaTeX
    (r"$\boxed{12}$", "12"),  # in mathematics
    (r"\text{dog}", "dog"),  # text in LaTeX
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),  # braces inside
    (r"The answer is \(12\).", "12"),  # inline mathematics
    ("12", "12.0"),  # numbers
    ("12.", "12"),  # a full stop, not a decimal point
    ("1,200", "1200"),  # thousands
    ("1,234,567.50", "1234567.5"),  # thousands and decimals
    ("+5", "5"),  # sign
    ("−5", "-5"),  # typographic minus
    (".5", "0.5"),  # no leading zero
    ("007", "7"),  # leading zeros
    ("(4)", "4"),  # a number in brackets
    ("**Answer:** $1{,}000$", "1{,}000"),  # LaTeX's thousands are text
    ("5 %", "5 %"),  # units as they are
    ("Café", "Cafe\u0301"),  # composed and decomposed
    ("C. elegans", "c. elegans"),  # a name that begins like an option
    ("N/A", "n/a"),  # no option
]

DIFFERENT = [
    (None, "dog"),  # nothing extracted
    ("", "dog"),  # empty
    ("", ""),  # nothing is never right
    ("...", "dog"),  # punctuation only
    ("cat", "dog"),  # another text
    ("A", "B"),  # another letter
    ("(a)", "B."),  # another letter in other clothes
    ("A. dog", "B. dog"),  # same text, another letter
    ("B. cat", "B. dog"),  # same letter, another text
    ("dog", "B"),  # without choices a text does not match a letter
    ("B or C", "B"),  # two options
    ("B, C", "B"),  # two options
    ("b dog", "B"),  # no mark after the letter
    ("A dog", "A"),  # the article
    ("e.g. a dog", "E"),  # an abbreviation
    ("a.m.", "A"),  # another one
    ("C. briggsae", "C. elegans"),  # another species
    ("I", "1"),  # a roman number
    ("13", "12"),  # another number
    ("1.2", "12"),  # a decimal point is not noise
    (".5", "5"),  # a leading one neither
    ("-5", "5"),  # sign
    ("12 %", "12"),  # unit
    ("12°", "12"),  # degrees
    ("$5", "5"),  # currency
    ("1/2", "0.5"),  # no arithmetic
    ("2+2", "4"),  # none at all
    ("5!", "5"),  # factorial
    ("f'", "f"),  # derivative
    ("1e3", "1000"),  # no exponents
    ("1,2", "12"),  # no thousands: two numbers
    ("12,00", "1200"),  # nor here
    ("[3, 4]", "(3, 4)"),  # closed and open interval
    (r"\boxed{1} + \boxed{2}", "1} + \\boxed{2"),  # two boxes are not one
    ("'a' or 'b'", "a' or 'b"),  # two pairs of quotes
    ("１２", "12"),  # full-width digits are another text
    ("nan", "0"),  # not a number
    ("__import__('os')", "os"),  # never run
    ("the answer is", "answer"),  # an opening with nothing after it
]

WITH_CHOICES = [
    ("B", "dog", ANIMALS, 1),  # letter for a text
    ("(b)", "dog", ANIMALS, 1),  # in brackets
    ("dog", "B", ANIMALS, 1),  # text for a letter
    ("The answer is dog.", "B", ANIMALS, 1),  # in a sentence
    ("B. dog", "dog", ANIMALS, 1),  # both
    ("B. doggy", "B", ANIMALS, 1),  # the letter decides over a text that is not a choice
    ("B. cat", "B", ANIMALS, 0),  # a letter with another choice's text is not an answer
    ("B. cat", "cat", ANIMALS, 0),  # to neither side
    ("cat", "B", ANIMALS, 0),  # another text
    ("A", "dog", ANIMALS, 0),  # another letter
    ("F", "dog", ANIMALS, 0),  # a letter beyond the choices
    ("doggy", "B", ANIMALS, 0),  # no choice at all
    ("c", "A red bird", ANIMALS, 1),  # a choice of several words
    ("C", "4", NUMBERS, 1),  # letter for a number
    ("4.0", "C", NUMBERS, 1),  # number for a letter
    ("3", "4", NUMBERS, 0),  # a number is not a place: 4 is the third choice
    ("(C) 6", "4", NUMBERS, 0),  # the right letter next to a wrong number
    ("B. dog", "B", ("A", "B", "C"), 1),  # choices that are bare labels
    ("C", "B", ("A", "B", "C"), 0),  # still another letter
    ("A", "B", ("B", "A"), 0),  # letters in another order are texts
    ("(A) B", "B", ("B", "A"), 1),  # also behind their place
    ("(A) C", "B", ("B", "C"), 0),  # a position and a text that differ are not an answer
    ("B", "dog", ("(A) cat", "(B) dog"), 1),  # choices with labels of their own
    ("B", "C. elegans", ("E. coli", "C. elegans"), 1),  # a choice that looks like another option
    ("C. elegans", "B", ("E. coli", "C. elegans"), 1),  # and the other way round
    ("horse", "horse", ANIMALS, 1),  # gold is not a choice: compared as texts
    ("A", "horse", ANIMALS, 0),  # likewise
]


@pytest.mark.parametrize(("prediction", "gold"), SAME)
def test_these_answers_match(prediction: str, gold: str) -> None:
    assert score_exact(prediction, gold) == 1.0
    assert score_exact(gold, prediction) == 1.0


@pytest.mark.parametrize(("prediction", "gold"), DIFFERENT)
def test_these_answers_do_not_match(prediction: str | None, gold: str) -> None:
    assert score_exact(prediction, gold) == 0.0
    if prediction is not None:
        assert score_exact(gold, prediction) == 0.0


@pytest.mark.parametrize(("prediction", "gold", "choices", "score"), WITH_CHOICES)
def test_choices_connect_letters_and_texts(prediction: str, gold: str, choices: tuple[str, ...], score: int) -> None:
    assert score_exact(prediction, gold, choices) == score


ANSWERS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="aB()[]. :,$*\\{}12.-\"'", max_size=12),
    st.from_regex(r"(Final Answer: )?\(?[A-H][.)]? ?(dog|cat|12)?", fullmatch=True),
)
LETTERED = st.sampled_from(
    ("{}", "({})", "{}.", "{})", "option {}", "**{}**", r"\boxed{{{}}}", "The answer is {}", "{}. dog")
)


@given(ANSWERS, ANSWERS)
def test_symmetric(a: str, b: str) -> None:
    assert score_exact(a, b) == score_exact(b, a)


@given(ANSWERS.filter(lambda text: any(c.isalnum() for c in text)))
def test_an_answer_with_a_letter_or_digit_is_itself(text: str) -> None:
    assert score_exact(text, text) == 1.0


@given(st.sampled_from("ABCDEFGH"), st.sampled_from("ABCDEFGH"), LETTERED, LETTERED, st.booleans())
def test_a_letter_matches_itself_and_never_another(a: str, b: str, left: str, right: str, lower: bool) -> None:
    prediction = left.format(a.lower() if lower else a)
    assert score_exact(prediction, right.format(b)) == float(a == b)


@given(st.permutations(ANIMALS), st.integers(0, 2), st.integers(0, 2), LETTERED.filter(lambda form: "dog" not in form))
def test_a_letter_and_the_text_of_its_choice_are_one_answer(choices: list[str], i: int, j: int, form: str) -> None:
    assert score_exact(form.format("ABC"[i]), choices[j], choices) == float(i == j)
    assert score_exact(choices[j], form.format("ABC"[i]), choices) == float(i == j)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3), st.integers(0, 5))
def test_a_number_is_its_value(value, zeros: int) -> None:
    plain = f"{value:f}"
    assert score_exact(plain + "0" * zeros, plain) == 1.0
    assert score_exact(f"{value:,f}", plain) == 1.0
    assert score_exact(f"{value + 1:f}", plain) == 0.0


@given(st.text())
def test_any_text_gets_zero_or_one(text: str) -> None:
    assert score_exact(text, "dog", ANIMALS) in (0.0, 1.0)


@pytest.mark.parametrize("unit", [r"\text{", "(", "$", "the answer is ", "**", "1,", "a. ", "9", "option ", "' "])
def test_hostile_repetition_is_read_quickly(unit: str) -> None:
    """Without a bound on layers or a backtracking expression this would take minutes."""
    assert score_exact(unit * 20_000 + "}" * 20_000, "dog") == 0.0
    assert score_exact(unit * 20_000, "dog", ANIMALS) == 0.0


def test_an_unknown_scorer_is_named_with_the_nearest_one() -> None:
    assert get_scorer("exact") is SCORERS["exact"]
    with pytest.raises(ValueError, match=r"'exakt' \(did you mean 'exact'\?\)"):
        get_scorer("exakt")
