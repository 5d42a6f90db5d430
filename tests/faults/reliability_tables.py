"""The counts of docs/reliability.md from what `make faults` measured: `python -m tests.faults.reliability_tables`."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from tests.conftest import REPOSITORY

MEASURED = REPOSITORY / "docs" / "results" / "reliability.json"
FUZZED = REPOSITORY / "docs" / "results" / "fuzz.json"
PAGE = REPOSITORY / "docs" / "reliability.md"
_PLACE = re.compile(r"(<!-- counts of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_KILLS = {
    "kills-sft": "SFT, all weights",
    "kills-lora": "SFT, LoRA",
    "kills-grpo": "GRPO, saved within a generation cycle",
    "kills-study": "a study: the command, a worker, or both",
    "kills-two-ranks": "two ranks, one of them killed",
    "kills-launched-ranks": "two ranks of torchrun, one of them killed",
}
_DAMAGE = {
    "damage-sft": "checkpoint, SFT",
    "damage-lora": "checkpoint, LoRA",
    "damage-grpo": "checkpoint, GRPO",
    "damage-sft-unsealed": "checkpoint of a version without manifests",
    "damaged-model-sft": "final model",
    "damaged-model-lora": "final adapter",
}
_DISKS = {
    "disk-full": "a full disk",
    "disk-file-limit": "a limit on the size of a file (`ulimit -f`)",
    "disk-quota": "a quota",
    "disk-read-only": "a disk that turns read-only",
    "disk-vanished": "a folder or disk that vanishes",
}
_STARTS = {
    "one at a time, double start": "two starts",
    "one at a time, double resume": "two resumes",
    "one at a time, resume beside a live run": "a resume beside a live run",
}
_STEPS = "grpo steps, "  # and the shape of a generation cycle

_FUZZED = {
    "segments": "texts, by the parser of reasoning and answers",
    "rows": "files of rows: JSON Lines, JSON, CSV, TSV, packed or not",
    "yaml": "recipes with options, studies, files of benchmarks",
    "row_check": "rows, by the check before step 1 with a model's processor",
    "scoring": "answers, by every scorer",
    "pictures": "pictures of every kind that is decoded",
    "server": "answers of servers, as bytes of HTTP",
    "runs": "folders of runs: predictions, summaries, metrics, provenance, ledger, plan",
    "checkpoints": "checkpoints: manifest, weights, states",
}


def count_kills(measured: dict[str, Any]) -> list[str]:
    lines = ["| killed | trials | equal to the bit | with a kill inside a save |", "| --- | ---: | ---: | ---: |"]
    for section, name, trials in _sections(measured, _KILLS):
        inside = str(sum(bool(trial["inside"]) for trial in trials)) if "ranks" not in section else "not counted"
        lines.append(f"| {name} | {len(trials)} | {_passed(trials)} | {inside} |")
    return lines


def count_damage(measured: dict[str, Any]) -> list[str]:
    lines = [
        "| damaged | cases | passed over, or refused by name | harmless | not noticed |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for _, name, trials in _sections(measured, _DAMAGE):
        ends = Counter(trial["end"] for trial in trials if trial["passed"])
        named = ends["passed over"] + ends["refused"]
        cases = len(trials) - ends["the same file"]
        lines.append(f"| {name} | {cases} | {named} | {ends['harmless']} | {cases - named - ends['harmless']} |")
    return lines


def count_disks(measured: dict[str, Any]) -> list[str]:
    lines = ["| fault | trials | as promised |", "| --- | ---: | ---: |"]
    return lines + [
        f"| {name} | {len(trials)} | {_passed(trials)} |" for _, name, trials in _sections(measured, _DISKS)
    ]


def count_starts(measured: dict[str, Any]) -> list[str]:
    lines = ["| started | trials | one refused, the other unharmed |", "| --- | ---: | ---: |"]
    return lines + [
        f"| {name} | {len(trials)} | {_passed(trials)} |" for _, name, trials in _sections(measured, _STARTS)
    ]


def count_fuzzing(_: dict[str, Any]) -> list[str]:
    """From what `make fuzz` measured."""
    if not FUZZED.is_file():
        return []
    found = json.loads(FUZZED.read_text(encoding="utf-8"))
    lines = ["| read | inputs | guided by coverage | findings | peak MiB |", "| --- | ---: | --- | ---: | ---: |"]
    for name, values in found["targets"].items():
        guided, findings = "yes" if values["guided_by_coverage"] else "no", len(values["findings"])
        lines.append(f"| {_FUZZED[name]} | {values['inputs']:,} | {guided} | {findings} | {values['peak_mib']} |")
    total, findings = f"{found['inputs']:,}", found["findings"]
    return [*lines, f"| **together** | **{total}** | | **{findings}** | **{found['peak_mib']}** |"]


def count_steps(measured: dict[str, Any]) -> list[str]:
    lines = ["| generation cycle | steps resumed from | equal to the bit |", "| --- | ---: | ---: |"]
    shapes = {key: key.removeprefix(_STEPS) for key in sorted(measured) if key.startswith(_STEPS)}
    return lines + _simple_rows(measured, shapes)


def _simple_rows(measured: dict[str, Any], names: dict[str, str]) -> list[str]:
    return [f"| {name} | {len(trials)} | {_passed(trials)} |" for _, name, trials in _sections(measured, names)]


def describe_machine(measured: dict[str, Any]) -> list[str]:
    abouts = [values["about"] for values in measured.values()]
    dates = sorted({about["date"] for about in abouts})
    machines = "; ".join(sorted({about["machine"] for about in abouts}))
    return [f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))} on: {machines}."]


TABLES = {
    "kills": count_kills,
    "damage": count_damage,
    "disks": count_disks,
    "starts": count_starts,
    "fuzzing": count_fuzzing,
    "steps": count_steps,
    "machine": describe_machine,
}


def fill_page(page: str, measured: dict[str, Any]) -> str:
    """The page with every table between its marks made anew."""
    return _PLACE.sub(lambda found: found[1] + "\n".join(["", *TABLES[found[2]](measured), "", found[3]]), page)


def _sections(measured: dict[str, Any], names: dict[str, str]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    return [(key, name, [*measured[key]["trials"].values()]) for key, name in names.items() if key in measured]


def _passed(trials: list[dict[str, Any]]) -> int:
    return sum(trial["passed"] for trial in trials)


if __name__ == "__main__":
    PAGE.write_text(fill_page(PAGE.read_text(encoding="utf-8"), json.loads(MEASURED.read_text())), encoding="utf-8")
