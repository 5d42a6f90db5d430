"""Chooses the items that a report shows in full: first disagreements of the arms, then malformed ones, then any."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from balanced_thinking.data.permissions import current_permissions
from balanced_thinking.report.compare.completions import (
    Segment,
    split_completion,
)
from balanced_thinking.report.compare.images import (
    embed_image,
    is_outside,
)
from balanced_thinking.runs.evaluations import Evaluation, read_predictions
from balanced_thinking.runs.load import Run
from balanced_thinking.runs.paths import EVALUATIONS
from balanced_thinking.runs.records import Prediction
from balanced_thinking.system.text import shorten_text

SAMPLES = 48
# At most these shares of the samples are chosen for a disagreement, or for a malformed completion.
DISAGREEING, MALFORMED = 2 / 3, 1 / 6
# A page has about this many bytes of samples. Further samples are left out.
MAX_BYTES = 3_000_000
# Of one sample: characters of a text and of a line, options, pictures.
_LONGEST_TEXT, _LONGEST_LINE, _MOST_SHOWN, _MOST_PICTURES = 20_000, 1_000, 50, 16


@dataclass(frozen=True)
class Reply:
    """What one arm wrote for an item. `verdict` is `correct` or `wrong`, followed by flaws."""

    arm: str
    correct: bool
    malformed: bool
    verdict: str
    prediction: str
    problems: tuple[str, ...]
    segments: tuple[Segment, ...]
    think_tokens: float | None
    answer_tokens: float | None


@dataclass(frozen=True)
class Sample:
    """One item with every arm's reply. `images` are data URIs. `missing_images` counts those not found,
    `outside_images` those outside the run's folder."""

    id: str
    question: str
    choices: tuple[str, ...]
    gold: str
    family: str
    images: tuple[str, ...]
    missing_images: int
    outside_images: int
    replies: tuple[Reply, ...]

    @property
    def arms_disagree(self) -> bool:
        return len({reply.correct for reply in self.replies}) > 1

    @property
    def has_malformed_reply(self) -> bool:
        return any(reply.malformed for reply in self.replies)

    @property
    def approximate_bytes(self) -> int:
        """About how many bytes it adds to the page."""
        texts = [segment.text for reply in self.replies for segment in reply.segments]
        return sum(map(len, (*self.images, *texts))) + 600 * (1 + len(self.replies))


@dataclass(frozen=True)
class Samples:
    """The chosen items. `total` counts the items to choose from, `disagreements` those on which the arms disagree."""

    items: tuple[Sample, ...]
    seed: int | None
    disagreements: int
    total: int


def choose_samples(
    runs: Sequence[Run],
    arms: Sequence[str],
    split: str | None,
    root: Path,
    *,
    limit: int = SAMPLES,
    size: int = MAX_BYTES,
) -> Samples:
    """At most `limit` items that every arm answered with the seed most arms share. Random, but always the same.

    Only images below `root` are embedded. Items that would make the page larger than `size` bytes are left out.
    """
    chosen = _runs_of_most_shared_seed(runs, split) if split else []
    if split is None or not chosen:
        return Samples((), None, 0, 0)
    evaluations = {run.arm: run.evaluations[split] for run in sorted(chosen, key=lambda run: arms.index(run.arm))}
    answers = [evaluation.correct for evaluation in evaluations.values()]
    common = [item for item in answers[0] if all(item in other for other in answers)]
    split_items = {item for item in common if len({answer[item] for answer in answers}) > 1}
    flawed, pictured = (
        set().union(*(getattr(evaluation, name) for evaluation in evaluations.values()))
        for name in ("flawed", "pictured")
    )
    wanted = _choose_ids(common, split_items, flawed, pictured, limit)
    rows = {arm: _read_wanted_predictions(evaluation, set(wanted)) for arm, evaluation in evaluations.items()}
    items = _samples_that_fit(size, (_make_sample(item, rows, evaluations, root) for item in wanted))
    return Samples(items, chosen[0].seed, len(split_items), len(common))


def _samples_that_fit(size: int, samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The first samples that fit into `size` bytes, at least one."""
    kept: list[Sample] = []
    for sample in samples:
        size -= sample.approximate_bytes
        if kept and size < 0:
            break
        kept.append(sample)
    return tuple(kept)


def _runs_of_most_shared_seed(runs: Sequence[Run], split: str) -> list[Run]:
    """The largest group of runs with one seed and the same items."""
    groups: list[list[Run]] = []
    for run in runs:
        if split in run.evaluations and run.evaluations[split].correct:
            fitting = next((group for group in groups if _matches_seed_and_items(run, group, split)), None)
            if fitting is None:
                groups.append([run])
            else:
                fitting.append(run)
    return max(groups, key=len, default=[])


def _matches_seed_and_items(run: Run, group: Sequence[Run], split: str) -> bool:
    return all(
        run.seed == other.seed and run.evaluations[split].has_no_conflicting_ids(other.evaluations[split])
        for other in group
    )


def _choose_ids(
    items: Sequence[str], split_items: set[str], flawed: set[str], pictured: set[str], limit: int
) -> list[str]:
    """Random ids in the order of the data: first disagreements, then malformed ones, then those with a picture."""
    shuffled = sorted(random.Random(0).sample(items, len(items)), key=lambda item: item not in pictured)
    disagreeing = [item for item in shuffled if item in split_items][: round(limit * DISAGREEING)]
    malformed = [item for item in shuffled if item in flawed][: round(limit * MALFORMED)]
    chosen = list(dict.fromkeys([*disagreeing, *malformed, *shuffled]))[:limit]
    return sorted(chosen, key={item: index for index, item in enumerate(items)}.__getitem__)


def _read_wanted_predictions(evaluation: Evaluation, wanted: set[str]) -> dict[str, Prediction]:
    """The full rows of the wanted items, from a second pass over the file, because all texts may not fit in memory."""
    rows = read_predictions(evaluation.folder, [])
    return {row.id: _shorten_texts(row) for row in rows if row.id in wanted}


def _shorten_texts(row: Prediction) -> Prediction:
    """The row as the page shows it: a text of megabytes has only its start and end, with what is left out counted."""
    return replace(
        row,
        question=shorten_text(row.question, _LONGEST_TEXT),
        completion=shorten_text(row.completion, _LONGEST_TEXT),
        gold=shorten_text(row.gold, _LONGEST_LINE),
        prediction=row.prediction and shorten_text(row.prediction, _LONGEST_LINE),
        choices=_shorten_list(row.choices),
        problems=_shorten_list(row.problems),
        images=row.images[:_MOST_PICTURES],
    )


def _shorten_list(texts: Sequence[str]) -> list[str]:
    more = [f"and {len(texts) - _MOST_SHOWN} more"] if len(texts) > _MOST_SHOWN else []
    return [shorten_text(text, _LONGEST_LINE) for text in texts[:_MOST_SHOWN]] + more


def _make_sample(
    item: str, rows: Mapping[str, Mapping[str, Prediction]], evaluations: Mapping[str, Evaluation], root: Path
) -> Sample:
    arm, found = next(iter(rows.items()))
    row = found[item]
    folder = evaluations[arm].folder
    paths = [folder / name for name in row.images]
    own = folder.parent.parent if folder.parent.name == EVALUATIONS else root  # a run's folder may be a link
    outside = 0 if current_permissions().outside else sum(is_outside(path, own) for path in paths)
    images = tuple(uri for path in paths if (uri := embed_image(path, own)) is not None)
    return Sample(
        id=shorten_text(item, _LONGEST_LINE),
        question=row.question,
        choices=tuple(row.choices),
        gold=row.gold,
        family=shorten_text(row.family or "", _LONGEST_LINE),
        images=images,
        missing_images=len(paths) - len(images) - outside,
        outside_images=outside,
        replies=tuple(_make_reply(arm, found[item], evaluations[arm].reasoning_format) for arm, found in rows.items()),
    )


def _make_reply(arm: str, row: Prediction, reasoning_format: str) -> Reply:
    return Reply(
        arm=arm,
        correct=row.correct,
        malformed=row.malformed,
        verdict=_reply_verdict(row),
        prediction=row.prediction or "",
        problems=tuple(row.problems),
        segments=tuple(split_completion(row.completion, reasoning_format, row.problems)),
        think_tokens=row.think_tokens,
        answer_tokens=row.answer_tokens,
    )


def _reply_verdict(row: Prediction) -> str:
    flaws = [name for name in ("malformed", "truncated") if getattr(row, name)]
    return ", ".join(["correct" if row.correct else "wrong", *flaws])
