"""The items a report shows in full: those on which the arms disagree first, then malformed ones, then any."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from balanced_thinking.html import data_uri
from balanced_thinking.runs.evaluations import Evaluation, read_predictions
from balanced_thinking.runs.load import Run
from balanced_thinking.runs.records import Prediction
from balanced_thinking.segments import parse

SAMPLES = 48
# No more than these shares of the samples are chosen for a disagreement, or for a malformed completion.
DISAGREEING, MALFORMED = 2 / 3, 1 / 6
# A page holds about so many bytes of samples: what is beyond is left out.
MAX_BYTES = 3_000_000
SEGMENTS = {1: "thinking", 2: "answer"}
OUTSIDE = "outside the tags"
TAG = re.compile(r"(</?[^<>\s]{1,40}>|<\|[^<>\s]{1,40}\|>)")
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# A small file can decode to gigabytes; larger pictures than this are not opened.
MAX_PIXELS = 50_000_000
THUMBNAIL = (300, 300)
# A larger PNG, as photographs give, becomes a JPEG.
MAX_PNG_BYTES = 24_000


@dataclass(frozen=True)
class Segment:
    """A stretch of a completion: `kind` is `thinking`, `answer` or OUTSIDE; `pieces` are (text, is it a tag)."""

    kind: str
    pieces: tuple[tuple[str, bool], ...]

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


@dataclass(frozen=True)
class Reply:
    """What one arm wrote for an item. `verdict` is `correct`, `wrong`, and what else is the matter."""

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
    """One item with every arm's reply. `images` are data URIs; `missing_images` could not be embedded."""

    id: str
    question: str
    choices: tuple[str, ...]
    gold: str
    family: str
    images: tuple[str, ...]
    missing_images: int
    replies: tuple[Reply, ...]

    @property
    def disagree(self) -> bool:
        return len({reply.correct for reply in self.replies}) > 1

    @property
    def malformed(self) -> bool:
        return any(reply.malformed for reply in self.replies)

    @property
    def size(self) -> int:
        """About how many bytes of a page it takes."""
        texts = [segment.text for reply in self.replies for segment in reply.segments]
        return sum(map(len, (*self.images, *texts))) + 600 * (1 + len(self.replies))


@dataclass(frozen=True)
class Samples:
    """The items shown, how many there were to choose from, and on how many of those the arms disagree."""

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
    """At most `limit` items that every arm answered with the seed most arms share; at random, but always the same.

    Only images below `root` are embedded. Items that would make the page larger than `size` bytes are left out.
    """
    seed, chosen = _most_shared_seed(runs, split) if split else (None, [])
    if split is None or not chosen:
        return Samples((), seed, 0, 0)
    evaluations = {run.arm: run.evaluations[split] for run in sorted(chosen, key=lambda run: arms.index(run.arm))}
    answers = [evaluation.correct for evaluation in evaluations.values()]
    common = [item for item in answers[0] if all(item in other for other in answers)]
    split_items = {item for item in common if len({answer[item] for answer in answers}) > 1}
    flawed, pictured = (
        set().union(*(getattr(evaluation, name) for evaluation in evaluations.values()))
        for name in ("flawed", "pictured")
    )
    wanted = _draw_ids(common, split_items, flawed, pictured, limit)
    rows = {arm: _rows(evaluation, set(wanted)) for arm, evaluation in evaluations.items()}
    items = _within(size, (_sample(item, rows, evaluations, root) for item in wanted))
    return Samples(items, seed, len(split_items), len(common))


def _within(size: int, samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The first samples that fit into so many bytes, at least one."""
    kept: list[Sample] = []
    for sample in samples:
        size -= sample.size
        if kept and size < 0:
            break
        kept.append(sample)
    return tuple(kept)


def _most_shared_seed(runs: Sequence[Run], split: str) -> tuple[int | None, list[Run]]:
    """The seed, and its runs on the same items: an id names another item elsewhere."""
    groups: list[list[Run]] = []
    for run in runs:
        if split in run.evaluations and run.evaluations[split].correct:
            fitting = next((group for group in groups if _belongs(run, group, split)), None)
            if fitting is None:
                groups.append([run])
            else:
                fitting.append(run)
    chosen = max(groups, key=len, default=[])
    return chosen[0].seed if chosen else None, chosen


def _belongs(run: Run, group: Sequence[Run], split: str) -> bool:
    return all(
        run.seed == other.seed and run.evaluations[split].has_same_items(other.evaluations[split]) for other in group
    )


def _draw_ids(
    items: Sequence[str], split_items: set[str], flawed: set[str], pictured: set[str], limit: int
) -> list[str]:
    """Random ids in the order of the data: where the arms disagree, malformed ones, then those with a picture."""
    shuffled = sorted(random.Random(0).sample(items, len(items)), key=lambda item: item not in pictured)
    disagreeing = [item for item in shuffled if item in split_items][: round(limit * DISAGREEING)]
    malformed = [item for item in shuffled if item in flawed][: round(limit * MALFORMED)]
    chosen = list(dict.fromkeys([*disagreeing, *malformed, *shuffled]))[:limit]
    return sorted(chosen, key={item: place for place, item in enumerate(items)}.__getitem__)


def _rows(evaluation: Evaluation, wanted: set[str]) -> dict[str, Prediction]:
    """The full rows of the wanted items: a second pass over the file, so that 20,000 texts are never held at once."""
    return {row.id: row for row in read_predictions(evaluation.folder, []) if row.id in wanted}


def _sample(
    item: str, rows: Mapping[str, Mapping[str, Prediction]], evaluations: Mapping[str, Evaluation], root: Path
) -> Sample:
    arm, found = next(iter(rows.items()))
    row = found[item]
    paths = [evaluations[arm].folder / name for name in row.images]
    images = tuple(uri for path in paths if (uri := embed_image(path, root)) is not None)
    return Sample(
        id=item,
        question=row.question,
        choices=tuple(row.choices),
        gold=row.gold,
        family=row.family or "",
        images=images,
        missing_images=len(paths) - len(images),
        replies=tuple(_reply(arm, found[item], evaluations[arm].reasoning_format) for arm, found in rows.items()),
    )


def _reply(arm: str, row: Prediction, reasoning_format: str) -> Reply:
    return Reply(
        arm=arm,
        correct=row.correct,
        malformed=row.malformed,
        verdict=_verdict(row),
        prediction=row.prediction or "",
        problems=tuple(row.problems),
        segments=tuple(split_completion(row.completion, reasoning_format)),
        think_tokens=row.think_tokens,
        answer_tokens=row.answer_tokens,
    )


def _verdict(row: Prediction) -> str:
    flaws = [name for name in ("malformed", "truncated") if getattr(row, name)]
    return ", ".join(["correct" if row.correct else "wrong", *flaws])


def split_completion(completion: str, reasoning_format: str) -> Iterator[Segment]:
    """The completion cut where the parser cuts it; its segments put together are the completion again."""
    end = 0
    for span in sorted(parse(completion, reasoning_format).spans, key=lambda span: span.start):
        if span.start > end:
            yield _segment(completion[end : span.start], OUTSIDE)
        yield _segment(completion[max(span.start, end) : span.end], SEGMENTS.get(span.segment, OUTSIDE))
        end = max(end, span.end)
    if end < len(completion):
        yield _segment(completion[end:], OUTSIDE)


def _segment(text: str, kind: str) -> Segment:
    return Segment(kind, tuple((piece, bool(TAG.fullmatch(piece))) for piece in TAG.split(text) if piece))


def embed_image(path: Path, root: Path) -> str | None:
    """The picture as a data URI of at most THUMBNAIL pixels: PNG, or JPEG where that would be large.

    None when it lies outside `root` (predictions are data, and could name any file), is missing, or is no picture.
    """
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            return None
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            picture = image.convert("RGBA")
    # OSError: missing or no picture; ValueError: a name no file can have; SyntaxError: Pillow on broken PNG chunks.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    picture.thumbnail(THUMBNAIL)
    kind, data = "png", _encoded(picture, "PNG", optimize=True)
    if len(data) > MAX_PNG_BYTES:
        flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        kind, data = "jpeg", _encoded(flat.convert("RGB"), "JPEG", quality=80)
    return data_uri(data, kind)


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
