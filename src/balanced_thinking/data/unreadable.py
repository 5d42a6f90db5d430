"""What to say of a file or a folder that no reader takes: what it is, and the nearest thing that works."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from balanced_thinking.data.picture_files import PICTURE_SUFFIXES

# Suffix -> what it is, and what to do.
_OTHERS = {
    ".zip": ("a zip archive", "unpack it and name the folder, or the table in it"),
    ".7z": ("an archive", "unpack it and name the folder, or the table in it"),
    ".rar": ("an archive", "unpack it and name the folder, or the table in it"),
    ".gz": ("compressed", "unpack it with gunzip"),
    ".bz2": ("compressed", "unpack it with bunzip2"),
    ".xz": ("compressed", "unpack it with unxz"),
    ".zst": ("compressed", "unpack it with unzstd"),
    ".xlsx": ("a spreadsheet", "save it as CSV in UTF-8"),
    ".xls": ("a spreadsheet", "save it as CSV in UTF-8"),
    ".ods": ("a spreadsheet", "save it as CSV in UTF-8"),
    ".pkl": (
        "a pickle, which runs code when it is opened",
        "write its rows as JSON Lines",
    ),
    ".pt": ("a file of PyTorch", "write its rows as JSON Lines or parquet"),
    ".npz": ("an archive of NumPy", "write its rows as JSON Lines or parquet"),
    ".npy": ("an array of NumPy", "write its rows as JSON Lines or parquet"),
    ".h5": ("HDF5", "write its rows as JSON Lines or parquet"),
    ".db": ("a database", "write the rows of a query as CSV"),
    ".feather": ("an Arrow file under another name", "call it .arrow"),
    ".txt": ("plain text", "write one JSON object per line and call it .jsonl"),
    ".yaml": ("YAML", "write one JSON object per line and call it .jsonl"),
    ".xml": ("XML", "write one JSON object per line and call it .jsonl"),
    ".py": ("a program, and no code of a data set is run", "name the files with its rows"),
    ".pdf": ("a document", "write questions and answers as JSON Lines"),
    ".safetensors": ("weights of a model", "name the data with --data and the model with --model"),
}
_OTHERS |= {
    ".pickle": _OTHERS[".pkl"],
    ".pth": _OTHERS[".pt"],
    ".hdf5": _OTHERS[".h5"],
    ".sqlite": _OTHERS[".db"],
    ".yml": _OTHERS[".yaml"],
    ".md": _OTHERS[".txt"],
}
_POINTER = b"version https://git-lfs"
_START_BYTES = 32
_PICTURES = tuple(f".{suffix}" for suffix in PICTURE_SUFFIXES)
_STARTS = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "unpack it, or save the spreadsheet as CSV"),
    (b"\x1f\x8b", "compressed", "unpack it with gunzip"),
    (b"PAR1", "parquet", "call it .parquet"),
    (b"ARROW1", "an Arrow file", "call it .arrow"),
    (b"\x89PNG", "a picture", "name a table with its question"),
    (b"\xff\xd8\xff", "a picture", "name a table with its question"),
    (_POINTER, "a pointer of Git LFS, not the file itself", "run git lfs pull in its folder"),
    (b"SQLite format 3", "a database", "write the rows of a query as CSV"),
)


def explain_unreadable(place: Path, suffixes: Sequence[str]) -> str:
    """One line about a file of another kind, or a folder without files that can be read."""
    expected = f"expected a file that ends in {', '.join(suffixes)}, or a folder of them"
    if place.is_dir():
        return f"{place} {_describe_folder(place)}; {expected}"
    suffix = place.suffix.lower()
    if suffix in _PICTURES:
        return f"{place} is a picture; name a table with its path, its question and its answer. Otherwise {expected}"
    if suffix in _OTHERS:
        what, fix = _OTHERS[suffix]
        return f"{place} is {what}: {fix}; {expected}"
    if not place.is_file():  # a pipe would block, and a device has no end
        return f"{place} is not a regular file; {expected}"
    with place.open("rb") as stream:
        found = explain_content(stream.read(_START_BYTES))
    return f"{place} is {found}; {expected}" if found else f"{place} is not in the form of a known data set; {expected}"


def explain_content(start: bytes) -> str | None:
    """What a file with these first bytes is, and what to do; None if they say nothing."""
    return next((f"{what}: {fix}" for mark, what, fix in _STARTS if start.startswith(mark)), None)


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is what a clone has before `git lfs pull`."""
    with file.open("rb") as stream:
        return stream.read(len(_POINTER)) == _POINTER


def _describe_folder(folder: Path) -> str:
    files = [file for file in sorted(folder.rglob("*"))[:1000] if file.is_file()]
    if not files:
        return "is an empty folder"
    suffixes = {file.suffix.lower() for file in files}
    if suffixes <= {*_PICTURES, ""}:
        columns = "file_name, question and answer"
        return f"has pictures, but no table with their questions: add a metadata.csv with the columns {columns}"
    known = next((file for file in files if file.suffix.lower() in _OTHERS), None)
    if known is not None:
        what, fix = _OTHERS[known.suffix.lower()]
        return f"has no file that can be read; {known.relative_to(folder)} is {what}: {fix}"
    return f"has no file that can be read; it has {', '.join(str(file.relative_to(folder)) for file in files[:4])}"
