"""`balanced inspect`."""

from __future__ import annotations

import pytest

from balanced_thinking.cli import main


def test_inspect_says_what_is_in_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "world", "--data_options.n", "40", "--data_options.ratio", "10"]) == 0
    said = capsys.readouterr().out
    for part in ("40 examples, 0 bad rows", "families: attribute 5", "think-to-answer ratio", "plain SFT would give"):
        assert part in said
