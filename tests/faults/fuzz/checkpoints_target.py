"""Checkpoints: every file of a small real one replaced, with its manifest as it was, made anew, or changed itself.

An input is a byte, whose lowest bit says whether the folder is sealed again afterwards, then parts that begin with 0x1e
and the number of a file.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save

from balanced_thinking.runs.manifest import MANIFEST, find_damage, is_sealed, seal_folder
from balanced_thinking.training.changes import read_resume_state
from balanced_thinking.training.inspect_checkpoint import OPTIMIZER, RANDOM, SCHEDULER, inspect_checkpoint
from balanced_thinking.training.resume import verify_checkpoint
from tests.faults.fuzz.target import Target
from tests.faults.fuzz.values import mutate_bytes, nasty_number, nasty_value, nest_deeply, write_json

_STEP = 4
FILES = (MANIFEST, "trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
_PART = b"\x1e\x1e"


@cache
def _content() -> dict[str, bytes]:
    """The files of a checkpoint of four steps."""
    state = {"state": {0: {"step": torch.tensor(4.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    made = {
        "trainer_state.json": json.dumps({"global_step": _STEP, "max_steps": 9, "log_history": []}).encode(),
        "model.safetensors": save({"weight": torch.ones(3)}),
        "optimizer.pt": _saved(state),
        "scheduler.pt": _saved({"last_epoch": _STEP, "lr_lambdas": [None]}),
        "rng_state.pth": _saved({"cpu": torch.ones(8, dtype=torch.uint8)}),
    }
    for name, data in made.items():
        (workplace() / name).write_bytes(data)
    seal_folder(workplace(), about={"step": _STEP})
    return made | {MANIFEST: (workplace() / MANIFEST).read_bytes()}


def _saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@cache
def workplace() -> Path:
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-checkpoint-", dir=memory if memory.is_dir() else None))
    (folder / f"checkpoint-{_STEP}").mkdir()
    return folder / f"checkpoint-{_STEP}"


def close() -> None:
    shutil.rmtree(workplace().parent)
    workplace.cache_clear()
    _content.cache_clear()


def generate(rng: random.Random) -> bytes:
    parts = [bytes([rng.randrange(256)])]
    for number in rng.sample(range(len(FILES)), rng.choice((0, 1, 1, 1, 2))):
        parts.append(bytes([number]) + _spoil(rng, FILES[number]))
    return _PART.join(parts)


def _spoil(rng: random.Random, name: str) -> bytes:
    data = _content()[name]
    chance = rng.random()
    if chance < 0.1:
        return b""
    if chance < 0.15:
        return nest_deeply(rng)
    if name.endswith(".json") and chance < 0.6:
        values = json.loads(data)
        for key in rng.sample(sorted(values), rng.randrange(3)):
            values[key] = rng.choice((nasty_value(rng), nasty_number(rng)))
        return write_json(rng, values if rng.random() < 0.9 else nasty_value(rng))
    if name.endswith((".pt", ".pth")) and chance < 0.6:
        return _spoil_archive(rng, data)
    return mutate_bytes(rng, data)


def _spoil_archive(rng: random.Random, data: bytes) -> bytes:
    """The same zip file with other content in one part, whose sums are right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as parts, zipfile.ZipFile(stream, "w") as written:
        names = parts.namelist()
        chosen = rng.choice(names)
        for name in names:
            content = parts.read(name)
            written.writestr(name, mutate_bytes(rng, content) if name == chosen else content)
    return stream.getvalue()


def run(data: bytes) -> None:
    head, *parts = data.split(_PART)
    folder, content = workplace(), dict(_content())
    changed = {FILES[part[0] % len(FILES)]: part[1:] for part in parts if part}
    for name, value in (content | changed).items():
        (folder / name).write_bytes(value)
    kind = (head or b"\0")[0]
    if kind % 2:
        seal_folder(folder, about={"step": _STEP})
    elif kind % 4 == 2:
        (folder / MANIFEST).unlink()  # as a checkpoint of an earlier version
    damages = inspect_checkpoint(folder)
    found = find_damage(folder)
    assert all(damage.problem for damage in (*damages, *found))
    different = {name for name, value in changed.items() if value != content[name] and name != MANIFEST}
    if kind % 4 == 0 and different and is_sealed(folder):
        assert damages, f"a change of {sorted(different)} was not noticed"
    verify_checkpoint(str(folder), [OPTIMIZER, SCHEDULER, RANDOM])
    read_resume_state(str(folder))  # of a checkpoint that was verified


def mutate(rng: random.Random, data: bytes) -> bytes:
    head, *parts = data.split(_PART)
    if not parts or rng.random() < 0.2:
        return generate(rng)
    place = rng.randrange(len(parts))
    parts[place] = parts[place][:1] + mutate_bytes(rng, parts[place][1:])
    return _PART.join([head, *parts])


TARGET = Target("checkpoints", generate, run, mutate, close, prepare=_content)
