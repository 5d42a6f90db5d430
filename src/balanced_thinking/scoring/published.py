"""Published scorers, reproduced exactly, so that our figures can be compared with published ones.

| name | semantics of | given |
| --- | --- | --- |
| `lmms` | lmms-eval 0.7.3, ScienceQA | the extracted answer |
| `lmms-raw` | the same | the complete output, as lmms-eval reads it |
| `anls` | lmms-eval 0.7.3, IconQA (average normalised Levenshtein similarity, 0 below 0.5) | the extracted answer |
| `relaxed` | ChartQA: numbers within 5 %, else equal except for case | the extracted answer |
| `official` | ScienceQA's own script: a letter; anything else earns the chance of a guess | the extracted answer |

All except `official` are compared with lmms-eval's own functions by `benchmarks/parity/lmms.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

ANLS_THRESHOLD = 0.5
RELAXED_CHANGE = 0.05
_MOST_CHARACTERS = 20_000  # between which an edit distance is counted


def score_lmms(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1.0 for the letter alone, in either case, or for the capital letter with a dot and any text after it."""
    said, right = (prediction or "").strip(), gold.strip().lower()
    if prediction is None:
        return 0.0
    if said.lower() == right:
        return 1.0
    return float(len(said) >= 2 and said[0].isupper() and said[1] == "." and said[0].lower() == right)


def score_anls(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1 minus the edit distance divided by the longer text's length; 0.0 below the threshold.

    The distance ignores case and repeated white space; the lengths do not. A text of more than 20,000 characters earns
    a score only where it is the same, because the time for a distance grows with the square of the length.
    """
    if prediction is None:
        return 0.0
    length = max(len(gold.upper()), len(prediction.upper()))
    right, ours = (" ".join(text.strip().lower().split()) for text in (gold, prediction))
    if right == ours:
        distance = 0
    elif abs(len(right) - len(ours)) > length * (1 - ANLS_THRESHOLD) or length > _MOST_CHARACTERS:
        return 0.0
    else:
        distance = _edit_distance(right, ours)
    score = 1.0 - (distance / length if length else 0.0)
    return score if score >= ANLS_THRESHOLD else 0.0


def score_relaxed(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1.0 for a number within 5 % of a gold number that is not 0; else 1.0 for the same text in any case."""
    if prediction is None:
        return 0.0
    ours, right = _parse_float(prediction), _parse_float(gold)
    if ours is not None and right:
        return float(abs(ours - right) / abs(right) <= RELAXED_CHANGE)
    return float(prediction.lower() == gold.lower())


def score_official(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1.0 or 0.0 for the letter of an option; 1 / the number of options for anything else."""
    letters = [chr(ord("A") + k) for k in range(len(choices))]
    if prediction in letters:
        return float(prediction == gold)
    return 1.0 / len(letters) if letters else 0.0


def _parse_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: the smallest number of insertions, deletions and substitutions.

    A column of the usual table is two integers whose bits are its steps up and down (Myers 1999, Hyyrö 2003), so that
    two texts of 10,000 characters take a tenth of a second instead of a minute.
    """
    if not a:
        return len(b)
    every, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    places: dict[str, int] = {}
    for index, character in enumerate(a):
        places[character] = places.get(character, 0) | 1 << index
    up, down, distance = every, 0, len(a)
    for character in b:
        equal = places.get(character, 0)
        level = (((equal & up) + up) ^ up) | equal | down
        right_up, right_down = down | (every & ~(level | up)), up & level
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = right_up << 1 | 1, right_down << 1
        up, down = right_down | (every & ~(equal | down | right_up)), every & right_up & (equal | down)
        up &= every
    return distance
