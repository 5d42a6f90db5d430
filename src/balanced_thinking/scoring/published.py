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

    The distance ignores case and repeated white space; the lengths do not.
    """
    if prediction is None:
        return 0.0
    length = max(len(gold.upper()), len(prediction.upper()))
    distance = _edit_distance(*(" ".join(text.strip().lower().split()) for text in (gold, prediction)))
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
    """Levenshtein distance: the smallest number of insertions, deletions and substitutions."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]
