"""What may change in a study that has begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.study.load import make_study, to_yaml
from balanced_thinking.study.run import StudyError, prepare_folder
from tests.study.helpers import SMALL, changed, finish

WORLD = SMALL["evaluate"]["world"]


TWO = changed(evaluate={"world": {"splits": ["test", "validation"]}})


@pytest.mark.parametrize(
    "study",
    [
        # it grows
        changed(seeds=[0, 1]),
        changed(arms={"more": {"training": {"weighting": "scale"}}}),
        changed(evaluate={"world": {"splits": ["test", "test_longer"]}}),
        changed(evaluate={"more.jsonl": {}}),
        # nothing that a result depends on
        changed(contrasts=[], margin=2.0),
        changed(evaluate={"world": {"batch_size": 3}}),
        changed(stages={"sft": {"training": {"image_cache": "somewhere", "logging_steps": 5, "save_steps": 2}}}),
        # of what has no result yet
        {**SMALL, "arms": {"sft": SMALL["arms"]["sft"]}, "contrasts": []},
        changed(arms={"sft+grpo": {"training": {"max_steps": 3}}}),
        changed(stages={"grpo": {"data_options": {"n": 6}}}),
        SMALL,  # without the split that was never evaluated
    ],
)
def test_a_study_that_has_begun_may_change_where_no_result_depends_on_it(study: Any, tmp_path: Path) -> None:
    finish(tmp_path, TWO, "sft/seed-0", "world-test")
    before = (tmp_path / "study.yaml").read_text()
    prepare_folder(make_study(study), tmp_path)
    assert (tmp_path / "study.yaml").read_text() == to_yaml(make_study(study)) != before


@pytest.mark.parametrize(
    ("study", "said"),
    [
        (
            changed(stages={"sft": {"training": {"max_steps": 3}}}),
            r"arm 'sft': training.max_steps was 2 and is 3; choose another folder with --out, or remove the runs",
        ),
        (changed(stages={"sft": {"model": "world-base"}}), "model was 'tiny:qwen2_5_vl' and is 'world-base'"),
        (changed(arms={"sft": {"training": {"learning_rate": 1}}}), "training.learning_rate was not given and is 1"),
        (changed(evaluate={"world": {"max_new_tokens": 5}}), "'sft', world-test: max_new_tokens was 4 and is 5"),
        (changed(dtype="bfloat16"), "'sft', world-test: dtype was 'auto' and is 'bfloat16'"),
        (changed(evaluate={"world": {"scorer": "anls"}}), "world-test: scorer was 'exact' and is 'anls'"),
        (
            {**SMALL, "evaluate": {"world": {**WORLD, "splits": ["validation"]}}},
            "arm 'sft' was evaluated on world-test, which is no longer part of it",
        ),
        (
            {**SMALL, "arms": {"other": {}}, "contrasts": []},
            "arm 'sft' has finished runs and is no longer part of it",
        ),
        (changed(settings={"first": {}}), "arm 'sft' has finished runs and is no longer part"),  # its folder is another
    ],
)
def test_what_finished_runs_depend_on_stays(study: Any, said: str, tmp_path: Path) -> None:
    finish(tmp_path, SMALL, "sft/seed-0", "world-test")
    before = (tmp_path / "study.yaml").read_text()
    with pytest.raises(StudyError, match=said):
        prepare_folder(make_study(study), tmp_path)
    assert (tmp_path / "study.yaml").read_text() == before


def test_a_setting_keeps_the_arms_whose_runs_are_finished(tmp_path: Path) -> None:
    arms, few = SMALL["arms"] | {"more": {}}, {"arms": ["more"]}
    finish(tmp_path, {**SMALL, "arms": arms, "settings": {"r": {}}}, "r/sft/seed-0")
    prepare_folder(make_study({**SMALL, "arms": arms, "settings": {"r": {}, "few": few}}), tmp_path)
    with pytest.raises(StudyError, match="arm 'sft' at 'r' has finished runs and is no longer part of it"):
        prepare_folder(make_study({**SMALL, "arms": arms, "settings": {"r": few}}), tmp_path)


def test_an_arm_stays_while_a_finished_one_has_started_from_it(tmp_path: Path) -> None:
    finish(tmp_path, SMALL, "sft+grpo/seed-0")
    with pytest.raises(StudyError, match=r"arm 'sft': data_options.n was 8 and is 9"):
        prepare_folder(make_study(changed(stages={"sft": {"data_options": {"n": 9}}})), tmp_path)
    with pytest.raises(StudyError, match=r"arm 'sft': training.weighting was 'uniform' and is 'scale'"):
        prepare_folder(make_study(changed(arms={"sft": {"training": {"weighting": "scale"}}})), tmp_path)


def test_a_seed_that_comes_back_was_not_trained_with_another_recipe_meanwhile(tmp_path: Path) -> None:
    finish(tmp_path, changed(seeds=[0, 1]), "sft/seed-1")
    prepare_folder(make_study(SMALL), tmp_path)
    other = changed(stages={"sft": {"training": {"max_steps": 3}}})
    prepare_folder(make_study(other), tmp_path)  # nothing of seed 0 is finished
    with pytest.raises(StudyError, match=r"arm 'sft': training.max_steps was 2 and is 3"):
        prepare_folder(make_study(other | {"seeds": [0, 1]}), tmp_path)


def test_runs_without_their_plan_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    finish(tmp_path, SMALL, "sft/seed-0", "world-test")
    (tmp_path / "study.yaml").unlink()
    with pytest.raises(StudyError, match=r"arm 'sft': training.max_steps was 2 and is 3"):
        prepare_folder(make_study(changed(stages={"sft": {"training": {"max_steps": 3}}})), tmp_path)
    prepare_folder(make_study(SMALL), tmp_path)


def test_an_older_arm_without_weights_continues_as_what_it_was_trained_with(tmp_path: Path) -> None:
    """Once `{}` meant SCALe from 0.9 to 0.5, and neither the plan nor the run named it."""
    older = changed(arms={"scale-sft": {}})
    finish(tmp_path, older, "scale-sft/seed-0", "world-test")
    config = tmp_path / "scale-sft/seed-0/config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "weight" not in line and "schedule" not in line))
    with pytest.raises(StudyError, match=r"training.think_weight_start was 0.9 and is 1.0"):
        prepare_folder(make_study(older), tmp_path)
    as_trained = {"think_weight_start": 0.9, "think_weight_end": 0.5}
    prepare_folder(make_study(changed(arms={"scale-sft": {"training": as_trained}})), tmp_path)
