"""What of a model does not fit a recipe is said in our words, and before the data are read where it can be."""

from __future__ import annotations

import copy
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import ByT5Tokenizer

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.completions import SlowTokenizerError
from balanced_thinking.batch.row_check import RowChecker
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.models.find import ModelNotFoundError, find_model_source
from balanced_thinking.models.load import load_model, load_processor
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.models.vocabulary import VocabularyError, check_vocabulary
from balanced_thinking.training.lora import make_lora_config
from balanced_thinking.training.model_checks import hint_untrained_tags, load_training_processor
from balanced_thinking.training.recipe import Recipe, make_recipe
from balanced_thinking.training.run import train
from balanced_thinking.training.stages import training_arguments
from balanced_thinking.training.trained_parameters import (
    refuse_bias_without_base,
    refuse_nothing_to_train,
    refuse_unusable_adapters,
)

ARGS = SimpleNamespace(eos_token=None, chat_template_path=None)


@pytest.fixture(scope="module")
def vlm() -> Any:
    return build_tiny("qwen2_5_vl")[0]


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        (
            {"target_modules": ["q_prjo"]},
            "has 'q_prjo' (did you mean 'q_proj'?), but no layer has this name; known: all-",
        ),
        ({"target_modules": r".*\.query"}, r"lora.target_modules has '.*\\.query'"),
        ({"target_modules": "q_proj"}, "did you mean 'q_proj'"),  # text is an expression for the whole name
    ],
)
def test_layers_that_the_model_lacks_are_refused(lora: dict[str, Any], said: str, vlm: Any) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        make_lora_config(vlm, lora)


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"inference_mode": True}, "inference_mode is true: it freezes the adapter, so nothing would be trained"),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens is [5, 6]: aLoRA looks for these tokens once"),
        ({"use_qalora": True}, "use_qalora is true: it is for bases in GPTQ only"),
        ({"init_lora_weights": "eva"}, "init_lora_weights is 'eva': PEFT passes data through the model first"),
        ({"init_lora_weights": "corda"}, "init_lora_weights is 'corda': PEFT passes data through the model first"),
        ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "'loftq': it changes the base, on a CUDA"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4': it changes the base by a random decomposition"),
        ({"eva_config": {"rho": 2.0}}, "eva_config is set, but PEFT does not read it with init_lora_weights true"),
        ({"init_lora_weights": "olora", "loftq_config": {"loftq_bits": 4}}, "with init_lora_weights 'olora'"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1; expected at least 0 and less than 1"),
        ({"r": 0}, "r is 0; expected at least 1"),
    ],
)
def test_an_adapter_that_cannot_be_trained_exactly_is_refused(lora: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        training_arguments(make_recipe({"lora": lora}, "a recipe"), tmp_path)
    if "loftq_config" not in lora or lora["init_lora_weights"] == "loftq":  # else PEFT drops it, with a warning
        with pytest.raises(RecipeError, match=re.escape(said)):
            refuse_unusable_adapters(build_tiny("qwen2")[0], LoraConfig(task_type="CAUSAL_LM", **lora))


@pytest.mark.parametrize(
    "lora",
    [
        {"lora_dropout": 0.99, "inference_mode": False, "use_qalora": False},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": False},
    ],
)
def test_an_adapter_beside_what_is_refused_is_accepted(lora: dict[str, Any], tmp_path: Path) -> None:
    training_arguments(make_recipe({"lora": lora}, "a recipe"), tmp_path)
    refuse_unusable_adapters(build_tiny("qwen2")[0], LoraConfig(task_type="CAUSAL_LM", **lora))


def test_an_adapter_that_the_model_has_already_is_checked_too() -> None:
    adapter = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], alora_invocation_tokens=[5])
    with pytest.raises(RecipeError, match="the model's adapter: alora_invocation_tokens is"):
        refuse_unusable_adapters(get_peft_model(build_tiny("qwen2")[0], adapter), None)


@pytest.mark.parametrize(("alpha", "refused"), [(0, True), (0.5, False)])
def test_a_script_may_scale_an_adapter_down(alpha: float, refused: bool) -> None:
    adapter = LoraConfig(task_type="CAUSAL_LM", lora_alpha=alpha)
    with pytest.raises(RecipeError, match="lora_alpha is 0; expected more than 0") if refused else nullcontext():
        refuse_unusable_adapters(build_tiny("qwen2")[0], adapter)


@pytest.mark.parametrize(("targets", "refused"), [(["q_proj"], False), (["q_proj", "o_proj"], True)])
def test_a_bias_needs_one_in_the_base(targets: list[str], refused: bool) -> None:
    """Qwen's queries have one, its output projection has none."""
    model = get_peft_model(
        build_tiny("qwen2")[0], make_lora_config(build_tiny("qwen2")[0], {"lora_bias": True, "target_modules": targets})
    )
    with pytest.raises(RecipeError, match=r"lora_bias is true, but .*o_proj has no bias") if refused else nullcontext():
        refuse_bias_without_base(model)


@pytest.mark.parametrize("adapter", [False, True])
def test_a_model_of_which_nothing_is_trained_is_refused(adapter: bool) -> None:
    model = build_tiny("qwen2")[0]
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])) if adapter else model
    refuse_nothing_to_train(model)
    model.requires_grad_(False)
    with pytest.raises(RecipeError, match="no parameter of the model is trained"):
        refuse_nothing_to_train(model)
    model.get_parameter("base_model.model.lm_head.weight" if adapter else "lm_head.weight").requires_grad_(True)
    refuse_nothing_to_train(model)


@pytest.mark.parametrize(
    "targets", [["q_proj"], ["q_proj", "v_proj"], "all-linear", r".*\.[qv]_proj", ["layers.0.self_attn.q_proj"]]
)
def test_what_is_accepted_is_what_peft_accepts(targets: Any, vlm: Any) -> None:
    lora = make_lora_config(vlm, {"target_modules": targets})
    assert lora.to_dict() == LoraConfig(task_type="CAUSAL_LM", target_modules=targets).to_dict()
    adapted = get_peft_model(build_tiny("qwen2_5_vl")[0], lora)
    assert any("lora_A" in name for name, _ in adapted.named_parameters())


def test_what_is_refused_is_what_peft_refuses() -> None:
    for lora in ({"target_modules": ["q_prjo"]}, {"target_modules": r".*\.query"}):
        with pytest.raises(ValueError, match=r"[Tt]arget"):
            get_peft_model(build_tiny("qwen2_5_vl")[0], LoraConfig(task_type="CAUSAL_LM", **lora))


def test_of_some_layers_that_are_not_there_a_warning_is_enough(vlm: Any, caplog: pytest.LogCaptureFixture) -> None:
    make_lora_config(vlm, {"target_modules": ["q_proj", "gate"]})
    assert "lora.target_modules has 'gate'" in caplog.text


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen2"])
def test_without_names_it_is_the_language_model(architecture: str) -> None:
    model = build_tiny(architecture)[0]
    lora = make_lora_config(model, {"r": 4})
    assert lora.to_dict() == make_lora_config(model, {"r": 4, "targets": "language"}).to_dict()
    assert lora.target_modules == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_resumed_run_of_an_earlier_version_keeps_its_layers(tmp_path: Path) -> None:
    """It had no `targets`, and PEFT's own choice of layers."""
    model = build_tiny("qwen2")[0]
    get_peft_model(build_tiny("qwen2")[0], LoraConfig(task_type="CAUSAL_LM", r=4)).save_pretrained(tmp_path)
    assert make_lora_config(model, {"r": 4}, str(tmp_path)).target_modules == {"q_proj", "v_proj"}
    assert "o_proj" in (make_lora_config(model, {"r": 4, "targets": "language"}, str(tmp_path)).target_modules or ())
    assert "o_proj" in (make_lora_config(model, {"r": 4}, str(tmp_path / "none")).target_modules or ())


def test_layers_that_the_user_excludes_stay_excluded(vlm: Any) -> None:
    for excluded in (["layers.0.self_attn.q_proj"], r".*\.0\.self_attn\.q_proj"):
        lora = make_lora_config(vlm, {"exclude_modules": excluded})
        names = [name for name, _ in get_peft_model(build_tiny("qwen2_5_vl")[0], lora).named_parameters()]
        assert any("layers.1.self_attn.q_proj.lora_A" in name for name in names)
        assert not any("layers.0.self_attn.q_proj.lora_A" in name for name in names)
        assert not any("visual" in name and "lora" in name for name in names)


def test_parameters_alone_may_be_named(vlm: Any) -> None:
    lora = make_lora_config(vlm, {"target_parameters": ["lm_head.weight"]})
    assert lora.target_modules is None


def test_a_part_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'vision\+language', but the model has no vision part.* it has: language"):
        make_lora_config(build_tiny("qwen2")[0], {"targets": "vision+language"})


def test_all_linear_warns_of_the_picture_half(vlm: Any, caplog: pytest.LogCaptureFixture) -> None:
    make_lora_config(vlm, {"target_modules": "all-linear"})
    assert "trains vision and projector, too; a vLLM server leaves these parts" in caplog.text
    caplog.clear()
    make_lora_config(build_tiny("qwen2")[0], {"target_modules": "all-linear"})
    make_lora_config(vlm, {"targets": "all"})
    assert not caplog.records


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A copy of the embedded base."""
    return Path(shutil.copytree(find_model_source("world-base"), tmp_path / "base"))


def test_a_model_without_a_processor_says_which_files_it_lacks(base: Path) -> None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        (base / name).unlink(missing_ok=True)
    with pytest.raises(
        ModelNotFoundError, match=r"has no processor.*expected its files beside config.json.*save_pretrained"
    ):
        load_processor(str(base))


def test_a_tokenizer_that_cannot_be_read_is_said_in_our_words(base: Path) -> None:
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match=r"base has no .* that transformers can load .*copy these files"):
        load_training_processor(Recipe(model=str(base)), ARGS)


def test_a_model_without_a_chat_template_is_refused_before_data_are_read(base: Path, tmp_path: Path) -> None:
    (base / "chat_template.jinja").unlink()
    with pytest.raises(RecipeError, match=r"base has no chat template.*set chat_template_path"):
        train(Recipe(model=str(base), data_options={"n": 2}), tmp_path / "run")
    (template := tmp_path / "x.jinja").write_text("{{ messages }}")
    args = SimpleNamespace(eos_token=None, chat_template_path=str(template))
    assert load_training_processor(Recipe(model=str(base)), args).chat_template == "{{ messages }}"
    assert not (tmp_path / "run").exists()


def test_a_chat_template_that_writes_the_date_is_named(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_training_processor(Recipe(model=str(base)), ARGS)
    assert "the date" not in caplog.text
    template = base / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %B %Y') }}" + template.read_text())
    load_training_processor(Recipe(model=str(base)), ARGS)
    assert "base writes the date (strftime_now), so prompts change from day to day" in caplog.text


def test_an_end_of_turn_that_the_tokenizer_lacks_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"eos_token is '<end>', which world-base does not have; expected '<\|im_end"):
        load_training_processor(Recipe(), SimpleNamespace(eos_token="<end>"))
    load_training_processor(Recipe(), SimpleNamespace(eos_token="<|im_end|>"))


def test_an_image_option_that_cannot_be_is_refused_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balanced_thinking.training.splits.stream_data", lambda *_, **__: pytest.fail("data are read"))
    said = re.escape("image_options has 'max_pixls' (did you mean 'max_pixels'?)")
    with pytest.raises(RecipeError, match=said):
        train(Recipe(image_options={"max_pixls": 3}, data_options={"n": 2}), tmp_path / "run")


@pytest.mark.parametrize(
    ("tokens", "lora", "new"),
    [
        ([], {}, []),  # the tags of the built-in models are trained, and tokens come after them
        (["<reason>", "</reason>"], {}, ["<reason>", "</reason>"]),
        (["<reason>", "</reason>"], {"target_modules": "all-linear"}, ["<reason>", "</reason>"]),
        (["<reason>", "</reason>"], {"modules_to_save": ["embed_tokens", "lm_head"]}, []),
        (["<reason>", "</reason>"], {"target_modules": ["q_proj", "embed_tokens"]}, []),
        (["<reason>", "</reason>"], {"trainable_token_indices": [630, 631]}, []),
        (["<unrelated>", "</reason>"], {}, ["</reason>"]),
        (["<reason>", "</reason>", "<|later|>"], {}, []),  # added to the base before another token: not the user's
        (["<start_of_turn>"], {}, []),  # no tag of the format
    ],
)
def test_new_tokens_whose_rows_lora_does_not_train_get_a_hint(
    tokens: list[str], lora: dict[str, Any], new: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load_model("world-base")
    loaded.processor.tokenizer.add_tokens(tokens)
    loaded.model.resize_token_embeddings(len(loaded.processor.tokenizer))
    hint_untrained_tags(loaded, "gthinker", lora)
    assert [tag for tag in tokens if tag in caplog.text] == new
    assert ("modules_to_save" in caplog.text) == bool(new)


def test_tags_that_the_chat_template_writes_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """As in Qwen3, whose last tokens are its own tags."""
    loaded = load_model("world-base")
    loaded.processor.tokenizer.add_tokens(["<reason>", "</reason>"])
    loaded.processor.chat_template += "{# <reason></reason> #}"
    hint_untrained_tags(loaded, "gthinker", {})
    assert not caplog.records


def test_a_tokenizer_without_offsets_is_refused_before_any_row() -> None:
    tokenizer = ByT5Tokenizer()
    collator = ScaleCollator(tokenizer)
    with pytest.raises(SlowTokenizerError, match=r"is a ByT5Tokenizer, .* expected a fast one"):
        RowChecker(collator)
    with pytest.raises(SlowTokenizerError):
        collator([{"id": "one", "prompt": "which ?", "completion": "<think>a</think><answer>b</answer>"}])
    assert RowChecker(collator, completions=False)  # prompts have no segments


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava_next", "gemma3"])
def test_a_model_that_takes_another_token_for_a_picture_is_refused(architecture: str) -> None:
    model, processor = build_tiny(architecture)
    check_vocabulary(model, processor, "it")
    name = next(one for one in ("image_token_index", "image_token_id") if hasattr(model.config, one))
    other = copy.copy(model)
    other.config = copy.deepcopy(model.config)
    setattr(other.config, name, 5)
    with pytest.raises(VocabularyError, match=r"it: image_token_\w+ in config.json is 5 .* the processor writes <"):
        check_vocabulary(other, processor, "it")
    processor.img_patch_token = processor.tokenizer.convert_ids_to_tokens(5)  # as Llama 4 names it
    check_vocabulary(other, processor, "it")
