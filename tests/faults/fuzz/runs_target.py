"""Folders of runs from strangers: every file that a report reads, the report's numbers, and for some inputs its page.

An input is parts that begin with 0x1e and the number of a file; a part without one belongs to the predictions.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.evaluation.resume import read_batches
from balanced_thinking.report import write_report
from balanced_thinking.report.compare.plan import load_plan
from balanced_thinking.report.compare.tables import make_tables, order_arms
from balanced_thinking.runs.evaluations import read_summary
from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.runs.load import load_runs
from balanced_thinking.runs.paths import EvaluationFiles
from balanced_thinking.runs.records import LedgerEntry, Prediction, Provenance, RecordError, Summary, UnknownSchemaError
from tests.faults.fuzz.target import Target
from tests.faults.fuzz.values import (
    FRAGMENTS,
    mutate_bytes,
    nasty_number,
    nasty_text,
    nasty_value,
    nest_deeply,
    write_json,
)

_RUNS = ("sft/seed-0", "scale/seed-0")
_EVAL = "eval/world-test"
FILES = ("study.yaml", "ledger.jsonl", f"sft/seed-0/{_EVAL}/.resume-0.jsonl")
FILES += tuple(
    f"{run}/{name}"
    for run in _RUNS
    for name in (
        f"{_EVAL}/predictions.jsonl",
        f"{_EVAL}/summary.json",
        "provenance.json",
        "metrics.jsonl",
        "config.yaml",
    )
)
_PART = b"\x1e"
_PAGES = 60  # one of so many inputs is rendered as a page
_METRICS = (
    "step",
    "loss",
    "think_nll",
    "answer_nll",
    "grad_norm",
    "warnings",
    "reward",
    "learning_rate",
    "epoch",
    "w_think",
)


@cache
def workplace() -> Path:
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-runs-", dir=memory if memory.is_dir() else None))
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    return folder


def close() -> None:
    shutil.rmtree(workplace())
    shutil.rmtree(workplace().with_name(f"{workplace().name}-report"), ignore_errors=True)
    workplace.cache_clear()


def generate(rng: random.Random) -> bytes:
    parts = []
    for number, name in enumerate(FILES):
        if rng.random() < 0.85:
            parts.append(_PART + bytes([number]) + _make_file(rng, name))
    return b"".join(parts)


def _make_file(rng: random.Random, name: str) -> bytes:
    if rng.random() < 0.01:
        return nest_deeply(rng)
    if name.endswith("predictions.jsonl"):
        return _lines(rng, [_prediction(rng, k) for k in range(rng.randrange(1, 6))])
    if name.endswith("summary.json"):
        n = rng.randrange(6)
        known = {
            "n": n,
            "correct": rng.randrange(n + 1),
            "data": "world",
            "split": "test",
            "scorer": "exact",
            "score": 0.5,
        }
        return write_json(rng, _spoil(rng, known, Summary))
    if name.endswith("provenance.json"):
        known = {"arm": "sft", "finished": "2026-11-24T03:40:00Z", "train_seconds": 12.0, "device": "cpu", "seed": 0}
        return write_json(rng, _spoil(rng, known, Provenance))
    if name.endswith("metrics.jsonl"):
        return _lines(rng, [_metrics(rng, step) for step in range(rng.randrange(6))])
    if name.endswith("ledger.jsonl"):
        known = {"run": "sft/seed-0", "part": "train", "wall_seconds": 12.0, "device": "cpu"}
        return _lines(rng, [_spoil(rng, known, LedgerEntry) for _ in range(rng.randrange(3))])
    if name.endswith(".resume-0.jsonl"):
        return b"task\n" + _lines(
            rng, [[1.0, 2.0, rng.choice(([[0, {"id": "x"}]], nasty_value(rng)))] for _ in range(2)]
        )
    return _make_yaml(rng, name)


def _make_yaml(rng: random.Random, name: str) -> bytes:
    if name == "study.yaml":
        value: dict[str, Any] = {
            "arms": {"sft": {}, "scale": {}},
            "contrasts": [["scale", "sft"]],
            "margin": rng.choice((1.0, nasty_number(rng))),
            "evaluate": {"world": {"splits": ["test"]}},
        }
    else:
        value = {"model": "world-base", "stage": "sft", "data": "world", "training": {"weighting": "scale"}}
    for key in rng.sample(sorted(value), rng.randrange(3)):
        value[key] = rng.choice((nasty_number(rng), [["a", "b", "c"]], [[1, 2]], None, {"x": [1]}, "x", [], [{}]))
    return yaml.safe_dump(value).encode()


def _spoil(rng: random.Random, known: dict[str, Any], record: type) -> Any:
    """A record with some of its fields replaced or added."""
    names = sorted(record.__dataclass_fields__)  # type: ignore[attr-defined]
    values = dict(known)
    for name in rng.sample(names, rng.choice((0, 0, 1, 2))):
        values[name] = rng.choice((nasty_value(rng), nasty_number(rng), nasty_text(rng)))
    return values if rng.random() < 0.97 else nasty_value(rng)


def _prediction(rng: random.Random, k: int) -> Any:
    correct = rng.random() < 0.5
    known = {
        "id": f"item-{k}",
        "question": rng.choice(("which ?", nasty_text(rng))),
        "gold": rng.choice(("red", nasty_text(rng, 3))),
        "prediction": rng.choice(("red", "blue", nasty_text(rng, 3), None)),
        "correct": correct,
        "completion": rng.choice(("<think>It is red.</think><answer>red</answer>", nasty_text(rng))),
        "family": rng.choice(("count", nasty_text(rng, 2), None)),
        "think_tokens": 4,
        "images": rng.choice(([], ["images/0.png"], ["../../../x", "/etc/passwd", "\x00"])),
    }
    return _spoil(rng, known, Prediction)


def _metrics(rng: random.Random, step: int) -> Any:
    values = {name: rng.choice((step, 0.5, 1.0)) for name in _METRICS} | {"step": step, "warnings": []}
    for name in rng.sample(_METRICS, rng.choice((0, 0, 1, 2))):
        values[name] = rng.choice((nasty_value(rng), nasty_number(rng)))
    return values


def _lines(rng: random.Random, values: list[Any]) -> bytes:
    return b"\n".join(write_json(rng, value) for value in values) + b"\n" * rng.randrange(2)


def run(data: bytes) -> None:
    root = workplace()
    for name in FILES:
        (root / name).unlink(missing_ok=True)
    for part in data.split(_PART):
        if part:
            (root / FILES[part[0] % len(FILES)]).write_bytes(part[1:])
    if (root / FILES[2]).is_file():
        list(read_batches(root / FILES[2], "task"))
    for folder in _RUNS:
        files = EvaluationFiles(root / folder / _EVAL)
        if files.summary.is_file():
            _read_alone(files)
    try:
        _compare_runs(root, data)
    except RecordError as error:  # a newer version's schema; anything else is a note
        assert isinstance(error, UnknownSchemaError), error  # noqa: PT017
    except BalancedThinkingError as error:
        raise AssertionError(f"one file keeps all runs from being read: {error}") from error


def _compare_runs(root: Path, data: bytes) -> None:
    if int.from_bytes(hashlib.sha256(data).digest()[:2], "big") % _PAGES == 0:
        _check_page(root)
        return
    plan, runs = load_plan(root), load_runs(root)
    tables = make_tables(runs, plan, order_arms(runs, plan))
    assert set(tables.arms) == {one.arm for one in runs}
    for rows in tables.splits.values():
        assert all(0 <= row.low <= row.accuracy <= row.high <= 1 for row in rows)
    read_ledger(root, [])


def _read_alone(files: EvaluationFiles) -> None:
    """An evaluation that continues, and a study, read the summary that is there."""
    with suppress(RecordError):
        read_summary(files)


def _check_page(root: Path) -> None:
    """The page is well formed and holds no script of a stranger; Markdown and tables are written beside it."""
    out = root.with_name(f"{root.name}-report")
    page = write_report(root, out / "report.html", out / "report.md").read_text(encoding="utf-8")
    _Wellformed.check(page)
    assert "<script>alert" not in page
    assert all((out / name).stat().st_size for name in ("report.md", "report.csv", "report-contrasts.csv"))


class _Wellformed(HTMLParser):
    """Counts tags that are open; every one must be closed in its turn."""

    VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    @classmethod
    def check(cls, page: str) -> None:
        found = cls()
        found.feed(page)
        found.close()
        assert not found.open, found.open
        assert page.lstrip().lower().startswith("<!doctype html>")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
            self.open.pop()


def mutate(rng: random.Random, data: bytes) -> bytes:
    parts = data.split(_PART)
    place = rng.randrange(len(parts))
    parts[place] = parts[place][:1] + mutate_bytes(rng, parts[place][1:], FRAGMENTS)
    if rng.random() < 0.1:
        del parts[rng.randrange(len(parts))]
    return _PART.join(parts)


def _prepare() -> None:
    """What draws and writes a page is loaded late."""
    import_module("balanced_thinking.report.build")


TARGET = Target("runs", generate, run, mutate, close, prepare=_prepare, rise_mib=200)
