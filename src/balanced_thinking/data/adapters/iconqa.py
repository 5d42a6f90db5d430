"""IconQA as its authors publish it: one folder per item, `[<split>/]<type>/<id>/`, with `data.json` and its pictures.

The answer of `choose_txt` and `choose_img` is a letter; the options' pictures of `choose_img` follow the question's
picture, in order. The answer of `fill_in_blank` is a text. There is no reasoning: the set is for evaluation. A folder
without splits, such as the public examples, is read as `test`.

In the hub's table, items of `choose_img` with more options than picture columns are bad rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from balanced_thinking.config.foreign_json import read_json_file
from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example, format_question
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.sources import stream_rows
from balanced_thinking.data.tables import is_hub_or_parquet, open_cell_images
from balanced_thinking.system.files import expand_home

HUB = ("lmms-lab/ICON-QA",)
TYPES = ("choose_img", "choose_txt", "fill_in_blank")
SPLITS = ("train", "val", "test")
_TABLE_CHOICE_PICTURES = 5  # columns for the options' pictures


def recognises(path: Path) -> bool:
    """Whether it is a folder that has at least one of the types, perhaps in a split's folder."""
    return any((path / place / kind).is_dir() for place in ("", *SPLITS) for kind in TYPES)


def load(
    path: str | Path, *, split: str = "test", types: str | Sequence[str] | None = None
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per item of the split, of these types or of all.

    Raises DataError for a folder without items and for an unknown split or type.
    """
    chosen = [types] if isinstance(types, str) else list(types or TYPES)
    for kind in chosen:
        check_known_name("IconQA", "type", kind, TYPES)
    check_known_name("IconQA", "split", split, SPLITS)
    if is_hub_or_parquet(path):
        for row, cells in stream_rows(path, split):
            if cells.get("ques_type") in chosen:
                yield read_table_row(row, cells)
        return
    folder = expand_home(path)
    place = folder if split == "test" and any((folder / kind).is_dir() for kind in TYPES) else folder / split
    if place != folder and not place.is_dir() and any((folder / kind).is_dir() for kind in TYPES):
        raise DataError(f"{folder} has no split {split!r}: a folder of types without splits is read as 'test'")
    if not any((place / kind).is_dir() for kind in TYPES):
        raise DataError(
            f"{place} is not IconQA: expected files <type>/<id>/data.json in it; <type> is one of {', '.join(TYPES)}"
        )
    row = 0
    for kind in chosen:
        for item in sorted(
            (place / kind).glob("*/data.json"), key=lambda file: (len(file.parent.name), file.parent.name)
        ):
            row += 1
            yield _read_item_folder(kind, row, item)


def _read_item_folder(kind: str, row: int, file: Path) -> Example | BadRow:
    identity = f"{kind}-{file.parent.name}"
    try:
        item = read_json_file(file)
    except ValueError as error:
        return BadRow(row, ("invalid_json",), str(error), identity)
    if not isinstance(item, dict):
        return BadRow(row, ("not_an_object",), str(item), identity)
    choices = item.get("choices") or []
    images = [file.parent / "image.png"]
    if kind == "choose_img":
        images += [file.parent / str(name) for name in choices]
    return _build_example(identity, kind, row, item, choices, tuple(images))


def read_table_row(row: int, item: dict[str, Any]) -> Example | BadRow:
    """Read a row with the hub's columns."""
    kind = item["ques_type"]
    identity = f"{kind}-{item.get('question_id') or row}"
    shown = open_cell_images(
        item.get("query_image"), *(item.get(f"choice_image_{k}") for k in range(_TABLE_CHOICE_PICTURES))
    )
    if not shown or not item.get("query_image"):
        return BadRow(row, ("broken_image" if shown is None else "missing_image",), str(item.get("question")), identity)
    texts = str(item.get("choices") or "")
    choices = [text.strip() for text in texts.split(",")] if kind != "fill_in_blank" and texts else []
    if kind == "choose_img" and len(shown) != 1 + len(choices):
        return BadRow(row, ("image_count",), f"{len(choices)} options, {len(shown) - 1} pictures of them", identity)
    answer = str(item.get("answer"))
    if choices:
        item |= {"answer": choices.index(answer) if answer in choices else int(answer) if answer.isdigit() else answer}
    return _build_example(identity, kind, row, item, choices, shown)


def _build_example(
    identity: str, kind: str, row: int, item: dict[str, Any], choices: list[Any], images: tuple[Any, ...]
) -> Example | BadRow:
    answer = item.get("answer")
    if kind == "choose_img":
        choices = [f"picture {k + 2}" for k in range(len(choices))]
    if kind != "fill_in_blank":
        if not isinstance(answer, int) or not 0 <= answer < len(choices):
            return BadRow(row, ("unknown_schema",), f"choices {choices!r} with answer {answer!r}", identity)
        answer = chr(ord("A") + answer)
    return Example(
        id=identity,
        question=format_question(str(item.get("question") or ""), choices),
        images=images,
        think=None,
        answer=str(answer if answer is not None else ""),
        choices=tuple(map(str, choices)),
        meta={"family": kind, "grade": item.get("grade"), "row": row},
    )
