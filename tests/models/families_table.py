"""docs/families.md from what `make test-families` measured: `python -m tests.models.families_table`."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.conftest import REPOSITORY

MEASURED = REPOSITORY / "docs" / "results" / "families"
PAGE = REPOSITORY / "docs" / "families.md"
# As the hub calls them. Of each, the folder has the structure of one real checkpoint.
NAMES = {
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_5": "Qwen3.5",
    "llava": "LLaVA-1.5",
    "llava_next": "LLaVA-NeXT (Mistral)",
    "llava_onevision": "LLaVA-OneVision",
    "gemma3": "Gemma 3",
    "gemma3_text": "Gemma 3, text only",
    "gemma4": "Gemma 4",
    "internvl": "InternVL3",
    "smolvlm": "SmolVLM2",
    "idefics3": "Idefics3",
    "pixtral": "Pixtral",
    "mistral3": "Mistral 3",
    "glm4v": "GLM-4.1V",
    "glm46v": "GLM-4.6V",
}
WHY_NOT_PACKED = {
    "qwen3_5": "its linear attention carries a state over to the next sample",
    "gemma4": "some of its checkpoints let the tokens of a picture attend to each other both ways",
    "smolvlm": "its pictures are stored by sample",
    "idefics3": "its pictures are stored by sample",
}
_HEAD = """# Families of checkpoints

Which checkpoints work, and what was shown for each. `make test-families` builds a small checkpoint of every family in
the hub's own layout: the same files, the same structure of `config.json` and of the processor's files, the chat
template where the hub has it, shards where it has them. Only sizes, weights and the tokenizer's words are ours. Then it
measures what this table says. It also writes this page; do not edit it by hand.

To check any other checkpoint, run [`balanced check MODEL`](check.md).

- **loads**: every tensor and the processor, without torchvision and with it.
- **trains**: loss and gradient equal the definition, which runs each sample alone with plain attention; the figure is
  the relative error of the loss. Accumulation 2 x 4 and 8 x 1 equals 1 x 8.
- **TRL**: relative difference of the first step's loss from TRL's SFTTrainer, on four rows with a picture each. The
  chat templates of LLaVA-1.5 and GLM write no end of the answer. We add it and TRL does not, so these losses differ.
- **packs**: samples that share rows give the loss and the gradient of padded ones.
- **evaluates**: outputs are the same alone and in a batch, and their prompts are those of training.
- **resumes**: equal to the bit.
- **reloads**: transformers alone reads what a run saved, and computes the same.

GRPO was shown for every family, too. Its update sees each row's own pictures and token types, in shuffled
micro-batches of rows with no, one and two pictures: its log-probabilities are those of each sample alone.

"""
_TAIL = """
{skipped}

Without torchvision the picture half of a processor is loaded alone. What a run saves is complete all the same: with
torchvision, transformers reads the same processor from it as from the checkpoint. Without torchvision transformers
alone cannot load a processor that has a video half, or Pixtral's; it can load the model.

With torchvision transformers resizes pictures with it, without it with Pillow. So pixel values differ by about one
level of 255. Evaluate with the same one that you train with.

Measured with these versions; the files hold the figures of each row:

- [without torchvision](results/families/without-torchvision.json):
  {without}
- [with torchvision](results/families/with-torchvision.json):
  {with_it}
"""


def write_page() -> None:
    found = {name: json.loads((MEASURED / f"{name}-torchvision.json").read_text()) for name in ("without", "with")}
    PAGE.write_text(make_page(found), encoding="utf-8")


def make_page(found: dict[str, dict[str, Any]]) -> str:
    """`found` holds the measured rows by family, `without` and `with` torchvision."""
    lines = ["| family | loads | trains | TRL | packs | evaluates | resumes | reloads |", "| --- " * 8 + "|"]
    for family, name in NAMES.items():
        pair = [found[kind][family] for kind in ("without", "with") if family in found[kind]]
        cells = [name, " and ".join("with" if row["torchvision"] else "without" for row in pair)]
        cells += [_largest(pair, "loss and gradient", "accumulation"), max((row["trl"] for row in pair), key=float)]
        cells += [_largest(pair, "packing"), _passed(pair, "generation", "prompt", "stop token")]
        cells += [_passed(pair, "resume"), _passed(pair, "saved folder")]
        lines.append("| " + " | ".join(cells) + " |")
    skipped = "\n".join(f"- {NAMES[family]} does not pack: {why}." for family, why in WHY_NOT_PACKED.items())
    versions = {kind: ", ".join(sorted({row["versions"] for row in rows.values()})) for kind, rows in found.items()}
    tail = _TAIL.format(skipped=skipped, without=versions["without"], with_it=versions["with"])
    return _HEAD + "\n".join(lines) + "\n" + tail


def _passed(pair: list[dict[str, Any]], *checks: str) -> str:
    return "yes" if all(row["checks"][check][0] == "passed" for row in pair for check in checks) else "no"


def _largest(pair: list[dict[str, Any]], *checks: str) -> str:
    """The largest relative error of a loss; `no` for what was skipped."""
    figures = [row["checks"][check] for row in pair for check in checks]
    if any(status != "passed" for status, _ in figures):
        return "no"
    errors = [error for _, figure in figures for error in re.findall(r"loss differs by ([\de.+-]+\d)", figure)]
    return max(errors, key=float)


if __name__ == "__main__":
    write_page()
