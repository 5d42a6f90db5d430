"""WebDataset: tar files in which the files of one sample have one name and different suffixes, read by `webdataset`.

    000001.jpg, 000001.json                    a row in any of our schemas, and its picture
    000002.0.png, 000002.1.png, 000002.json    several pictures, as the JSON lists them, else by number
    000003.jpg, 000003.question.txt, 000003.answer.txt    texts one by one

Only JSON, text and pictures are read. Video, sound and pictures of other kinds make a bad row; pickles, arrays and
everything else stay closed.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.data.bad_rows import BadRow, DataError
from balanced_thinking.data.known_columns import adapt_record, has_schema
from balanced_thinking.data.member_order import order_pictures
from balanced_thinking.data.picture_files import MEDIA_SUFFIXES, PICTURE_SUFFIXES, UNREAD_PICTURE_SUFFIXES
from balanced_thinking.data.unpacking import open_unpacked
from balanced_thinking.data.values import RowProblemError

_PICTURE = re.compile(rf"(?:.*\.)?(?:{'|'.join(PICTURE_SUFFIXES)})", re.IGNORECASE)
_JSON = re.compile(r"(?:.*\.)?(?:json|jsn)", re.IGNORECASE)
_TEXT = re.compile(r"(?:(.*)\.)?(?:txt|text|cls|id)", re.IGNORECASE)
_UNREAD = re.compile(rf"(?:.*\.)?(?:{'|'.join((*MEDIA_SUFFIXES, *UNREAD_PICTURE_SUFFIXES))})", re.IGNORECASE)
_OURS = ("__key__", "__url__", "__local_path__")


def stream_archive(file: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yield (position from 1, row) of a tar file, one sample in memory at a time.

    The row has the keys of its JSON, the texts, the pictures as `images`, and the sample's name as `__key__`. Raises
    DataError for a file that is not a tar archive, or whose end is missing.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander  # which imports torch

    packed = file.suffix.lower() in (".gz", ".tgz")
    with open_unpacked(file) if packed else file.open("rb") as stream:
        files = tar_file_expander(iter([{"url": str(file), "stream": stream}]), select_files=_is_read)
        samples, row = iter(group_by_keys(files)), 0
        seen: dict[int, frozenset[str]] = {}  # hash of a sample's name -> its suffixes, of which there are few kinds
        kinds: dict[frozenset[str], frozenset[str]] = {}
        while True:
            try:
                sample = next(samples, None)
            except (tarfile.TarError, OSError, EOFError, ValueError) as error:
                reason = error.args[0] if error.args else type(error).__name__
                raise DataError(
                    f"{file}, after sample {row}: {reason}; expected a complete tar archive in WebDataset's form, with "
                    "the files of a sample one after another"
                ) from error
            if sample is None:
                return
            row += 1
            suffixes = frozenset(suffix for suffix in sample if suffix not in _OURS)
            earlier = seen.setdefault(hash(sample["__key__"]), kinds.setdefault(suffixes, suffixes))
            if earlier.isdisjoint(suffixes):
                raise DataError(
                    f"{file}, sample {row}: {sample['__key__']} has {', '.join(sorted(suffixes))} here and "
                    f"{', '.join(sorted(earlier))} further up; the members of a sample must follow one another: pack "
                    "it again in the order of the names (tar --sort=name)"
                )
            yield row, _build_record(row, sample)


def _is_read(name: str) -> bool:
    """Whether it is a file that a row can use, or lacks, by the part of its name that begins at the first dot."""
    suffix = name.rpartition("/")[2].partition(".")[2]
    return not name.rpartition("/")[2].startswith(".") and any(
        kind.fullmatch(suffix) for kind in (_PICTURE, _JSON, _TEXT, _UNREAD)
    )


def _build_record(row: int, sample: dict[str, Any]) -> dict[str, Any] | BadRow:
    record: dict[str, Any] = {}
    pictures: dict[str, dict[str, Any]] = {}
    rows = 0
    has_picture = any(_PICTURE.fullmatch(suffix) for suffix in sample)
    for suffix, data in sample.items():
        if suffix in _OURS:
            continue
        if _UNREAD.fullmatch(suffix):
            is_media = suffix.rpartition(".")[2].lower() in MEDIA_SUFFIXES
            if has_picture and not is_media:  # another form of it
                continue
            text = f"{sample['__key__']}.{suffix}"
            return BadRow(row, ("unread_media" if is_media else "broken_image",), text, sample["__key__"])
        if _PICTURE.fullmatch(suffix):
            pictures[suffix] = {"bytes": data, "path": None}
            continue
        try:
            text = data.decode("utf-8-sig")
            found = parse_json(text) if _JSON.fullmatch(suffix) else text
        except ValueError:
            shown = data[:200].decode("utf-8", errors="replace")
            return BadRow(row, ("invalid_json" if _JSON.fullmatch(suffix) else "not_utf8",), shown, sample["__key__"])
        if isinstance(found, dict):
            rows += has_schema(adapt_record(found))
            if rows > 1:
                return BadRow(row, ("joined_samples",), f"{sample['__key__']}.{suffix}", sample["__key__"])
            record |= found
        elif _JSON.fullmatch(suffix):
            return BadRow(row, ("not_an_object",), str(found)[:200], sample["__key__"])
        else:
            record[_TEXT.sub(lambda name: name[1] or name[0], suffix)] = found
    if pictures:
        try:
            order = order_pictures(sample["__key__"], list(pictures), record)
        except RowProblemError as error:
            return BadRow(row, error.problems, error.text, sample["__key__"])
        record = {key: value for key, value in record.items() if key not in ("image", "images")}
        record |= {name: pictures[name] for name in order.others}
        record["images"] = [pictures[name] for name in order.shown]
    return {**record, "__key__": sample["__key__"]}
