"""How long the missing parts of a study take."""

from __future__ import annotations

import json
from pathlib import Path

from balanced_thinking.runs.paths import LEDGER
from balanced_thinking.study.load import make_study
from balanced_thinking.study.run import describe_plan
from tests.study.helpers import SMALL, changed


def write_ledger(root: Path, *rows: tuple[str, str, float]) -> None:
    entries = [{"run": run, "part": part, "wall_seconds": seconds} for run, part, seconds in rows]
    (root / LEDGER).write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_a_plan_of_which_nothing_has_run_says_how_to_get_an_estimate(tmp_path: Path) -> None:
    assert "run the study with one seed first (seeds: [0])" in describe_plan(make_study(SMALL), tmp_path)


def test_an_estimate_is_the_sum_of_what_is_known_and_names_what_is_not(tmp_path: Path) -> None:
    study = make_study(changed(seeds=[3, 5, 8]))
    write_ledger(
        tmp_path, ("sft/seed-3", "train", 600.0), ("sft/seed-5", "train", 1200.0), ("sft/seed-7", "train", 1.0)
    )
    estimate = describe_plan(study, tmp_path, jobs=3)  # no run folder is there, so all three are to go
    assert estimate.endswith("at least about 15 minutes to go, 9 parts of unknown length")
    names = [(f"{arm}/seed-3", part, 60.0) for arm in ("sft", "sft+grpo") for part in ("train", "world-test")]
    write_ledger(tmp_path, *names)
    assert describe_plan(study, tmp_path, jobs=1).endswith("\nabout 12 minutes to go")


def test_a_setting_is_estimated_from_another_only_where_nothing_but_the_steps_differ(tmp_path: Path) -> None:
    settings = {
        "short": {"sft": {"training": {"max_steps": 10}, "data_options": {"n": 20}}},
        "long": {"sft": {"training": {"max_steps": 40}, "data_options": {"n": 80}}},
        "wordy": {"sft": {"training": {"max_steps": 10}, "data_options": {"ratio": 150}}},
        "epochs": {"sft": {"training": {"max_steps": None}}},
    }
    study = make_study(changed(settings={name: {"arms": ["sft"], **varied} for name, varied in settings.items()}))
    write_ledger(tmp_path, ("short/sft/seed-0", "train", 600.0))
    estimate = describe_plan(study, tmp_path, jobs=1)
    assert estimate.endswith("at least about 50 minutes to go, 6 parts of unknown length")  # 10 for short, 40 for long
