"""What `make test-ranks` reports: that it can fail, and that the page says what it measured. Its short form, of two
ranks, is `test_two_ranks_equal_one`."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.info import BatchInfo
from balanced_thinking.models.tiny import build_tiny
from tests.ranks.cases import COMMON, EXACT, FEATURES, KINDS, RANKS
from tests.ranks.compare import summarize
from tests.ranks.measure import MEASURED, names_for
from tests.ranks.program import RESUMED
from tests.ranks.table import PAGE, make_tables

EQUAL = {"losses": [2.0, 1.0], "norms": [3.0, 4.0]}
REFUSAL = {"refused": "RecipeError: checkpoint-5 was written by 4 ranks, and DeepSpeed loads it on as many only; 2"}


def made_up() -> dict[str, dict[str, Any]]:
    """What a programme finds where all is exact, and refused where it must be."""
    found = {f"{kind}-{ranks}": dict.fromkeys(names_for(kind, ranks), EQUAL) for kind in KINDS for ranks in RANKS}
    found["plain"] = dict.fromkeys([*EXACT, *FEATURES, "saved", *(f"{RESUMED}{kind}-4" for kind in KINDS)], EQUAL)
    found["float64"] = dict.fromkeys(COMMON, EQUAL)
    for kind in ("zero2", "zero3"):
        found["plain"][f"{RESUMED}{kind}-4"] = REFUSAL
        for ranks in (2, 1):
            found[f"{kind}-{ranks}"][f"{RESUMED}{kind}-4"] = REFUSAL
        for ranks in (4, 2):
            found[f"{kind}-{ranks}"]["a matched gradient norm"] = REFUSAL
    for kind in ("fsdp2", "zero2", "zero3"):
        found[f"{kind}-2"][f"{RESUMED}plain-1"] = REFUSAL
    return copy.deepcopy(found)


SPOILED = [
    ("ddp-4", "full, packed", {"losses": [2.0, 1.0], "norms": [3.0, 4.0001]}, "above 1e-05"),
    ("zero3-2", "rows without thinking", {"losses": [float("nan"), 1.0], "norms": [3.0, 4.0]}, "above 1e-05"),
    ("fsdp2-2", "LoRA, padded", {"refused": "ValueError: why"}, "ValueError: why"),
    ("fsdp2-1", f"{RESUMED}fsdp2-4", {"losses": [2.0, 1.1], "norms": [3.0, 4.0]}, "above 1e-05"),
    ("ddp-2", "bfloat16 autocast", {"losses": [2.0, 1.03], "norms": [3.0, 4.0]}, "above 0.02"),
    ("zero2-1", f"{RESUMED}zero2-4", EQUAL, "was not refused"),
]


@pytest.mark.parametrize(("start", "case", "figures", "said"), SPOILED)
def test_an_error_a_refusal_and_a_missing_refusal_fail(start: str, case: str, figures: Any, said: str) -> None:
    found = made_up()
    assert summarize(found)["failed"] == []
    found[start][case] = figures
    (failure,) = summarize(found)["failed"]
    assert said in failure


def test_the_page_says_what_was_measured() -> None:
    summary = json.loads(MEASURED.read_text(encoding="utf-8"))
    assert make_tables(summary) in PAGE.read_text(encoding="utf-8")
    assert set(summary["exact"]) == set(EXACT)
    assert summary["failed"] == []


@pytest.mark.parametrize("sharded", [False, True])
def test_a_rank_without_a_sample_gets_a_batch_without_a_target(sharded: bool) -> None:
    batch = ScaleCollator(build_tiny("qwen2_5_vl")[1], always_image=sharded)([])
    assert bool((batch["labels"] == -100).all())
    assert not batch["segment_ids"].any()
    assert ("pixel_values" in batch) == sharded
    info = BatchInfo.from_batch(batch)
    assert (info.kept, info.dropped) == ((), 0)
