"""Writes the figures of README.md and benchmarks/README.md from the JSON files of `results/`, by machine.

    python benchmarks/figures.py            # rewrites what is between `<!-- figures:NAME -->` and `<!-- /figures -->`
    python benchmarks/figures.py --check    # exit code 1 where a block is not what the files say

Each file says on which machine it was measured; its folder below `results/` does not matter. For another machine run
`make bench BENCH_OUT=benchmarks/results/NAME`. A file of the kind `reported` holds ratios that somebody measured
elsewhere, without figures; its machine is marked as such.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent
PAGES = (FOLDER.parent / "README.md", FOLDER / "README.md")
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A ratio to a peer in the same run. `where` are fields that a record must have to be about it."""

    name: str
    benchmark: str
    where: Mapping[str, Any]
    contestant: str
    ratio: str
    in_readme: bool = False


_STEP = {"lengths": "ragged", "ranks": 1}
_SMALL, _TINY = _STEP | {"size": "small"}, _STEP | {"size": "tiny", "accumulation": 1}
_CUT = _STEP | {"size": "tiny", "accumulation": 4}
_HEAD = {
    "dtype": "float32",
    "frozen": False,
    "shape": {"hidden": 512, "vocabulary": 32000, "tokens": 2048, "ignored": 0.5},
}
_RATE, _MEMORY = "tokens_per_second_ratio", "peak_mib_ratio"
CLAIMS: Mapping[str, Claim] = {
    "packed-100m": Claim("packed, 100 million parameters: tokens/s", "sft_step", _SMALL, "packed", _RATE, True),
    "packed-2m": Claim("packed, 2 million: tokens/s", "sft_step", _TINY, "packed", _RATE, True),
    "padded-2m": Claim("padded, 2 million: tokens/s", "sft_step", _TINY, "padded", _RATE, True),
    "padded-cut": Claim("padded, 4 micro-batches: tokens/s", "sft_step", _CUT, "padded", _RATE),
    "packed-cut": Claim("packed, 4 micro-batches: tokens/s", "sft_step", _CUT, "packed", _RATE),
    "memory-100m": Claim("packed, 100 million: memory", "sft_step", _SMALL, "packed", _MEMORY, True),
    "memory-2m": Claim("packed, 2 million: memory", "sft_step", _TINY, "packed", _MEMORY),
    "head": Claim("the head: time", "head", _HEAD, "chunked", "seconds_ratio"),
    "head-memory": Claim("the head: memory", "head", _HEAD, "chunked", _MEMORY),
    "head-products": Claim(
        "the head: time, its three products alone = 1", "head", _HEAD, "chunked", "seconds_of_three_products"
    ),
    "generation-2m": Claim("generation, 2 million: tokens/s", "generation", {"size": "tiny"}, "ours", _RATE),
    "generation-100m": Claim("generation, 100 million: tokens/s", "generation", {"size": "small"}, "ours", _RATE),
    "grpo": Claim("GRPO with pictures: time", "grpo", {}, "ours", "seconds_per_step_ratio"),
}


class Ratio(NamedTuple):
    """A claim's figure on one machine: the median of the rounds, or the range of several runs."""

    low: float
    high: float


def read_records(folder: Path) -> dict[Path, Record]:
    return {file: json.loads(file.read_text()) for file in sorted(folder.rglob("*.json"))}


def machine_name(record: Record) -> str:
    """Its GPU, or its processor and cores; of reported ratios also that they are."""
    machine = record["machine"]
    if record["benchmark"] == "reported":
        return f"{machine['cpu']} ({machine['about']}; reported)"
    if record["device"] == "cuda":
        return machine["gpu"]
    vectors = f" ({machine['vectors']})" if machine.get("vectors") else ""
    return f"{machine['cpu']}{vectors}, {machine['cores']} cores"


def ratios_of(record: Record) -> dict[str, Ratio]:
    """What a record says on the claims, by their keys."""
    if record["benchmark"] == "reported":
        return {key: Ratio(min(values), max(values)) for key, values in record["ratios"].items()}
    found = {}
    for key, claim in CLAIMS.items():
        if record["benchmark"] != claim.benchmark or any(record.get(k) != v for k, v in claim.where.items()):
            continue
        ratio = record["figures"].get(claim.contestant, {}).get(claim.ratio)
        if ratio is not None:
            found[key] = Ratio(ratio["median"], ratio["median"])
    return found


def by_machine(records: Iterable[Record]) -> dict[str, dict[str, Ratio]]:
    """Machine -> claim -> ratio; of several files on one claim the range."""
    found: dict[str, dict[str, Ratio]] = {}
    for record in records:
        here = found.setdefault(machine_name(record), {})
        for key, ratio in ratios_of(record).items():
            old = here.get(key, ratio)
            here[key] = Ratio(min(old.low, ratio.low), max(old.high, ratio.high))
    return {machine: ratios for machine, ratios in found.items() if ratios}


def ratio_table(machines: Mapping[str, Mapping[str, Ratio]], keys: Sequence[str]) -> str:
    """Claims by machine, and the range over the machines. A machine without any of them has no column."""
    machines = {name: ratios for name, ratios in machines.items() if any(key in ratios for key in keys)}
    lines = [
        f"| relative to the peer (= 1) | {' | '.join(machines)} | range |",
        "| --- |" + " ---: |" * (len(machines) + 1),
    ]
    for key in keys:
        found = [ratios.get(key) for ratios in machines.values()]
        known = [ratio for ratio in found if ratio]
        if not known:
            continue
        most = Ratio(min(ratio.low for ratio in known), max(ratio.high for ratio in known))
        cells = ["" if ratio is None else _words(ratio) for ratio in found]
        lines.append(f"| {CLAIMS[key].name} | {' | '.join(cells)} | {_words(most) if len(known) > 1 else ''} |")
    return "\n".join(lines)


def _words(ratio: Ratio) -> str:
    low, high = (f"{value:.2f}" for value in (ratio.low, ratio.high))
    return low if low == high else f"{low} to {high}"


def gpu_words(records: Mapping[Path, Record]) -> str:
    """Whether a GPU was measured: one sentence."""
    measured = [record for record in records.values() if record["device"] == "cuda"]
    if not measured:
        return "Everything was measured on CPUs so far, nothing on a GPU."
    names = sorted({machine_name(record) for record in measured})
    held = all(part["holds"] for record in measured for part in record.get("parts", {}).values())
    return f"Measured on CPUs and on {', '.join(names)}{'' if held else ', where not every check held'}."


def gpu_table(records: Mapping[Path, Record]) -> str:
    """The parts of each GPU run; "not measured" where there is none."""
    runs = [record for record in records.values() if record["benchmark"] == "gpu" and record["device"] == "cuda"]
    if not runs:
        return "GPU: not measured. `make bench-gpu` measures it, and its JSON belongs into `results/`."
    lines = ["| GPU | date | part | ended | checks hold |", "| --- | --- | --- | --- | --- |"]
    for run in runs:
        for name, part in run["parts"].items():
            ended, holds = f"{part['status']}, {part['seconds']:.0f} s", "yes" if part["holds"] else "**no**"
            lines.append(f"| {machine_name(run)} | {run['date']} | `{name}` | {ended} | {holds} |")
    return "\n".join(lines)


def file_table(records: Mapping[Path, Record], folder: Path) -> str:
    lines = ["| file | benchmark | machine | date |", "| --- | --- | --- | --- |"]
    for file, record in records.items():
        name = file.relative_to(folder).as_posix()
        link = f"[`{name}`]({folder.name}/{name})"
        lines.append(f"| {link} | {record['benchmark']} | {machine_name(record)} | {record['date']} |")
    return "\n".join(lines)


def blocks(folder: Path) -> dict[str, str]:
    """The text of every block by its name."""
    records = read_records(folder)
    machines = by_machine(records.values())
    says = [f"{machine_name(one)}: {one['says']}" for one in records.values() if one["benchmark"] == "reported"]
    short = [key for key, claim in CLAIMS.items() if claim.in_readme]
    return {
        "measured": gpu_words(records),
        "speed": ratio_table(machines, short),
        "ratios": "\n\n".join([ratio_table(machines, list(CLAIMS)), *says]),
        "gpu": gpu_table(records),
        "files": file_table(records, folder),
    }


_BLOCK = re.compile(r"(<!-- figures:(\w+) -->\n).*?(<!-- /figures -->)", re.DOTALL)


def fill(text: str, found: Mapping[str, str]) -> str:
    """A page with its blocks written anew. Raises KeyError for a block of an unknown name."""
    write: Callable[[re.Match[str]], str] = lambda match: f"{match[1]}{found[match[2]]}\n{match[3]}"  # noqa: E731
    return _BLOCK.sub(write, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is out of date")
    options = parser.parse_args()
    found, old = blocks(FOLDER / "results"), []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (filled := fill(text, found)) != text:
            old.append(page.name)
            if not options.check:
                page.write_text(filled, encoding="utf-8")
    for page in old:
        print(f"{page}: {'out of date; run benchmarks/figures.py' if options.check else 'written'}")
    return 1 if options.check and old else 0


if __name__ == "__main__":
    sys.exit(main())
