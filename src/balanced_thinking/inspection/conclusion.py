"""What a reasoning concludes: whether its last sentence states the answer, another candidate, or neither.

No model is needed: options, numbers and a data set's own small set of answers are looked for in the text (`mentions`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from balanced_thinking.data.example import Example
from balanced_thinking.inspection.mentions import (
    Candidate,
    Key,
    Mention,
    find_mentions,
    find_numbers,
    last_sentence,
    read_number,
)
from balanced_thinking.scoring.answers import Answer, find_choice, parse_answer

# What a last sentence does with the answer.
ANSWER, OTHER, UNCLEAR, NOTHING = "answer", "other", "unclear", "nothing"
_MAX_ANSWERS, _ROWS_PER_ANSWER, _MAX_WORDS = 64, 5, 3  # of a data set's own set of answers
_LETTERS = "ABCDEFGH"
_OPPOSITES = ({"yes", "no"}, {"true", "false"})
_VALUE: Key = "value"


def find_answer_set(examples: Sequence[Example]) -> tuple[str, ...]:
    """The words that are answers again and again (`red`, `circle`); () where answers are many or long."""
    texts = [answer.full for answer in (parse_answer(e.answer) for e in examples) if _is_word(answer)]
    counts = Counter(texts)
    few = 0 < len(counts) <= min(_MAX_ANSWERS, len(examples) // _ROWS_PER_ANSWER)
    return tuple(sorted(counts)) if few else ()


def _is_word(answer: Answer) -> bool:
    if answer.letter or not isinstance(answer.text, str) or read_number(answer.full) is not None:
        return False
    return len(answer.full.split()) <= _MAX_WORDS and not any(answer.full in pair for pair in _OPPOSITES)


def read_conclusion(example: Example, answer_set: Sequence[str] = ()) -> str:
    """What the last sentence of the reasoning concludes with: ANSWER, OTHER, UNCLEAR (of several), or NOTHING."""
    sentence = last_sentence(example.think or "")
    answer = parse_answer(example.answer, len(example.choices))
    choices = [parse_answer(choice) for choice in example.choices]
    index = find_choice(answer, choices) if len(choices) > 1 else None
    if index is not None:
        return _judge(_find_options(sentence, example.choices, answer_set), index)
    if answer.letter and not isinstance(answer.text, str):
        letters = [Candidate(letter, (), letter) for letter in _LETTERS]
        return _judge(find_mentions(sentence, letters), answer.letter.upper())
    if (number := read_number(answer.full)) is not None:
        return _judge_numbers([one.mention for one in find_numbers(sentence)], number)
    texts = (answer.full, *(parse_answer(text).full for text in example.alternatives))
    pair = next((pair for pair in _OPPOSITES if answer.full in pair), None)
    others = sorted(pair) if pair else answer_set
    rest = [Candidate(text, (text,)) for text in others if text not in texts]
    return _judge(find_mentions(sentence, [Candidate(_VALUE, texts), *rest]), _VALUE)


def _find_options(sentence: str, choices: Sequence[str], answer_set: Sequence[str]) -> list[Mention]:
    """The mentions of options (key: their index) and of the data set's other answers (key: their text)."""
    texts = [parse_answer(choice) for choice in choices]
    lettered = all(one.letter and one.text is None for one in texts)
    words = [one.full if one.text is None or not one.letter else str(one.text) for one in texts]  # "(B) dog": dog
    options = [
        Candidate(k, () if lettered else (text,), text.upper() if lettered else _LETTERS[k : k + 1] or None)
        for k, text in enumerate(words)
    ]
    known = set(words)
    return find_mentions(sentence, [*options, *(Candidate(t, (t,)) for t in answer_set if t not in known)])


def _judge(mentions: Sequence[Mention], right: Key) -> str:
    """The only candidate counts, or the last one where it is introduced as a result and is not the end of a list."""
    if not mentions:
        return NOTHING
    last = mentions[-1]
    if len({one.key for one in mentions}) == 1:
        return ANSWER if last.key == right else OTHER if last.introduced else UNCLEAR
    if not last.introduced or _ends_list(mentions):
        return UNCLEAR
    return ANSWER if last.key == right else OTHER


def _judge_numbers(mentions: Sequence[Mention], right: Key) -> str:
    """As `_judge`, and the result of a calculation (`=`) counts wherever it stands."""
    if any(one.introduced == "=" and one.key == right for one in mentions):
        return ANSWER
    return _judge(mentions, right)


def _ends_list(mentions: Sequence[Mention]) -> bool:
    """Whether other candidates are introduced as the last one is: `north is red , east is blue`."""
    *others, last = mentions
    return last.introduced != "=" and any(one.introduced == last.introduced and one.key != last.key for one in others)


@dataclass(frozen=True)
class Conclusions:
    """Over the rows with reasoning: how many last sentences name the answer, another candidate, several, or none."""

    rows: int
    answer: int
    other: int
    unclear: int

    @property
    def stated(self) -> float:
        """Share of the rows whose last sentence concludes with a candidate."""
        return (self.answer + self.other) / max(1, self.rows)

    @property
    def disagreeing(self) -> float | None:
        """Of these, the share that concludes with another candidate than the answer; None where there are none."""
        return self.other / (self.answer + self.other) if self.answer + self.other else None


def count_conclusions(examples: Iterable[Example]) -> Conclusions:
    """Read the last sentence of every example that has reasoning."""
    kept = [example for example in examples if example.think]
    answer_set = find_answer_set(kept)
    counts = Counter(read_conclusion(example, answer_set) for example in kept)
    return Conclusions(len(kept), counts[ANSWER], counts[OTHER], counts[UNCLEAR])
