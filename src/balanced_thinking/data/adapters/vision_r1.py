"""Vision-R1-cold (Osilly/Vision-R1-cold): 261,000 reasoned answers in two JSON files of clashing schemas.

`{id, image, conversations[human/gpt]}` and `{images, conversations[user/assistant]}`: `jsonl` reads both. No pictures
are published with it; put LLaVA-CoT's and Mulberry's at `llava_cot_images/` and `mulberry_images/` beside the files, or
name another `image_root`. Answers keep their words (`Final Answer:C`), which scorers see through.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.data.adapters import jsonl
from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.example import Example
from balanced_thinking.data.options import check_train_split
from balanced_thinking.data.tables import ensure_local_files

HUB = ("Osilly/Vision-R1-cold",)
PARTS = {"llava_cot": "vision_r1_llava_cot_full.json", "mulberry": "vision_r1_mulberry_sft_full.json"}


def recognises(path: Path) -> bool:
    """Whether it is a folder with one of the set's files."""
    return any((path / file).is_file() for file in PARTS.values())


def load(
    path: str | Path, *, split: str = "train", part: str | None = None, image_root: str | Path | None = None
) -> Iterator[Example | BadRow]:
    """One `Example` or `BadRow` for each row of both files, or of one `part` (`llava_cot`, `mulberry`).

    Raises ValueError for another folder, split or part.
    """
    check_train_split("Vision-R1-cold", split)
    if part is not None and part not in PARTS:
        raise ValueError(f"Vision-R1-cold has no part {part!r}{did_you_mean(part, PARTS)}; known: {', '.join(PARTS)}")
    folder = ensure_local_files(path, image_root, *PARTS.values())
    files = [folder / file for name, file in PARTS.items() if part in (None, name) and (folder / file).is_file()]
    if not files:
        raise ValueError(f"{folder} holds no Vision-R1-cold: expected {' or '.join(PARTS.values())} in it")
    for file in files:
        yield from jsonl.load(file, split="all", image_root=image_root or folder)
