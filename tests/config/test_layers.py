"""A recipe, a study and an evaluation from several files: what wins, what is recorded, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.layers import merge_mappings
from balanced_thinking.evaluation.recipe import read_evaluation_recipe
from balanced_thinking.study.load import load_study, make_study, to_yaml
from balanced_thinking.training.default_weights import WEIGHTING_OPTIONS, resolve_weighting
from balanced_thinking.training.rank_change import refuse_other_ranks
from balanced_thinking.training.recipe import Recipe, load_recipe
from balanced_thinking.training.run_recipe import resumed_recipe

RECIPE = {"model": "a", "data": "world", "lora": {"r": 4, "lora_alpha": 8}, "training": {"max_steps": 2, "seed": 1}}
OVERLAY = {
    "stages": {
        "sft": {"ranks": 1, "lora": {"r": 8}, "training": {"learning_rate": 1e-4}},
        "grpo": {"lora": None, "training": {"learning_rate": 1e-6}},
    }
}
STUDY = {"arms": {"sft": {}}, "evaluate": {"world": {"max_new_tokens": 9, "options": {"n": 4}, "splits": ["test"]}}}
TWO_WEIGHTS = resolve_weighting({})
SCALE, EARLIER = {"weighting": "scale", "schedule": "cosine"}, {"think_weight_start": 0.9, "think_weight_end": 0.5}
Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, values: Any) -> Path:
        (file := tmp_path / name).write_text(yaml.safe_dump(values))
        return file

    return write_file


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),  # key by key
        ({"m": {"a": 1, "b": 2}}, {"m": {"b": 3}}, {"m": {"a": 1, "b": 3}}),  # inside of mappings, too
        ({"m": {"a": 1}}, {"m": None}, {"m": None}),  # null takes a mapping away
        ({"m": None}, {"m": {"a": 1}}, {"m": {"a": 1}}),
        ({"l": [1, 2]}, {"l": [3]}, {"l": [3]}),  # a list is one value
        ({"m": {"a": {"x": 1, "y": 2}}}, {"m": {"a": {"x": 0}}}, {"m": {"a": {"x": 0, "y": 2}}}),
    ],
)
def test_later_values_override_earlier_ones(first: Any, second: Any, merged: Any) -> None:
    before = repr(first)
    assert merge_mappings(first, second) == merged
    assert repr(first) == before


def test_an_overlay_gives_the_keys_of_the_recipes_stage(write: Write) -> None:
    files = [write("r.yaml", RECIPE), write("o.yaml", OVERLAY)]
    found = load_recipe(files)
    assert (found.model, found.ranks, found.lora) == ("a", 1, {"r": 8, "lora_alpha": 8})
    assert found.training == {"max_steps": 2, "seed": 1, "learning_rate": 1e-4} | TWO_WEIGHTS
    assert found.merged_from == [str(file) for file in files]
    grpo = load_recipe([write("g.yaml", RECIPE | {"stage": "grpo"}), files[1]])
    assert (grpo.stage, grpo.ranks, grpo.lora, grpo.training["learning_rate"]) == ("grpo", None, None, 1e-6)


def test_the_order_of_the_files_decides_and_options_come_last(write: Write) -> None:
    recipe, overlay = write("r.yaml", RECIPE), write("o.yaml", OVERLAY)
    mine = write("mine.yaml", {"lora": {"r": 2}, "training": {"learning_rate": 3e-4}})
    assert load_recipe([recipe, mine, overlay]).training["learning_rate"] == 1e-4
    assert load_recipe([recipe, overlay, mine]).lora == {"r": 2, "lora_alpha": 8}
    assert load_recipe([recipe, overlay, mine], [("learning_rate", "5e-4")]).training["learning_rate"] == "5e-4"


def test_a_run_keeps_the_merged_recipe_and_its_files(write: Write, tmp_path: Path) -> None:
    """`config.yaml` is read back as it is, also when a run is resumed by its files, or without them."""
    files = [write("r.yaml", RECIPE), write("o.yaml", OVERLAY)]
    found = load_recipe(files)
    (tmp_path / "config.yaml").write_text(found.to_yaml())
    assert load_recipe(tmp_path / "config.yaml") == found
    assert resumed_recipe(tmp_path / "config.yaml", None, []) == found
    assert resumed_recipe(tmp_path / "config.yaml", files, [("max_steps", "3")]).merged_from == found.merged_from
    with pytest.raises(RecipeError, match=r"cannot be resumed with another recipe: lora.r was 8 and is 4"):
        resumed_recipe(tmp_path / "config.yaml", files[:1], [])


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("seed", "42", ""),  # the default, which the run left out
        ("optim", "sgd", "training.optim was not given and is 'sgd'"),
        ("learning_rate", "1e-4", ""),  # as the run has it, in another spelling
        ("learning_rate", "1e-5", "training.learning_rate was 0.0001 and is"),
        ("seed", "7", "training.seed was not given and is 7"),
        ("data_seed", "7", "training.data_seed was not given and is 7"),  # None by default, which others replace
        ("neftune_noise_alpha", "5", "training.neftune_noise_alpha was not given and is 5"),
        ("per_device_eval_batch_size", "1", ""),  # the evaluation did not fit in memory
        ("ddp_timeout", "7200", ""),
    ],
)
def test_what_changes_no_step_may_change_at_a_resume(option: str, value: str, said: str, write: Write) -> None:
    saved = write("config.yaml", RECIPE | {"training": {"learning_rate": 0.0001}})
    if not said:
        assert resumed_recipe(saved, None, [(option, value)]).training.keys() >= {option}
        return
    with pytest.raises(RecipeError, match=said):
        resumed_recipe(saved, None, [(option, value)])


@pytest.mark.parametrize(
    ("recorded", "resumed"),
    [
        ({"training": {"max_steps": 2}}, SCALE | EARLIER),
        ({"training": {"max_steps": 2, "weighting": None}}, SCALE | EARLIER),
        ({}, SCALE | EARLIER),
        ({"training": {"weighting": "scale"}}, SCALE | EARLIER),
        ({"training": {"weighting": "scale", "schedule": "linear"}}, SCALE | EARLIER | {"schedule": "linear"}),
        ({"training": {"weighting": "uniform"}}, {"weighting": "uniform"}),
        ({"training": {"think_weight_end": 0.1}}, SCALE | EARLIER | {"think_weight_end": 0.1}),
        (
            {"training": {"weighting": "scale", "answer_weight_start": 1.0, "answer_weight_end": 2.0}},
            SCALE | EARLIER | {"answer_weight_start": 1.0, "answer_weight_end": 2.0},
        ),
        ({"training": TWO_WEIGHTS}, TWO_WEIGHTS),
        ({"stage": "grpo", "training": {"max_steps": 2}}, {}),
    ],
)
def test_a_run_that_does_not_record_its_weights_is_resumed_with_those_of_its_time(
    write: Write, recorded: dict[str, Any], resumed: dict[str, Any]
) -> None:
    saved = write("config.yaml", {"model": "a", "data": "b"} | recorded)
    assert weights_of(resumed_recipe(saved, None, [("max_steps", "3")])) == resumed


def test_a_recipe_made_in_python_names_what_weighs_its_tokens() -> None:
    assert Recipe(model="a").training == TWO_WEIGHTS
    assert Recipe(model="a", training={"weighting": "uniform"}).training == {"weighting": "uniform"}
    assert Recipe(model="a", stage="grpo").training == {}


@pytest.mark.parametrize(
    ("recorded", "file", "changed"),
    [
        ({"weighting": "uniform"}, {}, "weighting was 'uniform' and is 'scale'"),
        ({}, {}, "think_weight_end was 0.5 and is 1.0"),
        ({"weighting": "scale"}, TWO_WEIGHTS, "think_weight_start was 0.9 and is 1.0"),
        ({"schedule": "linear", "think_weight_end": 0.1}, {}, "schedule was 'linear' and is 'cosine'"),
    ],
)
def test_a_run_of_an_earlier_default_is_not_resumed_with_another(
    write: Write, recorded: dict[str, Any], file: dict[str, Any], changed: str
) -> None:
    """The error has the options with which it goes on. For an option of one's own there is no such hint."""
    older = write("config.yaml", merge_mappings(RECIPE, {"training": recorded}))
    mine = write("r.yaml", merge_mappings(RECIPE, {"training": file}))
    with pytest.raises(RecipeError, match=f"{changed}.*where it is only the default") as refused:
        resumed_recipe(older, mine, [])
    options = re.findall(r"--(\w+) ([\w.]+)", str(refused.value).split("undo the change (")[1].split(" where")[0])
    assert options
    assert weights_of(resumed_recipe(older, mine, options)) == weights_of(resumed_recipe(older, None, []))
    with pytest.raises(RecipeError, match=r"undo the change, or start a new run"):
        resumed_recipe(older, None, [("think_weight_start", "0.2")])


def weights_of(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name in WEIGHTING_OPTIONS if (value := recipe.training.get(name)) is not None}


def test_an_overlay_is_enough_where_options_name_model_and_data(write: Write) -> None:
    options = [("model", "b"), ("data", "my.jsonl")]
    found = load_recipe([write("o.yaml", OVERLAY)], options, default_stage="grpo")
    assert (found.stage, found.model, found.training) == ("grpo", "b", {"learning_rate": 1e-6})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            OVERLAY,
            "o.yaml is an overlay, which lacks model and data; put a recipe before it, such as --config recipes/",
        ),
        ({"stages": {"sft": {"modle": "a"}}}, "stages.sft has the unknown key 'modle' (did you mean 'model'"),
        ({"stages": {"stf": {}}}, "stages has the unknown key 'stf' (did you mean 'sft'"),
        ({"stages": {"sft": {"stage": "grpo"}}}, "stages.sft has the unknown key 'stage'"),
        ({"stages": []}, "stages is []; expected a mapping for sft, grpo or both"),
        ({"stages": {"sft": None}}, "expected a mapping for sft, grpo or both"),
        ({"stages": {}, "model": "a"}, "has stages beside model; expected stages alone (an overlay)"),
        (STUDY, "o.yaml has arms, so it is a study; run it with `balanced study`"),
    ],
)
def test_a_file_that_is_no_recipe_says_what_it_lacks(write: Write, values: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        load_recipe([write("o.yaml", values)])


def test_a_study_takes_overlays_and_records_them(write: Write) -> None:
    files = [write("s.yaml", STUDY | {"stages": {"sft": {"model": "a"}}}), write("o.yaml", OVERLAY)]
    study = load_study(files)
    (run, *_) = study.planned_runs()
    assert (run.recipe.model, run.recipe.training["learning_rate"]) == ("a", 1e-4)
    assert run.recipe.merged_from == list(study.merged_from) == [str(file) for file in files]
    assert make_study(yaml.safe_load(to_yaml(study))) == study
    assert load_study(files[0]).merged_from == ()
    with pytest.raises(RecipeError, match=r"is an overlay, which lacks arms and evaluate; put a study before it"):
        load_study(files[1])
    with pytest.raises(RecipeError, match=r"the study .*x.yaml has the unknown key 'sed'"):
        load_study([files[0], write("x.yaml", {"sed": [0]})])


def test_a_study_takes_other_data(write: Write) -> None:
    study = write("s.yaml", STUDY | {"stages": {"sft": {"data": "$NOT_SET/x", "data_options": {"hash_split": True}}}})
    own = load_study(study, ["my.jsonl"])
    (run, *_) = own.planned_runs()
    assert run.recipe.data == "my.jsonl"
    assert own.evaluate == {"my.jsonl": {"max_new_tokens": 9, "options": {"hash_split": True}, "splits": ["test"]}}
    assert own.stages["grpo"] == {"data": "my.jsonl"}
    assert load_study(study, ["my.jsonl"], ["t.jsonl"]).evaluate == {"t.jsonl": {"max_new_tokens": 9}}
    with pytest.raises(RecipeError, match=r"does not say which rows of my.jsonl are for evaluating; name others with"):
        load_study(write("p.yaml", STUDY), ["my.jsonl"])


def test_an_evaluation_is_merged_and_strict(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    first = write("e.yaml", {"model": "runs/a", "evaluate": {"world": {"splits": ["test"]}}, "batch_size": 4})
    found = read_evaluation_recipe([first, write("m.yaml", {"evaluate": {"world": {"limit": 2}}, "dtype": "float32"})])
    assert found["evaluate"] == {"world": {"splits": ["test"], "limit": 2}}
    assert (found["model"], found["batch_size"], found["dtype"]) == ("runs/a", 4, "float32")
    for values, said in (
        ({"batch": 3}, "has the unknown key 'batch'"),
        ({"data": "x"}, "unknown key 'data' (did you mean 'evaluate'"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"dtype": "bf16"}, "dtype is 'bf16'"),
        ({"evaluate": {"world": 3}}, "evaluate.world is 3; expected a mapping"),
        ({"model": "$NOT_SET"}, "the environment variable NOT_SET is not set"),
        (OVERLAY, "is for training"),
        (STUDY, "has arms, so it is a study"),
    ):
        with pytest.raises(RecipeError, match=re.escape(said)):
            read_evaluation_recipe(write("x.yaml", values))


def test_options_override_the_file_of_an_evaluation(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run says so: also where the option has the default's value."""
    asked = {"model": "nowhere", "evaluate": STUDY["evaluate"], "batch_size": 2, "prompt": "instructed"}
    file = write("e.yaml", asked)
    words = ["eval", "--config", str(file), "--model", "world-base", "--prompt", "question", "--dry-run"]
    assert main([*words, "--out", str(file.parent / "out")]) == 0
    plan = capsys.readouterr().out
    assert "world-base" in plan
    assert "data      world, test: 4 rows, 4 pictures" in plan
    assert "asks      question," in plan
    assert "at most 9 new tokens each, 2 at a time" in plan
    assert not (file.parent / "out").exists()
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "--data", "world"])
    assert "there is no model to evaluate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("meant", "started", "said"),
    [
        (None, 3, None),
        (2, 2, None),
        (8, 1, "meant for 8 ranks (ranks: 8), and this training has 1; start it with accelerate launch --config_file"),
        (1, 4, "meant for 1 rank (ranks: 1), and this training has 4; start it without accelerate launch, or set"),
    ],
)
def test_a_batch_for_other_ranks_is_refused(meant: int | None, started: int, said: str | None) -> None:
    if said is None:
        refuse_other_ranks(meant, started)
        return
    with pytest.raises(RecipeError, match=re.escape(said)):
        refuse_other_ranks(meant, started)


def test_a_shipped_recipe_is_found_where_there_is_no_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BALANCED_THINKING_DATA", "data")
    with caplog.at_level("INFO"):
        found = load_recipe("recipes/qwen2.5-vl-3b/scale-sft.yaml")
    assert found.model == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert "the one in the installed package is used" in caplog.text
    own = tmp_path / "recipes" / "qwen2.5-vl-3b" / "scale-sft.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("model: mine\ndata: world\n")
    assert load_recipe("recipes/qwen2.5-vl-3b/scale-sft.yaml").model == "mine"
    with pytest.raises(RecipeError, match=r"there is no recipe recipes/none\.yaml"):
        load_recipe("recipes/none.yaml")
