"""ECQA, GSM8K, QASC and Think-ScienceQA: the authors' files, FLAN's tables, and splits of what has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.data.load import load_data
from balanced_thinking.scoring.scorers import get_scorer

GSM8K_ROW = {"question": "How many?", "answer": "He has 500*2=<<500*2=1000>>1,000.\nSo it is so.\n#### 1,000"}
FACTS = {"fact1": "Seeds grow.", "fact2": "Trees are from seeds", "combinedfact": "Trees grow."}
CHOICES = [{"text": "trees", "label": "A"}, {"text": "stones", "label": "B"}]
QASC_LINE = {"id": "q1", "question": {"stem": "What grows?", "choices": CHOICES}, "answerKey": "B", **FACTS}
QASC_HUB = {"id": "q1", "question": "What grows?", "answerKey": "B", **FACTS}
QASC_HUB["choices"] = {"text": ["trees", "stones"], "label": ["A", "B"]}
ECQA_CSV = (
    ",q_no,q_concept,q_text,q_op1,q_op2,q_op3,q_op4,q_op5,q_ans,taskA_pos,taskA_neg,taskB\n"
    '0,e1,x,Where is it?,bed,"box, open",cup,hat,jar,cup,p,n,It is in a cup.\n'
)
LISTED = "\nA. trees\nB. stones"
FACTS_TOLD = "Seeds grow. Trees are from seeds. Trees grow."

# data set, file, its text, options, (id, question, think, answer, choices)
FILES: list[tuple[str, str, str, dict[str, Any], tuple[Any, ...]]] = [
    ("gsm8k", "train.jsonl", json.dumps(GSM8K_ROW), {}, ("train-00001", "How many?", ..., "1000", ())),
    ("gsm8k", "gsm8k.tsv", "How many?\t72\tIt is 72.\n", {}, ("gsm8k-00001", "How many?", "It is 72.", "72", ())),
    (
        "qasc",
        "train.jsonl",
        json.dumps(QASC_LINE),
        {},
        ("q1", f"What grows?{LISTED}", FACTS_TOLD, "stones", ("trees", "stones")),
    ),
    (
        "qasc",
        "train.jsonl",
        json.dumps(QASC_HUB),
        {"answer_as": "letter"},
        ("q1", f"What grows?{LISTED}", FACTS_TOLD, "B", ("trees", "stones")),
    ),
    (
        "qasc",
        "qasc.tsv",
        "What grows?\\nOptions:\\n- (A) trees\\n- (B) stones\t(B)\tBecause.",
        {},
        ("qasc-00001", f"What grows?{LISTED}", "Because.", "stones", ("trees", "stones")),
    ),
    (
        "ecqa",
        "cqa_data_train.csv",
        ECQA_CSV,
        {"answer_as": "letter"},
        ("e1", ..., "It is in a cup.", "C", ("bed", "box, open", "cup", "hat", "jar")),
    ),
    (
        "ecqa",
        "ecqa.tsv",
        "What grows?\\nOptions:\\n- trees\\n- stones\tstones\tBecause.",
        {},
        ("ecqa-00001", f"What grows?{LISTED}", "Because.", "stones", ("trees", "stones")),
    ),
]


@pytest.mark.parametrize(("name", "file", "text", "options", "expected"), FILES)
def test_a_published_file_is_read(
    name: str, file: str, text: str, options: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path
) -> None:
    (tmp_path / file).write_text(text)
    (example,) = load_data(f"{name}:{tmp_path / file}", split="all", options=options).examples
    found = (example.id, example.question, example.think, example.answer, example.choices)
    assert all(wanted in (..., value) for value, wanted in zip(found, expected, strict=True)), found
    if not file.endswith(".tsv"):  # a folder has the splits of its files
        assert load_data(f"{name}:{tmp_path}", options=options).examples == [example]
        with pytest.raises(ValueError, match="no split 'test'"):
            load_data(f"{name}:{tmp_path}", split="test", options=options)


def test_gsm8ks_notes_are_left_out_and_its_sentences_counted(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(GSM8K_ROW) + "\n" + json.dumps({"question": "Why?", "answer": "Half is 0.5. #### 0.5"}))
    path = f"gsm8k:{tmp_path}"
    assert [e.think for e in load_data(path).examples] == ["He has 500*2=1,000.\nSo it is so.", "Half is 0.5."]
    assert [e.answer for e in load_data(path, options={"max_sentences": 1}).examples] == ["0.5"]
    assert get_scorer("numeric")("1,000", "1000", ()) == 1.0


@pytest.mark.parametrize(
    ("name", "file", "text", "problem"),
    [
        ("gsm8k", "x.jsonl", json.dumps({"question": "Why?", "answer": "Because."}), "unknown_schema"),  # no ####
        ("gsm8k", "x.jsonl", json.dumps({"question": "Why?", "answer": 72}), "unknown_schema"),
        ("gsm8k", "x.jsonl", json.dumps({"question": None, "answer": "Half. #### 1"}), "unknown_schema"),
        ("gsm8k", "x.tsv", "Why?\t3", "unknown_schema"),  # two columns
        ("qasc", "x.jsonl", json.dumps(QASC_LINE | {"answerKey": "C"}), "unknown_schema"),
        ("ecqa", "x.tsv", "Why?\\nOptions:\\n- a\\n- b\tc\tBecause.", "answer_not_in_choices"),
    ],
)
def test_a_row_without_a_right_answer_is_a_bad_row(
    name: str, file: str, text: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(text)
    loaded = load_data(f"{name}:{tmp_path / file}", split="all", on_bad_row="drop")
    assert [row.problems for row in loaded.bad_rows] == [(problem,)]


def test_a_file_is_divided_by_its_questions(tmp_path: Path) -> None:
    rows = [f"Question {k // 2} ?{' ' * (k % 2)}\t{k}\tIt is {k}.\n" for k in range(1200)]  # every question twice
    (tmp_path / "gsm8k.tsv").write_text("".join(rows))
    splits = ("train", "validation", "test", "all")
    found = {split: load_data(f"gsm8k:{tmp_path / 'gsm8k.tsv'}", split=split).examples for split in splits}
    questions = {split: {example.question.strip() for example in examples} for split, examples in found.items()}
    assert [len(found[split]) for split in splits] == [2 * len(questions[split]) for split in splits]
    assert sum(len(questions[split]) for split in splits[:3]) == len(questions["all"]) == 600
    assert 0.12 < len(questions["test"]) / 600 < 0.20
    assert 0.03 < len(questions["validation"]) / 600 < 0.08
    with pytest.raises(ValueError, match="no split 'dev'"):
        load_data(f"gsm8k:{tmp_path / 'gsm8k.tsv'}", split="dev")


def test_think_scienceqa_is_read_with_and_without_pictures(tmp_path: Path) -> None:
    item = {"question": "Which?", "choices": ["dog", "cat"], "answer": 1, "hint": "", "image": None, "lecture": "Look."}
    item |= {"solution": "It purrs.", "subject": "natural science", "split": "val"}
    records = {"7": item, "8": item | {"image": "image.png", "split": "test"}}
    file = tmp_path / "think.json"
    file.write_text(json.dumps(records))
    path = f"think-scienceqa:{file}"
    examples = load_data(path, split="held_out").examples
    assert [(e.id, e.answer, e.images, e.think) for e in examples] == [
        ("7", "B", (), "Look.\nIt purrs."),
        ("8", "B", (), "Look.\nIt purrs."),
    ]
    only_text = {"items": "text", "answer_as": "text"}
    assert [e.answer for e in load_data(path, split="held_out", options=only_text).examples] == ["cat"]
    loaded = load_data(path, split="test", on_bad_row="drop", options={"image_root": str(tmp_path)})
    assert [row.problems for row in loaded.bad_rows] == [("missing_image",)]
    with pytest.raises(ValueError, match="no items 'pictures'"):
        load_data(path, options={"items": "pictures"})


def test_the_real_tables_are_read(real_data: Path) -> None:
    if not (folder := real_data / "cot").is_dir():
        pytest.skip(f"no text questions at {folder}")
    for name, rows in (("ecqa", 200), ("gsm8k", 200), ("qasc", 1084)):
        examples = load_data(
            f"{name}:{folder / name}.tsv", split="all", limit=rows if name != "qasc" else None
        ).examples
        assert len(examples) == rows
        assert all(
            example.think and len(example.choices) == {"ecqa": 5, "qasc": 8}.get(name, 0) for example in examples
        )
    examples = load_data(f"think-scienceqa:{folder / 'think_scienceqa.json'}", split="held_out").examples
    assert len(examples) == 732
