"""What went wrong comes before what the numbers can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.report.build import load_report
from balanced_thinking.report.compare.tables import Tables, make_tables
from balanced_thinking.report.write.markdown import render_markdown
from balanced_thinking.runs.advice import advise_on_outputs, describe_withheld
from balanced_thinking.runs.load import load_runs
from tests.report.helpers import report_of
from tests.report.synthetic import write_metrics, write_run

CUT = {"truncated": True, "malformed": True}


def tables_of(root: Path) -> Tables:
    return make_tables(load_runs(root))


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((10, 10, 10, 4), "all outputs were cut off: raise --max-new-tokens (now 4)"),
        ((10, 10, 0, None), "all outputs were cut off: raise --max-new-tokens"),
        ((10, 5, 0, 512), "50% of the outputs were cut off: raise --max-new-tokens (now 512)"),
        ((10, 4, 4, 512), ""),
        ((10, 0, 10, 512), "all outputs have no answer that can be read: choose the --format"),
        ((10, 4, 5, 512), "50% of the outputs have no answer that can be read"),
        ((10, 0, 0, 512), ""),
        ((0, 0, 0, 512), ""),
    ],
)
def test_outputs_that_say_more_about_the_settings(counts: tuple[int, int, int, int | None], said: str) -> None:
    found = advise_on_outputs(*counts)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_outputs_that_a_server_withheld_are_no_matter_of_options(tmp_path: Path) -> None:
    assert advise_on_outputs(10, 0, 6, withheld=6) == ""
    assert advise_on_outputs(10, 0, 8, withheld=1).startswith("70% of the outputs have no answer")
    assert describe_withheld(1000, {"refusal": 1, "content_filter": 2}).startswith(
        "3 of 1,000 outputs were withheld by the server (content_filter: 2, refusal: 1) and count as wrong"
    )
    assert describe_withheld(10, {}) == ""
    assert "as wrong: for context_length, lower --max-new-tokens" in describe_withheld(10, {"context_length": 1})
    assert ". For the others, see its log" in describe_withheld(10, {"context_length": 1, "refusal": 1})
    filtered = {"malformed": True, "withheld": "content_filter"}
    write_run(tmp_path / "sft" / "seed-0", [False] * 6, extra=filtered)
    (trouble,) = tables_of(tmp_path).troubles
    assert trouble.decisive
    assert trouble.text.startswith("sft on world-test: all outputs were withheld by the server (content_filter: 6)")


def test_cut_off_outputs_are_named_before_statistical_power(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for arm in ("sft", "scale-sft"):
        write_run(runs / arm / "seed-0", [False] * 6, extra=CUT)
    page, words = report_of(runs), render_markdown(load_report(runs))
    sentence = "sft on world-test, scale-sft on world-test: all outputs were cut off: raise --max-new-tokens."
    for text in (page, words):
        assert text.index(sentence) < text.index("too little power")
    assert words.index("## Verdict") < words.index(sentence) < words.index("## What went wrong")


@pytest.mark.parametrize(
    ("warnings", "said", "decisive"),
    [
        ([["all_clipped"]] * 4, ["at 4 of 4 logged steps every completion was cut off"], 0),
        (
            [[], [], [], ["no_format"]],
            ["at 1 of 4 logged steps no completion had the reasoning format"],
            0,
        ),  # at its end
        ([["no_advantage"], [], [], []], [], 0),  # for a while only
        ([["no_advantage"]] * 3 + [[]], ["at 3 of 4 logged steps all completions of a prompt had the same reward"], 0),
        (
            [["no_advantage"], ["no_advantage"], ["no_advantage"], ["no_advantage", "nothing_learned"]],
            ["nothing was learned", "at 4 of 4 logged steps all completions of a prompt had the same reward"],
            1,
        ),
        ([[], [], [], []], [], 0),
        ([["a_later_version"]] * 4, [], 0),  # unknown names are passed over
    ],
)
def test_what_a_training_warned_of(warnings: list[list[str]], said: list[str], decisive: int, tmp_path: Path) -> None:
    run = write_run(tmp_path / "grpo" / "seed-0", [True] * 4)
    rows: list[dict[str, Any]] = [
        {"step": step, "reward": 0.0} | ({"warnings": names} if names else {}) for step, names in enumerate(warnings, 1)
    ]
    write_metrics(run, rows)
    found = tables_of(tmp_path)
    assert len(found.troubles) == len(said)
    for trouble, words in zip(found.troubles, said, strict=True):
        assert trouble.text.startswith(f"grpo, seed 0: {words}")
    assert len(found.decisive_troubles) == decisive


def test_healthy_runs_have_no_troubles(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs / "sft" / "seed-0", [True, False, True])
    assert tables_of(runs).troubles == ()
    assert "What went wrong" not in render_markdown(load_report(runs))


def test_a_limit_is_named_where_all_evaluations_had_the_same(tmp_path: Path) -> None:
    for seed, limit in enumerate((8, 8)):
        run = write_run(tmp_path / f"sft/seed-{seed}", [False] * 2, extra=CUT)
        place = run / "eval" / "world-test" / "summary.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | {"max_new_tokens": limit}))
    assert [trouble.text for trouble in tables_of(tmp_path).troubles] == [
        "sft on world-test: all outputs were cut off: raise --max-new-tokens (now 8)."
    ]
