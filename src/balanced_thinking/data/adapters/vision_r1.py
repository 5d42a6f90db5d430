"""Vision-R1-cold (Osilly/Vision-R1-cold): 261,000 reasoned answers in two JSON files with different schemas.

`{id, image, conversations[human/gpt]}` and `{images, conversations[user/assistant]}`: `jsonl` reads both. It is
published without pictures. Put those of LLaVA-CoT and Mulberry into `llava_cot_images/` and `mulberry_images/` next to
the files, or set another `image_root`. Answers keep their words (`Final Answer:C`), which the scorers ignore.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from balanced_thinking.data.adapters import jsonl
from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.example import Example
from balanced_thinking.data.options import check_known_name, require_train_split
from balanced_thinking.data.tables import ensure_local_files

HUB = ("Osilly/Vision-R1-cold",)
PARTS = {"llava_cot": "vision_r1_llava_cot_full.json", "mulberry": "vision_r1_mulberry_sft_full.json"}


def recognises(path: Path) -> bool:
    """Whether it is a folder with one of the set's files."""
    return any((path / file).is_file() for file in PARTS.values())


def load(
    path: str | Path, *, split: str = "train", part: str | None = None, image_root: str | Path | None = None
) -> Iterator[Example | BadRow]:
    """Yield one `Example` or `BadRow` per row of both files, or of one `part` (`llava_cot`, `mulberry`).

    Raises DataError for another folder, split or part.
    """
    require_train_split("Vision-R1-cold", split)
    if part is not None:
        check_known_name("Vision-R1-cold", "part", part, PARTS)
    folder = ensure_local_files(path, image_root, *PARTS.values())
    files = [folder / file for name, file in PARTS.items() if part in (None, name) and (folder / file).is_file()]
    if not files:
        raise DataError(f"{folder} is not Vision-R1-cold: expected {' or '.join(PARTS.values())} in it")
    for file in files:
        yield from jsonl.load(file, split="all", image_root=image_root or folder)
