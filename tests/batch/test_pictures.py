"""Pictures: what is kept of them is what the processor makes, and a cache survives whatever happens to its folder."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from balanced_thinking.batch.collator import ImageCache, ScaleCollator
from balanced_thinking.batch.pictures import CachedImageProcessor, DistinctImageProcessor
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.images import decode_rgb, open_image
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.data.world import load
from balanced_thinking.models.load import load_processor
from balanced_thinking.models.tiny import build_tiny
from tests.conftest import ARCHITECTURES
from tests.models.hub_folders import write_hub_folder
from tests.tiny_training import model_inputs


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """Four rows whose pictures are files of different shapes; one has two of them, one none."""
    found = to_dataset(list(load(n=4, ratio=5))).to_list()
    shapes = [(84, 84), (56, 140), (140, 56), (84, 84)]
    names = [tmp_path / f"{i}.png" for i in range(4)]
    for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        next(load(n=1, seed=i)).images[0].resize(shape).save(name)
    for row, chosen in zip(found, ([0], [1, 2], [], [3]), strict=True):
        row["images"] = [str(names[k]) for k in chosen]
    return found


def processed(monkeypatch: pytest.MonkeyPatch, processor: Any) -> list[int]:
    """Counts the pictures that the image processor gets from now on."""
    seen: list[int] = []
    kind = type(processor.image_processor)
    preprocess = kind.preprocess

    def counted(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(images))
        return preprocess(self, images, *args, **kwargs)

    monkeypatch.setattr(kind, "preprocess", counted)
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_cached_batch_is_the_batch_and_is_processed_once(
    architecture: str, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = build_tiny(architecture)[1]
    plain = ScaleCollator(processor)(rows)
    collator = ScaleCollator(processor, image_cache=ImageCache(tmp_path / "cache"))
    seen = processed(monkeypatch, processor)
    again = pickle.loads(pickle.dumps(collator))  # as a data-loader worker gets it
    decoded = []
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: decoded.append(1) or _convert(self, mode))
    for batch in (collator(rows), collator(rows[::-1]), again(rows)):
        assert batch.keys() == plain.keys()
    for name, value in model_inputs(plain).items():
        assert torch.equal(batch[name], value), name
    assert sum(seen) == 4
    assert len(decoded) <= 8  # once or twice on the way to the cache, never on the way from it
    assert processor.image_processor is not collator.processor.image_processor


_convert = Image.Image.convert


def test_other_settings_and_another_content_are_other_entries(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    processor = build_tiny("qwen2_5_vl")[1]
    ScaleCollator(processor, image_cache=ImageCache(folder))(rows)
    assert len(list(folder.glob("*/*.safetensors"))) == 4
    processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    other = ScaleCollator(processor, image_cache=ImageCache(folder))(rows)
    assert torch.equal(other["pixel_values"], ScaleCollator(processor)(rows)["pixel_values"])
    Image.new("RGB", (84, 84), "red").save(rows[0]["images"][0])  # the same name, another picture
    changed = ScaleCollator(processor, image_cache=ImageCache(folder))(rows)
    assert torch.equal(changed["pixel_values"], ScaleCollator(processor)(rows)["pixel_values"])
    assert len(list(folder.glob("*/*.safetensors"))) == 9


@pytest.mark.parametrize("damage", [b"", b"not an entry", None], ids=["emptied", "overwritten", "deleted"])
def test_a_damaged_entry_is_made_again(damage: bytes | None, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    collator = ScaleCollator(build_tiny("gemma3")[1], image_cache=ImageCache(tmp_path / "cache"))
    first = collator(rows)
    for path in (tmp_path / "cache").glob("*/*"):
        path.unlink() if damage is None else path.write_bytes(damage)
    assert torch.equal(collator(rows)["pixel_values"], first["pixel_values"])
    assert torch.equal(collator(rows)["pixel_values"], first["pixel_values"])


def test_a_full_cache_deletes_the_least_recently_used(tmp_path: Path) -> None:
    inner = build_tiny("gemma3")[1].image_processor
    pictures = [Image.new("RGB", (56, 56), (k, 0, 0)) for k in range(6)]
    size = inner([pictures[0]], return_tensors="pt")["pixel_values"].nbytes + 4096
    cached = CachedImageProcessor(inner, tmp_path, 3 * size, decode_rgb)
    for k, picture in enumerate(pictures[:3]):
        cached([picture])
        for path in tmp_path.glob("*/*"):
            os.utime(path, (k, k)) if path.stat().st_mtime > 100 else None
    used = next(path for path in tmp_path.glob("*/*") if path.stat().st_mtime == 0)
    cached([pictures[0]])  # now the one that was used last
    for picture in pictures[3:]:
        cached([picture])
        assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 3 * size
        assert used.exists() or picture is pictures[5]


def test_a_broken_picture_is_named_with_a_cache_too(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    collator = ScaleCollator(build_tiny("qwen2_5_vl")[1], image_cache=ImageCache(tmp_path / "cache"))
    path = Path(rows[0]["images"][0])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(RowError, match=r"0\.png cannot be read"):
        collator(rows)
    path.unlink()
    with pytest.raises(RowError, match=r"0\.png cannot be read"):
        collator(rows)


def test_a_picture_that_was_not_read_is_the_one_that_was(rows: list[dict[str, Any]]) -> None:
    path = rows[1]["images"][0]
    unread = open_image({"bytes": Path(path).read_bytes(), "path": "x"}, convert=False)
    assert decode_rgb(unread).tobytes() == open_image(path).tobytes()


def test_what_a_call_asks_for_is_part_of_an_entry(tmp_path: Path) -> None:
    inner = build_tiny("llava_next")[1].image_processor
    cached = CachedImageProcessor(inner, tmp_path, 2**30, decode_rgb)
    picture = Image.new("RGB", (84, 84), "red")
    for wanted in (True, False, True):
        assert torch.equal(
            cached([picture], do_normalize=wanted)["pixel_values"],
            inner([picture], do_normalize=wanted, return_tensors="pt")["pixel_values"],
        )


def test_entries_that_are_not_one_per_picture_are_processed_as_they_come() -> None:
    """As InternVL's crops and SmolVLM's pictures by row: a group of completions still trains."""
    asked: list[object] = []

    class Crops:
        def __call__(self, images: object, **kwargs: object) -> dict[str, torch.Tensor]:
            asked.append(images)
            return {"pixel_values": torch.zeros(5, 3, 2, 2)}

    picture = Image.new("RGB", (4, 4))
    rows = [[picture], [picture]]
    assert DistinctImageProcessor(Crops())(rows)["pixel_values"].shape[0] == 5
    assert asked[-1] is rows


@pytest.mark.parametrize(
    ("family", "refused"),
    [("qwen2_5_vl", False), ("gemma3", False), ("llava_onevision", True), ("smolvlm", True), ("pixtral", True)],
)
def test_a_cache_is_refused_where_a_picture_alone_has_other_features(
    family: str, refused: bool, tmp_path: Path
) -> None:
    """Where it is not, rows with several pictures of several sizes are the same with it and without."""
    processor = load_processor(str(write_hub_folder(family, tmp_path / family)))
    cache = ImageCache(tmp_path / "cache")
    if refused:
        with pytest.raises(RecipeError, match="other features of several pictures than of each alone; leave image_ca"):
            ScaleCollator(processor, image_cache=cache)
        return
    pictures = [Image.linear_gradient("L").resize(size).convert("RGB") for size in ((96, 80), (60, 90))]
    said = [{"role": "assistant", "content": "<think>x .</think><answer>red</answer>"}]
    rows = [
        {"id": "1", "prompt": [{"role": "user", "content": "which ?"}], "completion": said, "images": pictures[:count]}
        for count in (1, 2)
    ]
    plain, cached = ScaleCollator(processor)(rows), ScaleCollator(processor, image_cache=cache)(rows)
    for name in plain.keys() - {"batch_info"}:
        assert torch.equal(plain[name], cached[name]), name
