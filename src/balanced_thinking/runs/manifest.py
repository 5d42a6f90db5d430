"""A sealed folder: its manifest names every file with its size and SHA-256, and is written last.

A folder without a manifest was not completed. One whose files differ from it was torn, altered or mixed up afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from balanced_thinking.config.errors import UsageError
from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.system.files import open_atomically, sync_file, sync_folder
from balanced_thinking.system.process import usable_cores
from balanced_thinking.system.text import list_some

MANIFEST = "manifest.json"
ABOUT_FORMAT = "reasoning_format"  # key of `about`: the format that a trained model answers in
_TRAINING_ARGUMENTS = "training_args.bin"  # transformers writes it beside every model
_VERSION = 1
_BUFFER = 1 << 20  # bytes read at a time
_THREADS = 8  # at most; hashing does not hold Python's lock
_LARGEST = 64 << 20  # bytes of a manifest: far above any real one
_NAMED = 3  # faults in a message
# What a loader may pick up. Another file beside those that were saved, such as a note, is harmless.
_LOADABLE = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".json", ".jinja", ".distcp", ".model"}


@dataclass(frozen=True)
class FileDigest:
    """The size of a file in bytes and the SHA-256 of its content, in hexadecimal."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder held when it was sealed. `files` are relative names with slashes; `about` is the writer's."""

    files: Mapping[str, FileDigest]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


@dataclass(frozen=True)
class Damage:
    """One file of a sealed folder and what is wrong with it, in words that follow the name."""

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file} {self.problem}"


class DamagedFilesError(UsageError, ValueError):
    """Files that are not what was saved."""

    def __init__(self, message: str, damages: tuple[Damage, ...] = ()) -> None:
        super().__init__(message)
        self.damages = damages


def seal_folder(
    folder: Path, *, about: Mapping[str, Any] | None = None, known: Mapping[str, FileDigest] | None = None
) -> Manifest:
    """Write every file of `folder` to the disk, then the manifest that describes them, then the folder itself.

    Args:
        folder: holds plain files and folders only. An older manifest in it is replaced.
        about: anything that JSON can hold; it comes back with `read_manifest`.
        known: digests that were computed while the files were written. One whose size is not the file's is not used.

    Raises:
        DamagedFilesError: the folder holds a link, a pipe or a device.
        OSError: the disk refuses to write.
    """
    names = [name for name in list_files(folder) if name != MANIFEST]
    for name in names:
        if not stat.S_ISREG((folder / name).lstat().st_mode):
            raise DamagedFilesError(f"{folder / name} is not a plain file, so {folder} cannot be sealed; remove it")
    known = known or {}

    def digest(name: str) -> FileDigest:
        sync_file(folder / name)
        given = known.get(name)
        return given if given and given.bytes == (folder / name).stat().st_size else digest_file(folder / name)

    manifest = Manifest(dict(zip(names, _in_threads(digest, names), strict=True)), dict(about or {}))
    with open_atomically(folder / MANIFEST, sync=True) as file:
        file.write(_manifest_text(manifest))
    for inner in sorted({(folder / name).parent for name in names} | {folder}, reverse=True):
        sync_folder(inner)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a sealed folder. Raises DamagedFilesError where it is not one, FileNotFoundError without one."""
    path = folder / MANIFEST
    if (size := path.stat().st_size) > _LARGEST:
        raise _unreadable(path, f"has {size:,} bytes; expected at most {_LARGEST:,}")
    try:
        values = parse_json(path.read_bytes())
        files = {name: FileDigest(int(one["bytes"]), str(one["sha256"])) for name, one in values["files"].items()}
        manifest = Manifest(files, dict(values["about"]))
        version, own = values["version"], values["sha256"]
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise _unreadable(path, f"is not a manifest ({type(error).__name__}: {str(error)[:100]})") from None
    if version != _VERSION:
        raise _unreadable(path, f"has the version {version!r}; this program reads version {_VERSION}")
    if own != _own_digest(manifest):
        raise _unreadable(path, "was altered: its own SHA-256 does not match")
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name or not name:
            raise _unreadable(path, f"names the file {name!r}, which is outside the folder")
    return manifest


def read_about(folder: Path) -> dict[str, Any]:
    """What the manifest of a folder says about it; empty without one of ours. Raises as `read_manifest`."""
    return dict(read_manifest(folder).about) if is_sealed(folder) else {}


def manifest_digest(folder: Path) -> str:
    """16 digits that tell the model in a sealed folder from what it was before; empty where it is not sealed.

    The trainer's arguments do not count: they name folders, and no answer depends on them.
    """
    try:
        files = read_manifest(folder).files
    except (OSError, DamagedFilesError):  # loading the model says what is wrong
        return ""
    held = sorted((name, file.sha256) for name, file in files.items() if name != _TRAINING_ARGUMENTS)
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16]


def is_sealed(folder: Path) -> bool:
    """Whether there is a manifest of ours, be it altered. Other programs also write files of this name."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    try:
        values = parse_json(text)
    except (ValueError, RecursionError):
        return True
    return isinstance(values, dict) and len(values.keys() & {"version", "files", "about", "sha256"}) >= 2


def find_damage(folder: Path, *, wanted: Callable[[str], bool] = lambda name: True) -> list[Damage]:
    """Every file of a sealed folder that is not what was saved; an empty list where all are.

    Each file is read once, with a fixed buffer, several at a time. Files of which a loader takes no notice may be there
    in addition. `wanted` chooses the files whose content is compared, by relative name.
    """
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return [Damage(MANIFEST, "is missing, so the folder is incomplete")]
    except OSError as error:
        return [Damage(MANIFEST, f"cannot be read: {error.strerror or error}")]
    except DamagedFilesError as error:
        return list(error.damages)
    names = sorted(name for name in manifest.files if wanted(name))
    found = _in_threads(lambda name: _file_damage(folder, name, manifest.files[name]), names)
    extra = [
        Damage(name, "is not one of the files that were saved")
        for name in list_files(folder)
        if name not in manifest.files and name != MANIFEST and PurePosixPath(name).suffix in _LOADABLE
    ]
    return [damage for damage in [*found, *extra] if damage is not None]


def describe_damages(damages: list[Damage]) -> str:
    """The first few in words, and how many more there are."""
    return list_some([str(damage) for damage in damages], _NAMED, "; ")


def digest_file(path: Path) -> FileDigest:
    """Read a file once with a fixed buffer."""
    digest, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(_BUFFER))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return FileDigest(size, digest.hexdigest())


def list_files(folder: Path) -> list[str]:
    """The relative names, with slashes, of all that is not a folder, in order. Links are named, never followed."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(found)


def _file_damage(folder: Path, name: str, saved: FileDigest) -> Damage | None:
    path = folder / name
    try:
        if any((folder / part).is_symlink() for part in _name_and_parents(name)):
            return Damage(name, "is a link; expected the file itself")
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode):
            return Damage(name, "is not a plain file")
        if about.st_size != saved.bytes:
            return Damage(name, f"has {about.st_size:,} bytes; expected {saved.bytes:,}")
        same = digest_file(path) == saved
    except FileNotFoundError:
        return Damage(name, "is missing")
    except OSError as error:
        return Damage(name, f"cannot be read: {error.strerror or error}")
    return None if same else Damage(name, "was altered: its SHA-256 does not match the manifest's")


def _name_and_parents(name: str) -> Iterator[str]:
    path = PurePosixPath(name)
    yield from (str(one) for one in (path, *path.parents) if str(one) != ".")


def _in_threads(task: Callable[[str], Any], names: list[str]) -> list[Any]:
    workers = max(1, min(_THREADS, usable_cores(), len(names)))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(task, names))


def _manifest_text(manifest: Manifest) -> str:
    return json.dumps({**_manifest_values(manifest), "sha256": _own_digest(manifest)}, indent=1, sort_keys=True) + "\n"


def _manifest_values(manifest: Manifest) -> dict[str, Any]:
    files = {name: {"bytes": one.bytes, "sha256": one.sha256} for name, one in manifest.files.items()}
    return {"version": _VERSION, "files": files, "about": dict(manifest.about)}


def _own_digest(manifest: Manifest) -> str:
    text = json.dumps(_manifest_values(manifest), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _unreadable(path: Path, problem: str) -> DamagedFilesError:
    return DamagedFilesError(f"{path} {problem}; copy the folder again", (Damage(path.name, problem),))
