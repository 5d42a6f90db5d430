"""Pictures in an evaluation: a refused one is named before anything is generated, and their size is recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.bad_rows import BadRowsError
from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.evaluation.engines.start import EngineOptions
from balanced_thinking.evaluation.run import evaluate
from balanced_thinking.models.load import LoadedModel, load_processor
from balanced_thinking.models.tiny import build_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that takes image options."""
    folder = tmp_path_factory.mktemp("model")
    for part in build_tiny("qwen2_5_vl"):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three questions; the second picture is 300 times as wide as high."""
    rows = []
    for name, size in (("a.png", (112, 84)), ("wide.png", (300, 1)), ("b.png", (84, 112))):
        Image.new("RGB", size, "red").save(tmp_path / name)
        rows.append({"id": f"row-{name}", "question": "Which color?", "answer": "red", "image": name})
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def forbid_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalEngine, "complete", lambda *_: pytest.fail("something was generated"))


def test_a_refused_picture_is_named_before_anything_is_generated(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_generation(monkeypatch)
    with pytest.raises(BadRowsError, match=r"picture_refused") as raised:
        evaluate(str(model), str(data), out=data.parent / "out")
    (bad,) = raised.value.rows
    assert (bad.row, bad.id, bad.problems) == (2, "row-wide.png", ("picture_refused",))
    assert "wide.png has 300 x 1 pixels" in bad.text
    assert not (data.parent / "out").exists()


def test_a_model_in_memory_refuses_it_too(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_generation(monkeypatch)
    examples = [Example("wide", "Which color?", (data.parent / "wide.png",), None, "red")]
    with pytest.raises(BadRowsError, match="picture_refused"):
        evaluate(LoadedModel(*build_tiny("qwen2_5_vl")), examples)


def test_a_model_that_takes_every_size_answers_all(data: Path) -> None:
    benchmark = Benchmark(str(data), max_new_tokens=2)
    assert evaluate(LoadedModel(*build_tiny("gemma3")), benchmark).n == 3


def test_a_refused_picture_can_be_left_out_and_is_counted(data: Path, model: Path) -> None:
    summary = evaluate(str(model), Benchmark(str(data), on_bad_row="drop", max_new_tokens=2), out=data.parent / "out")
    assert (summary.n, summary.dropped) == (2, 1)
    assert [prediction.id for prediction in summary.predictions] == ["row-a.png", "row-b.png"]
    again = evaluate(str(model), Benchmark(str(data), on_bad_row="drop", max_new_tokens=2), out=data.parent / "out")
    assert again == summary


def test_image_options_replace_those_of_the_model_and_are_recorded(data: Path, model: Path) -> None:
    benchmark = Benchmark(str(data), on_bad_row="drop", max_new_tokens=2)
    own = evaluate(str(model), benchmark, out=data.parent / "own")
    small = EngineOptions(image_options={"max_pixels": 28 * 28 * 4})
    reduced = evaluate(str(model), benchmark, engine=small, out=data.parent / "small")
    assert reduced.picture_budget["size"]["longest_edge"] == 28 * 28 * 4
    assert own.picture_budget["size"] == load_processor(str(model)).image_processor.size
    assert own.picture_budget["size"]["longest_edge"] > 28 * 28 * 4
    assert reduced.task != own.task
    assert json.loads((data.parent / "small" / "summary.json").read_text())["picture_budget"] == reduced.picture_budget
    with pytest.raises(FileExistsError, match=r"picture_budget was .*longest_edge"):
        evaluate(str(model), benchmark, engine=small, out=data.parent / "own")


def test_the_model_that_answers_has_the_image_options(data: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []

    def complete(self: LocalEngine, examples: Sequence[Example]) -> list[list[int]]:
        sides.append(self.collator.processor.image_processor.size["longest_edge"])
        return [[self.tokenizer.eos_token_id]] * len(examples)

    monkeypatch.setattr(LocalEngine, "complete", complete)
    command = ["eval", "--model", str(model), "--data", str(data), "--on-bad-row", "drop"]
    assert main([*command, "--out", str(data.parent / "o"), "--image_options.max_pixels", "3136"]) == 0
    assert sides == [3136]


class Silent(Engine):
    """An engine of one's own."""

    def complete(self, examples: Sequence[Example]) -> list[list[int]]:
        return [[] for _ in examples]


def test_texts_and_engines_of_ones_own_have_no_budget(data: Path, model: Path) -> None:
    texts = [Example("a", "Which color?", (), None, "red")]
    assert evaluate(str(model), Benchmark(texts, max_new_tokens=2)).picture_budget == {}
    engine = Silent(LocalEngine(*build_tiny("qwen2_5_vl")).scorer)
    assert evaluate(str(model), str(data), engine=engine, out=data.parent / "out").picture_budget == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image_options.max_pixel", "3136"], "max_pixels"),  # a misspelling
        (["--image_option.max_pixels", "3136"], "--image_options.NAME"),  # likewise
        (["--server", "http://localhost:1/v1", "--image_options.max_pixels", "3136"], "prepares pictures itself"),
    ],
)
def test_image_options_that_would_change_nothing_are_refused(
    words: list[str], said: str, data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", "--model", str(model), "--data", str(data), "--on-bad-row", "drop", *words]
    try:
        code: Any = main([*command, "--out", str(data.parent / "o")])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_tiny_model_has_no_image_options() -> None:
    with pytest.raises(RecipeError, match="a tiny model has none"):
        load_processor("tiny:qwen2_5_vl", {"max_pixels": 3136})


def test_engine_options_without_image_options_stay_what_they_were() -> None:
    assert replace(EngineOptions(), dtype="float32").image_options == {}
