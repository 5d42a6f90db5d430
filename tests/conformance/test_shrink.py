"""Small copies of the architectures' full-size default configurations: what kind of model they are stays."""

from __future__ import annotations

import pytest
import torch
import transformers

from balanced_thinking.conformance.shrink import ShrinkError, SmallSizes, shrink_config, split_sections

# Configuration class, layers of the language model's copy, and of the vision part's.
SHRUNK = [
    ("Qwen2VLConfig", 2, 2),
    ("Qwen2_5_VLConfig", 2, 2),
    ("Qwen3VLConfig", 2, 2),
    ("Qwen3VLMoeConfig", 2, 2),
    ("Qwen3_5Config", 2, 2),  # a layer of linear attention and one of full attention
    ("LlavaConfig", 2, 2),
    ("LlavaNextConfig", 2, 2),
    ("LlavaOnevisionConfig", 2, 2),
    ("Gemma3Config", 2, 2),  # a sliding layer and a full one
    ("Gemma4Config", 2, None),  # its full layers have wider heads
    ("InternVLConfig", 2, 2),
    ("Idefics3Config", 2, 2),
    ("SmolVLMConfig", 2, 2),
    ("Mistral3Config", 2, 2),
    ("Glm4vConfig", 2, 2),
    ("Glm46VConfig", 2, 2),
    ("Qwen2Config", 2, None),
    ("Qwen3Config", 2, None),
    ("Qwen3MoeConfig", 2, None),
    ("Gemma2Config", 2, None),
    ("Gemma3TextConfig", 2, None),
    ("LlamaConfig", 2, None),
    ("MixtralConfig", 2, None),
    ("DeepseekV3Config", 2, None),
    ("Phi3Config", 2, None),
]


@pytest.mark.parametrize(("name", "layers", "vision_layers"), SHRUNK)
def test_a_full_size_configuration_becomes_a_model_that_runs(name: str, layers: int, vision_layers: int | None) -> None:
    full = getattr(transformers, name)()
    before = full.to_dict()
    small = shrink_config(full, SmallSizes())
    assert full.to_dict() == before
    text = small.get_text_config()
    assert (type(small), text.vocab_size) == (type(full), full.get_text_config().vocab_size)
    assert text.num_hidden_layers == layers
    kinds = [set(getattr(one.get_text_config(), "layer_types", None) or ()) for one in (small, full)]
    assert kinds[0] == kinds[1]
    if vision_layers:
        vision = small.vision_config
        assert getattr(vision, "depth", getattr(vision, "num_hidden_layers", None)) == vision_layers
        assert torch.equal(torch.tensor(vision.patch_size), torch.tensor(full.vision_config.patch_size))
    sees = hasattr(small, "vision_config")
    auto = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    model = auto.from_config(small)
    embedding = model.get_input_embeddings().weight
    assert sum(value.numel() for value in model.parameters()) < 2.5 * embedding.numel() + 2e6
    with torch.no_grad():
        logits = model(input_ids=torch.arange(12)[None]).logits
    assert logits.isfinite().all()
    assert logits.std() > 0.1


def test_what_is_random_or_never_reached_is_changed() -> None:
    """Dropout would make equal steps differ; a window longer than the samples would hide a wrong mask."""
    full = transformers.Gemma3TextConfig(attention_dropout=0.1, quantization_config={"load_in_4bit": True})
    small = shrink_config(full, SmallSizes())
    assert (small.attention_dropout, small.sliding_window) == (0.0, 32)
    assert not hasattr(small, "quantization_config")
    assert shrink_config(full, SmallSizes(keep_widths=True)).attention_dropout == 0.0


def test_only_layers_are_left_out_where_widths_are_kept() -> None:
    small = shrink_config(transformers.Qwen2_5_VLConfig(), SmallSizes(layers=3, keep_widths=True))
    assert (small.text_config.num_hidden_layers, small.text_config.hidden_size) == (3, 8192)
    assert (small.vision_config.depth, small.vision_config.out_hidden_size) == (3, 3584)
    assert small.vision_config.fullatt_block_indexes == [0, 1, 2]


@pytest.mark.parametrize(
    ("sections", "total", "expected"),
    [
        ([16, 24, 24], 8, [2, 3, 3]),
        ([24, 20, 20], 8, [4, 2, 2]),
        ([8, 12, 12], 4, [2, 1, 1]),
        ([11, 11, 10], 4, [2, 1, 1]),
    ],
)
def test_sections_of_rotary_positions_fill_the_head(sections: list[int], total: int, expected: list[int]) -> None:
    assert split_sections(sections, total) == expected
    assert sum(expected) == total


def test_a_configuration_without_layers_is_refused_by_name() -> None:
    with pytest.raises(ShrinkError, match="Florence2Config does not say how many layers"):
        shrink_config(transformers.Florence2Config(), SmallSizes())
