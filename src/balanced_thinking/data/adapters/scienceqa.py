"""ScienceQA as its authors publish it: `problems.json`, `pid_splits.json` and `images/<split>/<pid>/image.png`.

The question has its context and its lettered options. The answer is the option's letter, the reasoning is lecture and
solution. By default only items with a picture are read, in the test split the 2,017 that publications report on.

The hub's tables (derek-thomas/ScienceQA, or lmms-lab's with a `subset`) have the same columns. Their items are named by
their position.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example, format_question
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.sources import stream_rows
from balanced_thinking.data.tables import is_hub_or_parquet, open_cell_images
from balanced_thinking.system.files import expand_home

HUB = ("derek-thomas/ScienceQA", "lmms-lab/ScienceQA")
TEST = {"split": "test", "pictures_only": False}  # the items that `--against` compares with
FILES = ("problems.json", "pid_splits.json")


def recognises(path: Path) -> bool:
    """Whether it is a folder with both of the set's files."""
    return path.is_dir() and all((path / name).is_file() for name in FILES)


def load(
    path: str | Path, *, split: str = "train", pictures_only: bool = True, subset: str | None = None
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per item of the split. `subset` names a configuration of the hub's data set.

    Raises DataError for another folder or split.
    """
    if is_hub_or_parquet(path):
        for row, item in stream_rows(path, split, subset):
            if item.get("image") or not pictures_only:
                yield build_example(row, f"{split}-{row:05d}", item, open_cell_images(item.get("image")))
        return
    folder = expand_home(path)
    if not recognises(folder):
        raise DataError(f"{folder} is not ScienceQA: expected {' and '.join(FILES)} in it")
    problems, splits = (read_json_file(folder / name) for name in FILES)
    check_known_name("ScienceQA", "split", split, splits)
    for row, pid in enumerate(splits[split], start=1):
        item = problems.get(pid)
        if not isinstance(item, dict):
            yield BadRow(row, ("unknown_schema",), f"problems.json has {item!r} under this id", pid)
        elif item.get("image") or not pictures_only:
            place = folder / "images" / item.get("split", split) / pid
            yield build_example(row, pid, item, (place / item["image"],) if item.get("image") else ())


def build_example(row: int, pid: str, item: dict[str, Any], images: tuple[Any, ...] | None) -> Example | BadRow:
    """An item of `problems.json`, with the letter as the answer. `images` is None where a picture cannot be read."""
    choices, answer = item.get("choices"), item.get("answer")
    if images is None:
        return BadRow(row, ("broken_image",), str(item.get("question")), pid)
    if not isinstance(choices, list) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        return BadRow(row, ("unknown_schema",), f"choices {choices!r} with answer {answer!r}", pid)
    parts = [f"Context: {hint}"] if (hint := str(item.get("hint") or "").strip()) else []
    think = "\n".join(filter(None, (str(item.get(key) or "").strip() for key in ("lecture", "solution"))))
    return Example(
        id=pid,
        question="\n".join([*parts, format_question(str(item.get("question") or ""), choices)]),
        images=images,
        think=think or None,
        answer=chr(ord("A") + answer),
        choices=tuple(map(str, choices)),
        meta={"family": item.get("subject"), "topic": item.get("topic"), "skill": item.get("skill"), "row": row},
    )
