"""A sealed folder: every change that a loader could notice is named by file, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from balanced_thinking.runs import manifest
from balanced_thinking.runs.manifest import (
    MANIFEST,
    DamagedFilesError,
    FileDigest,
    find_damage,
    is_sealed,
    read_manifest,
    seal_folder,
)

WEIGHTS = bytes(range(256)) * 20


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "sealed"
    (folder / "shards").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "shards" / "optimizer.pt").write_bytes(b"moments")
    (folder / "empty.json").write_bytes(b"")
    seal_folder(folder, about={"step": 3})
    return folder


def test_the_manifest_is_what_was_written(sealed: Path) -> None:
    found = read_manifest(sealed)
    assert found.about == {"step": 3}
    assert found.files == {
        name: FileDigest(len(content), hashlib.sha256(content).hexdigest())
        for name, content in {
            "model.safetensors": WEIGHTS,
            "shards/optimizer.pt": b"moments",
            "empty.json": b"",
        }.items()
    }
    assert find_damage(sealed) == []
    assert is_sealed(sealed)


def flip(path: Path, place: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    path.symlink_to(path.with_suffix(".away").name)


# What is done to one file -> the words that name the problem
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "first byte flipped": (flip, "was altered"),
    "last byte flipped": (lambda path: flip(path, -1), "was altered"),
    "cut by one byte": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "expected"),
    "cut to half": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "expected"),
    "emptied": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "expected"),
    "deleted": (lambda path: path.unlink(), "is missing"),
    "zeros of the same size": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "was altered"),
    "a link to the same content": (replace_by_link, "is a link"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is not a plain file"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is not a plain file"),  # reading it would wait for ever
}


@pytest.mark.parametrize("name", ["model.safetensors", "shards/optimizer.pt"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_changed_file_is_named(sealed: Path, name: str, damage: str) -> None:
    change, words = DAMAGES[damage]
    change(sealed / name)
    (found,) = (one for one in find_damage(sealed) if one.file == name)
    assert words in found.problem


def test_a_flipped_byte_of_the_manifest_is_damage_or_changes_nothing(sealed: Path) -> None:
    path, before = sealed / MANIFEST, read_manifest(sealed)
    content = path.read_bytes()
    noticed = 0
    for place in range(0, len(content), 5):
        flip(path, place)
        if find_damage(sealed):
            noticed += 1
            assert is_sealed(sealed)  # and never taken for that of another program
        else:
            assert read_manifest(sealed) == before, content[place]
        path.write_bytes(content)
    assert noticed > 0.7 * len(content) / 5  # the others are white space


# Text of a manifest -> what is said of it
UNREADABLE = {
    "": "is not a manifest",
    "[]": "is not a manifest",
    '{"files": {}}': "is not a manifest",
    "[" * 100_000: "is not a manifest",
    '{"files": {"a": {"bytes": Infinity, "sha256": ""}}, "about": {}}': "is not a manifest",
    '{"files": {"a": {"bytes": ' + "9" * 5000 + ', "sha256": ""}}, "about": {}}': "is not a manifest",
    '{"files": {}, "about": {}, "version": 2, "sha256": ""}': "version 2",
    '{"files": {}, "about": {}, "version": 1, "sha256": ""}': "does not match",
}


@pytest.mark.parametrize("text", UNREADABLE, ids=[text[:40] for text in UNREADABLE])
def test_a_manifest_that_is_none_is_damage(sealed: Path, text: str) -> None:
    (sealed / MANIFEST).write_text(text)
    (damage,) = find_damage(sealed)
    assert damage.file == MANIFEST
    assert UNREADABLE[text] in damage.problem


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/hostname", "shards/../../outside.bin", "a\0b"])
def test_a_manifest_names_no_file_outside(sealed: Path, name: str) -> None:
    values = manifest.Manifest({name: FileDigest(1, "")}, {})
    (sealed / MANIFEST).write_text(manifest._manifest_text(values))
    (damage,) = find_damage(sealed)
    assert "outside the folder" in damage.problem


def test_an_unfinished_folder_is_damage(sealed: Path) -> None:
    (sealed / MANIFEST).unlink()
    assert "incomplete" in find_damage(sealed)[0].problem
    assert not is_sealed(sealed)


def test_a_manifest_larger_than_any_is_not_read(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_LARGEST", 100)
    assert "expected at most 100" in find_damage(sealed)[0].problem


def test_files_of_others_do_not_matter_unless_a_loader_would_read_them(sealed: Path) -> None:
    (sealed / "notes.md").write_text("mine")
    assert find_damage(sealed) == []
    (sealed / "adapter_model.safetensors").write_bytes(b"")
    (damage,) = find_damage(sealed)
    assert damage.file == "adapter_model.safetensors"
    assert "not one of the files" in damage.problem


def test_a_folder_swapped_with_another_is_damage(sealed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(sealed, other)
    (other / "model.safetensors").write_bytes(WEIGHTS[::-1])  # of the same size
    seal_folder(other, about={"step": 6})
    shutil.copy(other / "model.safetensors", sealed)
    assert [damage.file for damage in find_damage(sealed)] == ["model.safetensors"]
    shutil.copy(other / MANIFEST, sealed)
    assert find_damage(sealed) == []
    assert read_manifest(sealed).about == {"step": 6}


def test_digests_that_are_known_are_not_computed_again(sealed: Path) -> None:
    known = {"model.safetensors": FileDigest(len(WEIGHTS), "given"), "shards/optimizer.pt": FileDigest(1, "stale")}
    files = seal_folder(sealed, known=known).files
    assert files["model.safetensors"].sha256 == "given"
    assert files["shards/optimizer.pt"].sha256 == hashlib.sha256(b"moments").hexdigest()  # another size: not used


def test_a_folder_with_a_link_is_not_sealed(sealed: Path) -> None:
    (sealed / "link.bin").symlink_to("model.safetensors")
    with pytest.raises(DamagedFilesError, match=r"link\.bin is not a plain file"):
        seal_folder(sealed)


def test_a_manifest_of_another_program_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"schemaVersion": 2, "layers": [], "version": 3}))
    assert not is_sealed(tmp_path)
