"""A plan: its runs, their order and names, and every fault of its YAML by name."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.study.load import make_study, to_yaml
from tests.conftest import REPOSITORY
from tests.study.helpers import SMALL, changed


def test_a_plan_is_every_arm_at_every_setting_with_every_seed_parents_first() -> None:
    study = make_study(changed(seeds=[3, 5], settings={"r5": {}, "r9": {"sft": {"data_options": {"ratio": 9}}}}))
    nodes = study.planned_runs()
    assert [node.name for node in nodes[:2]] == ["r5/sft/seed-3", "r5/sft+grpo/seed-3"]
    assert len(nodes) == len({node.name for node in nodes}) == 8
    seen: set[str] = set()
    for node in nodes:
        assert node.after is None or node.after in seen
        seen.add(node.name)
        assert node.recipe.training["seed"] == node.recipe.data_options["seed"] == node.seed
    assert {n.recipe.data_options["ratio"] for n in nodes if n.stage == "sft" and n.setting == "r9"} == {9}


def test_the_study_that_the_guide_shows_is_a_plan() -> None:
    guide = (REPOSITORY / "docs" / "studies.md").read_text()
    shown = make_study(yaml.safe_load(guide.partition("```yaml")[2].partition("```")[0]))
    assert len(shown.planned_runs()) == 9
    assert shown.contrasts == (("scale-sft", "sft"), ("scale-sft", "sft+grpo"))


def test_a_setting_may_name_its_arms_and_seeds() -> None:
    few = {"arms": ["sft"], "seeds": [7]}
    study = make_study(changed(seeds=[3, 5], settings={"all": {}, "few": few}))
    assert [node.name for node in study.planned_runs() if node.setting == "few"] == ["few/sft/seed-7"]
    assert sum(node.setting == "all" for node in study.planned_runs()) == 4


def test_a_setting_that_leaves_its_keys_empty_varies_nothing() -> None:
    study = make_study(changed(settings={"all": {"arms": None, "sft": None, "evaluate": None}}))
    assert [node.name for node in study.planned_runs()] == ["all/sft/seed-0", "all/sft+grpo/seed-0"]


def test_names_may_be_numbers() -> None:
    arms = {4: {}, 5: {"after": 4, "stage": "grpo"}}
    settings = {10: {}, 40: {"arms": [4]}, 0.5: {"arms": [4]}}
    study = make_study({**SMALL, "arms": arms, "settings": settings, "contrasts": [[5, 4]]})
    names = ["10/4/seed-0", "10/5/seed-0", "40/4/seed-0", "0.5/4/seed-0"]
    assert [node.name for node in study.planned_runs()] == names


def test_an_arm_written_before_its_parent_still_comes_after_it() -> None:
    arms = dict(reversed(SMALL["arms"].items()))
    assert [node.arm for node in make_study({**SMALL, "arms": arms}).planned_runs()] == ["sft", "sft+grpo"]


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({**SMALL, "arms": {}}, "has no arms"),
        ({**SMALL, "evaluate": None}, "has no evaluate"),
        ({**SMALL, "arm": {}}, "did you mean 'arms'"),
        (changed(arms={"sft": {"stage": "sftt"}}), "did you mean 'sft'"),
        (changed(arms={"sft+grpo": {"after": "stf"}}), "did you mean 'sft'"),
        (changed(arms={"sft": {"after": "sft+grpo"}}), "start from each other"),
        (changed(arms={"sft": {"modle": "x"}}), "did you mean 'model'"),
        (changed(contrasts=[["sft+gpro", "sft"]]), r"did you mean 'sft\+grpo'"),
        (changed(seeds=[1, 1]), "different integers"),
        (changed(seeds=3), "different integers"),
        (changed(seeds=[-1]), r"seeds is \[-1\]; expected different integers of 0 or more"),
        (changed(arms={"a/b": {}}), "arms: 'a/b' cannot name a folder; expected letters, digits"),
        (changed(arms={"../x": {}}), "'../x' cannot name a folder"),
        (changed(arms={".hidden": {}}), "no . at the start"),
        (changed(arms={"": {}}), "'' cannot name a folder"),
        (changed(arms={True: {}}), "arms: found True; expected a name as text; write it in quotes"),  # YAML's `on`
        (changed(settings={"a b": {}}), "settings: 'a b' cannot name a folder"),
        (changed(settings={"a": {"seeds": [-1]}}), "0 or more"),
        (changed(stages={"stf": {}}), "did you mean 'sft'"),
        (changed(arms={"sft": {"stage": 1}}), "arm 'sft' has stage: 1; known: sft, grpo"),
        (changed(contrasts=[["sft"]]), "expected pairs"),
        (changed(margin="one"), "margin is 'one'"),
        (changed(dtype="bf16"), "dtype is 'bf16'"),
        (changed(arms={"sft": 3}), "expected a mapping"),
        (changed(arms={"sft": {"data": "$NOWHERE/x"}}), "NOWHERE is not set"),
        (changed(arms={"sft": {"lora": {"rank": 3}}}), "did you mean"),
        (changed(evaluate={"world": {"scorer": "exat"}}), "did you mean 'exact'"),
        (changed(evaluate={"world": {"prompt": "questoin"}}), "did you mean 'question'"),
        (changed(evaluate={"x/data/test.jsonl": {}, "y/data/test.jsonl": {}}), "share the folder 'data-test'"),
        (changed(evaluate={"world": {"split": ["test"]}}), "did you mean 'splits'"),
        (changed(settings={"a": {"stf": {}}}), "did you mean 'sft'"),
        (changed(settings={"a": {"arms": ["stf"]}}), "did you mean 'sft'"),
        (changed(settings={"a": {"arms": ["sft+grpo"]}}), "starts from 'sft', which the setting leaves out"),
        (changed(settings={"a": {"arms": "sft"}}), "expected a list"),
        (changed(settings={"a": {"seeds": [1, 1]}}), "setting 'a': seeds"),
        (changed(settings={"a": {"sft": 3}}), "setting 'a': sft is 3; expected a mapping"),
        (changed(settings={"a": {"evaluate": ["world"]}}), "setting 'a': evaluate is"),
        (changed(settings={"a": {"evaluate": {"world": 3}}}), "setting 'a': evaluate: world is 3"),
        (changed(contrasts=[["sft", "sft"]]), "compares an arm with itself"),
        ([1], "expected a mapping"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_by_name(study: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        make_study(study)


def test_workers_read_the_plan_that_was_written() -> None:
    for study in (make_study(SMALL), make_study(changed(dtype="bfloat16"))):
        assert make_study(yaml.safe_load(to_yaml(study))) == study
    assert make_study(SMALL).dtype == "auto"  # of a plan that does not say it, as older ones
