"""Faults that are found before the first run starts."""

from __future__ import annotations

import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.study.load import make_study
from balanced_thinking.study.plan import merge_mappings
from balanced_thinking.study.run import check_study, run_study
from tests.study.helpers import MISSPELT, SMALL, changed, finish

FAULTY = merge_mappings(MISSPELT, {"evaluate": {"tset.jsonl": {}, "world": {"splits": ["test", "tset"]}}})


def test_all_faults_are_named_before_anything_runs_or_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(subprocess, "Popen", never)
    with pytest.raises(RecipeError) as error:
        run_study(make_study(FAULTY), tmp_path / "s")
    first, *lines = str(error.value).splitlines()
    assert first == "some of its runs would fail:"
    assert [line.partition(": ")[0].strip() for line in lines] == ["arm 'sft', arm 'sft+grpo'"] * 2 + ["arm 'sft+grpo'"]
    for line, fault in zip(lines, ("has no split 'tset'", "no path 'tset.jsonl'", "'learing_rate' (did"), strict=True):
        assert fault in line
    assert not (tmp_path / "s").exists()


def test_a_dry_run_names_the_faults_and_accepts_the_corrected_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(tmp_path / "s", MISSPELT, "sft/seed-0", "world-test")  # as it was before plans were checked
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(MISSPELT))
    command = ["study", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "s"), "--dry-run"]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "arm 'sft+grpo': the training section has the unknown key 'learing_rate'" in capsys.readouterr().err
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(SMALL))
    assert main(command) == 0
    assert "sft/seed-0  (sft): complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("study", "said"),
    [
        (changed(stages={"sft": {"training": {"weighting": "scaled"}}, "grpo": {}}), "weighting is 'scaled'"),
        (changed(stages={"sft": {"training": {"reasoning_format": "boxd"}}}), "'boxd'"),
        (changed(stages={"sft": {"data": "trian.jsonl"}}), "data: there is no data set and no path 'trian.jsonl'"),
        (changed(stages={"sft": {"validation_split": "vall"}}), "vall"),
        (changed(evaluate={"world": {"options": {"m": 2}}}), "evaluate.world: data set 'world' has no option 'm'"),
    ],
)
def test_a_setting_or_data_that_would_make_a_run_fail_is_found_before(study: Any, said: str, tmp_path: Path) -> None:
    study |= {"arms": {"mine": {}}, "contrasts": []}
    with pytest.raises(RecipeError, match=said):
        check_study(make_study(study), tmp_path)


WITHHELD = '{"id": "a", "question": "what ?"}\n'


GOOD = '{"id": "b", "question": "what ?", "answer": "red"}\n'


TAGGED = '{"prompt": "what ?", "completion": "<r>it is red</r><f>red</f>"}\n'


PLAIN = '{"prompt": "what ?", "completion": "<think>it is red</think><answer>red</answer>"}\n'


TAGS = {"think_open": "<r>", "think_close": "</r>", "answer_open": "<f>", "answer_close": "</f>"}


@pytest.mark.parametrize(
    ("rows", "how", "said"),
    [
        (WITHHELD * 3, {"on_bad_row": "drop"}, "evaluate.mine.jsonl: .*has no row to use: 3 bad rows"),
        (WITHHELD + GOOD, {"on_bad_row": "drop", "limit": 1}, "has no row to use: 1 bad row"),
        (WITHHELD + GOOD + WITHHELD, {}, "evaluate.mine.jsonl: mine.jsonl: 2 bad rows"),
        (WITHHELD + GOOD, {"on_bad_row": "drop"}, ""),
        (TAGGED, {}, ""),  # in the format of the run
        (PLAIN, {"format": "think-answer"}, ""),  # in that of the benchmark
    ],
)
def test_a_benchmark_without_an_answer_to_score_is_found_before_any_training(
    rows: str, how: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text(rows)
    trained = {"mine": {"training": {"reasoning_format": TAGS}}}
    study = make_study({**SMALL, "arms": trained, "contrasts": [], "evaluate": {"mine.jsonl": how}})
    with pytest.raises(RecipeError, match=said) if said else nullcontext():
        check_study(study, tmp_path / "s")


def test_two_arms_of_one_recipe_are_refused(tmp_path: Path) -> None:
    """SCALe is the default, so an arm without settings is what `weighting: scale` is."""
    with pytest.raises(RecipeError, match="arm 'mine' and arm 'scale' have the same recipe"):
        check_study(make_study(changed(arms={"scale": {"training": {"weighting": "scale"}}, "mine": {}})), tmp_path)
    check_study(make_study(changed(arms={"scale": {"training": {"schedule": "linear"}}})), tmp_path)


def test_the_arm_that_reports_take_for_plain_sft_is_not_trained_with_scale(tmp_path: Path) -> None:
    for training in ({}, {"think_weight_end": 0.5}):
        with pytest.raises(RecipeError, match=r"arm 'sft' is trained with SCALe.*training: \{weighting: uniform\}"):
            check_study(make_study({**SMALL, "arms": {"sft": {"training": training}}, "contrasts": []}), tmp_path)


def test_a_misspelt_key_is_named_before_what_follows_from_it(tmp_path: Path) -> None:
    arms = {"sft": {"training": {"weigting": "uniform"}}}
    with pytest.raises(RecipeError, match=r"unknown key 'weigting' \(did you mean 'weighting'\?\)"):
        check_study(make_study({**SMALL, "arms": arms, "contrasts": []}), tmp_path)


def test_what_is_done_is_not_checked_again(tmp_path: Path) -> None:
    study = {**changed(stages={"sft": {"data": "gone.jsonl"}}), "arms": {"mine": {}}, "contrasts": []}
    with pytest.raises(RecipeError, match=r"gone\.jsonl"):
        check_study(make_study(study), tmp_path)
    finish(tmp_path, study, "mine/seed-0")
    check_study(make_study(study), tmp_path)


@pytest.mark.slow
def test_with_a_gpu_another_process_creates_the_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balanced_thinking.study.check.visible_gpus", lambda: ["0"])
    monkeypatch.setattr("balanced_thinking.study.check.find_faults", lambda *_: pytest.fail("this one did"))
    with pytest.raises(RecipeError, match="learing_rate"):
        check_study(make_study(MISSPELT), tmp_path)
