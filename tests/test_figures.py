"""Figures on the pages are those of the JSON files, by machine; what was reported or not measured says so."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

EPYC = {"cpu": "AMD EPYC", "cores": 2, "gpu": None}
STEP = {"benchmark": "sft_step", "date": "2026-11-28", "device": "cpu", "lengths": "ragged", "ranks": 1}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("figures")


def write(folder: Path, name: str, **record: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(record))


def tiny_step(packed: float, **more: Any) -> dict[str, Any]:
    ratio = {"median": packed, "min": packed - 0.1, "max": packed + 0.1}
    figures = {"packed": {"tokens_per_second_ratio": ratio}}
    return STEP | {"size": "tiny", "accumulation": 1, "machine": EPYC, "figures": figures} | more


def test_the_pages_show_what_the_files_say(figures: Any) -> None:
    found = figures.blocks(REPOSITORY / "benchmarks" / "results")
    used = set()
    for page in figures.PAGES:
        text = page.read_text(encoding="utf-8")
        assert figures.fill(text, found) == text, f"{page}: run benchmarks/figures.py"
        used |= {match[2] for match in figures._BLOCK.finditer(text)}
    assert used == set(found)


def test_a_range_is_over_the_machines_and_a_reported_ratio_is_marked(figures: Any, tmp_path: Path) -> None:
    write(tmp_path, "step", **tiny_step(3.04))
    xeon = {"cpu": "Intel Xeon", "about": "AVX-512", "cores": None, "gpu": None}
    reported = {"benchmark": "reported", "says": "Ratios only.", "date": "2026-11-28", "device": "cpu"}
    write(tmp_path, "xeon", **reported, machine=xeon, ratios={"packed-2m": [2.08]})
    lines = figures.blocks(tmp_path)["ratios"].splitlines()
    assert lines[0] == "| relative to the peer (= 1) | AMD EPYC, 2 cores | Intel Xeon (AVX-512; reported) | range |"
    assert lines[2] == "| packed, 2 million: tokens/s | 3.04 | 2.08 | 2.08 to 3.04 |"
    assert lines[-1] == "Intel Xeon (AVX-512; reported): Ratios only."


def test_a_machine_without_any_of_the_figures_has_no_column(figures: Any) -> None:
    ratios = {"one": {}, "two": {"packed-2m": figures.Ratio(2.0, 2.0)}}
    assert figures.ratio_table(ratios, ["packed-2m"]).startswith("| relative to the peer (= 1) | two | range |")


def test_processors_of_one_name_and_other_vectors_are_two_machines(figures: Any, tmp_path: Path) -> None:
    write(tmp_path, "wide", **tiny_step(3.04, machine=EPYC | {"vectors": "AVX512"}))
    write(tmp_path, "narrow", **tiny_step(2.5, machine=EPYC | {"vectors": "AVX2"}))
    heads = figures.blocks(tmp_path)["ratios"].splitlines()[0]
    assert "| AMD EPYC (AVX2), 2 cores | AMD EPYC (AVX512), 2 cores |" in heads


def test_a_record_of_other_conditions_is_no_evidence(figures: Any, tmp_path: Path) -> None:
    write(tmp_path, "even", **tiny_step(1.24, lengths="puzzlevqa"))
    write(tmp_path, "ranks", **tiny_step(2.09, ranks=2))
    assert "packed" not in figures.blocks(tmp_path)["ratios"]


@pytest.mark.parametrize("holds", [True, False])
def test_a_gpu_is_measured_only_when_its_json_is_there(holds: bool, figures: Any, tmp_path: Path) -> None:
    write(tmp_path, "step", **tiny_step(3.04))
    found = figures.blocks(tmp_path)
    assert found["measured"] == "Everything was measured on CPUs so far, nothing on a GPU."
    assert found["gpu"].startswith("GPU: not measured.")
    machine = {"cpu": "Intel Xeon", "cores": 16, "gpu": "NVIDIA H200"}
    parts = {"head": {"status": "done", "seconds": 40.2, "holds": holds}}
    write(tmp_path, "gpu", benchmark="gpu", date="2026-12-01", device="cuda", machine=machine, parts=parts)
    found = figures.blocks(tmp_path)
    assert found["measured"].startswith("Measured on CPUs and on NVIDIA H200")
    assert ("not every check held" in found["measured"]) is not holds
    assert f"| NVIDIA H200 | 2026-12-01 | `head` | done, 40 s | {'yes' if holds else '**no**'} |" in found["gpu"]


def test_a_run_on_a_cpu_is_no_gpu_run(figures: Any, tmp_path: Path) -> None:
    write(tmp_path, "gpu", benchmark="gpu", date="2026-12-01", device="cpu", machine=EPYC, parts={})
    assert figures.blocks(tmp_path)["gpu"].startswith("GPU: not measured.")
