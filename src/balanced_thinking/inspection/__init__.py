"""Inspect your own data before training: what is in it, what is wrong with it, and what to change.

found = inspect_data("my.jsonl", processor=load_processor("Qwen/Qwen2.5-VL-3B-Instruct"))
print(describe_inspection(found))
write_page(found, Path("my-data.html"))
"""

from balanced_thinking.inspection.advice import advise_changes
from balanced_thinking.inspection.facts import Inspection, inspect_data
from balanced_thinking.inspection.page import write_page
from balanced_thinking.inspection.removals import read_removals, write_removals
from balanced_thinking.inspection.text import describe_inspection

__all__ = [
    "Inspection",
    "advise_changes",
    "describe_inspection",
    "inspect_data",
    "read_removals",
    "write_page",
    "write_removals",
]
