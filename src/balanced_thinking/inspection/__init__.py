"""Inspect your own data before training: what is in it, what is wrong with it, and what to change.

found = inspect_data("my.jsonl", processor=load_processor("Qwen/Qwen2.5-VL-3B-Instruct"))
found = measure_losses(found, load_model("Qwen/Qwen2.5-VL-3B-Instruct"))  # optional: wording and false steps
print(found.kind.wording, describe_inspection(found))
write_page(found, Path("my-data.html"))
"""

from typing import Any

from balanced_thinking.inspection.advice import advise_changes
from balanced_thinking.inspection.facts import Inspection, inspect_data
from balanced_thinking.inspection.kind import DataKind, LossMeasure
from balanced_thinking.inspection.page import write_page
from balanced_thinking.inspection.removals import leave_out_samples, read_removals, write_removals
from balanced_thinking.inspection.text import describe_inspection

__all__ = [
    "DataKind",
    "Inspection",
    "LossMeasure",
    "advise_changes",
    "describe_inspection",
    "inspect_data",
    "leave_out_samples",
    "measure_losses",
    "read_removals",
    "write_page",
    "write_removals",
]


def measure_losses(found: Inspection, loaded: Any, **options: Any) -> Inspection:
    """`losses.measure_losses`, which needs torch; nothing else here imports it."""
    from balanced_thinking.inspection import losses

    return losses.measure_losses(found, loaded, **options)
