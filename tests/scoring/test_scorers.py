r"""The exact scorer: one table of cases, then properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balanced_thinking.scoring.scorers import SCORERS, get_scorer, score_exact, score_numeric

ANIMALS = ("cat", "dog", "a red bird")
NUMBERS = ("6", "3", "4", "2")

MARKS = (".", ",", ";")
GAMES = ("What a game.", "What a game!", "What a game?")
CONCLUDED = ("Yes. The answer is 5", "No. The answer is 5")
TEN = tuple(f"animal {number}" for number in range(10))
FORMS_OF_TEN = ("{}", "({})", "{}.", "{})", "[{}]", "Option {}", "{}. an animal", "{}: an animal", "({}) an animal")
# Two answers, which are right for neither letter.
TWO_OPTIONS = (
    "A or B",
    "A and B",
    "A/B",
    "A, B",
    "A & B",
    "both A and B",
    "either A or B",
    "option A or option B",
    "(A) or (B)",
    "(A)(B)",
    "A. or B.",
    "A. B.",
    "A. cat or B. dog",
    "A. cat or maybe B. dog",
    "A. cat and option B",
    "A. cat or B",
    "A. cat, B. dog",
    "A. cat / B. dog",
    "A. cat; (B) dog",
    "A. cat. B. dog",
    "A. cat\nB. dog",
    "A. cat B. dog C. owl",
    "A. cat B. dog",
    "A) cat B) dog",
    "A: cat B: dog",
    "A. 3 B. 4",
    "A. B. C. D.",
    "A. Wait, the answer is B",
    "A. No, the correct answer would be (B).",
    "(A) cat (B) dog",
    "a) cat or b) dog",
    "[A] cat Or [B] dog",
    "Ａ．ｃａｔ or Ｂ．ｄｏｇ",
    "**A. cat or B. dog**",
    r"\boxed{A. cat or B. dog}",
    "The answer is A. cat or B. dog.",
    "The answer is A. No, wait, it is B.",  # a correction
    "A. Wait, no: B",
    "A\nB",
    "A\nB\nC\nD",
    "A\n\nNo, B",
    "A\nExplanation: The right choice is B",
    '{"answer": "A or B"}',
    "<answer>A</answer><answer>B</answer>",
    "[[A],[B]]",
    "It is A or B",
)
# One answer, though its text may look like two.
ONE_OPTION = (
    "A. cat or dog",
    "A. a cat or a bat",
    "A. cat, not B. dog",
    "A. cat, because B. dog is too large",
    "A. 5 km/h",
    "A. J. B. Priestley",
    "A - cat",
    "**Option A**: cat",
    "A is correct.",
    "(A) is the right answer",
    "I choose A",
    "I would go with option A.",
    "The answer would be A",
    "Ans: A",
    "**Answer** - A",
    "### Answer\nA",
    "#### A",
    '["A"]',
    '{"answer": "A"}',
    "选A",
    "答案选A",
    r"\boxed{\textbf{(A)}\ cat}",
    r"So it is \boxed{A}",
    "**Final Answer**\n\n\\boxed{A}",
    "### Final Answer\n$$\n\\boxed{A}\n$$",
    "First \\boxed{B}.\nNo: \\boxed{A}",
    "A. Vitamin B. It helps",
    "It has whiskers. So the answer is A.",
    "I think the correct option is (A).",
    "Whiskers and paws.\n\n**Answer:** A",
    "At first B. But the answer must be A",
    "它有胡子。答案是A",
    "A. vitamin B",
    "A. see panel (B)",
    "(A) the cat (a mammal)",
    r"\boxed{\text{A}}",
    r"$\mathbf{(A)}$",
    "**A)** cat",
    "**A** cat",
    "**A**: cat",
    r"\boxed{A}. cat",
    r"\text{(A)} cat",
    r"\boxed{\textbf{(A) } cat}",  # as AMC writes it
    "Option A is correct.",
    "Hence, option A is correct.",
    "A is the answer",
    "It is A",
    "The letter A.",
    "Ans. A",
    "A because it has whiskers",  # a reason after the letter
    "A, because B is a dog",
    "A, not B",
    "A rather than B",
    "A\n\nIt has whiskers.",  # on lines of its own
    "A\nB barks",
    "A\n\n**Explanation:** B barks.",
    "A. Sure, it has whiskers",
    "[[A]]",
    "<answer>A</answer>",  # tags of another format
    "<|begin_of_box|>A<|end_of_box|>",
    '{"reason": "it has whiskers, so B is out", "answer": "A"}',
    '```json\n{"answer": "A", "sure": 1}\n```',
    "La respuesta es A",
    "Die Antwort ist A.",
    "Ответ: A",
    "答え: A",
)

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
    ("A,C", "A, C"),  # white space beside punctuation
    ("(3,4)", "(3, 4)"),
    ("[1,2]", "[1, 2]"),
    ("2x+3", "2x + 3"),
    ("y=2x+3", "y = 2x + 3"),
    (r"2\sqrt{3}", r"2 \sqrt{3}"),
    (r"\left(3,4\right)", "(3, 4)"),
    (r"5,\!000", "5000"),
    ("5:30PM", "5:30 PM"),
    ("yes!", "yes"),
    ("The total is:\n\n\\boxed{2}", "2"),  # the last box
    ("x = 5", "x=5"),
    ("3 + 2 = 5\n#### 5", "5"),  # as GSM8K ends
    ("There are five. The answer is 5.", "5"),
    ("Café", "Cafe\u0301"),  # composed and decomposed
    ("C. elegans", "c. elegans"),  # a name that begins like an option
    ("N/A", "n/a"),  # no option
    # Other widths and scripts.
    ("Ｂ", "B"),  # a full-width letter
    ("（Ｂ）", "b"),  # and its brackets
    ("［Ｂ］", "B"),  # square ones
    ("Ｂ．ｄｏｇ", "B. dog"),  # the wide dot has its space inside
    ("Ｂ：犬", "B"),  # a script without spaces
    ("Ｂ、犬", "B"),  # and its comma
    ("ｏｐｔｉｏｎ　Ｂ", "B"),  # an ideographic space
    ("【Ｂ】", "B"),  # other brackets
    ("答案：Ｂ", "B"),  # an opening in Chinese
    ("正确答案是Ｂ。", "B"),  # a sentence
    ("选项Ｂ", "B"),  # option B
    ("Ⓑ", "B"),  # a circled letter
    ("𝐁", "B"),  # a mathematical one
    (r"\boxed{Ｂ}", "B"),  # in LaTeX
    ("\u200fB\ufeff", "B"),  # marks that nobody sees
    ("１２．５", "12.5"),  # full-width digits
    ("－３", "-3"),  # sign
    ("＋３", "3"),  # the other sign
    ("１，２００", "1200"),  # thousands
    ("‐3", "-3"),  # a hyphen
    ("–3", "-3"),  # a dash
    ("١٢٫٥", "12.5"),  # Arabic-Indic, its decimal point
    ("١٬٢٠٠", "1200"),  # its thousands
    ("۱۲", "12"),  # Persian
    ("१२.५", "12.5"),  # Devanagari
    ("१२।", "12"),  # with its full stop
    ("১২", "12"),  # Bengali
    ("๑๒", "12"),  # Thai
    ("௧௨", "12"),  # Tamil
    ("၁၂", "12"),  # Burmese
    ("𝟏𝟐", "12"),  # mathematical
    ("१,००,०००", "100000"),  # grouped as in India
    ("٢٧٪", "27 %"),  # an Arabic percentage
    ("２７％", "27%"),  # a full-width one
    ("২৭ %", "27%"),  # with a space
    ("%27", "27 %"),  # the sign before the number, as in Turkish
    ("٪٢٧", "27%"),  # likewise
    ("12。", "12"),  # a full stop
    ("ﾄﾞｱ", "ドア"),  # half-width letters
    # Only punctuation.
    (".", "."),  # stays
    ("...", "..."),  # all of it
    (";", "Answer: ;"),  # after an opening
    ('"."', "."),  # quoted
    ("**:**", ":"),  # in markdown
    (r"\boxed{;}", ";"),  # boxed
    ("?", "(?)"),  # in brackets
    ("。", "。"),  # of another script
    ("．", "."),  # full-width
    ("😀.", "😀"),  # a full stop after a sign that is no letter
    ("A or B", "A or B"),  # the same two
    ("a dog", "dog"),  # an article
    ("The dog.", "a dog"),
    ("It's a dog", "the dog"),
    ("dog\n\nExplanation: it barks, as cats do not.", "dog"),
    ("don’t", "don't"),  # typographic
    ("‘dog’", "dog"),
    (r"\dfrac{\sqrt3}{2}", r"\frac{\sqrt{3}}{2}"),  # other spellings of the same LaTeX
    ("x^{2}+1", "x^2+1"),
    ("2√3", r"2\sqrt{3}"),
    ("6 π", r"6\pi"),
    ("H₂O", "H2O"),
    ("Yes, it is.", "yes"),  # a sentence
    ("No: there are no dogs", "no"),
    ("True, it is", "true"),
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
    ("1, 200", "1,200"),  # two numbers
    ("x = 5", "5"),  # an equation
    ("n!", "n"),  # factorial
    ("K!", "K"),
    (r"-\boxed{5}", "5"),  # what is beside a box counts
    (r"2\boxed{5}", "5"),
    (r"\boxed{1}/2", "1"),
    (r"\boxed{5} million", "5"),
    (r"\boxed{A} or B", "A"),
    (r"First \boxed{B}, no: \boxed{A}", "B"),
    (r"2\,3", "23"),  # a LaTeX space is one
    ("1, 200 apples", "1,200 apples"),
    ("C - 3", "C"),  # algebra
    ("C - 3", "3"),
    ("the wrong answer is B", "B"),
    ("The answer is 5. No.", "5"),  # no conclusion
    ("Whether the answer is B\nor C", "B"),
    ("A,C", "A, B"),  # other options
    (r"\boxed{}", "dog"),  # an empty box
    (r"\boxed{2", "2"),  # one that is never closed
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
    ("nan", "0"),  # not a number
    ("__import__('os')", "os"),  # never run
    ("the answer is", "answer"),  # an opening with nothing after it
    ("the answer is:", ":"),  # likewise
    ("１３", "12"),  # another number in any script
    ("－３", "3"),  # its sign counts
    ("٢٧", "27%"),  # and its percent sign
    ("Ａ", "B"),  # another letter
    (r"\sqrt{b}", "B"),  # mathematics
    ("１，２", "12"),  # two numbers
    ("Ｅ．ｇ．", "E"),  # an abbreviation
    (".", ","),  # other punctuation
    (".", ".."),  # more of it
    (".", ""),  # is not nothing
    ("?", "!"),
    ("?!", "?"),
    ("。", "."),  # another sign
    ("—", "-"),  # another dash
    ("(", ")"),
    (r"not \boxed{5}", "5"),  # a box that is denied
    ("It is not B", "B"),
    ("Option B is not correct", "B"),
    ("a b", "b"),  # letters, no article
    ("A dog", "dog"),
    ("the hot dog", "dog"),
    ("the", "a"),
    ("no dog", "dog"),
    (r"\sqrt12", r"\sqrt{12}"),  # the root of 1, times 2
    ("√3x", r"\sqrt{3x}"),
    ("x^{12}", "x^12"),
    ("101₂", "1012"),  # a base
    ("its", "it’s"),
    ("Yes, but no", "yes"),
    ("No, wait. Yes.", "no"),
    ("No, I don't know", "no"),
    ("yes\nno", "yes"),
    ("no one", "no"),
    ("Yes, it is", "Yes, it was"),
    ("Yes, it is", "true"),
    *((text, letter) for text in TWO_OPTIONS for letter in "AB"),
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
    ("What a game.", "What a game!", GAMES, 0),  # choices that differ in their marks alone
    ("What a game!", "B", GAMES, 1),
    ("B", "What a game!", GAMES, 1),
    ("B. What a game!", "B", GAMES, 1),
    ("Yes. The answer is 5", "B", CONCLUDED, 0),
    ("No. The answer is 5", "B", CONCLUDED, 1),
    ("A", "No. The answer is 5", CONCLUDED, 0),
    ("a=1", "B", ("a = 1", "a=1"), 1),
    ("a = 1", "B", ("a = 1", "a=1"), 0),
    ("B dog", "B", ANIMALS, 1),  # a letter and its own text, whatever is between them
    ("B, dog", "B", ANIMALS, 1),
    ("b - dog", "B", ANIMALS, 1),
    ("B (dog)", "B", ANIMALS, 1),
    ("B.dog", "B", ANIMALS, 1),
    ("dog (B)", "B", ANIMALS, 1),
    ("Option B - dog", "dog", ANIMALS, 1),
    ("B cat", "B", ANIMALS, 0),  # with another text
    ("cat (B)", "B", ANIMALS, 0),
    ("a dog", "A", ANIMALS, 0),  # the article
    ("the dog", "B", ANIMALS, 1),
    ("dog (option B)", "B", ANIMALS, 1),
    ("cat (option B)", "B", ANIMALS, 0),
    ("B. the cat", "B", ANIMALS, 0),  # with another text
    ("cat", "B", ("the cat", "a cat"), 0),  # either
    ("The cat", "A", ("the cat", "a cat"), 1),
    ("Yes, it is", "A", ("yes", "no"), 1),
    ("No, it does not", "no", ("yes", "no"), 1),
    ("No, it does not", "A", ("yes", "no"), 0),
    ("No, A", "no", ("yes", "no"), 0),
    ("B. Yes, it is", "A", ("yes", "no"), 0),
    *((form.format(letter), "J", TEN, int(letter == "J")) for form in FORMS_OF_TEN for letter in "HIJ"),
    ("Ｂ", "dog", ANIMALS, 1),  # a full-width letter for a text
    ("ｄｏｇ", "B", ANIMALS, 1),  # a full-width text for a letter
    ("٤", "C", NUMBERS, 1),  # an Arabic number for a letter
    (".", ".", MARKS, 1),  # punctuation
    (";", ";", MARKS, 1),
    (";", "C", MARKS, 1),  # for its letter
    ("C", ";", MARKS, 1),  # a letter for it
    ("(C) ;", ";", MARKS, 1),  # both
    ("A", ";", MARKS, 0),  # another letter
    (",", ";", MARKS, 0),  # another mark
    ("A. ;", ";", MARKS, 0),  # a letter with another choice's mark
    ("A. ;", ".", MARKS, 0),  # is not an answer to either
    ("[]", "B", ("()", "[]", "{}"), 1),  # pairs
    ("()", "B", ("()", "[]", "{}"), 0),
    ("–", "-", ("-", "–", "—"), 0),  # dashes of three lengths
    ("–", "B", ("-", "–", "—"), 1),
    ("×", "C", ("+", "-", "×", "÷"), 1),  # signs
    ("．", ".", (".", "．"), 0),  # widths, where they are the question
    ("A. dog or cat", "A", ("dog or cat", "owl"), 1),  # the text of a choice
    ("dog or cat", "A", ("dog or cat", "owl"), 1),  # alone
    ("A. dog or cat", "A", ("dog", "cat"), 0),  # the texts of two
    ("A. dog, cat", "dog", ("dog", "cat"), 0),
    ("D. Both A and B", "D", ("dog", "cat", "owl", "Both A and B"), 1),  # a choice about choices
    ("both A and B", "D", ("dog", "cat", "owl", "Both A and B"), 1),
    ("D", "Both A and B", ("dog", "cat", "owl", "Both A and B"), 1),
    ("A. vitamin A or B", "A", ("vitamin A or B", "vitamin C"), 1),  # letters inside a choice's text
    *((text, letter, ("cat", "dog", "owl"), 0) for text in TWO_OPTIONS for letter in "AB"),
]


@pytest.mark.parametrize(("prediction", "gold"), SAME)
def test_these_answers_match(prediction: str, gold: str) -> None:
    assert score_exact(prediction, gold) == 1.0
    assert score_exact(gold, prediction) == 1.0


@pytest.mark.parametrize("prediction", ONE_OPTION)
def test_one_option_is_an_answer_whatever_its_text(prediction: str) -> None:
    assert score_exact(prediction, "A") == 1.0
    assert score_exact(prediction, "B") == 0.0


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


@given(ANSWERS.filter(lambda text: text.strip() and not set(text) & set("\u200b\ufeff\xad")))
def test_an_answer_is_itself(text: str) -> None:
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


@pytest.mark.parametrize(
    "unit",
    [
        r"\text{",
        "(",
        "$",
        "the answer is ",
        "**",
        "1,",
        "a. ",
        "9",
        "option ",
        "' ",
        "or ",
        "A. or B",
        "٢",
        "A. B. ",
        "\n#",
        "no ",
        "yes, ",
        '{"a", ',
        "√1",
    ],
)
def test_hostile_repetition_is_read_quickly(unit: str) -> None:
    """Without a bound on layers or a backtracking expression this would take minutes."""
    assert score_exact(unit * 20_000 + "}" * 20_000, "dog") == 0.0
    assert score_exact(unit * 20_000, "dog", ANIMALS) == 0.0


def test_an_unknown_scorer_is_named_with_the_nearest_one() -> None:
    assert get_scorer("exact") is SCORERS["exact"]
    with pytest.raises(ValueError, match=r"'exakt' \(did you mean 'exact'\?\)"):
        get_scorer("exakt")


GENOTYPES, PREFIXES = ("AA", "Aa", "aa"), ("5 Mg", "5 mg")
LETTERED = ("A. AA", "B. Aa", "C. aa")
CASES = [
    # (prediction, gold, choices, points): choices that differ in case alone
    ("AA", "Aa", GENOTYPES, 0.0),
    ("aa", "Aa", GENOTYPES, 0.0),
    ("Aa", "Aa", GENOTYPES, 1.0),
    ("The answer is Aa.", "Aa", GENOTYPES, 1.0),
    (r"\boxed{aa}", "aa", GENOTYPES, 1.0),
    ("B", "Aa", GENOTYPES, 1.0),
    ("A", "Aa", GENOTYPES, 0.0),
    ("Aa", "B", GENOTYPES, 1.0),
    ("AA", "B", GENOTYPES, 0.0),
    ("aA", "aa", GENOTYPES, 0.0),  # none of them
    ("(C) aa", "C", GENOTYPES, 1.0),
    ("aa", "C", LETTERED, 1.0),
    ("aa", "A", LETTERED, 0.0),
    ("aA", "C", LETTERED, 0.0),
    ("(C) aa", "aa", LETTERED, 1.0),
    ("B. AA", "B", GENOTYPES, 0.0),  # the letter of one choice, the text of another
    ("B", "m", ("M", "m"), 1.0),
    ("m", "M", ("M", "m"), 0.0),
    ("5 mg", "5 mg", PREFIXES, 1.0),
    ("5 Mg", "5 mg", PREFIXES, 0.0),
    ("DOG", "dog", ("dog", "cat"), 1.0),  # elsewhere case does not count
    ("dog", "dog", ("dog", "dog"), 1.0),
    ("WHAT A GAME!", "What a game!", ("What a game.", "What a game!"), 1.0),
]


@pytest.mark.parametrize(("prediction", "gold", "choices", "points"), CASES)
def test_case_counts_between_choices_that_differ_in_it_alone(
    prediction: str, gold: str, choices: tuple[str, ...], points: float
) -> None:
    assert score_exact(prediction, gold, choices) == points
    assert score_numeric(prediction, gold, choices) == points
