"""Every recipe of a model on every machine has a plan; those of the eight models are estimated without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from balanced_thinking.cli import main
from balanced_thinking.config.errors import UsageError
from balanced_thinking.estimate.devices import find_device
from balanced_thinking.estimate.known_models import KNOWN_MODELS
from balanced_thinking.estimate.plan import Plan, read_plan

_RECIPES = Path(__file__).parents[2] / "recipes"
_MACHINES = sorted((_RECIPES / "hardware").glob("*.yaml"))
_MODELS = sorted(file.parent.name for file in _RECIPES.glob("*/scale-sft.yaml") if file.parent.name != "world")


def plan_without_data(recipe: Path, machine: Path) -> Plan:
    return read_plan([recipe, machine], (), find_device("h100"), reads_data=False)


@pytest.mark.parametrize("machine", _MACHINES, ids=lambda file: file.stem)
def test_every_recipe_has_a_plan_on_every_machine(machine: Path) -> None:
    for recipe in (_RECIPES / model / name for model in _MODELS for name in ("sft.yaml", "scale-sft.yaml")):
        plan = plan_without_data(recipe, machine)
        assert plan.step_samples == 64, recipe
        assert plan.count == (8 if machine.stem.startswith("eight") else 1)
        assert (plan.recipe.quantization == "nf4") == (machine.stem == "one-24gb")


def test_grpo_is_refused_by_name_on_every_machine() -> None:
    for machine in _MACHINES:
        with pytest.raises(UsageError, match="stage is 'grpo'"):
            plan_without_data(_RECIPES / _MODELS[0] / "grpo.yaml", machine)


def test_the_recipes_name_the_models_that_need_no_network() -> None:
    named = {plan_without_data(_RECIPES / model / "sft.yaml", _MACHINES[0]).recipe.model for model in _MODELS}
    assert named == set(KNOWN_MODELS)


def test_without_data_the_message_names_the_option_that_makes_them_needless(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BALANCED_THINKING_DATA", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["estimate", str(_RECIPES / _MODELS[0] / "sft.yaml")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "BALANCED_THINKING_DATA is not set" in said
    assert "--lengths MEAN,MAX" in said


@pytest.mark.slow
@pytest.mark.parametrize("model", _MODELS)
def test_each_model_is_estimated_and_fits_with_lora_on_80_gb(model: str, tmp_path: Path) -> None:
    files = [str(_RECIPES / model / "scale-sft.yaml"), "--config", str(_RECIPES / "hardware/one-80gb-lora.yaml")]
    written = tmp_path / "found.json"
    assert main(["estimate", *files, "--gpu", "h100", "--lengths", "900,2000", "--json", str(written)]) == 0
    found = json.loads(written.read_text())
    memory, parameters = found["memory_bytes"], found["parameters"]
    # The weights in bfloat16 and the adapter in float32, with its gradients and the moments of AdamW.
    adapter = parameters["trained"]
    assert memory["weights"] == pytest.approx(2 * parameters["total"] + 4 * adapter, rel=0.01)
    assert memory["gradients"] == 4 * adapter
    assert memory["optimizer state"] == 8 * adapter
    assert memory["activations"] > 0
    assert not found["measured"]
