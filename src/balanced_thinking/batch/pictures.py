"""What an image processor makes of pictures: taken apart, put together, and made once instead of again and again.

Both classes stand in front of a processor's own `image_processor` and answer in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import BatchFeature
from transformers.image_utils import make_flat_list_of_images

from balanced_thinking.data.images import content_digest

# Of a full cache so much is kept when the oldest entries are thrown out, so that this is not done for every picture.
_KEPT = 0.9
_UNSEEN = 0.01  # of the limit is written between two looks at what other processes have written

_DECODED = "upright, 16 bits to 8"  # another text makes every entry anew


def select_images(features: Mapping[str, Any], places: Sequence[int], count: int) -> BatchFeature:
    """Features of `count` pictures -> those of the pictures at `places` among them, in that order.

    Raises ValueError where the processor makes several entries of a picture, such as its crops, and hides which.
    """
    grid = features.get("image_grid_thw")
    taken: dict[str, Any] = {}
    for name, value in features.items():
        if name == "pixel_values" and grid is not None:  # patches of all pictures in one row
            patches = torch.split(value, grid.prod(-1).tolist())
            taken[name] = torch.cat([patches[place] for place in places])
        elif len(value) != count:
            raise ValueError(
                f"the image processor made {len(value)} entries of {name} from {count} pictures, which cannot be told "
                "apart: set packing=False, or image_options that make one of each (do_pan_and_scan: false)"
            )
        elif isinstance(value, Tensor):
            taken[name] = value[list(places)]
        else:
            taken[name] = [value[place] for place in places]
    return BatchFeature(taken)


def concatenate_images(features: Sequence[Mapping[str, Any]]) -> BatchFeature:
    """Features of single pictures -> those of all; tiles (LLaVA-NeXT's second axis) are filled up with zeros, as its
    processor does."""
    joined: dict[str, Any] = {}
    for name in features[0]:
        values = [one[name] for one in features]
        if not isinstance(values[0], Tensor):
            joined[name] = [item for value in values for item in value]
            continue
        if len({value.shape[2:] for value in values}) > 1:
            raise ValueError(f"image_cache cannot put pictures of several sizes together ({name}): leave it out")
        if len({value.shape[1:] for value in values}) > 1:
            tiles = max(value.shape[1] for value in values)
            values = [F.pad(v, (*(0, 0) * (v.dim() - 2), 0, tiles - v.shape[1])) for v in values]
        joined[name] = torch.cat(values)
    return BatchFeature(joined)


class DistinctImageProcessor:
    """Lets the processor see each distinct picture once, however often it occurs."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._seen: dict[tuple[Any, ...], tuple[list[Any], Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        flat = make_flat_list_of_images(images)
        distinct = list({id(image): image for image in flat}.values())
        places = {id(image): place for place, image in enumerate(distinct)}
        kwargs["return_tensors"] = "pt"  # one kind of result for generation and for training
        key = (tuple(places), repr(sorted(kwargs.items(), key=lambda item: item[0])))
        if key not in self._seen:  # the pictures are kept beside the result, so that their ids stay theirs
            self._seen[key] = (distinct, self._inner(distinct, **kwargs))
        return select_images(self._seen[key][1], [places[id(image)] for image in flat], len(distinct))


class CachedImageProcessor:
    """Keeps what the processor made of each picture in a folder, by the file's content and the processor's settings.

    Entries are whole or absent, whoever is killed; the folder may be deleted at any time, and shared by any number of
    one user's processes. What cannot be read is made again.

    Args:
        inner: the image processor. folder: where entries lie; made if it is not there.
        limit_bytes: of all entries; beyond it those that were not used for longest go.
        decode: a picture whose file was not read yet -> an RGB picture.
    """

    def __init__(self, inner: Any, folder: Path, limit_bytes: int, decode: Callable[[Any], Any]) -> None:
        self._inner, self._folder, self._limit, self._decode = inner, folder, limit_bytes, decode
        settings = [type(inner).__name__, inner.to_json_string(), transformers.__version__, _DECODED]
        self._settings = hashlib.sha256("\n".join(settings).encode()).hexdigest()
        self._written: int | None = None  # bytes in the folder as far as this process knows
        self._since_scan = 0

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        kwargs["return_tensors"] = "pt"
        return concatenate_images([self._process_image(image, kwargs) for image in make_flat_list_of_images(images)])

    def _process_image(self, image: Any, kwargs: dict[str, Any]) -> Mapping[str, Any]:
        told = json.dumps([self._settings, content_digest(image), sorted(kwargs.items())], default=str)
        name = hashlib.sha256(told.encode()).hexdigest()
        path = self._folder / name[:2] / f"{name}.safetensors"
        if (found := _read_entry(path)) is not None:
            return found
        made = self._inner([self._decode(image)], **kwargs)
        try:
            self._write_entry(path, made)
        except OSError as error:  # a full disk, or the folder was deleted just now: the picture is there all the same
            warnings.warn(f"the image cache {self._folder} could not be written ({error})", stacklevel=2)
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
        stale = self._written is None or self._since_scan > _UNSEEN * self._limit
        if stale or (self._written or 0) + size > self._limit:
            self._since_scan = 0
            entries = _list_entries(self._folder)
            self._written = sum(entry_size for _, entry_size, _ in entries)
            if self._written + size > self._limit:
                for _, entry_size, path in sorted(entries):
                    if self._written + size <= _KEPT * self._limit:
                        break
                    path.unlink(missing_ok=True)  # another process may have been faster
                    self._written -= entry_size
        self._written = (self._written or 0) + size


def _read_entry(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, framework="pt") as file:
            found: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            found |= {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
        with suppress(OSError):
            os.utime(path)  # used now
    except (OSError, SafetensorError, ValueError):
        return None
    return found


def _list_folder(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # it was deleted, or is a file
        return []


def _list_entries(folder: Path) -> list[tuple[float, int, Path]]:
    """(last use, bytes, path) of each entry; one that goes away meanwhile is left out."""
    found = []
    for path in (folder / shard / name for shard in _list_folder(folder) for name in _list_folder(folder / shard)):
        try:
            about = path.stat()
        except OSError:
            continue
        found.append((about.st_mtime, about.st_size, path))
    return found
