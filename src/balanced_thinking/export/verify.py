"""Does the exported folder answer as the run's own model does? Plain transformers says so, in a process of its own."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.export.samples import OwnAnswer, write_request
from balanced_thinking.models.quantization import read_base_quantization

logger = logging.getLogger(__name__)
_PROGRAM = Path(__file__).with_name("plain_answers.py")
_NEAR = 8  # roundings of the dtype, relative to the best logit, within which two tokens count as nearly equal
_SHOWN_ERROR = 500  # characters of the last line that the program wrote


class PlainLoadError(BalancedThinkingError, RuntimeError):
    """Plain transformers could not load the exported folder, or not answer with it."""


@dataclass(frozen=True)
class Difference:
    """Where an answer differs first: `place` counts tokens from 0, `expected` and `found` are token ids, None for the
    end. `gap` is the difference of the two tokens' logits there; `near` whether it is within rounding."""

    sample: str
    part: str
    place: int
    expected: int | None
    found: int | None
    gap: float | None = None
    near: bool = False

    def __str__(self) -> str:
        what = f"{self.sample}: the {self.part} differs first at token {self.place} ({self.expected} -> {self.found})"
        if self.part == "prompt":
            return what
        if self.gap is None:
            return f"{what}, no near tie"
        tie = "a near tie" if self.near else "no near tie"
        return f"{what}, {tie}: their logits differ by {self.gap:.2g}"


@dataclass(frozen=True)
class Verification:
    """What the comparison found. `processor` says why transformers' own could not be compared; None where it was."""

    asked: int
    differences: tuple[Difference, ...] = ()
    processor: str | None = None

    @property
    def equal(self) -> int:
        return self.asked - len(self.differences)

    def describe(self) -> str:
        text = f"{self.equal} of {self.asked} answers of plain transformers are the run's own, token for token"
        near = sum(one.near for one in self.differences)
        if self.differences:
            text += f"; {near} of the {len(self.differences)} others differ at a near tie. {self.differences[0]}"
        return f"{text}. The processor was not compared: {self.processor}" if self.processor else text


def verify_folder(folder: Path, answers: Sequence[OwnAnswer], about: Mapping[str, Any]) -> Verification:
    """Compare the run's own answers with those of plain transformers, which loads `folder`.

    `about` holds the fields of the request (`plain_answers`) besides the samples. Raises PlainLoadError. A base of 4
    bits counts as 16 bits: on some CPUs bitsandbytes computes with it in bfloat16, which training and `balanced eval`
    avoid.
    """
    with tempfile.TemporaryDirectory(prefix="balanced-export-") as place:
        found = _run_plain(write_request(list(answers), Path(place), {"folder": str(folder), **about}), Path(place))
    dtype = "bfloat16" if read_base_quantization(folder) else about["dtype"]
    tolerance = _NEAR * torch.finfo(getattr(torch, dtype)).eps
    pairs = zip(answers, found["answers"], strict=True)
    differences = [difference for own, plain in pairs if (difference := find_difference(own, plain, tolerance))]
    return Verification(len(answers), tuple(differences), found["processor"])


def _run_plain(request: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """What `plain_answers` writes. It runs in `place`, so that no relative name is found by chance."""
    asked, answered = place / "request.json", place / "answers.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-P", str(_PROGRAM), str(asked), str(answered)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode or not answered.is_file():
        raise PlainLoadError(
            f"plain transformers cannot use {request['folder']} (exit code {done.returncode}): "
            f"{_last_line(done.stderr)[:_SHOWN_ERROR]}"
        )
    return read_json_file(answered)


def _last_line(text: str) -> str:
    """Of a traceback: the error. The lines before it are logged, for `--verbose`."""
    *before, last = ["", *text.strip().splitlines()]
    logger.debug("%s", "\n".join(before).strip())
    return last


def find_difference(own: OwnAnswer, plain: Mapping[str, Any], tolerance: float) -> Difference | None:
    """The first difference of prompt or answer; None for equal ones.

    After the closing tag of an answer, where our evaluation stops, plain generation may go on. `tolerance` is relative
    to the best logit.
    """
    place = _first_difference(own.prompt, plain["prompt"])
    if place is not None:
        return Difference(own.id, "prompt", place, _at(own.prompt, place), _at(plain["prompt"], place))
    written = plain["answer"][: len(own.ids)] if own.cut else plain["answer"]
    place = _first_difference(own.ids, written)
    if place is None:
        return None
    expected, found = _at(own.ids, place), _at(written, place)
    tokens, logits = plain["best"][place] if place < len(plain["best"]) else ([], [])
    if found not in tokens or expected not in tokens:  # one of them has ended, or is far from the best ones
        return Difference(own.id, "answer", place, expected, found)
    gap = abs(logits[tokens.index(found)] - logits[tokens.index(expected)])
    near = gap <= tolerance * max(abs(logits[0]), 1.0)
    return Difference(own.id, "answer", place, expected, found, gap, near)


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    if list(one) == list(other):
        return None
    unlike = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(unlike, min(len(one), len(other)))


def _at(ids: Sequence[int], place: int) -> int | None:
    return ids[place] if place < len(ids) else None
