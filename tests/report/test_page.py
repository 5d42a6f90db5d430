"""The page: the same numbers as in the Markdown, self-contained, and every hostile text escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from balanced_thinking.report import write_report
from balanced_thinking.report.build import Report, load_report
from balanced_thinking.report.compare.tables import make_tables
from balanced_thinking.report.write.markdown import render_markdown
from balanced_thinking.report.write.page import render_page
from balanced_thinking.report.write.spreadsheet import render_arms_csv
from balanced_thinking.runs.load import load_runs
from tests.report.helpers import SCRIPT, Page, check_only_script, report_of
from tests.report.synthetic import row, write_run


def test_page_and_markdown_have_the_same_numbers(study: Path) -> None:
    path = write_report(study, study / "report.html", study / "report.md")
    page = html.unescape(path.read_text(encoding="utf-8"))
    for text in (page, (study / "report.md").read_text(encoding="utf-8")):
        for number in ("40.0 %", "31.0 %", "+9.0", "0.012", "2 min 0 s"):
            assert number in text.replace("\u202f", " ")
    assert (study / "report.csv").read_text().startswith("arm,split,seeds,n,accuracy")


def test_page_and_tables_name_prompt_and_scorer(study: Path) -> None:
    for place in study.glob("*/*/eval/*/summary.json"):
        about = json.loads(place.read_text())
        place.write_text(json.dumps(about | {"prompt": "instructed", "scorer": "anls", "score": 0.875}))
    html, markdown = study / "report.html", study / "report.md"
    write_report(study, html, markdown)
    for text in (html.read_text(), markdown.read_text()):
        assert "Evaluated with prompt instructed, scorer anls." in text
        assert re.search(r"Mean scores: .*0\.875", text)
    assert "prompt instructed, scorer anls" in html.with_suffix(".csv").read_text()


@pytest.mark.parametrize(("dtype", "named"), [("bfloat16", ", weights in bfloat16."), ("float32", "."), ("", ".")])
def test_the_report_names_a_dtype_that_rounds_weights(study: Path, dtype: str, named: str) -> None:
    for place in study.glob("*/*/eval/*/summary.json"):
        about = json.loads(place.read_text())
        place.write_text(json.dumps(about | {"prompt": "plain", "scorer": "exact", "dtype": dtype}))
    write_report(study, study / "report.html", study / "report.md")
    assert f"Evaluated with prompt plain, scorer exact{named}" in (study / "report.md").read_text()


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
    links = page.values("href")
    assert links
    assert all(value.startswith("#") for value in links)
    assert page.values("src") == []  # pictures of samples are in the page's data
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


def test_markdown_and_csv_hold_hostile_names_as_text(tmp_path: Path) -> None:
    for arm in ("sft", "=cmd|`x`<b>"):
        write_run(tmp_path / arm / "seed-0", [True, False])
    tables = make_tables(load_runs(tmp_path))
    markdown = render_markdown(load_report(tmp_path))
    assert r"=cmd\|\`x\`&lt;b&gt;" in markdown
    assert "<b>" not in markdown
    assert "\n'=cmd|`x`<b>,world-test" in render_arms_csv(tables.splits["world-test"])


@pytest.mark.parametrize(("page", "markdown"), [("report.md", "report.md"), ("report.html", "report.csv")])
def test_no_file_of_a_report_is_written_over_another(study: Path, page: str, markdown: str) -> None:
    with pytest.raises(ValueError, match=r"would be the same file; choose names that end in \.html"):
        write_report(study, study / page, study / markdown)
    assert not (study / page).exists()


def test_a_study_page_stays_small(report: Report) -> None:
    assert len(render_page(report).encode()) < 2_000_000


def test_the_report_never_imports_torch(study: Path) -> None:
    code = "import sys; from balanced_thinking.report import write_report; write_report(*sys.argv[1:]); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(study), str(study / "report.html")], check=True)
    assert (study / "report.html").is_file()
