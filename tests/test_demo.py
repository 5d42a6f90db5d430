"""The demo in small: both arms, all test splits, one report; and again without doing anything twice."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import pytest

from balanced_thinking import demo


def test_demo_trains_both_arms_reports_and_does_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"seeds": [0], "ratio": 5.0, "steps": 2, "samples": 4}
    page = demo.run_demo(tmp_path, **options)
    for arm in demo.ARMS:
        for split in demo.TEST_SPLITS:
            summary = tmp_path / arm / "seed-0" / "eval" / f"world-{split}" / "summary.json"
            assert json.loads(summary.read_text())["n"] == 4
    text = page.read_text()
    assert "scale-sft" in text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(text)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished part was run again")

    monkeypatch.setattr(demo, "train", never)
    monkeypatch.setattr(demo, "evaluate_model", never)
    assert demo.run_demo(tmp_path, **options) == page


def test_arms_differ_in_nothing_but_the_weighting() -> None:
    plain, scale = (demo._recipe(arm, 3, 20, None) for arm in demo.ARMS)
    ours = {"weighting", "schedule", "think_weight_start", "think_weight_end", "normalize"}
    assert {k: v for k, v in scale.training.items() if k not in ours} == {
        k: v for k, v in plain.training.items() if k not in ours
    }
    assert (plain.model, plain.data, plain.data_options) == (scale.model, scale.data, scale.data_options)
