"""The report: the same numbers everywhere, honest verdicts, hostile texts made harmless, unfinished runs told."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from balanced_thinking.report import write_report
from balanced_thinking.report.build import load_report
from balanced_thinking.report.compare.samples import SAMPLES, choose_samples, embed_image, split_completion
from balanced_thinking.report.compare.tables import make_tables
from balanced_thinking.report.draw.curves import draw_curves, smooth
from balanced_thinking.report.write.markdown import render_csv, render_markdown
from balanced_thinking.runs.load import load_runs
from tests.report.synthetic import outcomes, row, write_config, write_evaluation, write_run

SCRIPT = "<script>alert(1)</script>"


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


def test_page_and_markdown_tell_the_same_numbers(study: Path) -> None:
    path = write_report(study, study / "report.html", study / "report.md")
    page = html.unescape(path.read_text(encoding="utf-8"))
    for text in (page, (study / "report.md").read_text(encoding="utf-8")):
        for number in ("40.0 %", "31.0 %", "+9.0", "0.012", "2 min 0 s"):
            assert number in text.replace("\u202f", " ")
    assert (study / "report.csv").read_text().startswith("arm,split,seeds,n,accuracy")


def test_page_and_tables_say_how_it_was_asked_and_judged(study: Path) -> None:
    for place in study.glob("*/*/eval/*/summary.json"):
        about = json.loads(place.read_text())
        place.write_text(json.dumps(about | {"prompt": "instructed", "scorer": "anls", "score": 0.875}))
    html, markdown = study / "report.html", study / "report.md"
    write_report(study, html, markdown)
    for text in (html.read_text(), markdown.read_text()):
        assert "Asked and judged with prompt instructed, scorer anls." in text
        assert re.search(r"mean scores: .*0\.875", text)
    assert "prompt instructed, scorer anls" in html.with_suffix(".csv").read_text()


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


def test_a_base_that_was_only_evaluated_is_an_arm_beside_every_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"sft/seed-{seed}", [True, True, False, True], seed=seed)
    write_evaluation(tmp_path / "Qwen2.5-VL/eval/world-test", [row(i, i == 0) for i in range(4)])
    tables = make_tables(load_runs(tmp_path))
    assert tables.arms == ("sft", "Qwen2.5-VL")
    (contrast,) = tables.contrasts
    assert (contrast.arm, contrast.points, [seed.seed for seed in contrast.seeds]) == ("Qwen2.5-VL", -50, [0, 1])
    assert [note for note in tables.notes if "Qwen" in note] == [
        "Qwen2.5-VL, seed 0: no training files: its answers are compared with those of every seed"
    ]
    rows = {row.arm: row for row in tables.splits["world-test"]}
    assert [(rows[arm].seeds, rows[arm].n, rows[arm].seed_range) for arm in tables.arms] == [
        (2, 4, (0.75, 0.75)),
        (0, 4, None),
    ]
    assert {failure.arm: failure.n for failure in tables.failures} == {"sft": 8, "Qwen2.5-VL": 4}
    assert "Items: 4 of world-test. Seeds per arm: 2." in report_of(tmp_path)


def test_two_bases_are_compared_once_however_many_seeds_others_have(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path / f"tuned/seed-{seed}", [True] * 40, seed=seed)
    for arm, right in (("base", 10), ("instruct", 30)):
        write_evaluation(tmp_path / arm / "eval/world-test", [row(i, i < right) for i in range(40)])
    contrasts = {contrast.arm: contrast for contrast in make_tables(load_runs(tmp_path)).contrasts}
    assert {arm: (contrast.base, len(contrast.seeds)) for arm, contrast in contrasts.items()} == {
        "instruct": ("base", 1),
        "tuned": ("base", 3),
    }


def test_without_predictions_the_summary_is_counted(study: Path) -> None:
    (study / "sft/seed-0/eval/world-test/predictions.jsonl").unlink()
    tables = make_tables(load_runs(study))
    assert tables.splits["world-test"][0].accuracy == pytest.approx(0.31)
    assert tables.contrasts == ()


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("metrics.jsonl", '{"step": 0, "think_nll": 1.0}\n{"step": 1, "thi', "metrics.jsonl: 1 lines are not JSON"),
        ("metrics.jsonl", '{"step": 0}\n[1]\n\n"cut', "metrics.jsonl: 2 lines are not JSON objects"),
        ("provenance.json", '{"arm": ', "provenance.json cannot be read"),
        ("config.yaml", "a: [", "config.yaml cannot be read"),
        ("config.yaml", "- a", "config.yaml holds list; expected a mapping"),
        ("provenance.json", '{"arm": "sft", "finished": null}', "the run has not finished"),
        ("eval/world-test/summary.json", '{"n": 100, "correct": 77}', "summary.json says 77 of 100 correct"),
        (
            "eval/world-test/predictions.jsonl",
            '{"id": "a", "correct": true}\n{"id": "b"}\n',
            "1 rows without an id or a verdict",
        ),
        ("eval/world-test/predictions.jsonl", '{"id": "a", "correct": true}\n' * 2, "1 rows repeat an id"),
        ("eval/world-test/predictions.jsonl", "", "eval/world-test: no usable prediction; the report uses the counts"),
    ],
)
def test_damage_is_told(study: Path, file: str, content: str, note: str) -> None:
    (study / "sft/seed-0" / file).write_text(content)
    assert note in report_of(study)


@pytest.mark.parametrize(("page", "markdown"), [("report.md", "report.md"), ("report.html", "report.csv")])
def test_no_file_of_a_report_is_written_over_another(study: Path, page: str, markdown: str) -> None:
    with pytest.raises(ValueError, match="would be one file; name them with --html and --markdown"):
        write_report(study, study / page, study / markdown)
    assert not (study / page).exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("ledger.jsonl", '{"run": "sft/seed-0", "part": ["train"], "wall_seconds": 1}\n'),
        ("sft/seed-0/eval/world-test/summary.json", '{"n": -5, "correct": -1}'),
        (
            "sft/seed-0/eval/world-test/predictions.jsonl",
            f'{{"id": "a", "correct": true, "think_tokens": 1{"0" * 400}}}\n',
        ),
    ],
)
def test_values_that_cannot_be_make_a_page(study: Path, file: str, content: str) -> None:
    if file.endswith("summary.json"):
        (study / file).with_name("predictions.jsonl").unlink()
    (study / file).write_text(content)
    report_of(study)


def test_runs_without_evaluation_or_metrics_make_a_page(tmp_path: Path) -> None:
    for arm in ("sft", "scale-sft"):
        (tmp_path / "runs" / arm).mkdir(parents=True)
        (tmp_path / "runs" / arm / "config.yaml").write_text("seed: 0\n")
    text = report_of(tmp_path / "runs")
    assert "Nothing to compare yet." in text
    assert "No run has logged metrics yet." in text


def test_contrasts_of_another_split_are_told_where_the_main_one_has_none(study: Path) -> None:
    for arm in ("sft", "scale-sft"):
        write_run(study / arm / "seed-0", [arm == "sft"] * 40, split="world-longer")
    shutil.rmtree(study / "sft/seed-0/eval/world-test")
    write_report(study, study / "report.html", study / "report.md")
    for text in (html.unescape((study / "report.html").read_text()), (study / "report.md").read_text()):
        assert "takes two arms with predictions of the same items of world-test." in text
        assert "Contrasts on world-longer" in text
        assert "Paired counts on world-longer" in text
        assert "A difference counts as shown when" in text


def test_a_split_whose_evaluation_has_just_begun_makes_a_page(study: Path) -> None:
    place = study / "sft/seed-0/eval/world-longer"
    place.mkdir()
    (place / ".resume-0.jsonl").write_text("")  # as a study leaves it while it answers
    text = report_of(study)
    assert "No arm has results on this split yet." in text
    assert "Items: 100 of world-test. Seeds per arm: 1." in text


def test_a_folder_without_runs_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong/photos").mkdir(parents=True)
    for name, found in (("absent", "does not exist"), ("empty", "it is empty"), ("wrong", "found photos")):
        with pytest.raises(ValueError, match=f"{found}; expected .*balanced demo") as error:
            write_report(tmp_path / name, tmp_path / "report.html")
        assert name in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_a_number_that_no_float_holds_is_left_out(study: Path) -> None:
    (study / "sft/seed-0/metrics.jsonl").write_text(f'{{"step": 0, "think_nll": 1{"0" * 400}}}\n')
    assert "sft" not in draw_curves(load_runs(study), ("sft", "scale-sft"))[0].alternative.replace("scale-sft", "")


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
