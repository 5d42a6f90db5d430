"""Checkpoints: whatever happens to a file, it is named or harmless, and the newest complete checkpoint is continued."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import resource
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers import Trainer

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.runs import digests as digest_module
from balanced_thinking.runs.checkpoints import list_checkpoints, remove_older_checkpoints, set_aside
from balanced_thinking.runs.digests import BackgroundDigests
from balanced_thinking.runs.manifest import MANIFEST, DamagedFilesError, find_damage, read_manifest, seal_folder
from balanced_thinking.runs.staging import clear_leftovers, publish_folder, staging_folder, write_folder
from balanced_thinking.system.locks import FolderBusyError, hold_folder
from balanced_thinking.training import loading, space
from balanced_thinking.training.failed_saves import SaveFailedError, find_disk_error
from balanced_thinking.training.inspect_checkpoint import inspect_checkpoint, needed_parts
from balanced_thinking.training.loading import CheckpointReader
from balanced_thinking.training.resume import ResumeChoice, ResumeError, _restore_selection, choose_checkpoint
from balanced_thinking.training.space import NoSpaceError, check_free_space
from tests.tiny_training import config, losses, trainer

NEEDED = needed_parts(SimpleNamespace(fp16=False))
OPTIONS: dict[str, Any] = {
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "save_strategy": "steps",
    "save_steps": 1,
}


@pytest.fixture(scope="module")
def rows(world_rows: Dataset) -> Dataset:
    return world_rows.remove_columns("images")


class Trained(NamedTuple):
    """A run with checkpoints of steps 1, 2 and 3 in its folder."""

    folder: Path
    run: Any


@pytest.fixture(scope="module")
def trained(rows: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    run = trainer("qwen2", rows, config(folder, **OPTIONS))
    run.train()
    return Trained(folder, run)


@pytest.fixture
def copy(trained: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.folder, tmp_path / "run"))


def without_manifests(folder: Path) -> Path:
    for place in folder.glob("checkpoint-*"):
        (place / MANIFEST).unlink()
    return folder


def choose(folder: Path, **options: Any) -> ResumeChoice | None:
    return choose_checkpoint(folder, 3, NEEDED, **options)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def swap(path: Path) -> None:
    """Exchange a file with that of step 1."""
    other = path.parent.with_name("checkpoint-1") / path.name
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4]),
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "swapped": swap,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damaged_file_is_named_and_the_older_checkpoint_taken(damage: str, copy: Path) -> None:
    names = sorted(path.name for path in (copy / "checkpoint-3").iterdir())
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= {*names}
    for name in names:
        saved = copy.with_name("saved")
        shutil.copytree(copy, saved)
        content = (copy / "checkpoint-3" / name).read_bytes()
        DAMAGES[damage](copy / "checkpoint-3" / name)
        changed = damage == "deleted" or (copy / "checkpoint-3" / name).read_bytes() != content
        if changed and (name, damage) != (MANIFEST, "deleted"):  # then it is one of an earlier version: see below
            found = inspect_checkpoint(copy / "checkpoint-3")
            assert MANIFEST in (name, *(one.file for one in found)) or name in {one.file for one in found}, name
            assert choose(copy) == ResumeChoice(str(copy / "checkpoint-2")), name
            assert (copy / "damaged-checkpoint-3").is_dir()
        else:
            assert choose(copy) == ResumeChoice(str(copy / "checkpoint-3")), name
        shutil.rmtree(copy)
        saved.rename(copy)


# What the files of a checkpoint without a manifest say themselves. A flip in the weights is not among it.
STRUCTURAL = [
    *(("model.safetensors", damage) for damage in ("cut", "deleted", "emptied")),
    *((name, damage) for name in ("optimizer.pt", "scheduler.pt") for damage in DAMAGES if damage != "flipped"),
    ("optimizer.pt", "flipped"),
    *(("rng_state.pth", damage) for damage in DAMAGES if damage != "swapped"),
    *(("trainer_state.json", damage) for damage in DAMAGES if damage != "flipped"),
    *(("config.json", damage) for damage in ("cut", "emptied")),
]


@pytest.mark.parametrize(("name", "damage"), STRUCTURAL)
def test_a_checkpoint_without_a_manifest_is_read_for_what_its_files_say(name: str, damage: str, copy: Path) -> None:
    without_manifests(copy)
    DAMAGES[damage](copy / "checkpoint-3" / name)
    assert choose(copy) == ResumeChoice(str(copy / "checkpoint-2"))


def test_a_state_with_a_key_that_nobody_knows_is_damaged(copy: Path) -> None:
    """One flipped bit in a name."""
    state = without_manifests(copy) / "checkpoint-3" / "trainer_state.json"
    state.write_text(state.read_text().replace('"max_steps"', '"max_stepq"'))
    assert choose(copy) == ResumeChoice(str(copy / "checkpoint-2"))


def test_complete_checkpoints_without_manifests_are_continued(copy: Path) -> None:
    assert choose(without_manifests(copy)) == ResumeChoice(str(copy / "checkpoint-3"))


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoint-3")
    (copy / "checkpoint-1").rename(copy / "checkpoint-3")
    assert "step 1; expected step 3" in inspect_checkpoint(copy / "checkpoint-3")[0].problem
    assert choose(copy) == ResumeChoice(str(copy / "checkpoint-2"))


def test_a_resume_past_a_damaged_checkpoint_equals_the_undisturbed_run(
    copy: Path, trained: Trained, rows: Dataset
) -> None:
    flip(copy / "checkpoint-3" / "optimizer.pt")
    run = trainer("qwen2", rows, config(copy, **OPTIONS))
    run.train(resume_from_checkpoint=True)
    assert losses(run) == losses(trained.run)
    ours, theirs = ((place / "checkpoint-3" / "model.safetensors").read_bytes() for place in (copy, trained.folder))
    assert ours == theirs
    assert (copy / "damaged-checkpoint-3").is_dir()  # kept beside the new one


def test_from_the_checkpoint_of_the_last_step_no_further_step_is_taken(copy: Path, rows: Dataset) -> None:
    run = trainer("qwen2", rows, config(copy, **OPTIONS))
    run.train(resume_from_checkpoint=True)
    saved = torch.load(copy / "checkpoint-3" / "optimizer.pt", weights_only=True)
    assert run.state.global_step == 3
    assert torch.equal(saved["state"][0]["exp_avg"], run.optimizer.state_dict()["state"][0]["exp_avg"])


def test_hashes_made_during_the_save_are_those_of_the_files(trained: Trained) -> None:
    folder = trained.folder / "checkpoint-3"
    found = read_manifest(folder)
    assert found.about["step"] == 3
    assert found.about["max_steps"] == 3
    assert found.about["reasoning_format"] == "think-answer"
    assert {*found.files} == {path.name for path in folder.iterdir()} - {MANIFEST}
    for name, file in found.files.items():
        content = (folder / name).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest()), name


@pytest.mark.parametrize("chunk", [1, 1000, 3_000_000])  # the last writes more than one part to the disk
def test_a_growing_file_is_followed_to_its_end(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_module, "_WRITTEN_AT_ONCE", 1 << 20)
    digests, content = BackgroundDigests(tmp_path), bytes(range(256)) * (chunk // 64 + 8)
    with digests.follow_file("grows"), (tmp_path / "grows").open("wb", buffering=0) as file:
        for start in range(0, len(content), chunk):
            file.write(content[start : start + chunk])
    (tmp_path / "later").write_bytes(b"1")
    digests.digest_present_files()
    found = digests.collect_digests()
    assert found["grows"].sha256 == hashlib.sha256(content).hexdigest()
    assert found["later"].bytes == 1


def test_a_file_that_is_written_again_has_no_digest_yet(tmp_path: Path) -> None:
    digests = BackgroundDigests(tmp_path)
    (tmp_path / "a").write_bytes(b"1")
    digests.digest_present_files()
    digests.close()
    (tmp_path / "a").write_bytes(b"2")
    assert digests.collect_digests() == {}


def test_state_that_was_never_saved_is_an_error_unless_allowed(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    for place in copy.glob("checkpoint-*"):
        (place / "optimizer.pt").unlink()
        (place / MANIFEST).unlink()
        seal_folder(place, about={"step": int(place.name[-1])})
    with pytest.raises(ResumeError, match=r"checkpoint-3: it has no state of: optimizer.*--allow-partial-resume"):
        choose(copy)
    assert len(list_checkpoints(copy)) == 3  # nothing was renamed
    with caplog.at_level(logging.WARNING):
        assert choose(copy, allow_partial=True) == ResumeChoice(str(copy / "checkpoint-3"), ("optimizer",))
    assert "its moments start at zero" in caplog.text


@pytest.mark.parametrize(
    ("name", "part"),
    [("optimizer.pt", "optimizer"), ("scheduler.pt", "scheduler"), ("rng_state.pth", "random numbers")],
)
@pytest.mark.parametrize("damage", ["flipped", "deleted"])
def test_damaged_state_is_not_loaded_where_a_partial_resume_is_allowed(
    name: str, part: str, damage: str, copy: Path
) -> None:
    for place in list_checkpoints(copy).values():
        flip(place / name) if damage == "flipped" else (place / name).unlink()
    with pytest.raises(ResumeError, match=f"{name}.*--allow-partial-resume"):
        choose(copy)
    assert choose(copy, allow_partial=True) == ResumeChoice(str(copy / "checkpoint-3"), (part,))


def test_a_partial_resume_starts_with_a_new_optimizer(copy: Path, rows: Dataset) -> None:
    run = trainer("qwen2", rows, config(copy, **OPTIONS))
    run.allow_partial_resume = True
    (copy / "checkpoint-2" / "optimizer.pt").write_bytes(b"not to be read")
    run.train(resume_from_checkpoint=str(copy / "checkpoint-2"))
    (moments,) = {int(one["step"]) for one in run.optimizer.state_dict()["state"].values()}
    assert (run.state.global_step, moments) == (3, 1)
    assert run.lr_scheduler.last_epoch == 3  # its state was there


def test_a_damaged_checkpoint_that_a_program_names_is_refused(copy: Path, rows: Dataset) -> None:
    flip(copy / "checkpoint-2" / "model.safetensors")
    run = trainer("qwen2", rows, config(copy, **OPTIONS))
    before = [value.clone() for value in run.model.state_dict().values()]
    with pytest.raises(DamagedFilesError, match=r"model\.safetensors was altered"):
        run.train(resume_from_checkpoint=str(copy / "checkpoint-2"))
    assert all(map(torch.equal, before, run.model.state_dict().values()))


def test_two_trainers_do_not_save_to_one_folder(copy: Path, rows: Dataset) -> None:
    (being_saved := copy / ".saving-checkpoint-4").mkdir()
    run = trainer("qwen2", rows, config(copy, **OPTIONS))
    with ThreadPoolExecutor(1) as other, run._hold_output_folder():
        with pytest.raises(FolderBusyError, match=f"{copy} is in use: process .* has been training in it"):
            other.submit(run.train, resume_from_checkpoint=True).result()
        assert being_saved.is_dir()  # that of the other trainer
    with hold_folder(copy.parent, "training"):  # as `balanced sft` does
        assert isinstance(run._hold_output_folder(), nullcontext)
    run.train(resume_from_checkpoint=True)
    assert not being_saved.exists()
    assert not (copy / loading._LOCK).exists()


def test_a_damaged_best_checkpoint_leaves_the_last_weights(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    flip(copy / "checkpoint-1" / "model.safetensors")
    reader = CheckpointReader()
    reader.state = SimpleNamespace(best_model_checkpoint=str(copy / "checkpoint-1"), global_step=3)
    with caplog.at_level(logging.WARNING):
        reader._load_best_model()  # would fail in this bare object if it went on
    assert "keeps the weights of the last step (3)" in caplog.text


def test_nothing_valid_is_an_error_and_no_silent_start(copy: Path) -> None:
    for place in list_checkpoints(copy).values():
        flip(place / "model.safetensors")
    with pytest.raises(ResumeError, match=r"no checkpoint from which.*checkpoint-3: model\.safetensors was altered"):
        choose(copy, allow_partial=True)
    for place in list_checkpoints(copy).values():
        set_aside(place)
    with pytest.raises(ResumeError, match="damaged-checkpoint-3: set aside before"):
        choose(copy)


def test_without_checkpoints_a_run_starts_from_the_beginning(tmp_path: Path) -> None:
    assert choose(tmp_path) is None
    assert choose(tmp_path / "nowhere") is None


def test_fewer_steps_than_were_taken_are_refused(copy: Path) -> None:
    with pytest.raises(RecipeError, match="has taken 3 steps already; max_steps is 2"):
        choose_checkpoint(copy, 2, NEEDED)


def test_what_a_killed_save_left_is_removed_and_what_it_replaced_is_restored(copy: Path) -> None:
    (copy / ".saving-checkpoint-4" / "checkpoint-4").mkdir(parents=True)
    (copy / ".removing-checkpoint-0").mkdir()
    (copy / "checkpoint-3").rename(copy / ".old-checkpoint-3")
    assert choose(copy) == ResumeChoice(str(copy / "checkpoint-3"))
    assert not [place for place in copy.iterdir() if place.name.startswith(".")]


def test_a_folder_replaces_another_under_its_name(tmp_path: Path) -> None:
    final = tmp_path / "model"
    for text in ("old", "new"):
        with write_folder(final, about={"text": text}) as folder:
            (folder / "a.bin").write_text(text)
            if text == "new":
                assert (final / "a.bin").read_text() == "old"  # until the new one is complete
    assert (final / "a.bin").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(RuntimeError), write_folder(final) as folder:
        raise RuntimeError
    assert not find_damage(final)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kill_between_two_renames_leaves_one_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "model"
    with write_folder(final) as folder:
        (folder / "a.bin").write_text("old")
    staged = staging_folder(final)
    staged.mkdir()
    original, calls = Path.rename, []

    def stop_at_the_second(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, target)

    monkeypatch.setattr(Path, "rename", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        publish_folder(staged, final)
    monkeypatch.undo()
    clear_leftovers(tmp_path)
    assert (final / "a.bin").read_text() == "old"


# Checkpoints, the limit, names to keep -> those that remain
RETENTION = [
    ([1, 2, 3], 2, {"checkpoint-3"}, [3, 2]),
    ([1, 2, 3], 1, {"checkpoint-3", "checkpoint-1"}, [3, 1]),  # the best one
    ([9, 10, 100], 2, {"checkpoint-100"}, [100, 10]),  # by number, not by name
    ([1, 2, 3], None, {"checkpoint-3"}, [3, 2, 1]),
    ([1, 2, 3], 0, {"checkpoint-3"}, [3, 2, 1]),
    ([5, 6, 7], 1, {"checkpoint-5"}, [5]),  # a resumed run saves step 5 again: never what was just saved
]


@pytest.mark.parametrize(("steps", "limit", "kept", "remaining"), RETENTION)
def test_retention_keeps_the_newest_and_the_best(
    steps: list[int], limit: int | None, kept: set[str], remaining: list[int], tmp_path: Path
) -> None:
    for step in steps:
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "damaged-checkpoint-0").mkdir()
    remove_older_checkpoints(tmp_path, limit, kept)
    assert list(list_checkpoints(tmp_path)) == remaining
    assert (tmp_path / "damaged-checkpoint-0").is_dir()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk, the system refuses to write more than `size` bytes to a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_refuses_leaves_the_older_checkpoints_and_says_so(
    copy: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained.run
    monkeypatch.setattr(run.args, "output_dir", str(copy))
    monkeypatch.setattr(run, "_folder_inode", copy.stat().st_ino)
    weights, optimizer = (
        (copy / "checkpoint-3" / name).stat().st_size for name in ("model.safetensors", "optimizer.pt")
    )
    shutil.rmtree(copy / "checkpoint-3")
    advice = r"checkpoint-3 could not be saved.*needs about [\d,]+ bytes.*checkpoint-2 is the newest.*--resume"
    for size in (0, 100, weights - 1, optimizer // 2, optimizer - 1):
        with largest_file(size), pytest.raises(SaveFailedError, match=advice):
            run._save_checkpoint(run.model, None)
        assert sorted(path.name for path in copy.glob("*checkpoint*")) == ["checkpoint-1", "checkpoint-2"], size
    run._save_checkpoint(run.model, None)
    assert choose(copy) == ResumeChoice(str(copy / "checkpoint-3"))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_disappears_is_named(
    replaced: bool, copy: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained.run.args, "output_dir", str(copy))
    monkeypatch.setattr(trained.run, "_folder_inode", copy.stat().st_ino)
    copy.rename(copy.with_name("away"))
    if replaced:  # as the mount point of a disk that is gone
        copy.mkdir()
    with pytest.raises(SaveFailedError, match="has disappeared since the training began"):
        trained.run._save_checkpoint(trained.run.model, None)
    assert not copy.exists() or not [*copy.iterdir()]


def test_a_checkpoint_is_pushed_under_its_own_name(
    copy: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[bool] = []
    push = lambda self, place: pushed.append(not find_damage(Path(place)))  # noqa: E731
    monkeypatch.setattr(Trainer, "_push_from_checkpoint", push)
    monkeypatch.setattr(trained.run.args, "output_dir", str(copy))
    monkeypatch.setattr(trained.run, "_folder_inode", copy.stat().st_ino)
    monkeypatch.setattr(trained.run.args, "push_to_hub", True)
    trained.run._save_checkpoint(trained.run.model, None)  # step 3, which is saved already
    assert pushed == [True]
    assert not inspect_checkpoint(copy / "checkpoint-3")


FULL = OSError(errno.ENOSPC, "No space left on device")
# What libraries raise -> whether the disk refused
DISK_ERRORS: list[tuple[BaseException, bool]] = [
    (FULL, True),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
    (OSError(errno.EROFS, "Read-only file system"), True),
    (FileNotFoundError(errno.ENOENT, "No such file or directory"), True),
    (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
    (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), True),
    (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), True),
    (RuntimeError("Parent directory /a/b does not exist."), True),
    (RuntimeError("CUDA out of memory"), False),
    (ValueError("No space left on device"), False),
    (FloatingPointError("the weights are not finite"), False),
]


@pytest.mark.parametrize(("error", "refused"), DISK_ERRORS, ids=[str(error)[:40] for error, _ in DISK_ERRORS])
def test_an_error_of_the_disk_is_recognised(error: BaseException, refused: bool) -> None:
    assert (find_disk_error(error) is not None) == refused
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = error
    assert (find_disk_error(wrapped) is not None) == refused


def test_room_for_one_checkpoint_is_known_before_the_first_step(
    tmp_path: Path, rows: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer("qwen2", rows, config(tmp_path / "new", **OPTIONS, save_total_limit=2))
    weights = sum(p.numel() for p in run.model.parameters()) * 4
    monkeypatch.setattr(space, "free_bytes", lambda place: 3 * weights - 1)
    with pytest.raises(NoSpaceError, match=r"a checkpoint needs about .*save_only_model"):
        run.train()
    monkeypatch.setattr(space, "free_bytes", lambda place: 3 * 3 * weights)
    with caplog.at_level(logging.WARNING):
        check_free_space(run)
    assert "3 more checkpoints" in caplog.text
    caplog.clear()
    monkeypatch.setattr(space, "free_bytes", lambda place: 10 * weights)
    check_free_space(run)
    assert not caplog.text


@pytest.mark.parametrize("lost", ["missing", "altered", "torn"])
def test_the_choice_of_rows_comes_back_with_the_checkpoint(lost: str, tmp_path: Path) -> None:
    current, saved = tmp_path / "now.json", tmp_path / "then.json"
    record = {"train": {"ids": "abc", "left_out": [3], "bad_rows": []}}
    saved.write_text(json.dumps(record))
    if lost != "missing":
        current.write_text(json.dumps({"train": {"ids": "abc", "left_out": []}}) if lost == "altered" else "{")
    _restore_selection(current, saved)
    assert json.loads(current.read_text()) == record
    later = {"train": record["train"] | {"bad_rows": [{"row": 9}]}}  # more was found since; the same rows are used
    current.write_text(json.dumps(later))
    _restore_selection(current, saved)
    assert json.loads(current.read_text()) == later
