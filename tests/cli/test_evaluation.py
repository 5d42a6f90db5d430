"""`balanced eval` on one data set: its folder, dtype, and going on where it stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from balanced_thinking.cli import main
from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.models.load import load_model
from tests.cli.tiny_commands import STEPS, exit_code
from tests.system.other_process import held_by_another_process


def test_two_processes_do_not_evaluate_to_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["eval", "--model", "world-base", "--data", "world", "--data_options.n", "1", "--max-new-tokens", "4"]
    command += ["--out", str(out)]
    with held_by_another_process(out, "evaluating"):
        assert exit_code(command) == 2
        assert re.search(
            rf"{out} is in use: process \d+ on \S+ has been evaluating in it since .* UTC; wait for it, stop it",
            capsys.readouterr().err,
        )
        assert [path.name for path in out.iterdir()] == [".lock"]
    assert main(command) == 0
    assert not (out / ".lock").exists()


def test_results_that_came_while_a_model_was_loaded_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = '{"n": 1, "correct": 1}'

    def load(name: str, **options: object) -> object:
        (tmp_path / "summary.json").write_text(other)  # another process was faster
        return load_model(name, **options)

    monkeypatch.setattr("balanced_thinking.evaluation.engines.start.load_model", load)
    command = ["eval", "--model", "world-base", "--data", "world", "--data_options.n", "1", "--max-new-tokens", "4"]
    assert exit_code([*command, "--out", str(tmp_path)]) == 2
    assert "already holds results of another evaluation" in capsys.readouterr().err
    assert (tmp_path / "summary.json").read_text() == other


def test_overwriting_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete, asked = LocalEngine.complete, []
    command = ["eval", "--model", "world-base", "--data", "world", "--data_options.n", "3", "--max-new-tokens", "4"]
    command += ["--batch-size", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    before = (tmp_path / "summary.json").read_text()

    def failing(self: LocalEngine, chunk: list[Example]) -> list[list[int]]:
        asked.extend(example.id for example in chunk)
        if len(asked) == 3 and len(chunk) == 1:
            raise KeyboardInterrupt
        return complete(self, chunk)

    monkeypatch.setattr(LocalEngine, "complete", failing)
    assert main([*command, "--overwrite"]) == 130
    assert (tmp_path / "summary.json").read_text() == before  # until the new ones are whole
    assert main([*command, "--overwrite"]) == 0
    assert len(asked) == 4
    asked.clear()
    assert main([*command, "--overwrite", "--batch-size", "3"]) == 0
    assert len(asked) == 3  # what is done is asked anew


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """The embedded base as a checkpoint in bfloat16."""
    loaded = load_model("world-base", dtype=torch.bfloat16)
    loaded.model.save_pretrained(tmp_path / "half")
    loaded.processor.save_pretrained(tmp_path / "half")
    return tmp_path / "half"


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [
        ("cpu", "auto", "float32"),
        ("cpu", "bfloat16", "bfloat16"),
        ("cuda", "auto", "bfloat16"),  # the checkpoint's
        ("cuda", "float32", "float32"),
    ],
)
def test_weights_are_loaded_in_the_dtype_of_the_checkpoint_on_a_gpu_alone(
    device: str, asked: str, expected: str, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def load(name: str, **options: object) -> Any:
        loaded = load_model(name, **options)
        found.append(str(loaded.model.dtype))
        monkeypatch.undo()  # from here on as on this machine
        return loaded

    monkeypatch.setattr("balanced_thinking.evaluation.engines.start.load_model", load)
    elsewhere = SimpleNamespace(device=torch.device(device), print=print, is_main_process=True, num_processes=1)
    monkeypatch.setattr("balanced_thinking.evaluation.engines.start.evaluation_ranks", lambda: elsewhere)
    command = ["eval", "--model", str(half), "--data", "world", "--data_options.n", "1", "--max-new-tokens", "4"]
    assert main([*command, "--dtype", asked, "--out", str(tmp_path / "out")]) == 0
    assert found == [f"torch.{expected}"]
    assert json.loads((tmp_path / "out/summary.json").read_text())["dtype"] == expected


def test_another_dtype_is_another_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "which color ?", "answer": "red"}) + "\n")
    command = ["eval", "--model", "world-base", "--data", "world", "--data", str(tmp_path / "a.jsonl")]
    command += ["--limit", "1", "--max-new-tokens", "4", "--out", str(tmp_path / "out")]
    assert main(command) == main([*command, "--dtype", "float32"]) == 0  # what auto is on a CPU
    assert "holds these results already" in capsys.readouterr().out
    assert exit_code([*command, "--dtype", "bfloat16"]) == 2
    assert "already holds results" in capsys.readouterr().err


def test_results_are_not_overwritten_unless_told_and_use_the_format_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": str(i), "question": "which color ?", "think": "it looks red .", "answer": "red"} for i in range(3)]
    data, run = tmp_path / "mine.jsonl", tmp_path / "run"
    data.write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    base = ["--data", str(data), "--on-bad-row", "drop"]
    form = ["--reasoning_format", "{name: mine, think_close: ;, answer_open: '='}"]
    assert main(["sft", "--model", "tiny:qwen2", *base, *STEPS, *form, "--out", str(run)]) == 0
    command = ["eval", "--model", str(run), *base, "--max-new-tokens", "4"]
    assert main(command) == 0
    assert "1 bad row was left out\n" in capsys.readouterr().err
    summary = run / "eval" / "mine-test" / "summary.json"
    kept = json.loads(summary.read_text())
    assert (kept["format"], kept["n"], kept["dropped"]) == ("mine", 3, 1)
    again = ["eval", "--model", str(run / "model"), *command[3:]]
    assert main([*again, "--out", str(tmp_path / "out")]) == 0
    same, timed = json.loads((tmp_path / "out/summary.json").read_text()), {"wall_seconds": 0, "cpu_seconds": 0}
    assert same | timed == kept | timed
    assert main(again) == 0
    assert f"{summary.parent} holds these results already" in capsys.readouterr().out
    assert exit_code([*command, "--format", "boxed"]) == 2
    error = capsys.readouterr().err
    assert str(summary.parent) in error
    assert "--overwrite" in error
    assert json.loads(summary.read_text()) == kept
    assert main([*command, "--format", "boxed", "--overwrite"]) == 0
    assert json.loads(summary.read_text())["format"] == "boxed"


def test_options_may_be_spelt_as_keys_of_recipes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def note(model: str, benchmarks: list[Any], **_: object) -> list[Any]:
        seen["benchmark"] = benchmarks[0]
        return [SimpleNamespace(folder=Path("out"))]

    monkeypatch.setattr("balanced_thinking.evaluation.run.evaluate_benchmarks", note)
    words = ["--max_new_tokens", "7", "--on_bad_row=drop", "--data_options.n", "3", "--batch-size", "2"]
    assert main(["eval", "--model", "world-base", "--data", "world", *words]) == 0
    found = seen["benchmark"]
    assert (found.max_new_tokens, found.on_bad_row, found.options, found.batch_size) == (7, "drop", {"n": 3}, 2)
