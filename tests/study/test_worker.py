"""One run of a study: its parts, its ledger rows, and a training that began with another recipe."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.evaluation.engines.start import EngineOptions
from balanced_thinking.runs.ledger import read_ledger
from balanced_thinking.study import worker
from balanced_thinking.study.load import make_study
from balanced_thinking.study.plan import merge_mappings
from balanced_thinking.study.unrecorded import record_unrecorded_runs
from balanced_thinking.study.worker import restart_if_recipe_changed
from tests.study.helpers import SMALL, changed, finish


def test_a_training_that_began_with_another_recipe_starts_from_the_beginning(tmp_path: Path) -> None:
    study = {**SMALL, "arms": {"sft": {}}, "contrasts": []}
    other = merge_mappings(study, {"stages": {"sft": {"training": {"learning_rate": 0.5, "logging_steps": 3}}}})
    (before,), (node,) = (make_study(one).planned_runs() for one in (study, other))
    folder = tmp_path / node.name
    (folder / "checkpoints/checkpoint-1").mkdir(parents=True)
    (folder / "log.txt").write_text("the worker's")
    (folder / "config.yaml").write_text(before.recipe.to_yaml())
    restart_if_recipe_changed(folder, before)
    assert (folder / "checkpoints/checkpoint-1").is_dir()
    restart_if_recipe_changed(folder, node)
    assert [path.name for path in folder.iterdir()] == ["log.txt"]
    assert (folder.with_name(".seed-0-1") / "checkpoints/checkpoint-1").is_dir()
    (folder / "config.yaml").write_text(before.recipe.to_yaml())
    restart_if_recipe_changed(folder, node)
    assert (folder.with_name(".seed-0-2") / "config.yaml").is_file()
    finish(tmp_path, study, node.name)
    with pytest.raises(RecipeError, match=r"finished with another recipe: arm 'sft': training.learning_rate"):
        restart_if_recipe_changed(folder, node)


def test_a_kill_while_a_training_is_put_aside_leaves_no_checkpoint_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_study(SMALL).planned_runs()[0]
    folder = tmp_path / node.name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(replace(node.recipe, model="world-base").to_yaml())
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name == "checkpoints":
            raise KeyboardInterrupt
        return real(path, target)

    # The order in which a folder is listed is the file system's.
    monkeypatch.setattr(Path, "iterdir", lambda place: iter([place / "config.yaml", place / "checkpoints"]))
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        restart_if_recipe_changed(folder, node)
    monkeypatch.undo()
    restart_if_recipe_changed(folder, node)
    assert not any(folder.iterdir())


def test_all_evaluations_have_one_default_batch_size(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["eval", "--help"])
    default = re.search(r"--batch-size BATCH_SIZE\s+[a-z ]+\(default: (\d+)\)", capsys.readouterr().out)
    assert default is not None
    assert Benchmark("world").batch_size == int(default[1])


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_the_ledger_counts_all_of_a_continued_training_and_gpu_seconds_on_a_gpu(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from balanced_thinking.training import run as training_run

    def train(recipe: Any, out: Path, *, resume: bool) -> None:
        """As a run that was killed twice ends: its last part took no time."""
        about = {"train_seconds": 6.99, "train_cpu_seconds": 5.5, "steps": 2, "tokens": 9, "device": device}
        (out / "provenance.json").write_text(json.dumps(about | {"finished": "now"}))

    monkeypatch.setattr(training_run, "train", train)
    monkeypatch.setattr("balanced_thinking.runs.ledger.peak_mib", lambda on: {"cpu": 100, "cuda:0": 7}[on])
    node = replace(make_study(SMALL).planned_runs()[0], benchmarks=())
    (tmp_path / node.name).mkdir(parents=True)
    worker.run_missing_parts(tmp_path, node)
    (row,) = read_ledger(tmp_path, [])
    assert (row.wall_seconds, row.cpu_seconds) == (6.99, 5.5)
    assert (row.gpu_seconds, row.peak_mib) == ((None, 100) if device == "cpu" else (6.99, 7))


def test_a_run_is_evaluated_with_the_options_of_its_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"limit": 7, "on_bad_row": "drop", "batch_size": 3, "max_new_tokens": 4, "prompt": "instructed"}
    own |= {"scorer": "anls", "options": {"n": 2}, "format": "direct", "shots": 2}
    own |= {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "sampling_seed": 5}
    assert {*own, "data", "splits"} == {field.name for field in fields(Benchmark)}
    used: dict[str, Any] = {}

    def evaluate(model: str, benchmarks: list[Benchmark], engine: EngineOptions, overwrite: bool) -> Any:
        used.update(asdict(benchmarks[0]), engine=engine, overwrite=overwrite)
        about = {"think_tokens_mean": 3.0, "answer_tokens_mean": 1.0, "wall_seconds": 8.5, "cpu_seconds": 7.25}
        return [SimpleNamespace(summary=SimpleNamespace(n=7, **about))]

    monkeypatch.setattr("balanced_thinking.evaluation.run.evaluate_benchmarks", evaluate)
    node = make_study(changed(evaluate={"world": own}, dtype="bfloat16")).planned_runs()[0]
    (tmp_path / node.name).mkdir(parents=True)
    (tmp_path / node.name / "provenance.json").write_text('{"finished": "now"}')
    worker.run_missing_parts(tmp_path, node)
    engine = EngineOptions(dtype="bfloat16")
    # What an earlier plan has begun to answer is in nobody's way.
    assert used == {"splits": ("test",), "data": "world", "engine": engine, "overwrite": True, **own}
    (row,) = [row for row in read_ledger(tmp_path, []) if row.part != "train"]
    assert (row.tokens, row.wall_seconds, row.cpu_seconds) == (28, 8.5, 7.25)


def test_a_finished_part_without_its_row_gets_one(tmp_path: Path) -> None:
    """A kill can come between the two."""
    node = make_study(SMALL).planned_runs()[0]
    finish(tmp_path, SMALL, node.name)
    about = {"finished": "now", "train_seconds": 6.99, "train_cpu_seconds": 5.5, "steps": 2, "device": "cuda:0"}
    (tmp_path / node.name / "provenance.json").write_text(json.dumps(about))
    for _ in range(2):
        record_unrecorded_runs(tmp_path, [node])
        (row,) = read_ledger(tmp_path, [])
        assert (row.part, row.steps, row.wall_seconds, row.gpu_seconds) == ("train", 2, 6.99, 6.99)
