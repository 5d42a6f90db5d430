"""IconQA as its authors publish it: a folder an item, `[<split>/]<type>/<id>/` with `data.json` and its pictures.

Items of `choose_txt` and `choose_img` are answered by a letter; the pictures of the options of `choose_img` follow the
question's, in order. Those of `fill_in_blank` are answered by a text. There is no reasoning: the set is for evaluation.
A folder without splits, as the public examples are, counts as `test`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from balanced_thinking.data.checks import BadRow
from balanced_thinking.data.example import Example, lettered
from balanced_thinking.names import nearest

TYPES = ("choose_img", "choose_txt", "fill_in_blank")
SPLITS = ("train", "val", "test")


def recognises(path: Path) -> bool:
    """Whether it is a folder with at least one of the types, below a split or not."""
    return any((path / place / kind).is_dir() for place in ("", *SPLITS) for kind in TYPES)


def load(
    path: str | Path, *, split: str = "test", types: str | Sequence[str] | None = None
) -> Iterator[Example | BadRow]:
    """One `Example` or `BadRow` for each item of the split, of these types or all of them.

    Raises ValueError for a folder without items and for unknown splits and types.
    """
    folder = Path(path).expanduser()
    chosen = [types] if isinstance(types, str) else list(types or TYPES)
    for kind in chosen:
        if kind not in TYPES:
            raise ValueError(f"IconQA has no type {kind!r}{nearest(kind, TYPES)}; known: {', '.join(TYPES)}")
    if split not in SPLITS:
        raise ValueError(f"IconQA has no split {split!r}{nearest(split, SPLITS)}; known: {', '.join(SPLITS)}")
    place = folder if split == "test" and any((folder / kind).is_dir() for kind in TYPES) else folder / split
    if not any((place / kind).is_dir() for kind in TYPES):
        raise ValueError(f"{place} holds no IconQA: expected <type>/<id>/data.json, the types being {', '.join(TYPES)}")
    row = 0
    for kind in chosen:
        for item in sorted(
            (place / kind).glob("*/data.json"), key=lambda file: (len(file.parent.name), file.parent.name)
        ):
            row += 1
            yield _example(kind, row, item)


def _example(kind: str, row: int, file: Path) -> Example | BadRow:
    identity = f"{kind}-{file.parent.name}"
    try:
        item: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        return BadRow(row, ("invalid_json",), str(error), identity)
    choices, answer = item.get("choices") or [], item.get("answer")
    images = [file.parent / "image.png"]
    if kind == "choose_img":
        images += [file.parent / str(name) for name in choices]
        choices = [f"picture {k + 2}" for k in range(len(choices))]
    if kind != "fill_in_blank":
        if not isinstance(answer, int) or not 0 <= answer < len(choices):
            return BadRow(row, ("unknown_schema",), f"choices {choices!r} with answer {answer!r}", identity)
        answer = chr(ord("A") + answer)
    question = str(item.get("question") or "")
    return Example(
        id=identity,
        question="\n".join([question, lettered(choices)] if choices else [question]),
        images=tuple(images),
        think=None,
        answer=str(answer if answer is not None else ""),
        choices=tuple(map(str, choices)),
        meta={"family": kind, "grade": item.get("grade"), "row": row},
    )
