"""Every family of checkpoints trains, packs, evaluates, resumes and is read by transformers, exactly.

The long form runs every family by `make test-families`, which also writes docs/families.md. The short form, in the
normal suite, runs four families that need something special each.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from balanced_thinking.cli import main
from balanced_thinking.conformance.samples import sample_examples
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.models.load import load_model
from balanced_thinking.training.sft import ScaleSFTTrainer
from balanced_thinking.training.sft_config import ScaleSFTConfig
from tests.conftest import REPOSITORY, named_output, some_now
from tests.models.family_checks import first_losses, measure_family, plain_reload, write_measured
from tests.models.hub_folders import FAMILIES, write_hub_folder
from tests.tiny_training import QUIET, losses

# Pictures by sample with a mask; crops; a processor that imports torchvision; features for several layers.
SHORT = some_now(("smolvlm", "qwen3_vl").__contains__, ["smolvlm", "internvl", "mistral3", "qwen3_vl"])
PACKED = {
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "glm46v"),
    *("llava", "llava_next", "llava_onevision", "internvl", "mistral3", "pixtral", "gemma3", "gemma3_text"),
}

# Their chat templates write no end of the assistant's turn. We add it, TRL does not, so the losses are of other tokens.
NOT_AS_TRL = {"llava", "glm4v", "glm46v"}


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hub_folder(request.param, tmp_path_factory.mktemp("family") / request.param)


def train_from_the_command_line(folder: Path, out: Path, steps: int, *more: str) -> None:
    pictures = FAMILIES[folder.name].pictures
    data = ["--data", "world", "--data_options.n", "8", "--data_options.ratio", "5"]
    data = data if pictures else ["--data", str(write_text_rows(out.parent / "rows.jsonl"))]
    options = ["--max_steps", str(steps), "--save_steps", "1", "--per_device_train_batch_size", "2", "--seed", "1"]
    command = ["sft", "--model", str(folder), *data, *options, "--out", str(out), "--quiet", "--use_cpu", "true", *more]
    assert main(command) == 0


def write_text_rows(file: Path) -> Path:
    rows = [{"question": f"{n} + {n}?", "think": f"Twice {n} is {2 * n}.", "answer": str(2 * n)} for n in range(8)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.mark.families
def test_a_family_keeps_every_promise(family: Path, tmp_path: Path) -> None:
    """`balanced check`; a run, its resume and evaluation as commands; TRL's first step; plain transformers."""
    train_from_the_command_line(family, run := tmp_path / "run", 2, "--packing", "true")
    train_from_the_command_line(family, run, 3, "--packing", "true", "--resume")
    data = "world" if FAMILIES[family.name].pictures else str(tmp_path / "rows.jsonl")
    evaluation = ["eval", "--model", str(run), "--data", data, "--limit", "4", "--max-new-tokens", "4", "--quiet"]
    split = ["--split", "test"] if data == "world" else ["--split", "train"]
    assert main([*evaluation, *split]) == 0
    found = measure_family(family, run / "model", tmp_path / "steps")
    if out := named_output("FAMILIES_OUT"):
        write_measured(found, out)
    assert [name for name, (status, _) in found.checks.items() if status == "failed"] == []
    skipped = {name for name, (status, _) in found.checks.items() if status == "skipped"}
    assert skipped == (set() if family.name in PACKED else {"packing"})
    assert (float(found.trl) <= 1e-6) == (family.name not in NOT_AS_TRL)


@pytest.mark.families
def test_the_commands_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the letter, with a folder in the place of the hub's name."""
    write_hub_folder("qwen2_5_vl", tmp_path / "model")
    write_picture_rows(tmp_path)
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = next(
        block for block in re.findall(r"```bash\n(.*?)```", text, re.S) if "balanced inspect my.jsonl" in block
    )
    commands = [shlex.split(line, comments=True) for line in block.replace(HUB_NAME, "model").splitlines()]
    assert commands.pop()[1] == "chat"  # a page that is served until it is stopped: tests/chat
    assert [words[1] for words in commands] == ["inspect", "check", "sft", "grpo", "eval", "report", "export"]
    monkeypatch.chdir(tmp_path)
    # A random model never writes the format, so that GRPO rightly ends with 1: nothing could be learned.
    assert [main(words[1:]) for words in commands] == [0, 0, 0, 1, 0, 0, 0]
    assert (tmp_path / "runs" / "report.html").is_file()


HUB_NAME = "Qwen/Qwen2.5-VL-3B-Instruct"


def write_picture_rows(folder: Path) -> None:
    rows = []
    for number in range(8):
        Image.radial_gradient("L").resize((70 + number, 56)).convert("RGB").save(folder / f"{number}.png")
        animal = ("cat", "dog")[number % 2]
        row = {
            "question": "What animal is it?",
            "image": f"{number}.png",
            "think": "It has whiskers.",
            "answer": animal,
        }
        rows.append(row)
    (folder / "my.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = [row | {"question": "Which animal is that?"} for row in rows[:2]]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, asked)))


@pytest.mark.parametrize("name", SHORT)
def test_a_family_in_short(name: str, tmp_path: Path) -> None:
    """One step padded, packed and by TRL, and what is saved."""
    folder = write_hub_folder(name, tmp_path / name)
    ours, theirs = first_losses(folder, tmp_path / "steps")
    assert ours == pytest.approx(theirs, rel=1e-6)
    rows = to_dataset(sample_examples(pictures=True)).select(range(4))
    shared = {**QUIET, "output_dir": str(tmp_path / "out"), "max_steps": 1, "max_length": None}
    found = {}
    for packing in (False, True):
        loaded = load_model(str(folder))
        args = ScaleSFTConfig(weighting="scale", packing=packing, per_device_train_batch_size=4, **shared)
        trainer = ScaleSFTTrainer(loaded.model, args, train_dataset=rows, processing_class=loaded.processor)
        assert (trainer.data_collator.packing is not None) == (packing and name in PACKED)
        trainer.train()
        found[packing] = losses(trainer)[0]
    assert found[True] == pytest.approx(found[False], rel=1e-6)
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.processor.save_pretrained(tmp_path / "saved")
    assert plain_reload(tmp_path / "saved", folder).startswith("model")
    again = load_model(str(tmp_path / "saved"))
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), loaded.model.parameters(), strict=True))
