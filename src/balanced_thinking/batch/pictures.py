"""An image processor's output: selected, concatenated, and computed once instead of again and again.

Both classes wrap a processor's own `image_processor` and are used in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import BatchFeature
from transformers.image_utils import make_flat_list_of_images

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.data.images import content_digest

_KEPT_SHARE = 0.9  # of the limit remains after a clean-up, so that not every image needs another one
_SCAN_SHARE = 0.01  # of the limit may be written before the folder is scanned again, as other processes write too
_PROBE_SIZES = ((96, 80), (60, 90))  # width and height, of two shapes
# How images are decoded; another text invalidates every entry.
_DECODING = "upright by all EXIF data, on white, 16 bits and floats to 8"


def select_images(features: Mapping[str, Any], indices: Sequence[int], count: int) -> BatchFeature:
    """Features of `count` images -> those of the images with these indices, in that order.

    Raises ValueError where the processor makes several entries per image, such as crops, and does not say which.
    """
    grid = features.get("image_grid_thw")
    selected: dict[str, Any] = {}
    for name, value in features.items():
        if name == "pixel_values" and grid is not None:  # the patches of all images in one tensor
            patches = torch.split(value, grid.prod(-1).tolist())
            selected[name] = torch.cat([patches[index] for index in indices])
        elif len(value) != count:
            raise ValueError(
                f"the image processor made {len(value)} entries of {name} from {count} images; expected one per image. "
                "Set packing=False, or turn off cropping in image_options (do_pan_and_scan: false)"
            )
        elif isinstance(value, Tensor):
            selected[name] = value[list(indices)]
        else:
            selected[name] = [value[index] for index in indices]
    return BatchFeature(selected)


def order_by_sample(
    features: Mapping[str, Any], images: Sequence[int], tokens: Sequence[int], order: Sequence[int]
) -> dict[str, Any]:
    """The features of a batch's images in another order of its samples.

    `images` and `tokens` are the numbers of images and of image tokens of each sample, in the order of `features`. From
    the tokens follow the entries of each sample where an image has several, such as crops.

    Raises ValueError where neither says which entries are a sample's.
    """
    grid = features.get("image_grid_thw")
    ordered: dict[str, Any] = {}
    for name, value in features.items():
        if name == "pixel_values" and grid is not None:  # the patches of all images in one tensor
            patches = iter(grid.prod(-1).tolist())
            counts = [sum(next(patches) for _ in range(count)) for count in images]
        else:
            counts = _count_entries(name, len(value), images, tokens)
        starts = [0, *accumulate(counts)]
        indices = [k for sample in order for k in range(starts[sample], starts[sample + 1])]
        ordered[name] = value[indices] if isinstance(value, Tensor) else [value[index] for index in indices]
    return ordered


def _count_entries(name: str, entries: int, images: Sequence[int], tokens: Sequence[int]) -> list[int]:
    """How many of the entries each sample has: one per image, one per sample with images, or as its tokens say."""
    for counts in (list(images), [min(count, 1) for count in images]):
        if entries == sum(counts):
            return counts
    total = sum(tokens)
    if total and all(entries * count % total == 0 for count in tokens):
        return [entries * count // total for count in tokens]
    raise ValueError(
        f"the image processor made {entries} entries of {name} from {sum(images)} images, and it is not known "
        "which belong to which sample; set packing=False"
    )


def concatenate_images(features: Sequence[Mapping[str, Any]]) -> BatchFeature:
    """Features of single images -> those of all. Tiles (LLaVA-NeXT's second axis) are padded with zeros, as it does."""
    joined: dict[str, Any] = {}
    for name in features[0]:
        values = [one[name] for one in features]
        if not isinstance(values[0], Tensor):
            joined[name] = [item for value in values for item in value]
            continue
        if len({value.shape[2:] for value in values}) > 1:
            raise ValueError(f"image_cache cannot combine images of several sizes ({name}): leave image_cache out")
        if len({value.shape[1:] for value in values}) > 1:
            tiles = max(value.shape[1] for value in values)
            values = [F.pad(v, (*(0, 0) * (v.dim() - 2), 0, tiles - v.shape[1])) for v in values]
        joined[name] = torch.cat(values)
    return BatchFeature(joined)


class DistinctImageProcessor:
    """Processes each distinct image once, however often it occurs."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._seen: dict[tuple[Any, ...], tuple[list[Any], Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        flat = make_flat_list_of_images(images)
        kwargs["return_tensors"] = "pt"  # the same kind of result for generation and training
        if "batch_num_images" in getattr(self._inner, "model_input_names", ()):  # the rest of a row changes an image
            return self._inner(images, **kwargs)
        distinct = list({id(image): image for image in flat}.values())
        indices = {id(image): index for index, image in enumerate(distinct)}
        key = (tuple(indices), repr(sorted(kwargs.items(), key=lambda item: item[0])))
        if key not in self._seen:  # keeping the images keeps their ids unique
            self._seen[key] = (distinct, self._inner(distinct, **kwargs))
        made = self._seen[key][1]
        if "image_grid_thw" not in made and any(len(value) != len(distinct) for value in made.values()):
            return self._inner(images, **kwargs)  # crops, or entries by row: which belong to which image is unknown
        return select_images(made, [indices[id(image)] for image in flat], len(distinct))


def refuse_unsuited_cache(images: Any) -> None:
    """Raises RecipeError for an image processor that makes other features of several pictures than of each alone.

    Two pictures of different sizes are processed in both ways. LLaVA-OneVision, for example, cuts a picture into tiles
    only where it is alone in its row.
    """
    pair = [Image.linear_gradient("L").resize(size).convert("RGB") for size in _PROBE_SIZES]
    together = images([pair], return_tensors="pt")
    try:
        alone = concatenate_images([images([[one]], return_tensors="pt") for one in pair])
    except ValueError:
        alone = BatchFeature({})
    if together.keys() != alone.keys() or not all(_are_equal(value, alone[name]) for name, value in together.items()):
        raise RecipeError(
            f"image_cache keeps pictures one by one, but {type(images).__name__} makes other features of several "
            "pictures than of each alone; leave image_cache out"
        )


def _are_equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else one == other


class CachedImageProcessor:
    """Keeps the processor's output for each image in a folder, by the file's content and the processor's settings.

    An entry is complete or absent, even after a kill. The folder may be deleted at any time, and any number of one
    user's processes may share it. An entry that cannot be read is computed again.

    Args:
        inner: the image processor.
        folder: where entries are stored; created if missing.
        limit_bytes: limit of all entries together; beyond it the least recently used ones are deleted.
        decode: an image whose file was not read yet -> an RGB image.
    """

    def __init__(self, inner: Any, folder: Path, limit_bytes: int, decode: Callable[[Any], Any]) -> None:
        self._inner, self._folder, self._limit, self._decode = inner, folder, limit_bytes, decode
        settings = [type(inner).__name__, inner.to_json_string(), transformers.__version__, _DECODING]
        self._settings = hashlib.sha256("\n".join(settings).encode()).hexdigest()
        self._written: int | None = None  # bytes in the folder as far as this process knows
        self._since_scan = 0

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # during unpickling
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        kwargs["return_tensors"] = "pt"
        return concatenate_images([self._process_image(image, kwargs) for image in make_flat_list_of_images(images)])

    def _process_image(self, image: Any, kwargs: dict[str, Any]) -> Mapping[str, Any]:
        identity = json.dumps([self._settings, content_digest(image), sorted(kwargs.items())], default=str)
        name = hashlib.sha256(identity.encode()).hexdigest()
        path = self._folder / name[:2] / f"{name}.safetensors"
        if (found := _read_and_touch_entry(path)) is not None:
            return found
        made = self._inner([self._decode(image)], **kwargs)
        try:
            self._write_entry(path, made)
        except OSError as error:  # a full disk, or a folder just deleted: the image is processed anyway
            warnings.warn(
                f"image_cache={self._folder} could not be written ({error}); training continues without it",
                stacklevel=2,
            )
        return made

    def _write_entry(self, path: Path, features: Mapping[str, Any]) -> None:
        tensors = {name: value.contiguous() for name, value in features.items() if isinstance(value, Tensor)}
        size = sum(tensor.nbytes for tensor in tensors.values())
        rest = {name: json.dumps(value) for name, value in features.items() if name not in tensors}
        self._make_room(size)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        os.close(handle)
        try:
            save_file(tensors, partial, metadata=rest)
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    def _make_room(self, size: int) -> None:
        self._since_scan += size
        stale = self._written is None or self._since_scan > _SCAN_SHARE * self._limit
        if stale or (self._written or 0) + size > self._limit:
            self._since_scan = 0
            entries = _list_entries(self._folder)
            self._written = sum(entry.size_bytes for entry in entries)
            if self._written + size > self._limit:
                for entry in sorted(entries):
                    if self._written + size <= _KEPT_SHARE * self._limit:
                        break
                    entry.path.unlink(missing_ok=True)  # another process may have deleted it
                    self._written -= entry.size_bytes
        self._written = (self._written or 0) + size


def _read_and_touch_entry(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, framework="pt") as file:
            found: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            found |= {name: parse_json(text) for name, text in (file.metadata() or {}).items()}
        with suppress(OSError):
            os.utime(path)  # its last use
    except (OSError, SafetensorError, ValueError):
        return None
    return found


def _list_names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # deleted, or a file
        return []


class _Entry(NamedTuple):
    last_use: float
    size_bytes: int
    path: Path


def _list_entries(folder: Path) -> list[_Entry]:
    """All entries, except those that another process deletes in the meantime."""
    found = []
    for path in (folder / shard / name for shard in _list_names(folder) for name in _list_names(folder / shard)):
        try:
            status = path.stat()
        except OSError:
            continue
        found.append(_Entry(status.st_mtime, status.st_size, path))
    return found
