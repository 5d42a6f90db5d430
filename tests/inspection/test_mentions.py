"""Which candidates a sentence names: short answers are not found in other words, letters not in articles."""

from __future__ import annotations

from fractions import Fraction

import pytest

from balanced_thinking.data.example import Example
from balanced_thinking.inspection.conclusion import count_conclusions, find_answer_set, read_conclusion
from balanced_thinking.inspection.mentions import find_numbers, last_sentence, read_number

ANIMALS, SHADES = ("dog", "cat", "cow"), ("purple", "light purple", "green")

# reasoning, answer, choices, what the last sentence concludes with
CONCLUSIONS = [
    # options by text
    ("It barks. So it is a dog.", "dog", ANIMALS, "answer"),
    ("It is a dog.", "A", ANIMALS, "answer"),
    ("It is a DOG!", "dog", ANIMALS, "answer"),
    ("It is a cat.", "dog", ANIMALS, "other"),
    ("It is no dog, it is a cat.", "cat", ANIMALS, "answer"),
    ("It is a dog, then it is a cat.", "cat", ANIMALS, "unclear"),  # a list of two
    ("Unlike the cat in the barn, this one is the dog.", "dog", ANIMALS, "answer"),
    ("A cat or a dog sleeps.", "dog", ANIMALS, "unclear"),
    ("It eats dogfood.", "dog", ANIMALS, "nothing"),
    ("The dog barks. It is small.", "dog", ANIMALS, "nothing"),
    ("So they need care.", "cars", ("cars", "dogs"), "nothing"),
    ("It is one of the cats.", "cat", ANIMALS, "answer"),
    ("The color is light purple.", "light purple", SHADES, "answer"),
    ("The color is light purple.", "purple", SHADES, "other"),
    ("He feels safe.", "feel safe", ("feel safe", "run"), "answer"),
    # options by letter
    ("So the answer is B.", "B", ANIMALS, "answer"),
    ("So the answer is (C).", "B", ANIMALS, "other"),
    ("Option A fits.", "A", ANIMALS, "answer"),
    ("A look at the picture helps.", "A", ANIMALS, "nothing"),
    ("It has a tail.", "A", ANIMALS, "nothing"),
    ("As shown in picture B the sun is up.", "B", ANIMALS, "nothing"),
    ("Therefore **B**", "B", (), "answer"),
    ("The answer is D.", "(B)", (), "other"),
    ("This is a.", "A", (), "nothing"),
    ("It is C.", "C", ("A", "B", "C"), "answer"),
    ("(B) dog it is.", "(B)", ("(A) cat", "(B) dog"), "answer"),
    # numbers
    ("3 + 4 = 7.", "7", (), "answer"),
    ("3 + 4 = 8.", "7", (), "other"),
    ("He has 12 * 52 = 624 pages a year.", "624", (), "answer"),
    ("He is 24 years old because 4 x 6 = 24 and that is 1 of 2 ways.", "24", (), "answer"),
    ("There are 36.", "3", (), "other"),
    ("It costs $1,200.50 in total.", "1200.5", (), "answer"),
    ("It is 3.5 m.", "3", (), "other"),
    ("There are three.", "3", (), "answer"),
    ("It is half past 3:30 on the 3rd.", "3", (), "nothing"),
    ("It is 1/3 of all.", "3", (), "other"),
    ("Robot R3 wins.", "3", (), "nothing"),
    ("That makes 5 - 8 = -3.", "-3", (), "answer"),
    ("She needs 12 apples.", "12 apples", (), "answer"),
    ("The missing number should be 4.", "4", ("6", "3", "4"), "answer"),
    ("The number is 44.", "4", ("6", "3", "4"), "nothing"),
    # yes and no
    ("There is no cat, so no.", "no", (), "nothing"),  # only `... is no.` and `No, ...` are answers
    ("No, it is empty.", "no", (), "answer"),
    ("There is no cat.", "no", (), "nothing"),
    ("So the answer is yes.", "no", (), "other"),
    ("So the answer is true.", "true", (), "answer"),
    # other texts
    ("It was built in Paris.", "paris", (), "answer"),
    ("It was built in Lyon.", "paris", (), "nothing"),
    ("", "paris", (), "nothing"),
    # scripts without spaces, and with marks on letters
    ("因此答案是狗。", "狗", ("狗", "猫"), "answer"),
    ("因此答案是猫。", "狗", ("狗", "猫"), "other"),
    ("所以选B。", "B", ("狗", "猫"), "answer"),
    ("图中共有5个苹果。", "5", (), "answer"),
    ("因此是3个。", "5", (), "other"),
    ("图中有一只狗。", "是", (), "nothing"),
    ("这是一只狗。", "是", (), "nothing"),
    ("たてがみがある。だから馬です。", "馬", (), "answer"),
    ("答えは牛です。", "馬", ("馬", "牛"), "other"),
    ("मेरा उत्तर घोड़ा है।", "घोड़ा", (), "answer"),
    ("คำตอบคือม้า", "ม้า", (), "answer"),
]


@pytest.mark.parametrize(("think", "answer", "choices", "expected"), CONCLUSIONS)
def test_a_last_sentence_is_read(think: str, answer: str, choices: tuple[str, ...], expected: str) -> None:
    assert read_conclusion(Example("1", "?", (), think, answer, choices)) == expected


def test_frequent_answers_of_the_data_are_candidates() -> None:
    answers = ("red", "blue", "circle", "3", "A", "yes")
    rows = [Example(str(k), "?", (), "It is blue .", answers[k % 6]) for k in range(30)]
    assert find_answer_set(rows) == ("blue", "circle", "red")
    assert read_conclusion(rows[0], find_answer_set(rows)) == "other"
    # A list of facts is no conclusion, and neither is a description that names several.
    for last in ("north is red , south is blue .", "a blue circle .", "a red circle ."):
        listed = Example("1", "?", (), last, "red")
        assert read_conclusion(listed, find_answer_set(rows)) == "unclear"
    found = count_conclusions(rows)
    assert (found.answer, found.other) == (5, 10)  # of the six kinds of rows red and circle disagree
    assert find_answer_set([Example(str(k), "?", (), "x", f"word{k}") for k in range(100)]) == ()


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("One. Two.", "Two."),
        ("It costs 3.50 dollars.", "It costs 3.50 dollars."),
        ("Done. **Answer: 3**\n\n", "**Answer: 3**"),
        ("He sees Mr. Smith. ...", "He sees Mr. Smith."),
        ("它是狗。它叫。", "它叫。"),
        ("a b . c d .", "c d ."),
        ("", ""),
    ],
)
def test_the_last_sentence_is_found(text: str, last: str) -> None:
    assert last_sentence(text) == last


def test_numbers_of_a_sentence() -> None:
    assert [one.value for one in find_numbers("1,234 of 5.0, 1/2, -3 and 7-2")] == [1234, 5, Fraction(1, 2), -3, 7, 2]
    assert [read_number(text) for text in ("$1,200", "12 apples", "two", "3 or 4", "a 3 by a very long way")] == [
        1200,
        12,
        2,
        None,
        None,
    ]
