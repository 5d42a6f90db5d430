"""ScienceQA as its authors publish it: `problems.json`, `pid_splits.json` and `images/<split>/<pid>/image.png`.

The question carries its context and its lettered options, the answer is the option's letter, the reasoning is lecture
and solution. By default only items with a picture are read: of the test split 2,017, which the literature reports on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.checks import BadRow
from balanced_thinking.data.example import Example, lettered
from balanced_thinking.names import nearest

FILES = ("problems.json", "pid_splits.json")


def recognises(path: Path) -> bool:
    """Whether it is a folder with both of the set's files."""
    return path.is_dir() and all((path / name).is_file() for name in FILES)


def load(path: str | Path, *, split: str = "train", pictures_only: bool = True) -> Iterator[Example | BadRow]:
    """One `Example` or `BadRow` for each item of the split. Raises ValueError for another folder or split."""
    folder = Path(path).expanduser()
    if not recognises(folder):
        raise ValueError(f"{folder} holds no ScienceQA: expected {' and '.join(FILES)} in it")
    problems, splits = (json.loads((folder / name).read_text(encoding="utf-8")) for name in FILES)
    if split not in splits:
        raise ValueError(f"ScienceQA has no split {split!r}{nearest(split, splits)}; known: {', '.join(splits)}")
    for row, pid in enumerate(splits[split], start=1):
        item = problems.get(pid)
        if item is None:
            yield BadRow(row, ("unknown_schema",), f"problems.json has no item {pid}", pid)
        elif item.get("image") or not pictures_only:
            yield _example(folder, split, row, pid, item)


def _example(folder: Path, split: str, row: int, pid: str, item: dict[str, Any]) -> Example | BadRow:
    choices, answer = item.get("choices"), item.get("answer")
    if not isinstance(choices, list) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        return BadRow(row, ("unknown_schema",), f"choices {choices!r} with answer {answer!r}", pid)
    parts = [f"Context: {hint}"] if (hint := str(item.get("hint") or "").strip()) else []
    think = "\n".join(filter(None, (str(item.get(key) or "").strip() for key in ("lecture", "solution"))))
    return Example(
        id=pid,
        question="\n".join([*parts, str(item["question"]), lettered(choices)]),
        images=(folder / "images" / item.get("split", split) / pid / item["image"],) if item.get("image") else (),
        think=think or None,
        answer=chr(ord("A") + answer),
        choices=tuple(map(str, choices)),
        meta={"family": item.get("subject"), "topic": item.get("topic"), "skill": item.get("skill"), "row": row},
    )
