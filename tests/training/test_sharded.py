"""Checkpoints in shards: who may read them, and that their index runs no code. `tests/faults` trains with them."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.training.sharded import (
    find_writer,
    inspect_shard_indices,
    load_fsdp_weights,
    name_layers_to_shard,
    raising_errors_of_ranks,
    refuse_forgotten_deepspeed,
    refuse_other_writer,
    refuse_unknown_ranks,
)


def write_checkpoint(folder: Path, writer: str) -> Path:
    (checkpoint := folder / "checkpoint-3").mkdir()
    if writer == "shards":
        state = {"model": {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "step": 3}
        dcp.save(state, storage_writer=dcp.FileSystemWriter(checkpoint / "pytorch_model_fsdp_0"), no_dist=True)
    elif writer == "gathered":
        torch.save({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, checkpoint / "pytorch_model_fsdp.bin")
    elif writer == "DeepSpeed":
        (checkpoint / "global_step3").mkdir()
    return checkpoint


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, {"Gemma3DecoderLayer", "SiglipEncoderLayer", "SiglipVisionEmbeddings"}),
        (["Gemma3DecoderLayer"], {"Gemma3DecoderLayer"}),
    ],
)
def test_only_layers_that_a_model_has_are_sharded(named: list[str] | None, expected: set[str]) -> None:
    """Gemma 3's own list names a layer that it lacks, which accelerate refuses. What the user has named stays."""
    model = build_tiny("gemma3")[0]
    lacking = set(model._no_split_modules) - {type(module).__name__ for module in model.modules()}
    assert lacking
    plugin = SimpleNamespace(transformer_cls_names_to_wrap=named)
    name_layers_to_shard(plugin, model)
    assert set(plugin.transformer_cls_names_to_wrap) == expected
    name_layers_to_shard(None, model)  # without FSDP


def test_ranks_that_accelerate_does_not_count_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_unknown_ranks(1)  # no process group
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    refuse_unknown_ranks(2)
    with pytest.raises(RecipeError, match=r"2 ranks were started, but accelerate counts 1.*--use_cpu true"):
        refuse_unknown_ranks(1)


def test_a_forgotten_deepspeed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    refuse_forgotten_deepspeed(SimpleNamespace(distributed_type="DEEPSPEED", num_processes=2))
    with pytest.raises(RecipeError, match=r"accelerate uses MULTI_CPU; unset ACCELERATE_USE_CPU"):
        refuse_forgotten_deepspeed(SimpleNamespace(distributed_type="MULTI_CPU", num_processes=2))


KINDS = {"one process": (False, False), "FSDP": (True, False), "DeepSpeed": (False, True)}


@pytest.mark.parametrize("here", KINDS)
@pytest.mark.parametrize("written", ["shards", "gathered", "DeepSpeed", "one process"])
def test_each_kind_of_run_reads_what_it_can(written: str, here: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, written)
    writer = "FSDP" if written in ("shards", "gathered") else written
    assert find_writer(checkpoint) == writer
    fsdp, deepspeed = KINDS[here]
    if (here in (writer, "one process") and written != "DeepSpeed") or here == writer:
        refuse_other_writer(str(checkpoint), fsdp=fsdp, deepspeed=deepspeed)
        return
    with pytest.raises(RecipeError, match=r"checkpoint-3 was written with.*, and this run was started with.*; start"):
        refuse_other_writer(str(checkpoint), fsdp=fsdp, deepspeed=deepspeed)


@pytest.mark.parametrize("written", ["shards", "gathered"])
def test_a_model_of_one_process_gets_every_tensor_of_fsdp(written: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, written)
    model = torch.nn.Linear(3, 2)
    assert load_fsdp_weights(checkpoint, model)
    assert torch.equal(model.weight, torch.ones(2, 3))
    assert torch.equal(model.bias, torch.zeros(2))
    model.extra = torch.nn.Linear(2, 2, bias=False)
    with pytest.raises(RuntimeError, match="extra"):  # which the checkpoint does not have
        load_fsdp_weights(checkpoint, model)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.place),)  # type: ignore[attr-defined]


def test_an_index_of_shards_runs_no_code(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, "shards")
    assert not list(inspect_shard_indices(checkpoint))
    hostile = Hostile()
    hostile.place = str(tmp_path / "ran")  # type: ignore[attr-defined]
    for content in (pickle.dumps(hostile), b"", b"\x80\x04."):
        (checkpoint / "pytorch_model_fsdp_0" / ".metadata").write_bytes(content)
        (damage,) = inspect_shard_indices(checkpoint)
        assert str(damage).startswith("pytorch_model_fsdp_0/.metadata cannot be read: ")
    assert not (tmp_path / "ran").exists()


def test_values_beside_the_tensors_of_shards_run_no_code(tmp_path: Path) -> None:
    hostile = Hostile()
    hostile.place = str(tmp_path / "ran")  # type: ignore[attr-defined]
    (checkpoint := tmp_path / "checkpoint-3").mkdir()
    state = {"model": {"weight": torch.ones(2, 3), "bias": hostile}}
    dcp.save(state, storage_writer=dcp.FileSystemWriter(checkpoint / "pytorch_model_fsdp_0"), no_dist=True)
    (tmp_path / "ran").unlink(missing_ok=True)
    with pytest.raises(RuntimeError):
        load_fsdp_weights(checkpoint, torch.nn.Linear(3, 2))
    assert not (tmp_path / "ran").exists()


def test_the_error_of_a_rank_is_raised_as_itself() -> None:
    full = OSError(28, "No space left on device", "__2_0.distcp")
    for failures, kind, said in (
        ({1: (ValueError("other"), None), 2: (full, None)}, OSError, r"No space left on device \(on rank 2\)"),
        ({1: (ValueError("other"), None)}, RuntimeError, "rank 1 failed with ValueError: other"),
    ):
        with pytest.raises(kind, match=said), raising_errors_of_ranks():
            raise CheckpointException("", failures)
