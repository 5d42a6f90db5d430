"""`balanced eval` on several data sets, each with settings of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from balanced_thinking.cli import main
from tests.cli.tiny_commands import exit_code


def test_one_call_evaluates_on_several_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = {"question": "which color ?", "answer": "red"}
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(example) + "\n")
    sets = [word for name in ("a", "b") for word in ("--data", str(tmp_path / f"{name}.jsonl"))]
    words = ["eval", "--model", "world-base", *sets, "--max-new-tokens", "4", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert capsys.readouterr().out.rstrip().endswith(str(tmp_path / "out"))
    for name in ("a", "b"):
        assert json.loads((tmp_path / "out" / f"{name}-test" / "summary.json").read_text())["n"] == 1
    (tmp_path / "out" / "b-test" / "summary.json").unlink()  # as if it had been stopped there
    before = (tmp_path / "out" / "a-test" / "summary.json").stat().st_mtime_ns
    assert main(words) == 0
    assert f"{tmp_path}/out/a-test holds these results already" in capsys.readouterr().out
    assert (tmp_path / "out" / "a-test" / "summary.json").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "b-test" / "summary.json").is_file()
    assert exit_code([*words, "--scorer", "numeric"]) == 2
    assert "already holds results" in capsys.readouterr().err


def test_each_benchmark_has_its_own_split_prompt_and_scorer(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "which color ?", "answer": "red"}) + "\n")
    plan = {
        str(tmp_path / "a.jsonl"): {"splits": ["x", "y"], "scorer": "anls", "max_new_tokens": 3},
        "world": {"options": {"n": 2}, "prompt": "instructed", "max_new_tokens": 5},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    out = tmp_path / "out"
    assert main(["eval", "--model", "world-base", "--benchmarks", str(tmp_path / "plan.yaml"), "--out", str(out)]) == 0
    found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/summary.json")}
    told = {name: (one["n"], one["prompt"], one["scorer"]) for name, one in found.items()}
    assert told == {
        "a-x": (1, "question", "anls"),
        "a-y": (1, "question", "anls"),
        "world-test": (2, "instructed", "exact"),
    }
    assert found["a-x"]["think_tokens_mean"] <= 3 < found["world-test"]["think_tokens_mean"] <= 5


def test_a_benchmark_says_by_itself_what_a_bad_row_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": "which color ?", "answer": "red"}) + "\n{")
    plan = {str(tmp_path / "a.jsonl"): {"on_bad_row": "drop"}, str(tmp_path / "b.jsonl"): {}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    words = ["eval", "--model", "world-base", "--benchmarks", str(tmp_path / "plan.yaml"), "--max-new-tokens", "3"]
    words += ["--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "b.jsonl: 1 bad row" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # nothing is generated before all data were read
    assert main([*words, "--on-bad-row", "drop"]) == 0  # fills what one leaves out
    for name in ("a-test", "b-test"):
        assert json.loads((tmp_path / "out" / name / "summary.json").read_text())["dropped"] == 1


def test_options_of_data_beside_benchmarks_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("world: {options: {n: 2}}\n")
    words = ["eval", "--model", "world-base", "--benchmarks", str(tmp_path / "plan.yaml"), "--data_options.n", "1"]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--out", str(tmp_path / "out")])


def test_options_beside_benchmarks_are_their_defaults_and_changed_data_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = json.dumps({"question": "which color ?", "answer": "red"}) + "\n"
    rows = (json.dumps({"id": str(k), "question": "which color ?", "answer": "red"}) for k in range(3))
    (tmp_path / "a.jsonl").write_text(example)
    (tmp_path / "b.jsonl").write_text("\n".join(rows))
    plan = {str(tmp_path / "a.jsonl"): {"scorer": "anls"}, str(tmp_path / "b.jsonl"): {}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    words = ["eval", "--model", "world-base", "--benchmarks", str(tmp_path / "plan.yaml"), "--max-new-tokens", "3"]
    words += ["--scorer", "relaxed", "--limit", "2", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    read = lambda name: json.loads((tmp_path / "out" / f"{name}-test" / "summary.json").read_text())  # noqa: E731
    assert (read("a")["scorer"], read("b")["scorer"], read("b")["n"]) == ("anls", "relaxed", 2)
    (tmp_path / "a.jsonl").write_text(example.replace("red", "blue"))
    assert exit_code(words) == 2
    assert "a-test already holds results" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("plan", "code", "said"),
    [
        ("world: {splits: []}", 2, "expected names such as [val, test]"),
        ("world: {splits: }", 2, "expected names such as [val, test]"),
        ("world: {options: }", 2, "options is empty"),
        ("world: {batch_size: 0}", 2, "batch_size is 0; expected at least 1"),
        ("world: {limit: many}", 2, "limit is 'many'"),
        ("world: {on_bad_row: skip}", 2, "on_bad_row is 'skip'; expected error or drop"),
        ("world: {scorer: anls}\nworld: {scorer: exact}", 2, "'world' occurs twice"),
        ("world: {scorre: exact}", 2, "did you mean 'scorer'"),
        ("world: {scorer: exat}", 2, "did you mean 'exact'"),
        ("[world]", 2, "expected data sets with options"),
        ("world: {options: {nn: 3}}", 2, "no option 'nn'"),
        ("world: {splits: [tset]}", 2, "tset"),
        ("nowhere.jsonl: {}", 2, "no path 'nowhere.jsonl'"),
    ],
)
def test_what_is_wrong_with_the_benchmarks_is_said_before_the_model_is_loaded(
    plan: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "balanced_thinking.evaluation.engines.start.load_model", lambda *_, **__: pytest.fail("it was loaded")
    )
    (tmp_path / "plan.yaml").write_text(f"{plan}\n")
    words = [
        "eval",
        "--model",
        "world-base",
        "--benchmarks",
        str(tmp_path / "plan.yaml"),
        "--out",
        str(tmp_path / "out"),
    ]
    try:
        found = main(words)
    except SystemExit as stop:
        found = stop.code
    assert found == code
    assert said in capsys.readouterr().err
