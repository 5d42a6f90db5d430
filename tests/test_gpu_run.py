"""`benchmarks/gpu`: every part on a CPU, what fails or takes too long, the budget, and what a bundle is used for."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.forked import ForkedPython

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(f"gpu.{name}")


def environment() -> dict[str, str]:
    paths = f"{REPOSITORY / 'src'}:{BENCHMARKS}"
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "GPU_BUNDLE": "none"}


def test_every_part_runs_on_a_cpu_and_every_check_holds(gpu: Any, tmp_path: Path) -> None:
    """The path of `run.sh --cpu`, from what this process has imported; the next test starts the script."""
    words = [sys.executable, "-m", "gpu.cli", "--cpu", "--out", str(tmp_path)]
    with (tmp_path / "said").open("w") as said:
        run = ForkedPython(words, stdout=said, stderr=said, env=environment())
        assert run.wait(1800) == 0, (tmp_path / "said").read_text()
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert list(record["parts"]) == ["head", "head-speed", "packing", "sft", "generation", "grpo"]
    assert {part["status"] for part in record["parts"].values()} == {"done"}
    assert record["device"] == "cpu"
    assert record["machine"]["gpu"] is None
    rows = {name: {row["name"]: row for row in part["rows"]} for name, part in record["parts"].items()}
    for name, row in ((name, row) for found in rows.values() for name, row in found.items()):
        assert row["value"] is not None or row["note"].startswith("left out"), (name, row)
    assert len([row for row in rows["head"].values() if row["holds"]]) == 3  # one a dtype
    assert {name.split(",")[0] for name in rows["sft"]} == {"trl", "packed", "padded"}
    assert rows["packing"]["float32, samples that see each other"]["holds"]
    table = (tmp_path / "gpu.md").read_text()
    assert table in (tmp_path / "said").read_text()
    assert table.count("| **") == 6


def test_the_script_runs_the_kernel_with_what_its_python_has(tmp_path: Path) -> None:
    command = ["bash", str(BENCHMARKS / "gpu" / "run.sh"), "--cpu", "--only", "head", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert "Triton's interpreter" in done.stdout
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"]["head"]["holds"] is True


def test_without_a_gpu_nothing_is_started(gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu("cli").main(["--out", str(tmp_path / "out")]) == 2
    assert "--cpu" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def parts_that(monkeypatch: pytest.MonkeyPatch, gpu: Any, seconds: float, **parts: Any) -> Any:
    """`gpu.parts` with these functions as its parts."""
    found = gpu("parts")
    for name, measure in parts.items():
        monkeypatch.setitem(sys.modules, f"part_{name}", types.SimpleNamespace(measure=measure))
    monkeypatch.setattr(found, "PARTS", {name: found.Part(f"part_{name}", seconds, "a part") for name in parts})
    return found


def fails(setting: Any, emit: Any) -> None:
    emit(importlib.import_module("gpu.rows").Row("before", 1.0))
    raise MemoryError("9 GiB | none left")


def hangs(setting: Any, emit: Any) -> None:
    emit(importlib.import_module("gpu.rows").Row("before", 1.0))
    time.sleep(60)


def dies(setting: Any, emit: Any) -> None:
    os.kill(os.getpid(), 9)


def works(setting: Any, emit: Any) -> None:
    emit(importlib.import_module("gpu.rows").Row("a check", 0.5, "", "allowed", 0.1, False))


def test_a_part_that_fails_hangs_or_dies_is_recorded_with_what_it_had(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_that(monkeypatch, gpu, 0.4, fails=fails, hangs=hangs, dies=dies, works=works)
    setting, deadline = gpu("rows").Setting("cpu", 1), time.monotonic() + 100
    found = {name: parts.run_part(name, setting, tmp_path, deadline) for name in parts.PARTS}
    assert [(one.status, one.why) for one in found.values()] == [
        ("failed", "MemoryError: 9 GiB | none left"),
        ("stopped at its time limit", ""),
        ("failed", "signal 9"),
        ("done", ""),
    ]
    assert [len(one.rows) for one in found.values()] == [1, 1, 0, 1]
    assert not any(one.holds for one in found.values())
    monkeypatch.setattr(gpu("record"), "PARTS", parts.PARTS)
    lines = gpu("record").table(found).splitlines()
    assert "failed, 0 s: MemoryError: 9 GiB \\| none left" in lines[2]
    assert lines[-1] == "| | a check | 0.5 | allowed 0.1 |  | **no** |"


def test_parts_for_which_no_time_is_left_are_skipped_by_name(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_that(monkeypatch, gpu, 60.0, works=works)
    found = parts.run_part("works", gpu("rows").Setting("cpu", 1), tmp_path, time.monotonic() + 10)
    assert (found.status, found.rows, found.holds) == ("skipped: the time was over", [], False)


def test_a_wrong_gradient_is_noticed(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight for all tokens, as in a fault that another library had."""
    check, scores = gpu("head_exactness"), importlib.import_module("balanced_thinking.loss.scores")
    case, size = check.CASES["plain"], check.Size(7, 24, 101)
    errors = check.check(case, size, "cpu", torch.float32, "chunked")
    assert all(error <= allowed for error, allowed in errors.values())
    right = scores._score_block_

    def wrong(logits: Any, targets: Any, scale: Any, options: Any) -> Any:
        return right(logits, targets, None if scale is None else scale[:1].expand_as(scale), options)

    monkeypatch.setattr(scores, "_score_block_", wrong)
    errors = check.check(case, size, "cpu", torch.float32, "chunked")
    assert {name for name, (error, allowed) in errors.items() if error > allowed} == {
        "gradient of hidden",
        "gradient of head",
    }


def test_from_a_bundle_comes_what_is_missing_or_must_be_exact(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install = gpu("install")
    here = {"rich": "15.0.0", "trl": "1.0.0", "accelerate": "1.15.0", "pillow": "12.0.0"}

    def version(name: str) -> str:
        if name not in here:
            raise install.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(install, "version", version)
    offered = ("rich-14.0.0", "trl-1.16.0", "accelerate-1.15.0", "pillow-13.0.0", "cut_cross_entropy-25.1.1")
    wheels = [Path(f"{name}-py3-none-any.whl") for name in offered]
    assert [wheel.name.split("-py3")[0] for wheel in install.choose(wheels)] == ["trl-1.16.0", offered[-1]]


def test_a_bundle_keeps_to_its_limit_and_says_what_it_leaves_out(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = gpu("bundle")
    sizes = {"large": 3_000_000, "small": 1_000_000}

    def download(package: str, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        wheel = folder / f"{package}-1.0-py3-none-any.whl"
        wheel.write_bytes(b"0" * sizes.get(package, 1000))
        return wheel

    monkeypatch.setattr(bundle, "download", download)
    monkeypatch.setattr(bundle, "build_own", lambda folder: download("ours", folder))
    monkeypatch.setattr(bundle, "OURS", ("needed",))
    monkeypatch.setattr(bundle, "PEERS", ("large", "small"))
    monkeypatch.setattr(bundle, "LARGE", ())
    found = bundle.collect(tmp_path, 2.0)
    assert sorted(found.wheels) == sorted(path.name for path in tmp_path.glob("*.whl"))
    assert {name.split("-")[0] for name in found.wheels} == {"ours", "needed", "small"}
    assert found.left_out["large"] == "3.0 MB; 2.0 MB were left"
