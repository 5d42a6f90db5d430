"""The demo in small: all four arms, all test splits, one report; and again without doing anything twice."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.cli import main
from balanced_thinking.config.layers import merge_mappings
from balanced_thinking.study import demo
from balanced_thinking.study.demo import demo_study
from balanced_thinking.study.load import make_study
from balanced_thinking.study.plan import Study
from tests.cli.tiny_commands import exit_code
from tests.forked import popen_forked

ARMS = ("sft", "scale-sft", "sft+grpo", "scale-sft+grpo")
SPLITS = ("test", "test_longer")  # of the four


def learnable_study(**sizes: Any) -> Study:
    """The demo's study with a step of GRPO on two questions, hot enough that their completions differ in reward."""
    study = demo_study(**sizes)
    training = {"temperature": 1.5, "max_completion_length": 64, "per_device_train_batch_size": 16}
    grpo = {"data_options": {"n": 64}, "training": training}
    stages = {"sft": {"data_options": {"n": 64}}, "grpo": grpo}  # thousands of rows and long outputs show nothing more
    changes = {"stages": stages, "evaluate": {"world": {"splits": [*SPLITS], "max_new_tokens": 16}}}
    return make_study(merge_mappings({name: getattr(study, name) for name in study.__dataclass_fields__}, changes))


def test_demo_trains_all_arms_reports_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["demo", "--out", str(tmp_path / "demo"), "--steps", "2", "--grpo-steps", "1", "--ratio", "5", "--n", "4"]
    monkeypatch.setattr(demo, "demo_study", learnable_study)
    monkeypatch.setattr(subprocess, "Popen", popen_forked)
    assert main(command) == 0
    for arm in ARMS:
        for split in SPLITS:
            folder = tmp_path / "demo" / arm / "seed-0" / "eval" / f"world-{split}"
            assert json.loads((folder / "summary.json").read_text())["n"] == 4
    assert str(tmp_path / "demo" / "report.html") in capsys.readouterr().out
    text = (tmp_path / "demo" / "report.html").read_text()
    assert all(arm in text for arm in ARMS)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(text)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(subprocess, "Popen", never)
    assert main(command) == 0
    assert exit_code([*command, "--steps", "3"]) == 2
    assert "training.max_steps was 2 and is 3" in capsys.readouterr().err


def test_each_seed_has_training_data_of_its_own() -> None:
    """Also where `data` is a list, as the demo's with its two kinds of traces."""
    seeds = {node.recipe.data_options["seed"] for node in demo_study(seeds=[3, 4]).planned_runs() if node.arm == "sft"}
    assert seeds == {3, 4}


def test_arms_differ_in_nothing_but_the_weighting() -> None:
    nodes = {node.arm: node.recipe for node in demo_study().planned_runs()}
    ours = {"weighting", "schedule", "think_weight_start", "think_weight_end", "normalize"}
    for plain, scale in (("sft", "scale-sft"), ("sft+grpo", "scale-sft+grpo")):
        a, b = nodes[plain], nodes[scale]
        assert {k: v for k, v in a.training.items() if k not in ours} == {
            k: v for k, v in b.training.items() if k not in ours
        }
        assert (a.model, a.data, a.data_options) == (b.model, b.data, b.data_options)
