"""The tiny twin of a recipe: the small checkpoint of its family in its place, a few steps, rows of the embedded world.

    twin = Twin("gemma-3-4b", "scale-sft", "one-24gb", place)
    twin.train(steps=2)

Everything else is the recipe's and the overlay's own. The overlays of eight GPUs are run on two ranks of gloo, in the
environment that `accelerate launch --config_file` makes from recipes/accelerate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from balanced_thinking.cli import main
from balanced_thinking.runs.directory import is_finished
from balanced_thinking.runs.paths import RunFiles
from balanced_thinking.training.sharded import find_writer
from tests.conftest import REPOSITORY
from tests.forked import run_ranks
from tests.models.hub_folders import write_hub_folder

RECIPES = REPOSITORY / "recipes"
PROGRAM = str(Path(__file__).with_name("twin_rank.py"))
# The folder of a model's recipes -> the family of tests/models/hub_folders.py that it belongs to.
FAMILY = {
    "qwen2.5-vl-3b": "qwen2_5_vl",
    "qwen2.5-vl-7b": "qwen2_5_vl",
    "qwen3-vl-4b": "qwen3_vl",
    "qwen3-vl-8b": "qwen3_vl",
    "llava-1.6-mistral-7b": "llava_next",
    "gemma-3-4b": "gemma3",
    "internvl3-2b": "internvl",
    "smolvlm2-2.2b": "smolvlm",
}
# An overlay -> the ranks of its twin.
HARDWARE = {"one-24gb": 1, "one-80gb-lora": 1, "one-80gb-full": 1, "eight-80gb-fsdp2": 2, "eight-80gb-zero3": 2}
_WRITER = {"eight-80gb-fsdp2": "FSDP", "eight-80gb-zero3": "DeepSpeed"}
_STAGE = {"sft": "sft", "scale-sft": "sft", "grpo": "grpo"}
_SAMPLES = 4  # of a step, over all ranks
# What makes a twin small. About half of what an untrained model writes has an `e`: so rewards differ.
_LETTERS = {"name": "letters", "answer_open": "e", "think_required": False}
_SMALL = {"save_steps": 1, "logging_steps": 1, "warmup_steps": 0, "use_cpu": True, "dataloader_num_workers": 0}
# A tile of the tiny one has 28 pixels, of the real one 384.
_SMALL_PICTURES = {"smolvlm2-2.2b": {"size": {"longest_edge": 56}}}
_GROUP = {"num_generations": 4, "max_completion_length": 4, "reasoning_format": _LETTERS, "steps_per_generation": 1}


@dataclass(frozen=True)
class TwinPlace:
    """A folder of twins, with rows of the embedded world as a user's own file."""

    folder: Path

    @property
    def rows(self) -> Path:
        file = self.folder / "my.jsonl"
        if not file.exists():
            options = ["--data_options.n", "40", "--data_options.ratio", "5"]
            assert main(["convert", "world", "--out", str(file), "--quiet", *options]) == 0
        return file

    def model(self, family: str) -> Path:
        folder = self.folder / "models" / family
        return folder if folder.exists() else write_hub_folder(family, folder)

    def own_file(self, name: str, values: dict[str, Any]) -> Path:
        (file := self.folder / name).write_text(yaml.safe_dump(values))
        return file


@dataclass(frozen=True)
class Twin:
    """One recipe on one machine."""

    model: str
    recipe: str
    hardware: str
    place: TwinPlace

    @property
    def run(self) -> Path:
        return self.place.folder / f"{self.model}-{self.recipe}-{self.hardware}"

    @property
    def plan(self) -> Path:
        """Where a dry run says that it would write."""
        return self.place.folder / f"{self.run.name}-plan"

    @property
    def ranks(self) -> int:
        return HARDWARE[self.hardware]

    @property
    def files(self) -> list[Path]:
        small = small_overlay(self.place, self.ranks, self.model)
        return [RECIPES / self.model / f"{self.recipe}.yaml", RECIPES / "hardware" / f"{self.hardware}.yaml", small]

    def train(self, steps: int, *more: str) -> None:
        files = [word for file in self.files for word in ("--config", str(file))]
        words = [_STAGE[self.recipe], *files, "--out", str(self.run), "--max_steps", str(steps), "--quiet", *more]
        words += ["--data", str(self.place.rows), "--model", str(self.place.model(FAMILY[self.model]))]
        if self.ranks == 1:
            assert main(words) == 0
            return
        if self.hardware.endswith("zero3"):  # as Accelerate's file says; on a GPU it is the default
            words += ["--bf16", "true"]
        (logs := self.place.folder / f"{self.run.name}.logs").mkdir(exist_ok=True)
        accelerate = RECIPES / "accelerate" / f"{self.hardware.removeprefix('eight-80gb-')}.yaml"
        run_ranks([PROGRAM, *words], self.ranks, launch_environment(accelerate), logs)

    def dry_run(self) -> None:
        """As on the real machine, without the small overlay: a plan for all of its ranks."""
        files = [word for file in self.files[:2] for word in ("--config", str(file))]
        words = [_STAGE[self.recipe], *files, "--out", str(self.plan), "--use_cpu", "true"]
        words += ["--data", str(self.place.rows), "--model", str(self.place.model(FAMILY[self.model]))]
        if self.model in _SMALL_PICTURES:
            words += ["--image_options", yaml.safe_dump(_SMALL_PICTURES[self.model], default_flow_style=True).strip()]
        assert main([*words, "--dry-run"]) == 0

    def check(self) -> None:
        """Train two steps, resume for a third, evaluate. Raises AssertionError where one of these is not as it must."""
        self.train(2)
        files = RunFiles(self.run)
        config = yaml.safe_load(files.config.read_text())
        assert config["merged_from"] == [str(file) for file in self.files]
        assert is_finished(self.run)
        self.train(3, "--resume")
        rows = [json.loads(line) for line in files.metrics.read_text().splitlines()]
        steps = [row["step"] for row in rows if "loss" in row]
        assert steps == [1, 2, 3], steps  # none was taken twice
        newest = files.checkpoints / "checkpoint-3"
        assert find_writer(newest) == _WRITER.get(self.hardware, "one process")
        assert json.loads(self.evaluate().read_text())["n"] > 0

    def evaluate(self) -> Path:
        out = self.run / "eval" / "twin"
        words = ["eval", "--config", str(RECIPES / self.model / "eval.yaml"), "--model", str(self.run), "--quiet"]
        words += ["--data", str(self.place.rows), "--data_options.hash_split", "true", "--max-new-tokens", "4"]
        words += ["--format", "think-answer"]  # of the rows; the outputs of an untrained model have none
        assert main([*words, "--limit", "2", "--out", str(out)]) == 0
        return out / "summary.json"


def small_overlay(place: TwinPlace, ranks: int, model: str) -> Path:
    """What makes the recipes of a model small, as an overlay."""
    sizes = {"per_device_train_batch_size": _SAMPLES // ranks, "gradient_accumulation_steps": 1}
    shared: dict[str, Any] = {"ranks": ranks}
    if model in _SMALL_PICTURES:
        shared["image_options"] = _SMALL_PICTURES[model]
    stages = {"sft": {**shared, "training": _SMALL | sizes}, "grpo": {**shared, "training": _SMALL | sizes | _GROUP}}
    return place.own_file(f"small-{model}-{ranks}.yaml", {"stages": stages})


@cache
def launch_environment(config_file: Path) -> dict[str, str]:
    """The variables that `accelerate launch --config_file` sets for its ranks, as accelerate itself reads the file."""
    args = launch_command_parser().parse_args(["--config_file", str(config_file), "-m", "balanced_thinking"])
    args, defaults, _ = _validate_launch_command(args)
    args.main_process_port = 0  # any free one
    if args.use_deepspeed:  # as its launcher does
        args.deepspeed_fields_from_accelerate_config = ",".join([*defaults.deepspeed_config, "mixed_precision"])
    found = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
    kept = {name: value for name, value in found.items() if name.startswith(("ACCELERATE_", "FSDP_"))}
    kept.pop("ACCELERATE_USE_CPU", None)  # with it accelerate forgets DeepSpeed; the twins' own use_cpu starts gloo
    more = {} if args.use_deepspeed else {"ACCELERATE_USE_CPU": "true"}
    return kept | more | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def launched_ranks(config_file: Path) -> int:
    return int(yaml.safe_load(config_file.read_text())["num_processes"])
