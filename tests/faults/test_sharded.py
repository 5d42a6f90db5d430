"""Checkpoints whose shards are written by four ranks (FSDP2) or two (ZeRO-3): sealed, exact, and resumed by others."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from balanced_thinking.models.load import load_model
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.runs.manifest import read_manifest
from tests.forked import start_ranks

pytestmark = pytest.mark.faults
PROGRAM = str(Path(__file__).with_name("sharded_ranks.py"))
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
SHARDS, GATHERED, PLAIN = "SHARDED_STATE_DICT", "FULL_STATE_DICT", "plain"
STEPS, KEPT = 6, 3


class Ended(NamedTuple):
    """What a run on some ranks has left: exit codes and output by rank, and the losses of its steps."""

    out: Path
    codes: list[int]
    said: list[str]

    @property
    def losses(self) -> list[float]:
        assert not any(self.codes), self.said[0][-3000:]
        return json.loads((self.out / "losses.json").read_text())

    @property
    def checkpoints(self) -> set[str]:
        return {place.name for place in (self.out / "checkpoints").iterdir() if place.is_dir()}


Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def run(world_rows: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sharded")
    world_rows.save_to_disk(folder / "rows")
    for part in build_tiny("qwen2_5_vl"):
        part.save_pretrained(folder / "model")

    def start(name: str, ranks: int, kind: str, **case: Any) -> Ended:
        (out := folder / name).mkdir(exist_ok=True)
        words = [sys.executable, PROGRAM, str(folder), str(out), json.dumps({"kind": kind} | case)]
        started = start_ranks(words, ranks, out, os.environ | ENVIRONMENT)
        codes = [rank.process.wait(300) for rank in started]
        return Ended(out, codes, [rank.log.read_text() for rank in started])

    return start


@pytest.fixture(scope="module")
def alone(run: Run) -> Ended:
    return run("alone", 1, PLAIN)


@pytest.fixture(scope="module")
def undisturbed(run: Run) -> dict[str, Ended]:
    """Four ranks, in each form in which FSDP saves."""
    return {form: run(form, 4, form) for form in (SHARDS, GATHERED)}


def copy_until(ended: Ended, name: str, step: int) -> Path:
    """A copy of a run as it was after a step."""
    shutil.copytree(ended.out, copy := ended.out.with_name(name))
    for place in (copy / "checkpoints").glob("checkpoint-*"):
        if int(place.name.rpartition("-")[2]) > step:
            shutil.rmtree(place)
    return copy


def final_weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(next((out / "model").glob("*model.safetensors")))


def test_training_in_shards_is_that_of_one_process(alone: Ended, undisturbed: dict[str, Ended]) -> None:
    for ended in undisturbed.values():
        assert ended.losses == pytest.approx(alone.losses, rel=1e-6)
        trained, theirs = (load_model(str(one.out / "model")).model.state_dict() for one in (ended, alone))
        assert all((trained[name] - weight).abs().max() < 1e-4 for name, weight in theirs.items())
        assert ended.checkpoints == {f"checkpoint-{step}" for step in (3, 4, 5, 6)}  # save_total_limit is 4


def test_the_manifest_names_the_shards_of_every_rank(undisturbed: dict[str, Ended]) -> None:
    manifest = read_manifest(undisturbed[SHARDS].out / "checkpoints" / "checkpoint-6")
    names = (".metadata", *(f"__{rank}_0.distcp" for rank in range(4)))
    shards = {f"{part}/{name}" for part in ("pytorch_model_fsdp_0", "optimizer_0") for name in names}
    states = {f"rng_state_{rank}.pth" for rank in range(4)}
    assert shards | states | {"scheduler.pt", "trainer_state.json"} <= set(manifest.files)
    assert manifest.about["world_size"] == 4


CONTINUED = [
    *((SHARDS, ranks, SHARDS) for ranks in (4, 2, 1)),
    *((GATHERED, ranks, GATHERED) for ranks in (4, 2, 1)),
    *((SHARDS, 2, GATHERED), (GATHERED, 2, SHARDS)),  # the form that the run saves was changed
    *((SHARDS, 1, PLAIN), (SHARDS, 2, PLAIN), (GATHERED, 1, PLAIN)),  # without FSDP
]


@pytest.mark.parametrize(("written", "ranks", "kind"), CONTINUED)
def test_shards_of_four_ranks_continue_elsewhere(
    written: str, ranks: int, kind: str, run: Run, undisturbed: dict[str, Ended]
) -> None:
    """On as many ranks bit by bit, on fewer with the same losses."""
    copy = copy_until(undisturbed[written], f"{written}-{ranks}-{kind}", KEPT)
    ended = run(copy.name, ranks, kind, resume=True)
    before = undisturbed[written].losses
    print(f"{written} on {ranks} as {kind}: {max(abs(a - b) for a, b in zip(ended.losses, before, strict=True)):.1e}")
    if ranks == 4:
        assert ended.losses == before
        weights = final_weights(ended.out)
        assert all(torch.equal(weights[name], one) for name, one in final_weights(undisturbed[written].out).items())
    else:
        assert ended.losses == pytest.approx(before, rel=1e-5)


def test_an_adapter_in_shards_continues_on_two_ranks_and_without_fsdp(run: Run) -> None:
    ended = run("adapter", 4, SHARDS, lora=True)
    for ranks, kind in ((2, SHARDS), (1, PLAIN)):
        again = run(copy_until(ended, f"adapter-{ranks}", KEPT).name, ranks, kind, resume=True, lora=True)
        assert again.losses == pytest.approx(ended.losses, rel=1e-5)
        weights, before = final_weights(again.out), final_weights(ended.out)
        assert weights.keys() == before.keys()
        assert all((weights[name] - one).abs().max() < 1e-6 for name, one in before.items())


DAMAGES = [
    ("pytorch_model_fsdp_0/__2_0.distcp", "flip", 4, SHARDS),
    ("pytorch_model_fsdp_0/__1_0.distcp", "delete", 1, PLAIN),
    ("optimizer_0/.metadata", "flip", 2, SHARDS),
    ("rng_state_2.pth", "delete", 4, SHARDS),
]


@pytest.mark.parametrize(("file", "how", "ranks", "kind"), DAMAGES)
def test_a_damaged_shard_is_named_and_all_ranks_take_the_older_checkpoint(
    file: str, how: str, ranks: int, kind: str, run: Run, undisturbed: dict[str, Ended]
) -> None:
    copy = copy_until(undisturbed[SHARDS], f"damaged-{file.replace('/', '-')}", STEPS)
    damage_file(copy / "checkpoints" / "checkpoint-6" / file, how)
    ended = run(copy.name, ranks, kind, resume=True, options={"max_steps": STEPS + 1, "lr_scheduler_type": "constant"})
    assert f"checkpoint-6: {file} " in ended.said[0]
    assert "training continues from checkpoint-5" in ended.said[0]
    assert ended.losses[:5] == undisturbed[SHARDS].losses[:5]
    assert len(ended.losses) == STEPS + 1
    assert "damaged-checkpoint-6" in ended.checkpoints


def damage_file(file: Path, how: str) -> None:
    if how == "delete":
        file.unlink()
        return
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("failing", ["shard", "random state"])
def test_a_disk_that_refuses_one_rank_stops_all_with_a_sentence(failing: str, run: Run, alone: Ended) -> None:
    ended = run(f"full-{failing.split()[0]}", 4, SHARDS, failing=failing)
    assert ended.codes == [3] * 4, ended.said
    assert not any("Traceback" in said for said in ended.said)
    assert "Error: checkpoint-3 could not be saved as " in ended.said[3]
    assert "No space left on device" in ended.said[3]
    assert all("checkpoint-2" in said for said in ended.said)  # how to go on
    assert ended.checkpoints - {".saving-checkpoint-3"} == {"checkpoint-1", "checkpoint-2"}
    assert run(ended.out.name, 2, SHARDS, resume=True).losses == pytest.approx(alone.losses, rel=1e-5)


def test_a_checkpoint_of_another_kind_of_run_is_refused_by_name(run: Run, alone: Ended) -> None:
    ended = run(copy_until(alone, "other-kind", KEPT).name, 2, SHARDS, resume=True)
    assert ended.codes == [3, 3]
    assert "checkpoint-3 was written without FSDP and DeepSpeed, and this run was started with FSDP" in ended.said[1]
