"""Several settings on one page, and runs that no setting contains."""

from __future__ import annotations

import csv
import html
import re
import shutil
from pathlib import Path

import pytest

from balanced_thinking.report import write_report
from balanced_thinking.report.build import Report, load_report
from balanced_thinking.report.write.page import render_page
from tests.report.synthetic import write_run


def test_several_settings_make_one_page_with_the_same_numbers_beside_it(
    runs: Path, report: Report, tmp_path: Path
) -> None:
    page = write_report(runs, tmp_path / "report.html", tmp_path / "report.md").read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)} <= set(ids)
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    for text in (html.unescape(page), markdown.replace("\\", "")):
        assert "This study has too little power in 2 of 2 settings (ratio-10, ratio-40)" in text
    for setting, contrast in report.contrasts:
        numbers = f"{contrast.points:+.1f}".replace("-", "−")
        assert setting in page
        assert numbers in html.unescape(page)
        assert numbers in markdown
    arms = list(csv.DictReader((tmp_path / "report.csv").open()))
    contrasts = list(csv.DictReader((tmp_path / "report-contrasts.csv").open()))
    assert [row["setting"] for row in arms] == ["ratio-10"] * 4 + ["ratio-40"] * 4
    assert len(contrasts) == 6
    assert (tmp_path / "report-settings.csv").is_file()
    assert float(contrasts[0]["margin"]) == 1.0


ORDER = (
    *("Verdict", "Arms", "Paired differences", "Accuracy against training time", "Training curves", "Failures"),
    *("Question families", "Costs", "Samples", "Configuration"),
)


def test_one_setting_and_several_have_their_parts_in_one_order(runs: Path, report: Report, tmp_path: Path) -> None:
    one = write_report(runs / "ratio-10", tmp_path / "one.html").read_text(encoding="utf-8")
    several = render_page(report)
    nav = re.findall(r'<a href="#[^"]+">([^<]+)</a>', one)
    assert tuple(nav) == tuple(re.findall(r"<h2[^>]*>([^<]+)</h2>", one)) == ORDER
    outer = re.findall(r"<h2[^>]*>([^<]+)</h2>", several)
    assert outer == re.findall(r'<a href="#[^"]+">([^<]+)</a>', several)
    assert outer == ["Verdict", "ratio-10", "ratio-40", "Samples", "Configuration"]
    for setting in several.split("<h2")[2:4]:
        parts = re.findall(r"<(?:h3|summary)>([^<]+)</(?:h3|summary)>", setting)
        assert parts[0] == "Verdict with its evidence, seed by seed"
        assert tuple(part for part in parts if part in ORDER) == ORDER[1:8]


def test_one_order_of_arms_colours_all_settings_and_a_run_beside_them_is_a_note(
    runs: Path, report: Report, tmp_path: Path
) -> None:
    assert not report.notes
    shutil.copytree(runs, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/ratio-10/sft")
    write_run(tmp_path / "runs/base", [True, False])
    report = load_report(tmp_path / "runs")
    assert report.notes == ("not shown, because they are beside the settings and not inside one: base",)
    assert report.arms == ("sft", "scale-sft", "sft+grpo", "scale-sft+grpo")
    assert report.sections[0].tables.arms == report.arms[1:]
    assert any("ratio-10: contrasts of the study without runs of both arms" in note for note in report.all_notes)


def test_a_run_beside_its_seeds_is_a_note(tmp_path: Path) -> None:
    for folder in ("sft/seed-0", "sft"):
        write_run(tmp_path / folder, [True, False])
    assert [note for note in load_report(tmp_path).notes if "It is not shown" in note] == [
        f"{tmp_path / 'sft'} is itself a run. It is not shown, because it contains seeds: "
        "move it to a folder of its own"
    ]


@pytest.mark.parametrize("plan", ["{}", "settings: {ratio-10: {}}"])
def test_settings_beside_arms_or_not_in_the_plan_are_a_note(tmp_path: Path, plan: str) -> None:
    (tmp_path / "study.yaml").write_text(plan)
    first = tmp_path / ("ratio-10/sft" if "settings" in plan else "sft")
    for folder in (first, tmp_path / "ratio-40/sft"):
        write_run(folder / "seed-0", [True, False])
    (note,) = load_report(tmp_path).notes
    assert note == (
        f"other folders with runs, which are not shown: ratio-40; `balanced report {tmp_path / 'ratio-40'}` shows it"
    )
