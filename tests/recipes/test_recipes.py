"""The recipes for real models: they agree with each other, resolve on every machine, and run as tiny twins.

The complete table of twins is `make test-recipes`; a few of its rows are here.
"""

from __future__ import annotations

import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from balanced_thinking.cli import main
from balanced_thinking.study.load import load_study
from balanced_thinking.study.plan import merge_mappings
from balanced_thinking.training.checks import check_settings
from balanced_thinking.training.default_weights import WEIGHTING_OPTIONS
from balanced_thinking.training.recipe import Recipe, load_recipe, make_recipe
from tests.recipes.twins import FAMILY, HARDWARE, RECIPES, Twin, TwinPlace, launch_environment, launched_ranks

TRAINED = ("sft", "scale-sft", "grpo")
SAMPLES = 64  # of a step, on every machine
ACCELERATE = sorted((RECIPES / "accelerate").glob("*.yaml"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TwinPlace:
    return TwinPlace(tmp_path_factory.mktemp("twins"))


@pytest.fixture(autouse=True)
def _published_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALANCED_THINKING_DATA", "data")


def read(model: str, recipe: str) -> dict[str, Any]:
    return yaml.safe_load((RECIPES / model / f"{recipe}.yaml").read_text())


def overlay(name: str) -> Path:
    return RECIPES / "hardware" / f"{name}.yaml"


def samples_per_step(recipe: Recipe) -> int:
    training = recipe.training
    batch = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    return batch * (recipe.ranks or 1)


def test_every_model_has_every_recipe_and_every_overlay_has_a_twin() -> None:
    files = {f"{model}/{name}.yaml" for model, name in product(FAMILY, (*TRAINED, "eval", "study"))}
    found = {str(file.relative_to(RECIPES)) for model in FAMILY for file in (RECIPES / model).iterdir()}
    assert found == files
    assert {file.stem for file in (RECIPES / "hardware").iterdir()} == set(HARDWARE)


@pytest.mark.parametrize("model", FAMILY)
def test_the_recipes_of_a_model_differ_only_where_they_must(model: str) -> None:
    """Plain SFT and SCALe-SFT in their weights, and a study's stages in what its arms say."""
    plain, scale, grpo, study = (read(model, name) for name in (*TRAINED, "study"))
    for recipe, arm in ((plain, "sft"), (scale, "scale-sft")):
        weights = {name: recipe["training"].pop(name) for name in WEIGHTING_OPTIONS if name in recipe["training"]}
        assert study["arms"][arm] == {"training": weights}
        assert recipe.pop("arm") == arm
    assert plain == scale == study["stages"]["sft"]
    assert (grpo.pop("stage"), grpo.pop("arm")) == ("grpo", "scale-sft+grpo")
    assert grpo.pop("model") == f"runs/{model}-scale-sft" == read(model, "eval")["model"]
    assert grpo == study["stages"]["grpo"]
    shared = ("model_options", "image_options", "lora", "data", "data_options")
    assert {key: plain.get(key) for key in shared} == {key: grpo.get(key) for key in shared}


def test_every_recipe_resolves_on_every_machine_to_the_same_samples_a_step() -> None:
    """Strictly read, valid together, and no batch that depends on the machine."""
    sections = {machine: yaml.safe_load(overlay(machine).read_text())["stages"] for machine in HARDWARE}
    seen = set()
    for model, name in product(FAMILY, TRAINED):
        values = read(model, name)
        for machine in (None, *HARDWARE):
            added = {} if machine is None else sections[machine][values.get("stage", "sft")]
            recipe = make_recipe(merge_mappings(values, added), f"{model}, {name}, {machine}")
            check_settings(recipe)
            check_variant(recipe, machine)
            seen.add((model, name, machine))
    assert len(seen) == 8 * 3 * 6


def check_variant(recipe: Recipe, machine: str | None) -> None:
    assert samples_per_step(recipe) == SAMPLES
    assert (recipe.quantization == "nf4") == (machine == "one-24gb")
    assert (recipe.lora is None) == (machine is not None and ("full" in machine or "eight" in machine))
    generation = recipe.training.get("steps_per_generation", 0) * recipe.training["per_device_train_batch_size"]
    assert generation * (recipe.ranks or 1) % recipe.training.get("num_generations", 1) == 0


@pytest.mark.parametrize("machine", [name for name, ranks in HARDWARE.items() if ranks == 1])
def test_a_study_resolves_on_every_machine_of_one_gpu(machine: str) -> None:
    """The stages of all models are those of their recipes, so one model is enough."""
    runs = load_study([RECIPES / "gemma-3-4b" / "study.yaml", overlay(machine)]).planned_runs()
    assert {samples_per_step(run.recipe) for run in runs} == {SAMPLES}
    assert [run.arm for run in runs if run.seed == 0] == ["sft", "scale-sft", "sft+grpo", "scale-sft+grpo"]


# One machine for each model, three of them in the normal suite: all are in the complete table.
PLANS = [
    pytest.param(*plan, marks=() if plan[0] in ("qwen3-vl-4b", "gemma-3-4b", "internvl3-2b") else pytest.mark.slow)
    for plan in zip(FAMILY, [*HARDWARE, *HARDWARE], TRAINED * 3, strict=False)
]


@pytest.mark.parametrize(("model", "machine", "name"), PLANS)
def test_a_dry_run_prints_the_plan(
    model: str, machine: str, name: str, place: TwinPlace, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the user's own file, and with the batch of the machine that the recipe is for."""
    (twin := Twin(model, name, machine, place)).dry_run()
    plan = capsys.readouterr().out
    ranks = 8 if machine.startswith("eight") else 1
    what = "completions" if name == "grpo" else "examples"
    assert f"batch     {SAMPLES} {what} a step" in plan
    assert f"x {ranks} rank" in plan
    assert ("LoRA: rank" in plan) == ("full" not in machine and "eight" not in machine)
    assert not twin.plan.exists()


def test_an_overlay_of_eight_gpus_is_refused_in_a_study(
    place: TwinPlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each run of a study is one process, whose batch would be an eighth."""
    words = ["study", str(RECIPES / "gemma-3-4b" / "study.yaml"), "--out", str(tmp_path / "s"), "--dry-run"]
    words += ["--data", str(place.rows), "--config"]
    with pytest.raises(SystemExit, match="2"):
        main([*words, str(overlay("eight-80gb-fsdp2"))])
    assert "meant for 8 ranks (ranks: 8), and this training has 1" in capsys.readouterr().err
    assert main([*words, str(overlay("one-80gb-lora"))]) == 0
    assert "scale-sft+grpo/seed-2  (grpo after scale-sft/seed-2)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "recipe", "hardware"),
    [
        ("smolvlm2-2.2b", "scale-sft", "one-80gb-full"),  # padded, Adafactor, frozen parts
        pytest.param("gemma-3-4b", "grpo", "one-80gb-lora", marks=pytest.mark.slow),
    ],
)
def test_a_twin_trains_resumes_and_is_evaluated(model: str, recipe: str, hardware: str, place: TwinPlace) -> None:
    Twin(model, recipe, hardware, place).check()


@pytest.mark.parametrize("file", ACCELERATE, ids=lambda file: file.stem)
def test_accelerate_reads_its_files(file: Path) -> None:
    """Its own reader, which refuses unknown keys; and what the ranks would find in their environment."""
    config = load_config_from_file(str(file))
    assert config.num_processes == 8
    found = launch_environment(file)
    assert found["ACCELERATE_MIXED_PRECISION"] == "bf16"
    expected = {
        "ddp": {},
        "fsdp2": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"},
        "zero2": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
        "zero3": {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"},
    }[file.stem]
    assert expected.items() <= found.items()
    assert f"--config_file recipes/accelerate/{file.name}" in file.read_text()


def test_overlays_of_eight_gpus_fit_their_accelerate_files() -> None:
    for name in (name for name, ranks in HARDWARE.items() if ranks > 1):
        stages = yaml.safe_load(overlay(name).read_text())["stages"]
        file = RECIPES / "accelerate" / f"{name.removeprefix('eight-80gb-')}.yaml"
        assert {stage["ranks"] for stage in stages.values()} == {launched_ranks(file)}


def launched_command(text: str) -> list[str]:
    """The words of `accelerate launch ... -m balanced_thinking` in a script, after `balanced`."""
    words = text.replace("\\\n", " ").split()
    begin = words.index("launch")
    command = words[words.index("-m", begin) + 2 :]
    return command[: command.index("--resume") + 1]


@pytest.mark.parametrize("name", ["slurm.sbatch", "kubernetes.yaml"])
def test_a_cluster_example_starts_a_recipe_with_its_samples(name: str) -> None:
    text = (RECIPES / "cluster" / name).read_text()
    if name == "slurm.sbatch":
        subprocess.run(["bash", "-n", str(RECIPES / "cluster" / name)], check=True)
        text = text.replace('"$RANKS"', "16").replace('"$RUN"', "run")
    else:
        text = yaml_job(text)["template"]["spec"]["containers"][0]["args"][0]
    words = launched_command(text)
    files = [RECIPES.parent / words[place + 1] for place, word in enumerate(words) if word == "--config"]
    options = {"ranks": "16", "gradient_accumulation_steps": "1"}
    assert all(words[words.index(f"--{key}") + 1] == value for key, value in options.items())
    assert samples_per_step(load_recipe(files, list(options.items()))) == SAMPLES
    assert words[0] == "sft"
    assert "--config_file recipes/accelerate/fsdp2.yaml" in " ".join(text.replace("\\\n", " ").split())


def yaml_job(text: str) -> dict[str, Any]:
    """The specification of the job, whose parts fit together."""
    service, job = yaml.safe_load_all(text)
    assert (service["kind"], job["kind"], job["apiVersion"]) == ("Service", "Job", "batch/v1")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 2
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    host = f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert f"--main_process_ip {host}" in container["args"][0]
    return spec


def test_merging_an_overlay_into_a_study_is_merging_its_stages() -> None:
    own, file = read("qwen3-vl-8b", "study"), overlay("one-80gb-full")
    stages = merge_mappings(own["stages"], yaml.safe_load(file.read_text())["stages"])
    assert load_study([RECIPES / "qwen3-vl-8b" / "study.yaml", file]).stages == stages
