"""The tasks for lmms-eval: their files, and what their functions hand on to its own scoring."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from PIL import Image

from balanced_thinking.data.convert import write_jsonl
from balanced_thinking.data.load import load_data
from balanced_thinking.lmms_tasks import __path__ as folder
from balanced_thinking.lmms_tasks import utils

FILES = sorted(file for file in Path(folder[0]).glob("*.yaml") if not file.name.startswith("_"))
THOUGHT = "<think>Two of them are blue.</think><answer>{}</answer>"


class Loader(yaml.SafeLoader):
    """YAML with lmms-eval's `!function module.name`."""


Loader.add_constructor("!function", lambda loader, node: getattr(utils, node.value.removeprefix("utils.")))


def task(file: Path) -> dict[str, Any]:
    own = yaml.load(file.read_text(), Loader)
    return {**yaml.safe_load((file.parent / own.pop("include")).read_text()), **own}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_task_names_functions_that_exist_and_leaves_the_output_complete(file: Path) -> None:
    config = task(file)
    assert config["task"] == file.stem
    assert config["reasoning_tags"] == "none"
    assert config["generation_kwargs"]["max_new_tokens"] >= 2048
    assert {metric["metric"] for metric in config["metric_list"]} >= {"malformed"}


def test_there_are_tasks() -> None:
    assert len(FILES) == 4


def test_a_converted_file_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = load_data("world", split="test", options={"n": 3}).examples
    write_jsonl(examples, Path("test.jsonl"))
    for example, doc in zip(examples, map(yaml.safe_load, Path("test.jsonl").read_text().splitlines()), strict=True):
        assert utils.question_text(doc) == example.question
        assert [picture.size for picture in utils.jsonl_visual(doc)] == [image.size for image in example.images]
        assert utils.jsonl_results(doc, [THOUGHT.format(example.answer)]) == {"exact": 1.0, "malformed": 0.0}
        assert utils.jsonl_results(doc, [THOUGHT.format("neither")]) == {"exact": 0.0, "malformed": 0.0}
        assert utils.jsonl_results(doc, ["<think>Two of"]) == {"exact": 0.0, "malformed": 1.0}


@pytest.mark.parametrize(("name", "function"), [("scienceqa", "sqa"), ("chartqa", "chartqa")])
def test_its_own_scoring_is_given_the_answer(name: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    for part in ("lmms_eval", "lmms_eval.tasks", f"lmms_eval.tasks.{name}", module := f"lmms_eval.tasks.{name}.utils"):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    score = lambda doc, results: given.append(results) or {"exact_match": 1.0}  # noqa: E731
    monkeypatch.setattr(sys.modules[module], f"{function}_process_results", score, raising=False)
    found = getattr(utils, f"{name}_results")({}, [THOUGHT.format("B")])
    assert given == [["B"]]
    assert found == {"exact_match": 1.0, "malformed": 0.0}
    assert getattr(utils, f"{name}_results")({}, ["nothing"])["malformed"] == 1.0
    assert given[1] == [""]


@pytest.mark.parametrize(
    ("doc", "text", "target"),
    [
        ({"ques_type": "choose_txt", "choices": "four,five", "answer": "five"}, "How many?\nA. four\nB. five", "B"),
        ({"ques_type": "fill_in_blank", "choices": None, "answer": "12"}, "How many?", "12"),
        (
            {"ques_type": "choose_img", "choices": "choice_0.png,choice_1.png", "answer": "choice_1.png"}
            | {f"choice_image_{k}": Image.new("RGB", (4, 4)) for k in range(2)},
            "How many?\nA. picture 2\nB. picture 3",
            "B",
        ),
    ],
)
def test_iconqa_is_asked_and_scored_as_the_adapter_reads_it(doc: dict[str, Any], text: str, target: str) -> None:
    doc |= {"question": "How many?", "question_id": "1", "query_image": Image.new("RGB", (4, 4))}
    assert (utils.iconqa_text(doc), utils.iconqa_target(doc)) == (text, target)
    assert utils.iconqa_results(doc, [THOUGHT.format(target)]) == {"anls": 1.0, "exact": 1.0, "malformed": 0.0}
    assert utils.iconqa_results(doc, ["nothing"]) == {"anls": 0.0, "exact": 0.0, "malformed": 1.0}


def test_iconqa_gives_half_a_point_for_a_near_miss() -> None:
    doc = {"question": "?", "ques_type": "fill_in_blank", "answer": "12", "query_image": Image.new("RGB", (4, 4))}
    assert utils.iconqa_results(doc, [THOUGHT.format("13")])["anls"] == 0.5


def test_a_picture_is_made_rgb() -> None:
    assert utils.chartqa_visual({"image": Image.new("L", (4, 4))})[0].mode == "RGB"
