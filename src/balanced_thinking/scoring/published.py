"""The field's own scorers, to the letter, so that figures can be compared with published ones.

| name | semantics of | given |
| --- | --- | --- |
| `lmms` | lmms-eval 0.7.3, ScienceQA | the extracted answer |
| `lmms-raw` | the same | the whole output, as lmms-eval would see it |
| `anls` | lmms-eval 0.7.3, IconQA (average normalised Levenshtein similarity, 0 below 0.5) | the extracted answer |
| `relaxed` | ChartQA: numbers within 5 %, else equal but for case | the extracted answer |
| `official` | ScienceQA's own script: a letter, or a guess, counted as what it earns | the extracted answer |

All but `official` are compared with lmms-eval's own functions by `benchmarks/parity/lmms.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

ANLS_THRESHOLD = 0.5
RELAXED_CHANGE = 0.05


def lmms(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1.0 for the letter alone in either case, or for a capital letter with a dot and anything after it."""
    said, right = (prediction or "").strip(), gold.strip().lower()
    if prediction is None:
        return 0.0
    if said.lower() == right:
        return 1.0
    return float(len(said) >= 2 and said[0].isupper() and said[1] == "." and said[0].lower() == right)


def anls(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1 less the edit distance over the longer text's length; 0.0 below the threshold.

    Distances leave out case and runs of white space, lengths do not.
    """
    if prediction is None:
        return 0.0
    length = max(len(gold.upper()), len(prediction.upper()))
    distance = _distance(*(" ".join(text.strip().lower().split()) for text in (gold, prediction)))
    score = 1.0 - (distance / length if length else 0.0)
    return score if score >= ANLS_THRESHOLD else 0.0


def relaxed(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1.0 for a number within 5 % of a gold that is a number other than 0, else for the same text but for case."""
    if prediction is None:
        return 0.0
    ours, right = _float(prediction), _float(gold)
    if ours is not None and right:
        return float(abs(ours - right) / abs(right) <= RELAXED_CHANGE)
    return float(prediction.lower() == gold.lower())


def official(prediction: str | None, gold: str, choices: Sequence[str] = ()) -> float:
    """1.0 or 0.0 for one of the options' letters; for anything else 1 / the number of options."""
    letters = [chr(ord("A") + k) for k in range(len(choices))]
    if prediction in letters:
        return float(prediction == gold)
    return 1.0 / len(letters) if letters else 0.0


def _float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _distance(a: str, b: str) -> int:
    """Levenshtein's: the fewest insertions, deletions and substitutions."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]
