"""The report: the same numbers everywhere, honest verdicts, hostile texts made harmless, unfinished runs told."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from balanced_thinking.report import write_report
from balanced_thinking.report.figures import draw_curves, smooth
from balanced_thinking.report.markdown import render_csv, render_markdown
from balanced_thinking.report.runs import load_runs
from balanced_thinking.report.samples import SAMPLES, choose_samples, embed_image, split_completion
from balanced_thinking.report.study import load_report
from balanced_thinking.report.tables import make_tables
from balanced_thinking.report.wording import evidence, headline, power

SCRIPT = "<script>alert(1)</script>"
STEPS = 20


def write_run(
    folder: Path,
    correct: Sequence[bool],
    *,
    split: str = "world-test",
    data: str = "world",
    extra: dict[str, Any] | None = None,
    **provenance: Any,
) -> Path:
    """A finished run with one prediction for each of `correct`; `extra` is put into every prediction."""
    evaluation = folder / "eval" / split
    evaluation.mkdir(parents=True, exist_ok=True)
    rows = [row(i, ok) | (extra or {}) for i, ok in enumerate(correct)]
    (evaluation / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    summary = {"n": len(rows), "correct": sum(correct), "malformed": 0, "truncated": 0, "format": "think-answer"}
    summary |= {"data": data}
    (evaluation / "summary.json").write_text(json.dumps(summary))
    facts = {"arm": folder.parent.name, "finished": "2026-11-24T03:40:00Z", "train_seconds": 120.0}
    (folder / "provenance.json").write_text(json.dumps(facts | provenance))
    write_config(folder, "scale")
    logged = [{"step": s, "think_nll": 2.0, "answer_nll": 3.0 - s / 10, "grad_norm": 1.0} for s in range(STEPS)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged))
    return folder


def write_config(folder: Path, weighting: str) -> None:
    """As a run stores it: the recipe, with the training arguments under `training`."""
    config = {"model": "world-base", "lora": {"r": 8}, "training": {"weighting": weighting, "max_steps": STEPS}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def row(i: int, correct: bool) -> dict[str, Any]:
    answer = "red" if correct else "blue"
    return {
        "id": f"item-{i}",
        "question": "which color ?",
        "images": [],
        "gold": "red",
        "choices": [],
        "prediction": answer,
        "correct": correct,
        "problems": [],
        "malformed": False,
        "truncated": False,
        "think_tokens": 40,
        "answer_tokens": 4,
        "completion": f"<think>it looks {answer} .</think>\n<answer>{answer}</answer>",
        "family": ("count", "spatial")[i % 2],
    }


def outcomes(both: int, only: int, other: int, neither: int) -> tuple[list[bool], list[bool]]:
    """(arm, baseline) with these paired counts."""
    arm = [True] * (both + only) + [False] * (other + neither)
    base = [True] * both + [False] * only + [True] * other + [False] * neither
    return arm, base


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two arms with one seed: 10 items only scale-sft gets right, 1 only sft."""
    arm, base = outcomes(30, 10, 1, 59)
    write_run(tmp_path / "runs/sft/seed-0", base)
    write_run(tmp_path / "runs/scale-sft/seed-0", arm)
    return tmp_path / "runs"


class Page(HTMLParser):
    """Tags and attributes as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]


def check_only_script(text: str) -> None:
    """Exactly one script, allowed by its hash."""
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert text.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; " in html.unescape(text)


def report_of(runs: Path) -> str:
    return write_report(runs, runs.parent / "out" / "report.html").read_text(encoding="utf-8")


def test_a_shown_difference_is_told_with_its_counts_and_p(study: Path) -> None:
    (contrast,) = make_tables(load_runs(study)).contrasts
    (seed,) = contrast.seeds
    assert (seed.both, seed.only_arm, seed.only_base, seed.neither) == (30, 10, 1, 59)
    assert seed.p == pytest.approx(0.01171875)  # 2 * (1 + 11) / 2**11
    assert seed.points == pytest.approx(9.0)
    assert 0 < seed.interval[0] < 9 < seed.interval[1]
    assert headline(contrast) == "In the one seed that was run, scale-sft is better than sft by 9.0 points."
    assert "p = 0.012" in evidence(contrast)


def test_page_and_markdown_tell_the_same_numbers(study: Path) -> None:
    path = write_report(study, study / "report.html", study / "report.md")
    page = html.unescape(path.read_text(encoding="utf-8"))
    for text in (page, (study / "report.md").read_text(encoding="utf-8")):
        for number in ("40.0 %", "31.0 %", "+9.0", "0.012", "2 min 0 s"):
            assert number in text.replace("\u202f", " ")
    assert (study / "report.csv").read_text().startswith("arm,split,seeds,n,accuracy")


def test_without_a_difference_none_is_claimed_and_the_page_says_what_could_be_seen(tmp_path: Path) -> None:
    arm, base = outcomes(30, 10, 8, 52)
    write_run(tmp_path / "sft/seed-0", base)
    write_run(tmp_path / "scale-sft/seed-0", arm)
    (contrast,) = make_tables(load_runs(tmp_path)).contrasts
    assert headline(contrast) == "No difference between scale-sft and sft could be shown."
    assert "not shown does not mean equal" in power(contrast)
    # 100 items with 18 % disagreement at 80 % power: about 2.8 * sqrt(0.18 / 100).
    assert 9 < contrast.detectable_points < 14


def test_arms_that_always_agree_are_not_called_different(tmp_path: Path) -> None:
    for arm in ("sft", "scale-sft"):
        write_run(tmp_path / arm / "seed-0", [True] * 30 + [False] * 20)
    (contrast,) = make_tables(load_runs(tmp_path)).contrasts
    assert (contrast.shown, contrast.detectable_points) == (False, None)
    assert "differ on only 0.0\u202f%" in power(contrast)


@pytest.mark.parametrize(
    ("seeds", "shown"),
    [
        ([(10, 0), (12, 1), (9, 1)], True),  # all point the same way, all significant
        ([(10, 0), (12, 1), (3, 1)], True),  # one not significant, but it agrees
        ([(10, 0), (3, 1), (4, 2)], False),  # one of three is significant
        ([(10, 0), (12, 1), (1, 2)], False),  # one seed points the other way
        ([(0, 10), (1, 12)], True),  # worse is a difference, too
    ],
)
def test_several_seeds_must_agree(tmp_path: Path, seeds: list[tuple[int, int]], shown: bool) -> None:
    for k, (only, other) in enumerate(seeds):
        arm, base = outcomes(20, only, other, 70)
        write_run(tmp_path / f"scale-sft/seed-{k}", arm)
        write_run(tmp_path / f"sft/seed-{k}", base)
    (contrast,) = make_tables(load_runs(tmp_path)).contrasts
    assert contrast.shown is shown
    assert len(contrast.seeds) == len(seeds)


def test_more_contrasts_ask_for_a_smaller_p(study: Path) -> None:
    write_run(study / "sft-grpo/seed-0", [True] * 40 + [False] * 60)
    assert [contrast.alpha for contrast in make_tables(load_runs(study)).contrasts] == [0.025, 0.025]


def test_only_shared_seeds_and_shared_items_are_compared(study: Path) -> None:
    write_run(study / "scale-sft/seed-7", [True] * 100)
    write_run(study / "scale-sft/seed-0", [True] * 50)
    tables = make_tables(load_runs(study))
    (contrast,) = tables.contrasts
    assert [(seed.seed, seed.n) for seed in contrast.seeds] == [(0, 50)]
    assert any("50 items of world-test that both answered" in note for note in tables.notes)


def test_the_arm_with_uniform_weights_is_the_baseline_whatever_its_name(tmp_path: Path) -> None:
    for arm, weighting in (("a", "scale"), ("plain", "uniform")):
        write_config(write_run(tmp_path / arm / "seed-0", [True, False]), weighting)
    assert make_tables(load_runs(tmp_path)).arms == ("plain", "a")


def test_the_test_split_of_any_data_is_the_main_one(study: Path) -> None:
    write_run(study / "sft/seed-0", [True], split="another-train", data="another")
    assert make_tables(load_runs(study)).main_split == "world-test"


def test_ids_of_different_data_are_not_paired(study: Path) -> None:
    write_run(study / "scale-sft/seed-0", [True] * 100, data="other/world")
    write_run(study / "sft-more/seed-0", [True] * 100)
    runs = load_runs(study)
    tables = make_tables(runs)
    assert [contrast.arm for contrast in tables.contrasts] == ["sft-more"]
    assert any("world-test is not the same data in all runs: other/world (scale-sft" in note for note in tables.notes)
    samples = choose_samples(runs, tables.arms, tables.main_split, study)
    assert {reply.arm for reply in samples.items[0].replies} == {"sft", "sft-more"}


def test_seeds_are_pooled_without_narrowing_the_interval(study: Path) -> None:
    write_run(study / "sft/seed-1", [True] * 41 + [False] * 59)
    sft, scale = make_tables(load_runs(study)).splits["world-test"]
    assert (sft.accuracy, sft.n, sft.seeds, sft.seed_range) == (0.36, 100, 2, (0.31, 0.41))
    assert (sft.low, sft.high) == pytest.approx((0.27267, 0.45769), abs=1e-4)  # statsmodels, 36 of 100
    assert scale.seed_range is None
    assert scale.relative_time == 1.0


def test_families_stand_side_by_side(study: Path) -> None:
    rows = {family.family: family for family in make_tables(load_runs(study)).families}
    assert rows["count"].n == rows["spatial"].n == 50
    assert rows["count"].accuracies == (0.32, 0.40)  # of 50 even items: 16 of sft, 20 of scale-sft


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    extra = dict.fromkeys(("question", "gold", "prediction", "family"), SCRIPT)
    extra |= {"completion": f"<think>{SCRIPT}</think><answer>{SCRIPT}", "choices": [SCRIPT], "problems": [SCRIPT]}
    for arm in ("sft", "<img src=x onerror=alert(1)>"):
        folder = write_run(tmp_path / "runs" / arm / "seed-0", [True, False], extra=extra, command=SCRIPT)
        (folder / "config.yaml").write_text(yaml.safe_dump({SCRIPT: arm}))
        rows = [row(i, arm == "sft") | extra | {"id": f"{SCRIPT}{i}"} for i in range(3)]
        (folder / "eval/world-test/predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = report_of(tmp_path / "runs")
    page = Page(text)
    assert {"img", "iframe", "link", "base", "form"}.isdisjoint(tag for tag, _ in page.tags)
    check_only_script(text)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "style"]
    assert text.count("&lt;script&gt;alert(1)") > 20


def test_an_arm_named_by_a_hostile_provenance_stays_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "alone", [True, False], arm=SCRIPT)
    text = report_of(run)
    check_only_script(text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_page_is_self_contained_and_its_policy_admits_only_its_own_style(study: Path) -> None:
    text = report_of(study)
    page = Page(text)
    assert all(value.startswith("#") for value in page.values("href"))
    assert all(value.startswith("data:image/png;base64,") for value in page.values("src"))
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    (policy,) = (attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith(f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; script-src 'sha256-")
    assert "unsafe" not in policy
    check_only_script(text)
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_ids_are_unique_and_every_reference_has_its_target(study: Path) -> None:
    text = report_of(study)
    page = Page(text)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    wanted = [v.removeprefix("#") for v in page.values("href")] + page.values("aria-labelledby")
    assert {*wanted, *re.findall(r"url\(#([^)]+)\)", text)} <= set(ids)


@pytest.mark.parametrize(
    "missing",
    [
        "config.yaml",
        "provenance.json",
        "metrics.jsonl",
        "eval/world-test/summary.json",
        "eval/world-test/predictions.jsonl",
    ],
)
def test_an_unfinished_run_is_told_not_failed(study: Path, missing: str) -> None:
    (study / "scale-sft/seed-0" / missing).unlink()
    assert f"scale-sft, seed 0: {missing} is missing" in report_of(study)


def test_without_predictions_the_summary_is_counted(study: Path) -> None:
    (study / "sft/seed-0/eval/world-test/predictions.jsonl").unlink()
    tables = make_tables(load_runs(study))
    assert tables.splits["world-test"][0].accuracy == pytest.approx(0.31)
    assert tables.contrasts == ()


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("metrics.jsonl", '{"step": 0, "think_nll": 1.0}\n{"step": 1, "thi', "metrics.jsonl: 1 lines are not JSON"),
        ("provenance.json", '{"arm": ', "provenance.json cannot be read"),
        ("config.yaml", "a: [", "config.yaml cannot be read"),
        ("config.yaml", "- a", "config.yaml holds list, a mapping was expected"),
        ("provenance.json", '{"arm": "sft", "finished": null}', "the run has not finished"),
        ("eval/world-test/summary.json", '{"n": 100, "correct": 77}', "summary.json says 77 of 100 correct"),
        (
            "eval/world-test/predictions.jsonl",
            '{"id": "a", "correct": true}\n{"id": "b"}\n',
            "1 rows lack an id or a verdict",
        ),
        ("eval/world-test/predictions.jsonl", '{"id": "a", "correct": true}\n' * 2, "1 rows repeat an id"),
    ],
)
def test_damage_is_told(study: Path, file: str, content: str, note: str) -> None:
    (study / "sft/seed-0" / file).write_text(content)
    assert note in report_of(study)


def test_runs_without_evaluation_or_metrics_make_a_page(tmp_path: Path) -> None:
    for arm in ("sft", "scale-sft"):
        (tmp_path / "runs" / arm).mkdir(parents=True)
        (tmp_path / "runs" / arm / "config.yaml").write_text("seed: 0\n")
    text = report_of(tmp_path / "runs")
    assert "Nothing to compare yet." in text
    assert "No run has logged metrics yet." in text


def test_a_folder_without_runs_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong/photos").mkdir(parents=True)
    for name, found in (("absent", "does not exist"), ("empty", "it is empty"), ("wrong", "found photos")):
        with pytest.raises(ValueError, match=f"{found}; expected .*balanced demo") as error:
            write_report(tmp_path / name, tmp_path / "report.html")
        assert name in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_drawings_say_where_they_end_and_what_they_left_out(study: Path) -> None:
    with (study / "sft/seed-0/metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "think_nll": NaN}\n')
    drawings = {drawing.title: drawing for drawing in draw_curves(load_runs(study), ("sft", "scale-sft"))}
    loss = drawings["Loss on the answer"]
    assert "sft from 2.95 to 1.15 at step 19" in loss.alternative  # the running mean of the two values at each end
    assert 'role="img"' in loss.svg
    assert "currentColor" in loss.svg
    assert "style=" not in loss.svg
    assert "1 values were not finite" in drawings["Loss on the reasoning"].alternative


@pytest.mark.parametrize("n", [1, 5, 40, 300])
def test_the_running_mean_equals_its_slow_definition(n: int) -> None:
    values = np.random.default_rng(0).normal(size=n)
    half = max(1, round(n * 0.03))
    slow = [values[max(0, i - half) : i + half + 1].mean() for i in range(n)]
    np.testing.assert_allclose(smooth(values), slow, atol=1e-12)


def test_samples_show_disagreement_first_and_pictures_before_none(study: Path) -> None:
    for arm in ("sft", "scale-sft"):
        path = study / arm / "seed-0/eval/world-test/predictions.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for i in (5, 80):  # the arms agree on both
            rows[i]["images"] = [f"{i}.png"]
            Image.new("RGB", (4, 4), "red").save(path.parent / f"{i}.png")
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    samples = choose_samples(load_runs(study), ("sft", "scale-sft"), "world-test", study)
    assert (samples.disagreements, samples.total, len(samples.items)) == (11, 100, SAMPLES)
    assert sum(sample.disagree for sample in samples.items) == 11
    agreeing = [sample for sample in samples.items if not sample.disagree]
    pictured = [sample for sample in agreeing if sample.images]
    assert [sample.id for sample in pictured] == ["item-5", "item-80"]
    assert pictured[0].images[0].startswith("data:image/png;base64,")
    assert [[reply.verdict for reply in sample.replies] for sample in pictured] == [["correct"] * 2, ["wrong"] * 2]


@pytest.mark.parametrize(
    ("completion", "kinds"),
    [
        ("<think>a</think>\n<answer>b</answer>", ["thinking", "answer"]),
        ("<think>a without an end", ["thinking"]),  # no answer: all of it is thinking
        ("", []),
    ],
)
def test_a_coloured_completion_is_the_whole_completion(completion: str, kinds: list[str]) -> None:
    segments = list(split_completion(completion, "think-answer"))
    assert "".join(segment.text for segment in segments) == completion
    assert [segment.kind for segment in segments] == kinds


def test_only_pictures_inside_the_run_folder_are_embedded(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    Image.new("RGB", (900, 600), "red").save(tmp_path / "secret.png")
    Image.new("RGB", (900, 600), "red").save(tmp_path / "runs/kept.png")
    (tmp_path / "runs/text.png").write_text("no picture")
    root = tmp_path / "runs"
    assert embed_image(root / "../secret.png", root) is None
    assert embed_image(root / "text.png", root) is None
    assert embed_image(root / "absent.png", root) is None
    assert embed_image(root / "nul\0.png", root) is None
    assert embed_image(root / "kept.png", root) is not None


def test_a_decompression_bomb_is_not_opened(tmp_path: Path) -> None:
    Image.new("1", (10_000, 6_000)).save(tmp_path / "bomb.png")
    assert embed_image(tmp_path / "bomb.png", tmp_path) is None


def test_markdown_and_csv_hold_hostile_names_as_text(tmp_path: Path) -> None:
    for arm in ("sft", "=cmd|`x`<b>"):
        write_run(tmp_path / arm / "seed-0", [True, False])
    tables = make_tables(load_runs(tmp_path))
    markdown = render_markdown(load_report(tmp_path))
    assert r"=cmd\|\`x\`&lt;b&gt;" in markdown
    assert "<b>" not in markdown
    assert "\n'=cmd|`x`<b>,world-test" in render_csv(tables.splits["world-test"])


def test_settings_that_differ_are_marked(study: Path) -> None:
    write_config(study / "sft/seed-0", "uniform")
    config = {setting.key: setting for setting in make_tables(load_runs(study)).config}
    assert config["training.weighting"].values == (("uniform",), ("scale",))
    assert config["training.weighting"].differs
    assert not config["lora.r"].differs


def test_the_report_never_imports_torch(study: Path) -> None:
    code = "import sys; from balanced_thinking.report import write_report; write_report(*sys.argv[1:]); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(study), str(study / "report.html")], check=True)
    assert (study / "report.html").is_file()
