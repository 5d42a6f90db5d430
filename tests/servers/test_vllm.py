"""What a real vLLM answers for our models, as a server and in our process, and why GRPO needs a GPU for it.

`make test-vllm` builds the environment and runs these. Every figure is kept in SERVERS_OUT as it comes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch

from balanced_thinking.runs.evaluations import read_predictions
from tests.cli.tiny_commands import exit_code
from tests.conftest import named_output
from tests.servers.models import DATA, STEPS, balanced, train_and_export
from tests.servers.vllm_server import trl_server, vllm_server

pytestmark = pytest.mark.servers

ITEMS = 200
MOST_DIFFERENT = 1  # right answers, of ITEMS
# Shares of equal completions. bfloat16 rounds in another order.
LEAST_EQUAL = {"float32": 0.99, "bfloat16": 0.5}
# A Gemma 3 picture sees itself both ways, for which attention of vLLM on CPUs has no mask. So it is another model: of
# 16 other completions, a third moves the score up or down, with a standard deviation of 2.4 items.
LEAST_EQUAL_OF_GEMMA3, MOST_DIFFERENT_OF_GEMMA3 = 0.8, 5
ASKED = ["--data_options.n", str(ITEMS), "--max-new-tokens", "160"]
ARCHITECTURES = ("qwen2", "llava_next", "gemma3")


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of one model on the same items: completions that are equal, and right answers."""

    model: str
    what: str
    dtype: str
    items: int
    equal: int
    correct_here: int
    correct_there: int


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Architecture -> the exported folder of a tiny model that was trained for 200 steps, made at its first use."""
    folder, found = tmp_path_factory.mktemp("models"), {}

    def of(architecture: str) -> Path:
        if architecture not in found:
            found[architecture] = train_and_export(architecture, folder)
        return found[architecture]

    return of


@pytest.fixture(scope="session")
def answered_here(
    trained: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """Architecture and dtype -> our own evaluation of its model, made once."""
    folder, found = tmp_path_factory.mktemp("here"), {}

    def of(architecture: str, dtype: str = "float32") -> Path:
        if (case := f"{architecture}-{dtype}") not in found:
            out = folder / case
            found[case] = evaluate_with(trained(architecture), DATA[architecture], out, "--dtype", dtype)
        return found[case]

    return of


def in_own_process(*words: str | Path) -> None:
    """One command of ours; vLLM keeps threads and memory in the process that it once was in."""
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "CUDA_VISIBLE_DEVICES": "0"}
    command = [sys.executable, "-m", "balanced_thinking", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def evaluate_with(model: Path, data: Sequence[str], out: Path, *options: str) -> Path:
    """The folder of an evaluation on ITEMS items of the split `test`."""
    balanced("eval", "--model", model, *data, *ASKED, *options, "--out", out)
    return out


def compare(model: str, what: str, dtype: str, here: Path, there: Path) -> Comparison:
    ours, theirs = ({one.id: one for one in read_predictions(folder, [])} for folder in (here, there))
    assert ours.keys() == theirs.keys()
    return Comparison(
        model,
        what,
        dtype,
        len(ours),
        sum(ours[name].completion == theirs[name].completion for name in ours),
        sum(one.correct for one in ours.values()),
        sum(one.correct for one in theirs.values()),
    )


def assert_alike(found: Comparison) -> None:
    """Keeps the figures in SERVERS_OUT, a JSON file, and looks at them."""
    if out := named_output("SERVERS_OUT"):
        known = json.loads(out.read_text()) if out.exists() else {"comparisons": []}
        known["comparisons"].append(asdict(found))
        out.write_text(json.dumps(known, indent=1) + "\n")
    least, most = LEAST_EQUAL[found.dtype], MOST_DIFFERENT
    if found.model == "gemma3":
        least, most = LEAST_EQUAL_OF_GEMMA3, MOST_DIFFERENT_OF_GEMMA3
    assert found.equal >= least * found.items, found
    assert abs(found.correct_here - found.correct_there) <= most, found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_server_answers_as_we_do(
    architecture: str,
    dtype: str,
    trained: Callable[[str], Path],
    answered_here: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    model, data, here = trained(architecture), DATA[architecture], answered_here(architecture, dtype)
    with vllm_server(model, tmp_path / "log.txt", "--dtype", dtype) as address:
        there = evaluate_with(model, data, tmp_path / "there", "--server", address)
    assert_alike(compare(architecture, "a server", dtype, here, there))


@pytest.mark.parametrize("architecture", ["qwen2", "llava_next"])
def test_an_adapter_is_served_beside_its_base(
    architecture: str, trained: Callable[[str], Path], answered_here: Callable[[str], Path], tmp_path: Path
) -> None:
    base, data, run = trained(architecture), DATA[architecture], tmp_path / "run"
    balanced("sft", "--model", base, "--lora.r", "8", *data, *STEPS, "--max_steps", "20", "--out", run)
    expected = {base: answered_here(architecture), run: evaluate_with(run, data, tmp_path / "here")}
    options = ["--dtype", "float32", "--enable-lora", "--max-lora-rank", "8", "--served-model-name", "base"]
    with vllm_server(base, tmp_path / "log.txt", *options, "--lora-modules", f"mine={run / 'model'}") as address:
        served = {
            model: evaluate_with(model, data, tmp_path / name, "--server", address, "--served-model", name)
            for model, name in ((base, "base"), (run, "mine"))
        }
    for model in (base, run):
        what = "a server, adapter beside its base" if model == run else "the same server, base"
        assert_alike(compare(architecture, what, "float32", expected[model], served[model]))
    assert compare(architecture, "adapter or not", "float32", *expected.values()).equal < ITEMS


@pytest.mark.parametrize("architecture", ["qwen2", "llava_next"])
def test_vllm_in_our_process_answers_as_we_do(
    architecture: str, trained: Callable[[str], Path], answered_here: Callable[[str], Path], tmp_path: Path
) -> None:
    model, data, here = trained(architecture), DATA[architecture], answered_here(architecture)
    there = tmp_path / "there"
    in_own_process("eval", "--model", model, *data, *ASKED, "--engine", "vllm", "--dtype", "float32", "--out", there)
    assert_alike(compare(architecture, "`--engine vllm`", "float32", here, there))


@pytest.mark.parametrize("mode", ["server", "colocate"])
def test_grpo_with_vllm_needs_a_gpu(
    mode: str, trained: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the refusal a server has no NCCL, and a vLLM in the process fails at the first weights it is given."""
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    words = ["grpo", "--model", str(trained("qwen2")), *DATA["qwen2"], "--use_vllm", "true", "--vllm_mode", mode]
    assert exit_code(words) == 2
    assert "vLLM cannot take new weights" in capsys.readouterr().err


# Without vLLM the first ten steps had a reward of 0.263 and steps 31 to 40 one of 0.321, on a CPU.
GRPO = [
    *("--max_steps", "120", "--per_device_train_batch_size", "64", "--num_generations", "8", "--learning_rate", "1e-4"),
    *("--max_completion_length", "160", "--logging_steps", "1", "--save_strategy", "no", "--data_options.n", "800"),
]


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_grpo_with_vllm_learns_as_without(mode: str, trained: Callable[[str], Path], tmp_path: Path) -> None:
    """The weights of each step arrive at vLLM: rewards rise as they do without it."""
    needed = 2 if mode == "server" else 1
    if torch.cuda.device_count() < needed:
        pytest.skip(f"vllm_mode {mode} needs {needed} GPUs here, and vLLM for CUDA: make test-vllm SERVERS_BIN=ENV/bin")
    model, rewards = trained("qwen2"), {}
    served = trl_server(model, tmp_path / "log.txt", gpu=1) if mode == "server" else nullcontext("")
    with served as address:
        there = ["--use_vllm", "true", "--vllm_mode", mode]
        there += ["--vllm_server_base_url", address] if address else ["--vllm_gpu_memory_utilization", "0.3"]
        for name, words in (("without", []), ("with", there)):
            in_own_process("grpo", "--model", model, *DATA["qwen2"], *GRPO, *words, "--out", tmp_path / name)
            rows = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
            rewards[name] = [row["reward"] for row in rows if "reward" in row]
    print(json.dumps(rewards))
    last = {name: sum(steps[-10:]) / 10 for name, steps in rewards.items()}
    assert all(last[name] > sum(steps[:10]) / 10 + 0.05 for name, steps in rewards.items())
    assert last["with"] == pytest.approx(last["without"], abs=0.1)
