"""VLAA-Thinking (UCSC-VLAA/VLAA-Thinking): JSON Lines in files that are called .json, pictures in `images/`.

The part `sft` has reasoned answers. The part `grpo` has only the right answers and is read without reasoning.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.options import check_known_name, require_train_split
from balanced_thinking.data.reading import RecordPlace, read_rows
from balanced_thinking.data.records import read_records
from balanced_thinking.data.tables import ensure_local_files
from balanced_thinking.system.files import expand_home

HUB = ("UCSC-VLAA/VLAA-Thinking",)
PARTS = {"sft": "VLAA-Thinking-SFT-126K.json", "grpo": "VLAA-Thinking-GRPO-25K.json"}


def recognises(path: Path) -> bool:
    """Whether it is a folder with one of the set's files."""
    return any((path / file).is_file() for file in PARTS.values())


def load(
    path: str | Path,
    *,
    split: str = "train",
    part: str = "sft",
    image_root: str | Path | None = None,
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per row of the part. Raises DataError for another folder, split or part."""
    require_train_split("VLAA-Thinking", split)
    check_known_name("VLAA-Thinking", "part", part, PARTS)
    folder = ensure_local_files(path, image_root, PARTS[part])
    if not (folder / PARTS[part]).is_file():
        raise DataError(f"{folder} has no part {part!r} of VLAA-Thinking: expected {PARTS[part]} in it")
    root = expand_home(image_root) if image_root is not None else folder / "images"
    records = (
        (
            RecordPlace(row, f"vlaa-{part}", root),
            record if isinstance(record, BadRow) else _to_jsonl_record(record, part),
        )
        for row, record in read_records(folder / PARTS[part])
    )
    yield from read_rows(records)


def _to_jsonl_record(record: dict[str, Any], part: str) -> dict[str, Any]:
    """The row in a schema of `jsonl`: with a completion if it has reasoning, else with the right answer."""
    kept = {key: value for key, value in record.items() if key not in ("question", "answer", "ds_answer", "gt")}
    completion, right = record.get("answer") or record.get("ds_answer"), record.get("gt")
    if part == "sft" and completion:
        return kept | {"prompt": record.get("question"), "completion": completion, "gt": right}
    return kept | {"question": record.get("question"), "answer": right if right is not None else completion}
