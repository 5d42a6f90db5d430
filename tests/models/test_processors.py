"""Processors of checkpoints as the hub has them: loaded with and without torchvision, and saved complete either way."""

from __future__ import annotations

import json
import pickle
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoProcessor, ProcessorMixin

from balanced_thinking.models.find import ModelNotFoundError
from balanced_thinking.models.load import load_processor
from balanced_thinking.models.pictures_only import (
    LEFT_OUT,
    PicturesOnly,
    find_processor_class,
    narrow_processor_class,
    read_part,
)
from balanced_thinking.models.processor import why_no_torchvision
from tests.models.hub_folders import FAMILIES, write_processor

WITHOUT = why_no_torchvision() is not None
WITH_VIDEO = sorted(set(FAMILIES) - {"llava", "llava_next", "gemma3", "gemma3_text", "idefics3", "pixtral", "mistral3"})


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("hub")
    return {name: write_processor(name, place / name) for name in FAMILIES}


def processed(processor: Any) -> dict[str, Any]:
    picture = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
    if not hasattr(processor, "image_processor"):
        return dict(processor(["What is it?"]))
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    template = processor.chat_template or processor.tokenizer.chat_template
    text = processor.apply_chat_template(message, chat_template=template, add_generation_prompt=True)
    return dict(processor(text=[text], images=[[picture]], return_tensors="np"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_processor_is_complete_and_works_alike(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    source = folders[family]
    processor = load_processor(str(source))
    before = processed(processor)
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    for _ in range(2):  # a run of a run keeps what the first one kept
        processor.save_pretrained(tmp_path)
        processor = load_processor(str(tmp_path))
    after = processed(processor)
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before if hasattr(before[name], "shape"))
    if family in WITH_VIDEO:
        kept, own = (
            read_part(str(tmp_path), "processor_config.json")[LEFT_OUT],
            source / "video_preprocessor_config.json",
        )
        if WITHOUT and own.is_file():
            assert kept == json.loads(own.read_text())


@pytest.mark.skipif(WITHOUT, reason="torchvision is not installed")
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gemma3_text"}))
def test_with_torchvision_the_processor_is_transformers_own(family: str, folders: dict[str, Path]) -> None:
    own, plain = load_processor(str(folders[family])), AutoProcessor.from_pretrained(folders[family])
    assert type(own) is type(plain)
    assert own.to_dict() == plain.to_dict()


@pytest.mark.skipif(not WITHOUT, reason="torchvision is installed")
@pytest.mark.parametrize("family", WITH_VIDEO)
def test_without_torchvision_the_picture_half_is_loaded_alone(family: str, folders: dict[str, Path]) -> None:
    processor = load_processor(str(folders[family]))
    named = find_processor_class(str(folders[family]))
    assert isinstance(processor, PicturesOnly)
    assert type(processor).__name__ == named.__name__
    with pytest.raises(ImportError, match="videos need torchvision"):
        processor.video_processor([])
    for twin in (copy(processor), pickle.loads(pickle.dumps(processor))):  # data-loader workers may unpickle it
        assert type(twin) is type(processor)
        assert twin.to_dict() == processor.to_dict()


@pytest.mark.skipif(not WITHOUT, reason="torchvision is installed")
def test_an_image_processor_that_only_torchvision_has_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["llava"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    about = {"image_processor_type": "Cohere2VisionImageProcessor", "processor_class": "Cohere2VisionProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(ModelNotFoundError, match="install the torchvision that belongs to your torch"):
        load_processor(str(tmp_path))


def test_image_options_reach_the_picture_half(folders: dict[str, Path]) -> None:
    processor = load_processor(str(folders["qwen2_5_vl"]), {"max_pixels": 784 * 4})
    assert processed(processor)["image_grid_thw"].prod() <= 16


def test_a_video_half_in_the_middle_of_the_signature_is_taken_out(folders: dict[str, Path]) -> None:
    """As MiniCPM-V's; its parts must not move up by one."""
    source = load_processor(str(folders["qwen2_5_vl"]))
    narrow = narrow_processor_class(MiddleVideo)
    made = narrow.from_args_and_dict([source.image_processor, source.tokenizer], {LEFT_OUT: {"fps": 2}})
    assert (made.image_processor, made.tokenizer) == (source.image_processor, source.tokenizer)
    assert made.get_attributes() == ["image_processor", "tokenizer"]


class MiddleVideo(ProcessorMixin):
    def __init__(self, image_processor=None, video_processor=None, tokenizer=None, chat_template=None):  # type: ignore[no-untyped-def]
        super().__init__(image_processor, video_processor, tokenizer, chat_template=chat_template)
