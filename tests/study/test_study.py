"""Studies: what a plan says, that it is run once and whole, and that a kill at any moment changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml

from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.runs.paths import LEDGER
from balanced_thinking.study import run as study_run
from balanced_thinking.study import worker
from balanced_thinking.study.load import make_study
from balanced_thinking.study.plan import merge_mappings
from balanced_thinking.study.run import StudyError, check_study, describe_plan, prepare_folder, run_study
from balanced_thinking.study.worker import restart_if_recipe_changed
from tests.conftest import REPOSITORY

TRAINING = {"per_device_train_batch_size": 2, "max_steps": 2, "gradient_checkpointing": False, "logging_steps": 1}
SMALL: dict[str, Any] = {
    "seeds": [0],
    "stages": {
        "sft": {
            "model": "tiny:qwen2_5_vl",
            "data_options": {"n": 8, "ratio": 5},
            "training": {**TRAINING, "save_strategy": "steps", "save_steps": 1},
        },
        "grpo": {
            "data_options": {"n": 4},
            "training": {
                **TRAINING,
                "per_device_train_batch_size": 4,
                "num_generations": 2,
                "max_completion_length": 4,
                "save_strategy": "steps",
                "save_steps": 1,
            },
        },
    },
    "arms": {"sft": {"training": {"weighting": "uniform"}}, "sft+grpo": {"after": "sft", "stage": "grpo"}},
    "evaluate": {"world": {"splits": ["test"], "options": {"n": 2}, "max_new_tokens": 4}},
    "contrasts": [["sft+grpo", "sft"]],
}


def changed(**over: Any) -> dict[str, Any]:
    return merge_mappings(SMALL, over)


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
        (changed(arms={".hidden": {}}), "no . in front"),
        (changed(arms={"": {}}), "'' cannot name a folder"),
        (changed(arms={True: {}}), "arms: found True; expected a name, so quote it"),  # YAML's `on`
        (changed(settings={"a b": {}}), "settings: 'a b' cannot name a folder"),
        (changed(settings={"a": {"seeds": [-1]}}), "0 or more"),
        (changed(stages={"stf": {}}), "did you mean 'sft'"),
        (changed(arms={"sft": {"stage": 1}}), "arm 'sft' has stage: 1; known: sft, grpo"),
        (changed(contrasts=[["sft"]]), "expected pairs"),
        (changed(margin="one"), "margin is 'one'"),
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
        (changed(settings={"a": {"evaluate": ["world"]}}), "setting 'a': evaluate: it is"),
        (changed(settings={"a": {"evaluate": {"world": 3}}}), "setting 'a': evaluate: world is 3"),
        (changed(contrasts=[["sft", "sft"]]), "compares an arm with itself"),
        ([1], "expected a mapping"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_by_name(study: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        make_study(study)


def finish(root: Path, study: Any, name: str, *evaluated: str) -> None:
    """Leave what a finished run and its evaluations leave."""
    prepare_folder(make_study(study), root)
    (node,) = [node for node in make_study(study).planned_runs() if node.name == name]
    for label in evaluated:
        (root / name / "eval" / label).mkdir(parents=True)
        (root / name / "eval" / label / "summary.json").write_text("{}")
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "config.yaml").write_text(node.recipe.to_yaml())
    (root / name / "provenance.json").write_text('{"finished": "now"}')


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
    prepare_folder(make_study(study), tmp_path)


@pytest.mark.parametrize(
    ("study", "said"),
    [
        (
            changed(stages={"sft": {"training": {"max_steps": 3}}}),
            r"arm 'sft': training.max_steps was 2 and is 3; choose another folder with --out, or remove the runs",
        ),
        (changed(stages={"sft": {"model": "world-base"}}), "model was 'tiny:qwen2_5_vl' and is 'world-base'"),
        (changed(arms={"sft": {"training": {"learning_rate": 1}}}), "training.learning_rate was empty and is 1"),
        (changed(evaluate={"world": {"max_new_tokens": 5}}), "'sft', world-test: max_new_tokens was 4 and is 5"),
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


def test_a_seed_that_comes_back_was_not_trained_with_another_recipe_meanwhile(tmp_path: Path) -> None:
    finish(tmp_path, changed(seeds=[0, 1]), "sft/seed-1")
    prepare_folder(make_study(SMALL), tmp_path)
    other = changed(stages={"sft": {"training": {"max_steps": 3}}})
    prepare_folder(make_study(other), tmp_path)  # nothing of seed 0 is finished
    with pytest.raises(StudyError, match=r"arm 'sft': training.max_steps was 2 and is 3"):
        prepare_folder(make_study(other | {"seeds": [0, 1]}), tmp_path)


MISSPELT = changed(arms={"sft+grpo": {"training": {"learing_rate": 1e-3}}})
FAULTY = merge_mappings(MISSPELT, {"evaluate": {"tset.jsonl": {}, "world": {"splits": ["test", "tset"]}}})


def test_all_faults_are_told_before_anything_runs_or_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(study_run.subprocess, "Popen", never)
    with pytest.raises(RecipeError) as error:
        run_study(make_study(FAULTY), tmp_path / "s")
    first, *told = str(error.value).splitlines()
    assert first == "some of its runs would fail:"
    assert [line.partition(": ")[0].strip() for line in told] == ["arm 'sft', arm 'sft+grpo'"] * 2 + ["arm 'sft+grpo'"]
    for line, fault in zip(told, ("has no split 'tset'", "no path 'tset.jsonl'", "'learing_rate' (did"), strict=True):
        assert fault in line
    assert not (tmp_path / "s").exists()


def test_a_dry_run_tells_the_faults_and_the_mended_plan_is_taken(
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
def test_a_setting_or_data_that_a_run_would_fail_of_is_found_before(study: Any, said: str, tmp_path: Path) -> None:
    study["arms"]["sft"] = {}
    with pytest.raises(RecipeError, match=said):
        check_study(make_study(study), tmp_path)


WITHHELD = '{"id": "a", "question": "what ?"}\n'
GOOD = '{"id": "b", "question": "what ?", "answer": "red"}\n'
TAGGED = '{"prompt": "what ?", "completion": "<r>it is red</r><f>red</f>"}\n'
TAGS = {"think_open": "<r>", "think_close": "</r>", "answer_open": "<f>", "answer_close": "</f>"}


@pytest.mark.parametrize(
    ("rows", "how", "said"),
    [
        (WITHHELD * 3, {"on_bad_row": "drop"}, "evaluate.mine.jsonl: .*has no row to use: 3 bad rows"),
        (WITHHELD + GOOD, {"on_bad_row": "drop", "limit": 1}, "has no row to use: 1 bad row"),
        (WITHHELD + GOOD + WITHHELD, {}, "evaluate.mine.jsonl: mine.jsonl: 2 bad rows"),
        (WITHHELD + GOOD, {"on_bad_row": "drop"}, ""),
        (TAGGED, {}, ""),  # in the format of the run
    ],
)
def test_a_benchmark_without_an_answer_to_score_is_found_before_any_training(
    rows: str, how: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text(rows)
    trained = {"sft": {"training": {"reasoning_format": TAGS}}}
    study = make_study({**SMALL, "arms": trained, "contrasts": [], "evaluate": {"mine.jsonl": how}})
    with pytest.raises(RecipeError, match=said) if said else nullcontext():
        check_study(study, tmp_path / "s")


def test_what_is_done_is_not_looked_at_again(tmp_path: Path) -> None:
    study = {**changed(stages={"sft": {"data": "gone.jsonl"}}), "arms": {"sft": {}}, "contrasts": []}
    finish(tmp_path, study, "sft/seed-0")
    check_study(make_study(study), tmp_path)


def test_where_there_is_a_gpu_another_process_settles_the_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balanced_thinking.study.check.visible_gpus", lambda: ["0"])
    monkeypatch.setattr("balanced_thinking.study.check.find_faults", lambda *_: pytest.fail("this one did"))
    with pytest.raises(RecipeError, match="learing_rate"):
        check_study(make_study(MISSPELT), tmp_path)


def test_a_training_that_began_with_another_recipe_starts_anew(tmp_path: Path) -> None:
    study = {**SMALL, "arms": {"sft": {}}, "contrasts": []}
    other = merge_mappings(study, {"stages": {"sft": {"training": {"learning_rate": 0.5, "logging_steps": 3}}}})
    (before,), (node,) = (make_study(one).planned_runs() for one in (study, other))
    folder = tmp_path / node.name
    (folder / "checkpoints/checkpoint-1").mkdir(parents=True)
    (folder / "log.txt").write_text("the worker's")
    (folder / "config.yaml").write_text(before.recipe.to_yaml())
    restart_if_recipe_changed(folder, before)
    assert (folder / "checkpoints/checkpoint-1").is_dir()
    restart_if_recipe_changed(folder, node)
    assert [path.name for path in folder.iterdir()] == ["log.txt"]
    assert (folder.with_name(".seed-0-1") / "checkpoints/checkpoint-1").is_dir()
    (folder / "config.yaml").write_text(before.recipe.to_yaml())
    restart_if_recipe_changed(folder, node)
    assert (folder.with_name(".seed-0-2") / "config.yaml").is_file()
    finish(tmp_path, study, node.name)
    with pytest.raises(RecipeError, match=r"finished with another recipe: arm 'sft': training.learning_rate"):
        restart_if_recipe_changed(folder, node)


def test_a_kill_while_a_training_is_put_aside_leaves_no_checkpoint_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_study(SMALL).planned_runs()[0]
    folder = tmp_path / node.name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(replace(node.recipe, model="world-base").to_yaml())
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name == "checkpoints":
            raise KeyboardInterrupt
        return real(path, target)

    # The order in which a folder is listed is the file system's.
    monkeypatch.setattr(Path, "iterdir", lambda place: iter([place / "config.yaml", place / "checkpoints"]))
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        restart_if_recipe_changed(folder, node)
    monkeypatch.undo()
    restart_if_recipe_changed(folder, node)
    assert not any(folder.iterdir())


def test_all_evaluations_have_one_default_batch_size(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["eval", "--help"])
    told = re.search(r"samples generated together\s+\(default: (\d+)\)", capsys.readouterr().out)
    assert told is not None
    assert Benchmark("world").batch_size == int(told[1])


def test_a_study_runs_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(SMALL)
    run_study(study, tmp_path, jobs=2)
    rows = read_ledger(tmp_path, [])
    assert [(row.run, row.part) for row in rows] == [
        ("sft/seed-0", "train"),
        ("sft/seed-0", "world-test"),
        ("sft+grpo/seed-0", "train"),
        ("sft+grpo/seed-0", "world-test"),
    ]
    assert all(row.wall_seconds > 0 and row.cpu_seconds > 0 and row.peak_mib > 0 for row in rows)
    about = json.loads((tmp_path / "sft" / "seed-0" / "provenance.json").read_text())
    assert (rows[0].wall_seconds, rows[0].cpu_seconds) == (about["train_seconds"], about["train_cpu_seconds"])
    config = yaml.safe_load((tmp_path / "sft+grpo" / "seed-0" / "config.yaml").read_text())
    assert Path(config["model"]) == tmp_path / "sft" / "seed-0"
    assert "complete" in describe_plan(study, tmp_path)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(study_run.subprocess, "Popen", never)
    run_study(study, tmp_path, jobs=2)


def wrote(root: Path, *rows: tuple[str, str, float]) -> None:
    entries = [{"run": run, "part": part, "wall_seconds": seconds} for run, part, seconds in rows]
    (root / LEDGER).write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_a_plan_of_which_nothing_has_run_says_how_to_get_an_estimate(tmp_path: Path) -> None:
    assert "run the study with one seed first (seeds: [0])" in describe_plan(make_study(SMALL), tmp_path)


def test_an_estimate_is_the_sum_of_what_is_known_and_says_what_is_not(tmp_path: Path) -> None:
    study = make_study(changed(seeds=[3, 5, 8]))
    wrote(tmp_path, ("sft/seed-3", "train", 600.0), ("sft/seed-5", "train", 1200.0), ("sft/seed-7", "train", 1.0))
    told = describe_plan(study, tmp_path, jobs=3)  # no run folder is there, so all three are to go
    assert told.endswith("at least about 15 minutes to go, 9 parts of unknown length")
    names = [(f"{arm}/seed-3", part, 60.0) for arm in ("sft", "sft+grpo") for part in ("train", "world-test")]
    wrote(tmp_path, *names)
    assert describe_plan(study, tmp_path, jobs=1).endswith("\nabout 12 minutes to go")


def test_a_setting_is_estimated_from_another_only_where_nothing_but_the_steps_differ(tmp_path: Path) -> None:
    settings = {
        "short": {"sft": {"training": {"max_steps": 10}, "data_options": {"n": 20}}},
        "long": {"sft": {"training": {"max_steps": 40}, "data_options": {"n": 80}}},
        "wordy": {"sft": {"training": {"max_steps": 10}, "data_options": {"ratio": 150}}},
        "epochs": {"sft": {"training": {"max_steps": None}}},
    }
    study = make_study(changed(settings={name: {"arms": ["sft"], **varied} for name, varied in settings.items()}))
    wrote(tmp_path, ("short/sft/seed-0", "train", 600.0))
    told = describe_plan(study, tmp_path, jobs=1)
    assert told.endswith("at least about 50 minutes to go, 6 parts of unknown length")  # 10 for short, 40 for long


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_the_ledger_counts_a_continued_training_whole_and_gpu_seconds_on_a_gpu(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from balanced_thinking.training import run as training_run

    def train(recipe: Any, out: Path, *, resume: bool) -> None:
        """As a run that was killed twice ends: its last part took no time."""
        about = {"train_seconds": 6.99, "train_cpu_seconds": 5.5, "steps": 2, "tokens": 9, "device": device}
        (out / "provenance.json").write_text(json.dumps(about | {"finished": "now"}))

    monkeypatch.setattr(training_run, "train", train)
    monkeypatch.setattr("balanced_thinking.runs.ledger.peak_mib", lambda on: {"cpu": 100, "cuda:0": 7}[on])
    node = replace(make_study(SMALL).planned_runs()[0], benchmarks=())
    (tmp_path / node.name).mkdir(parents=True)
    worker.complete_run(tmp_path, node)
    (row,) = read_ledger(tmp_path, [])
    assert (row.wall_seconds, row.cpu_seconds) == (6.99, 5.5)
    assert (row.gpu_seconds, row.peak_mib) == ((None, 100) if device == "cpu" else (6.99, 7))


def test_a_run_is_asked_as_its_benchmark_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"limit": 7, "on_bad_row": "drop", "batch_size": 3, "max_new_tokens": 4, "prompt": "instructed"}
    own |= {"scorer": "anls", "options": {"n": 2}, "format": "direct"}
    assert {*own, "data", "splits"} == {field.name for field in fields(Benchmark)}
    asked: dict[str, Any] = {}

    def evaluate(model: str, benchmark: Benchmark, split: str) -> Any:
        asked.update(asdict(benchmark), split=split)
        return SimpleNamespace(n=7, think_tokens_mean=3.0, answer_tokens_mean=1.0, wall_seconds=8.5, cpu_seconds=7.25)

    monkeypatch.setattr("balanced_thinking.evaluation.run.evaluate", evaluate)
    node = make_study(changed(evaluate={"world": own})).planned_runs()[0]
    (tmp_path / node.name).mkdir(parents=True)
    (tmp_path / node.name / "provenance.json").write_text('{"finished": "now"}')
    worker.complete_run(tmp_path, node)
    assert asked == {"split": "test", "splits": ("test",), "data": "world", **own}
    (row,) = read_ledger(tmp_path, [])
    assert (row.tokens, row.wall_seconds, row.cpu_seconds) == (28, 8.5, 7.25)


def test_a_failed_run_is_told_with_its_log_and_the_others_are_finished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arms = {"broken": {"model": "nowhere/at/all"}, "after": {"after": "broken", "stage": "grpo"}}
    study = make_study({**SMALL, "arms": arms | {"sft": SMALL["arms"]["sft"]}, "contrasts": []})
    caplog.set_level("INFO")
    with pytest.raises(
        StudyError,
        match=r"1 of 3 runs failed, 1 more that start from them were left out.*again \([^,]*broken/seed-0/log.txt\)",
    ):
        run_study(study, tmp_path, jobs=2)
    assert "no model folder nowhere/at/all" in caplog.text
    assert (tmp_path / "sft" / "seed-0" / "eval" / "world-test" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("code", "log", "said"),
    [
        (1, "Traceback\nValueError: no", "failed (ValueError: no); see"),
        (1, "", "failed (exit code 1); see"),
        (-9, "step 7 of 9", "failed (ended by signal 9, Killed); see"),  # not by what its last line is about
        (0, "", "sft/seed-0: world-test 25.0%"),  # nor by results that are not the study's
    ],
)
def test_the_end_of_a_run_is_told_in_one_line(code: int, log: str, said: str, tmp_path: Path) -> None:
    node = make_study(SMALL).planned_runs()[0]
    for label, summary in (("world-test", '{"n": 4, "correct": 1, "accuracy": 0.25}'), ("other-test", "{}")):
        (tmp_path / node.name / "eval" / label).mkdir(parents=True)
        (tmp_path / node.name / "eval" / label / "summary.json").write_text(summary)
    (tmp_path / node.name / "log.txt").write_text(log)
    assert said in study_run._result_line(tmp_path, node, code)


def fingerprints(root: Path) -> dict[str, str]:
    """What a final table is made of: every prediction, and every logged loss."""
    found = {}
    for path in sorted(root.glob("*/seed-*/eval/*/predictions.jsonl")):
        found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(root.glob("*/seed-*/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
        found[str(path.relative_to(root))] = str(losses)
    return found


def workers(root: Path) -> list[psutil.Process]:
    found = [(process, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [p for p, words in found if "balanced_thinking.study.worker" in words and str(root) in words]


def kill_workers(root: Path) -> None:
    for process in workers(root):
        process.kill()


def study_command(root: Path) -> list[str]:
    (root / "plan.yaml").write_text(yaml.safe_dump(SMALL))
    program = [sys.executable, "-m", "balanced_thinking.cli"]
    return [*program, "study", str(root / "plan.yaml"), "--out", str(root / "s")]


def test_jobs_and_threads_are_of_the_cores_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(command: list[str], env: dict[str, str], **_: Any) -> None:
        raise OSError(f"{env['OMP_NUM_THREADS']} threads")

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8, 14)), raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(study_run.subprocess, "Popen", start)
    assert study_run.default_jobs() == 6
    with pytest.raises(OSError, match=r"^2 threads"):
        run_study(make_study(SMALL), tmp_path, jobs=3)


@pytest.mark.parametrize(
    ("visible", "jobs", "expected"),
    [
        (None, None, ["0", "1"]),  # as many runs as GPUs
        ("GPU-a, GPU-b", 4, ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]),
        ("3,5,-1,7", None, ["3", "5"]),  # CUDA sees none after one that is not there
    ],
)
def test_every_run_sees_one_gpu(
    visible: str | None, jobs: int | None, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    class Running:
        def __init__(self, command: list[str], env: dict[str, str], **_: Any) -> None:
            started.append(env["CUDA_VISIBLE_DEVICES"])
            if len(started) == len(expected):
                raise OSError("all are started")

        def send_signal(self, number: int) -> None: ...

        def wait(self, seconds: float) -> None: ...

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(study_run, "check_runs", lambda *_: None)
    monkeypatch.setattr(study_run.subprocess, "Popen", Running)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    study = make_study({**changed(seeds=[0, 1, 2, 3]), "arms": {"sft": {}}, "contrasts": []})
    with pytest.raises(OSError, match="all are started"):
        run_study(study, tmp_path, jobs=jobs)
    assert started == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_worker_is_started_leaves_none_behind(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started = subprocess.Popen, []

    def start(*args: Any, **kwargs: Any) -> Any:
        """The signal arrives when the worker lives, and before the study has heard of it."""
        started.append(process := real(*args, **kwargs))
        os.kill(os.getpid(), number)
        return process

    monkeypatch.setattr(study_run.subprocess, "Popen", start)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_study(make_study(SMALL), tmp_path, jobs=1)
        assert [process.poll() is None for process in started] == [False]
        assert not workers(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
        kill_workers(tmp_path)


def test_a_terminated_study_leaves_no_worker_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(study_command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for _ in range(300):
        if workers(tmp_path / "s"):
            break
        time.sleep(0.1)
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert said.endswith("balanced study: stopped; the same command continues where it stopped\n")
    assert not workers(tmp_path / "s")


def killed_and_continued(root: Path, kills: int, rng: random.Random) -> dict[str, str]:
    command = study_command(root)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for _ in range(kills):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(rng.uniform(1, 20))
        # Sometimes the scheduler alone, so that its workers live on; sometimes the workers, too.
        if rng.random() < 0.5:
            kill_workers(root / "s")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return fingerprints(root / "s")


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments_leave_the_same_table(kills: int, tmp_path: Path) -> None:
    run_study(make_study(SMALL), tmp_path / "undisturbed", jobs=1)
    (tmp_path / "killed").mkdir()
    found = killed_and_continued(tmp_path / "killed", kills, random.Random(kills))
    assert found == fingerprints(tmp_path / "undisturbed")
    assert len(found) == 4
