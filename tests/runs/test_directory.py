"""A run's folder: free after a start that failed, or kept where the error says to resume; and its record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.export.facts import _describe_results
from balanced_thinking.runs.directory import is_finished, undo_failed_start
from balanced_thinking.runs.load import load_run
from balanced_thinking.runs.manifest import manifest_digest, seal_folder
from tests.report.synthetic import write_run

# What the folder has besides the recipe, the rank, the error -> whether the recipe is still there
FAILED_STARTS: list[tuple[str | None, str, type[BaseException], bool]] = [
    (None, "0", ValueError, False),
    (None, "0", OSError, True),  # its message says to continue with --resume
    (None, "0", FileNotFoundError, True),  # a kind of it
    (None, "0", KeyboardInterrupt, True),
    (None, "1", ValueError, True),  # the first rank wrote it, and may still train
    ("metrics.jsonl", "0", ValueError, True),
    ("checkpoints/checkpoint-1/a", "0", ValueError, True),
    ("checkpoints/.saving-checkpoint-1/a", "0", ValueError, False),
]


@pytest.mark.parametrize(("beside", "rank", "error", "kept"), FAILED_STARTS)
def test_a_failed_start_frees_the_folder_unless_there_is_something_to_resume(
    beside: str | None,
    rank: str,
    error: type[BaseException],
    kept: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", rank)

    def start_and_fail() -> None:
        with undo_failed_start(tmp_path, except_after=(OSError,)):
            (tmp_path / "config.yaml").touch()
            if beside is not None:
                (tmp_path / beside).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / beside).write_text("{}")
            raise error

    with pytest.raises(error):
        start_and_fail()
    assert (tmp_path / "config.yaml").exists() == kept


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "3", '{"steps": "many"}'])
def test_a_record_of_a_run_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(BalancedThinkingError, match=r"provenance\.json"):
        is_finished(tmp_path)


@pytest.mark.parametrize(
    ("recorded", "sealed", "is_outdated"),
    [("now", "now", False), ("before", "now", True), ("", "now", False), ("before", "", False)],
    ids=["the same model", "trained further", "an older evaluation", "without the model"],
)
def test_results_of_an_earlier_state_of_the_model_are_marked(
    recorded: str, sealed: str, is_outdated: bool, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "arm" / "seed-0", [True, False])
    digests = {"": ""}
    for state in ("before", "now"):
        (run / "model").mkdir(exist_ok=True)
        (run / "model" / "model.safetensors").write_text(state)
        seal_folder(run / "model")
        digests[state] = manifest_digest(run / "model")
    if not sealed:
        (run / "model" / "manifest.json").unlink()
    summary = run / "eval" / "world-test" / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "model_digest": digests[recorded]}))
    loaded = load_run(run)
    assert loaded.evaluations["world-test"].is_outdated == is_outdated
    assert any("of an earlier state of the model" in note for note in loaded.notes) == is_outdated
    assert [result.n for result in _describe_results(loaded)] == ([] if is_outdated else [2])


def test_a_model_that_is_saved_again_in_a_moved_run_is_the_same(tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.safetensors").write_text("the same")
        (tmp_path / place / "training_args.bin").write_text(place)
        seal_folder(tmp_path / place)
        digests.add(manifest_digest(tmp_path / place))
    assert len(digests) == 1


def test_a_run_whose_manifest_cannot_be_read_is_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "arm" / "seed-0", [True, False])
    (run / "model" / "manifest.json").mkdir(parents=True)
    assert not load_run(run).evaluations["world-test"].is_outdated
