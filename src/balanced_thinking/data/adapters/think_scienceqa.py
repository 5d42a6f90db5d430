"""Think-ScienceQA: ScienceQA's items with lecture and solution rewritten by a language model, in one JSON file.

The file is an object of records under their pids, with the columns of ScienceQA's `problems.json`. It has no pictures:
without `image_root` the questions are text only, also those about a picture that a model cannot know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from balanced_thinking.data.adapters.scienceqa import build_example
from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.records import read_named_objects
from balanced_thinking.data.text_questions import ANSWERS
from balanced_thinking.system.files import expand_home

SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "held_out": ("val", "test")}
ITEMS = {"all": (True, False), "text": (False,), "picture": (True,)}  # whether the published item has a picture


def load(
    path: str | Path,
    *,
    split: str = "train",
    items: str = "all",
    answer_as: str = "letter",
    image_root: str | Path | None = None,
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per item of the split; `held_out` is `val` and `test` together.

    Args:
        items: `all`, or those that are published without (`text`) or with a `picture`.
        answer_as: `letter` or `text` of the right option.
        image_root: the folder with ScienceQA's pictures, `<split>/<pid>/image.png`; None leaves them out.

    Raises DataError for another file, split or option.
    """
    for kind, name, known in (("split", split, SPLITS), ("items", items, ITEMS), ("answer_as", answer_as, ANSWERS)):
        check_known_name("Think-ScienceQA", kind, name, known)
    file = expand_home(path)
    if not file.is_file():
        raise DataError(f"{file} is not Think-ScienceQA: expected its JSON file of records")
    for row, (pid, item) in enumerate(read_named_objects(file), 1):
        if isinstance(item, BadRow):
            yield item
        elif item.get("split") in SPLITS[split] and bool(item.get("image")) in ITEMS[items]:
            shown = image_root is not None and item.get("image")
            pictures = (expand_home(image_root) / item["split"] / pid / item["image"],) if image_root and shown else ()
            built = build_example(row, pid, item, pictures)
            if answer_as == "text" and isinstance(built, Example):
                built = replace(built, answer=built.choices[item["answer"]])
            yield built
