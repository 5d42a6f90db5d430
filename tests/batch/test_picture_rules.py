"""What the rules say about a picture's size is what the processor does with a picture of that size."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from balanced_thinking.batch.collator import ImageCache, ScaleCollator
from balanced_thinking.batch.picture_rules import PictureRules, check_picture_size, count_picture_tokens, picture_rules
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.models.processor import load_processor
from balanced_thinking.models.tiny import build_tiny
from tests.conftest import ARCHITECTURES
from tests.models.hub_folders import write_hub_folder

# Module and class of image processors that need no torchvision, made small: the rules do not depend on it.
FAMILIES = {
    "qwen2_vl": ("Qwen2VLImageProcessorPil", {"max_pixels": 28 * 28 * 16}),
    "glm4v": ("Glm4vImageProcessorPil", {}),
    "glm46v": ("Glm46VImageProcessorPil", {}),
    "llava": ("LlavaImageProcessorPil", {"size": {"height": 56, "width": 56}}),
    "llava_next": ("LlavaNextImageProcessorPil", {"image_grid_pinpoints": [[56, 112], [112, 56], [56, 56]]}),
    "llava_onevision": ("LlavaOnevisionImageProcessorPil", {"image_grid_pinpoints": [[56, 112], [112, 56]]}),
    "gemma3": ("Gemma3ImageProcessorPil", {"size": {"height": 56, "width": 56}}),
    "idefics3": ("Idefics3ImageProcessorPil", {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}),
    "smolvlm": ("SmolVLMImageProcessorPil", {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}),
    "pixtral": ("PixtralImageProcessorPil", {"size": {"longest_edge": 112}}),
    "got_ocr2": ("GotOcr2ImageProcessorPil", {"size": {"height": 56, "width": 56}}),
    "siglip": ("SiglipImageProcessorPil", {"size": {"height": 56, "width": 56}}),
}
SIZES = [
    (1, 1),
    (1, 2),
    (3, 3),
    (27, 27),
    (28, 28),
    (55, 1),
    (1, 200),
    (200, 1),
    (201, 1),
    (1, 201),
    (300, 1),
    (1, 300),
]
SIZES += [(1500, 7), (10, 2001), (2000, 10), (3000, 10), (512, 3), (640, 48), (97, 301), (112, 84)]
REFUSING = {"qwen2_vl": 7, "glm4v": 7, "glm46v": 7, "pixtral": 11}  # of these sizes


class OnlyImages:
    """A processor of which nothing but the image processor is looked at."""

    def __init__(self, images: Any) -> None:
        self.image_processor = images


def image_processor(family: str) -> Any:
    name, options = FAMILIES[family]
    module = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    return getattr(module, name)(**options)


def refuses(call: Any) -> bool:
    try:
        call()
    except (ValueError, RuntimeError, ArithmeticError, LookupError, TypeError):
        return True
    return False


@pytest.mark.parametrize("family", FAMILIES)
def test_a_size_is_refused_where_the_image_processor_refuses_it(family: str) -> None:
    images = image_processor(family)
    rules = PictureRules(OnlyImages(images))
    for size in SIZES:
        really = refuses(lambda size=size: images([Image.new("RGB", size)], return_tensors="pt"))
        assert (rules.find_refusal(size) is not None) == really, size
    assert sum(rules.find_refusal(size) is not None for size in SIZES) == REFUSING.get(family, 0)


def test_most_usual_sizes_are_not_processed_where_there_is_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    images = image_processor("siglip")
    rules, seen = PictureRules(OnlyImages(images)), []
    monkeypatch.setattr(type(images), "__call__", lambda self, pictures, **_: seen.append(pictures[0].size))
    for width in range(100, 200):
        assert rules.find_refusal((width, 100)) is None
        assert rules.find_refusal((width, 100)) is None
    assert len(seen) == 16
    assert rules.find_refusal((900, 100)) is None
    assert seen[-1] == (900, 100)  # an unusual one


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_picture_adds_as_many_tokens_as_counted(architecture: str) -> None:
    processor = build_tiny(architecture)[1]
    text = "The picture: " + getattr(processor, "boi_token", processor.image_token)
    plain = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    sizes = [(1, 1), (56, 56), (84, 84), (200, 1), (300, 20), (20, 300), (640, 480), (97, 301)]
    for size, counted in zip(sizes, count_picture_tokens(processor, sizes), strict=True):
        output = processor(text=[text], images=[[Image.new("RGB", size)]], add_special_tokens=False)
        assert counted == len(output["input_ids"][0]) - plain, size


@pytest.mark.parametrize("family", ["internvl", "smolvlm", "idefics3", "pixtral", "llava", "llava_onevision", "gemma4"])
def test_a_picture_of_a_published_family_adds_as_many_tokens_as_counted(family: str, tmp_path: Path) -> None:
    processor = load_processor(str(write_hub_folder(family, tmp_path / "model")))
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}]
    text = processor.apply_chat_template(prompt, tokenize=False)
    plain = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    sizes = [(56, 56), (27, 28), (512, 30), (640, 480), (97, 301)]
    for size, counted in zip(sizes, count_picture_tokens(processor, sizes), strict=True):
        output = processor(text=[text], images=[[Image.new("RGB", size)]], add_special_tokens=False)
        assert counted == len(output["input_ids"][0]) - plain, size


def test_a_processor_that_cannot_count_is_asked_with_blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(56, 56), (300, 20), (640, 480)]
    expected = count_picture_tokens(build_tiny("qwen2_5_vl")[1], sizes)
    other = build_tiny("qwen2_5_vl")[1]
    monkeypatch.setattr(type(other), "_get_num_multimodal_tokens", None)
    assert count_picture_tokens(other, sizes) == expected


def test_a_refused_size_is_named_with_its_cure() -> None:
    processor = build_tiny("qwen2_5_vl")[1]
    with pytest.raises(RowError, match=r"wide\.png has 300 x 1 pixels.*Cut or pad.*aspect ratio") as raised:
        check_picture_size(processor, 300, 1, "wide.png")
    assert raised.value.problem == "picture_refused"
    with pytest.raises(RowError):
        count_picture_tokens(processor, [(56, 56), (1, 300)])


def test_a_tokenizer_has_no_rules() -> None:
    tokenizer = build_tiny("qwen2")[1]
    assert picture_rules(tokenizer) is None
    check_picture_size(tokenizer, 300, 1)  # which a processor refuses, as above


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_collator_names_row_and_file_of_a_refused_picture(cached: bool, as_bytes: bool, tmp_path: Path) -> None:
    for name, size in (("good.png", (56, 56)), ("wide.png", (300, 1))):
        Image.new("RGB", size).save(tmp_path / name)
    cells = [
        {"path": str(path), "bytes": path.read_bytes() if as_bytes else None}
        for path in (tmp_path / "good.png", tmp_path / "wide.png")
    ]
    rows = [
        {
            "id": f"row-{k}",
            "prompt": [{"role": "user", "content": "Which?"}],
            "completion": [{"role": "assistant", "content": "<think>It is.</think><answer>A</answer>"}],
            "images": [cell],
        }
        for k, cell in enumerate(cells)
    ]
    cache = ImageCache(tmp_path / "cache") if cached else None
    collator = ScaleCollator(build_tiny("qwen2_5_vl")[1], image_cache=cache)
    for collate in (collator, collator.collate_prompts):
        with pytest.raises(RowError, match=r"sample row-1: .*wide\.png has 300 x 1 pixels") as raised:
            collate(rows)
        assert raised.value.problem == "picture_refused"
    assert collator(rows[:1])["input_ids"].shape[0] == 1
