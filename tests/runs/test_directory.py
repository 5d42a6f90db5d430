"""A run's folder: free after a start that failed, or kept where the error says to resume; and its record."""

from __future__ import annotations

from pathlib import Path

import pytest

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.runs.directory import is_finished, undo_failed_start

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
