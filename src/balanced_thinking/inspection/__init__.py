"""A look at one's data before training: what is in it, what is wrong with it, and what to change.

found = inspect_data("my.jsonl", processor=load_processor("Qwen/Qwen2.5-VL-3B-Instruct"))
print(describe(found))
write_page(found, Path("my-data.html"))
"""

from balanced_thinking.inspection.drops import read_drops, write_drops
from balanced_thinking.inspection.facts import Inspection, inspect_data
from balanced_thinking.inspection.page import write_page
from balanced_thinking.inspection.text import advice, describe

__all__ = ["Inspection", "advice", "describe", "inspect_data", "read_drops", "write_drops", "write_page"]
