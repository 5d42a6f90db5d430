"""Models: the tiny ones survive a round trip through their folder, and the embedded base is what it says it is."""

from __future__ import annotations

import hashlib
import json
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.data.world import load
from balanced_thinking.evaluation.engines.identity import model_identity
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.models.find import EMBEDDED, ModelNotFoundError, TinySize, find_model_source
from balanced_thinking.models.load import checkpoint_dtype, load_model, load_processor
from balanced_thinking.models.revisions import pin_revision, split_revision
from balanced_thinking.models.tiny import ARCHITECTURES, build_tiny
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_and_loaded_again_it_gives_the_same_logits(architecture: str, tmp_path: Path) -> None:
    model, processor = build_tiny(architecture)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    example = next(load(n=1))
    row = {
        "id": "one",
        "prompt": prompt_messages(example),
        "images": list(example.images) if architecture != "qwen2" else [],
    }
    before = ScaleCollator(processor).collate_prompts([row])
    after = ScaleCollator(loaded.processor).collate_prompts([row])
    assert before.keys() == after.keys()
    for name in before:
        # Where torchvision is installed transformers loads an image processor that resizes with it: a level of 255 off.
        of_pictures = find_spec("torchvision") is not None and name == "pixel_values"
        assert torch.allclose(before[name], after[name], rtol=0, atol=0.016 if of_pictures else 0), name
    with torch.no_grad():
        assert torch.equal(model.eval()(**before).logits, loaded.model.eval()(**before).logits)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_and_loaded_again_its_tokenizer_reads_texts_alike(architecture: str, tmp_path: Path) -> None:
    """transformers reads a Qwen2's tokenizer as a class of its own, whatever class it was saved as."""
    model, processor = build_tiny(architecture)
    model.config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, tokenizer = AutoTokenizer.from_pretrained(tmp_path), getattr(processor, "tokenizer", processor)
    for text in ("row 12 , column 3 : 12 + 5 = 17", "it's caf\u0065\u0301 ,\n\n  twice"):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_same_seed_same_weights() -> None:
    first, second, other = (build_tiny("llava_next", seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_building_a_model_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_tiny("qwen2", seed=9)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", ["tiny:qwen3", "nowhere", "./nowhere", "a/b/c"])
def test_unknown_model_is_named_with_what_is_expected(name: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match="qwen2_5_vl"):
        load_model(name)


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_model_is_small_and_says_where_it_comes_from(name: str) -> None:
    folder = Path(find_model_source(name))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert all((REPOSITORY / recipe).is_file() for recipe in provenance["recipes"])


def test_embedded_models_have_the_same_words_and_see_pictures_alike() -> None:
    """So that an arm may start from either, and a study compare both."""
    folders = [Path(find_model_source(name)) for name in EMBEDDED]
    for file in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"):
        assert len({(folder / file).read_bytes() for folder in folders}) == 1, file


def test_the_embedded_models_are_part_of_the_package() -> None:
    package_data = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert {f"models/{name}/*" for name in EMBEDDED} <= set(package_data["balanced_thinking"])


def sentences(text: str) -> set[str]:
    return {sentence.strip() for sentence in text.split(" .") if sentence.strip()}


def scored(model: LocalEngine, examples: list[Any]) -> list[Any]:
    pairs = zip(examples, model.complete(examples), strict=True)
    return [model.scorer.score_completion(example, ids) for example, ids in pairs]


def test_embedded_base_sees_and_answers_at_once() -> None:
    loaded = load_model("world-base")
    model = LocalEngine(loaded.model, loaded.processor, "direct", max_new_tokens=80)
    examples = list(load(split="validation", n=80, style="direct"))
    right = sum(prediction.correct for prediction in scored(model, examples))
    assert right >= 40  # chance is about 20
    seen = list(load(split="validation", n=16, style="describe"))
    said = [sentences(prediction.completion) for prediction in scored(model, seen)]
    true = [sentences(example.answer) for example in seen]
    assert sum(len(a & b) for a, b in zip(said, true, strict=True)) >= 0.85 * sum(map(len, true))


def test_embedded_reasoner_reasons_before_it_answers() -> None:
    loaded = load_model("world-reasoner")
    model = LocalEngine(loaded.model, loaded.processor, "think-answer", max_new_tokens=80)
    said = scored(model, list(load(split="validation", n=48)))
    assert sum(prediction.correct for prediction in said) >= 26  # expected are 35, chance is about 12
    assert all(prediction.think_tokens > 20 for prediction in said)


@pytest.mark.parametrize("architecture", ["llava_next", "gemma3"])
def test_a_grafted_model_knows_the_donors_words(architecture: str) -> None:
    donor = load_model("world-base")
    size = TinySize(hidden=128, layers=4, heads=4)
    grafted = load_model(f"tiny:{architecture}", size=size, language_from="world-base")
    own, theirs = (
        one.model.get_input_embeddings().weight[one.processor.tokenizer.convert_tokens_to_ids("Ġtriangle")]
        for one in (grafted, donor)
    )
    scale = 128**-0.5 if architecture == "gemma3" else 1.0
    assert torch.equal(own, theirs * scale)
    name = "model.language_model.layers.3.mlp.down_proj.weight"
    assert torch.equal(grafted.model.get_parameter(name), donor.model.get_parameter(name))


def test_a_graft_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="no tensor of the donor's language model fits"):
        load_model("tiny:llava_next", size=TinySize(hidden=64), language_from="world-base")
    with pytest.raises(ValueError, match="known: language_from"):
        load_model("tiny:llava_next", languages_from="world-base")


def test_image_options_set_how_many_tokens_a_picture_gets_and_are_saved(tmp_path: Path) -> None:
    picture = next(load(n=1)).images[0].resize((280, 280))
    full_size, small = (load_model("world-base", image_options=o).processor for o in ({}, {"max_pixels": 84 * 84}))
    sides = [one.image_processor(picture, return_tensors="pt")["image_grid_thw"].tolist() for one in (full_size, small)]
    assert sides == [[[1, 8, 8]], [[1, 6, 6]]]
    small.save_pretrained(tmp_path)
    load_model("world-base").model.save_pretrained(tmp_path)
    again = load_model(str(tmp_path)).processor
    assert again.image_processor(picture, return_tensors="pt")["image_grid_thw"].tolist() == sides[1]


def test_an_adapter_is_loaded_with_the_image_options_it_was_trained_with(tmp_path: Path) -> None:
    loaded = load_model("world-base", image_options={"max_pixels": 84 * 84})
    get_peft_model(loaded.model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    loaded.processor.save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).processor.image_processor.size["longest_edge"] == 84 * 84


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("world-base", {"max_pixel": 784}, "did you mean 'max_pixels'"),
        ("tiny:gemma3", {"max_pixels": 784}, "model_size.image_side"),
    ],
)
def test_an_unknown_image_option_is_refused(model: str, options: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_model(model, image_options=options)


def test_an_adapters_processor_is_found_without_its_base(tmp_path: Path) -> None:
    """As `inspect` and an evaluation by a server load it."""
    loaded = load_model("world-base", image_options={"max_pixels": 84 * 84})
    get_peft_model(loaded.model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    assert load_processor(str(tmp_path)).image_processor.size["longest_edge"] > 84 * 84  # its base's
    loaded.processor.save_pretrained(tmp_path)
    assert load_processor(str(tmp_path)).image_processor.size["longest_edge"] == 84 * 84


def test_a_run_that_has_not_finished_is_named_with_its_latest_checkpoint(tmp_path: Path) -> None:
    for step in (6, 22):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
    said = rf"{tmp_path} holds no model.*latest checkpoint is {tmp_path / 'checkpoints' / 'checkpoint-22'}$"
    with pytest.raises(ModelNotFoundError, match=said):
        load_model(str(tmp_path))
    (tmp_path / "config.yaml").write_text("model: world-base\n")
    said = rf"{tmp_path} is a run that has not finished: continue it with --out {tmp_path} --resume; .*checkpoint-22$"
    with pytest.raises(ModelNotFoundError, match=said):
        load_model(str(tmp_path))


def test_a_checkpoints_dtype_is_known_before_it_is_loaded(tmp_path: Path) -> None:
    loaded = load_model("world-base", dtype=torch.bfloat16)
    loaded.model.save_pretrained(tmp_path / "half")
    loaded.processor.save_pretrained(tmp_path / "half")
    half = load_model(str(tmp_path / "half"), dtype=torch.bfloat16).model
    get_peft_model(half, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    found = {name: checkpoint_dtype(str(name)) for name in ("world-base", "tiny:qwen2", tmp_path / "half")}
    assert list(found.values()) == [torch.float32, torch.float32, torch.bfloat16]
    assert checkpoint_dtype(str(tmp_path / "adapter")) == torch.bfloat16
    merged = load_model(str(tmp_path / "adapter"), dtype=torch.bfloat16).model
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with `acme/tiny`, whose revision v1 differs from its main branch in weights, dtype and chat template."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--acme--tiny"
    (repository / "refs").mkdir(parents=True)
    for seed, (name, dtype) in enumerate({"main": torch.float32, "v1": torch.bfloat16}.items()):
        folder = repository / "snapshots" / (f"{seed}" * 40)
        model, tokenizer = build_tiny("qwen2", seed=seed)
        tokenizer.chat_template = f"{name} {tokenizer.chat_template}"
        model.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (repository / "refs" / name).write_text(folder.name)


def adapter_on(base: str, folder: Path, **config: Any) -> str:
    adapted = get_peft_model(load_model(base).model, LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return str(folder)


def test_a_revision_is_used_for_weights_processor_and_configuration(hub: None, tmp_path: Path) -> None:
    v1 = load_model("acme/tiny@v1")
    for name, options, same in (
        ("acme/tiny", {}, False),
        ("acme/tiny", {"revision": "v1"}, True),
        (adapter_on("acme/tiny", tmp_path / "none"), {}, False),
        (adapter_on("acme/tiny", tmp_path / "v1", revision="v1"), {}, True),  # as PEFT records it
    ):
        loaded = load_model(name, **options)
        assert torch.equal(loaded.model.lm_head.weight, v1.model.lm_head.weight) == same, name
        assert (loaded.processor.chat_template == v1.processor.chat_template) == same, name
        if not options:
            assert checkpoint_dtype(name) == (torch.bfloat16 if same else torch.float32)
            assert (load_processor(name).chat_template == v1.processor.chat_template) == same
    assert model_identity("acme/tiny@v1") != model_identity("acme/tiny")
    assert (v1.source, v1.model.name_or_path) == ("acme/tiny@v1", "acme/tiny")


@pytest.mark.parametrize(
    ("name", "revision", "said"),
    [
        ("world-base", "v1", "which world-base is not; leave it out"),
        (".", "v1", "which . is not; leave it out"),
        ("runs/mine/model", "v1", "which runs/mine/model is not; leave it out"),
        ("acme/tiny@v1", "v2", "the model is acme/tiny@v1, and model_options.revision is 'v2'; leave one of them out"),
        ("acme/tiny", 1.5, None),
        ("acme/tiny", "refs/pr/1", None),
        ("acme/tiny@v1", "v1", None),
    ],
)
def test_a_revision_belongs_to_a_model_on_the_hub(name: str, revision: Any, said: str | None) -> None:
    if said is None:
        pinned = split_revision(pin_revision(name, revision))
        assert pinned == ("acme/tiny", {"revision": str(revision)})
        return
    with pytest.raises(RecipeError, match=said):
        pin_revision(name, revision)


def test_a_folder_with_a_sign_of_a_revision_in_its_name_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine@v1").mkdir()
    assert split_revision("mine@v1") == ("mine@v1", {})


@pytest.mark.parametrize("name", ["mine@v1", "./mine@v1", "../mine@v1", "runs/mine@v1", "world-base@v1"])
def test_a_folder_that_is_not_there_is_no_revision(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="there is no model folder"):
        find_model_source(name)


def test_a_folder_is_not_taken_for_a_revision_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would load it, whatever the revision."""
    monkeypatch.chdir(tmp_path)
    Path("acme/tiny").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"the revision is 'v1', but .* which acme/tiny is not"):
        find_model_source("acme/tiny@v1")
