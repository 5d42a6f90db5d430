"""The table of docs/served.md from what `make test-vllm` measured: `python -m tests.servers.table`."""

from __future__ import annotations

import json
from typing import Any

from tests.export.table import replace_measured
from tests.models.families_table import NAMES
from tests.servers.page import PAGE, REPOSITORY

MEASURED = REPOSITORY / "docs" / "results" / "servers.json"


def make_table(comparisons: list[dict[str, Any]]) -> str:
    lines = ["| tiny model | what answers | dtype | equal completions | right here | right there |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: |")
    for one in comparisons:
        name = NAMES.get(one["model"], "Qwen2, text only")
        figures = f"{one['equal']} of {one['items']} | {one['correct_here']} | {one['correct_there']}"
        lines.append(f"| {name} | {one['what']} | {one['dtype']} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    replace_measured(PAGE, make_table(json.loads(MEASURED.read_text(encoding="utf-8"))["comparisons"]))
