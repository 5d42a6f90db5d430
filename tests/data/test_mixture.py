"""Several data sets in one run: what the entries may say, whose rows come when, and that a resume goes on exactly."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.cli import main
from balanced_thinking.config.errors import UsageError
from balanced_thinking.data.bad_rows import BadRowsError, DataError
from balanced_thinking.data.load import check_first_row, load_data, stream_data
from balanced_thinking.data.mixture import describe_data, list_parts, mix_rows, validation_data
from balanced_thinking.data.rows import to_dataset

SIZES = {"a": 12, "b": 3, "world": 4}  # rows


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large set `a.jsonl`, a small one `b.jsonl`, and a folder of splits `c` whose file names are those of `d`."""
    monkeypatch.chdir(tmp_path)
    for name, rows in (("a", 12), ("b", 3), ("c/train", 2), ("c/validation", 1), ("d/train", 2)):
        file = tmp_path / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        kind = name.replace("/", " ")
        texts = [{"question": f"{kind}, item {k}?", "think": f"It is {k}.", "answer": str(k)} for k in range(rows)]
        file.write_text("".join(json.dumps(row) + "\n" for row in texts))
    return tmp_path


def owners(rows: Any) -> list[str]:
    return [identity.partition(":")[0] for identity in rows["id"]]


def mixed(data: Any, seed: int = 0) -> Any:
    return mix_rows(to_dataset(stream_data(data)), data, seed)


def test_the_rows_of_a_list_follow_each_other_with_the_set_in_their_ids(sets: Path) -> None:
    loaded = load_data(["a.jsonl", {"data": "b.jsonl", "limit": 2}, {"data": "world", "data_options": {"n": 1}}])
    assert Counter(example.id.partition(":")[0] for example in loaded.examples) == {"a": 12, "b": 2, "world": 1}
    assert loaded.examples[12].id == "b:b-000001"
    assert len({example.id for example in loaded.examples}) == 15


def test_sets_of_one_name_stay_apart(sets: Path) -> None:
    names = [example.id for example in load_data(["c/train.jsonl", "d/train.jsonl"]).examples]
    assert names == ["train:train-000001", "train:train-000002", "train-2:train-000001", "train-2:train-000002"]
    assert load_data([{"data": "c", "name": "mine"}]).examples[0].id == "mine:train-000001"


def test_a_single_entry_and_a_name_give_the_same_rows(sets: Path) -> None:
    (one, *_), (other, *_) = load_data("a.jsonl").examples, load_data(["a.jsonl"]).examples
    assert (one.question, one.answer, f"a:{one.id}") == (other.question, other.answer, other.id)


def test_options_and_limits_of_an_entry_come_before_those_of_the_run(sets: Path) -> None:
    entries = ["a.jsonl", {"data": "b.jsonl", "limit": 1, "split": "test", "data_options": {"format": "direct"}}]
    first, second = list_parts(entries, "train", 5, {"format": "auto", "image_root": "x"})
    assert (first.split, first.limit, first.options) == ("train", 5, {"format": "auto", "image_root": "x"})
    assert (second.split, second.limit, second.options) == ("test", 1, {"format": "direct", "image_root": "x"})


WRONG = [
    ([], "data is []"),  # nothing
    (3, "data is 3"),  # no list
    ([3], "entry 1 of data is 3"),  # no name
    (["a.jsonl", {"path": "b.jsonl"}], "entry 2 of data is {'path'"),  # no data
    (["a.jsonl", {"data": "b.jsonl", "wieght": 2}], "no key 'wieght' (did you mean 'weight'?)"),  # misspelt
    ([{"data": "b.jsonl", "weight": 0}], "weight 0; expected a number above 0"),
    ([{"data": "b.jsonl", "weight": -1}], "weight -1"),
    ([{"data": "b.jsonl", "weight": "much"}], "weight 'much'"),
    ([{"data": "b.jsonl", "weight": True}], "weight True"),
    ([{"data": "b.jsonl", "weight": float("nan")}], "weight nan"),
    ([{"data": "b.jsonl", "limit": 0}], "limit 0; expected at least 1 row"),
    ([{"data": "b.jsonl", "split": 1}], "split 1"),
    ([{"data": "b.jsonl", "data_options": "x"}], "data_options 'x'; expected a mapping"),
    (["a.jsonl", "nowhere.jsonl"], "nowhere.jsonl"),  # a set that does not exist
    ([{"data": "b.jsonl", "data_options": {"image_rot": "x"}}], "did you mean 'image_root'"),
]


@pytest.mark.parametrize(("data", "text"), WRONG)
def test_an_entry_that_cannot_be_used_is_named_before_anything_is_read(sets: Path, data: Any, text: str) -> None:
    with pytest.raises(UsageError) as failure:
        stream_data(data)
    assert text in str(failure.value)


def test_without_weights_every_row_is_there_once(sets: Path) -> None:
    rows = mixed(["a.jsonl", "b.jsonl"])
    assert owners(rows) == ["a"] * 12 + ["b"] * 3


WEIGHTS = [
    ([("a", 1), ("b", 1)], {"a": 12, "b": 12}),  # equal shares: the small set is read four times
    ([("a", 3), ("b", 1)], {"a": 12, "b": 4}),  # one row of b is read twice
    ([("a", 4), ("b", 1)], {"a": 12, "b": 3}),  # as large as their weights: every row once
    ([("a", 0.2), ("b", 0.8)], {"a": 12, "b": 48}),  # the large set is the rare one
    ([("a", 100), ("b", 1)], {"a": 300, "b": 3}),  # the small set is the rare one
    ([("a", None), ("b", 4)], {"a": 12, "b": 48}),  # an entry without a weight has weight 1
    ([("a", 1), ("b", 1), ("world", 1)], {"a": 12, "b": 12, "world": 12}),
    ([("a", 1 / 3), ("b", 2 / 3)], {"a": 12, "b": 24}),
]


@pytest.mark.parametrize(("weights", "counts"), WEIGHTS)
def test_weights_are_shares_and_every_row_is_read(sets: Path, weights: Any, counts: dict[str, int]) -> None:
    data = [entry(name) | ({"weight": w} if w is not None else {}) for name, w in weights]
    rows = mixed(data)
    assert Counter(owners(rows)) == counts
    times: dict[str, list[int]] = {name: [] for name in counts}
    for identity, n in Counter(rows["id"]).items():
        times[identity.partition(":")[0]].append(n)
    assert all(max(found) - min(found) <= 1 for found in times.values())  # no row is preferred
    assert {name: len(found) for name, found in times.items()} == {n: SIZES[n] for n in counts}


def entry(name: str) -> dict[str, Any]:
    return {"data": "world", "data_options": {"n": 4}} if name == "world" else {"data": f"{name}.jsonl"}


def test_an_order_belongs_to_its_seed(sets: Path) -> None:
    data = [{"data": "a.jsonl", "weight": 1}, {"data": "b.jsonl", "weight": 1}]
    first, again, other = (mixed(data, seed)["id"] for seed in (5, 5, 6))
    assert list(first) == list(again) != list(other)


def test_a_set_without_usable_rows_is_named(sets: Path) -> None:
    (sets / "bad.jsonl").write_text('{"question": "Q"}\n')
    data = [{"data": "a.jsonl", "weight": 1}, "bad.jsonl"]
    rows = to_dataset(stream_data(data, on_bad_row="drop"))
    with pytest.raises(DataError, match=r"bad\.jsonl has no usable row"):
        mix_rows(rows, data, 0)
    with pytest.raises(BadRowsError):
        check_first_row(data, "train", {})


def test_a_bad_row_says_which_set_it_is_in(sets: Path) -> None:
    (sets / "b.jsonl").write_text('{"question": "Q"}\nnot json\n')
    bad = load_data(["a.jsonl", "b.jsonl"], on_bad_row="drop").bad_rows
    assert [(row.row, row.id, row.problems) for row in bad] == [
        (1, "b:b-000001", ("no_answer",)),
        (2, "b", ("invalid_json",)),
    ]


def test_validation_reads_the_splits_that_entries_name(sets: Path) -> None:
    data = ["a.jsonl", {"data": "b.jsonl", "validation_split": None}, {"data": "c", "validation_split": "validation"}]
    chosen = validation_data(data)
    assert [(part.name, part.split) for part in list_parts(chosen, "test")] == [("a", "test"), ("c", "validation")]
    assert validation_data("world") == "world"
    with pytest.raises(UsageError, match="validation_split is null"):
        validation_data([{"data": "b.jsonl", "validation_split": None}])


def test_a_list_is_described_in_one_line() -> None:
    assert describe_data("world") == "world"
    assert describe_data([{"data": "x", "weight": 2}, "y"]) == "x (weight 2) + y (weight 1)"
    assert describe_data(list("abcdef")) == "a + b + c + d + 2 more"


def test_inspect_and_convert_take_several(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "a.jsonl", "b.jsonl"]) == 0
    assert "a.jsonl b.jsonl, split train: 15 examples, 0 bad rows" in capsys.readouterr().out
    assert main(["convert", "a.jsonl", "b.jsonl", "--out", "both.jsonl"]) == 0
    assert len(load_data("both.jsonl").examples) == 15


SFT = ["--model", "tiny:qwen2_5_vl", "--per_device_train_batch_size", "2", "--gradient_checkpointing", "false"]
SFT += ["--logging_steps", "1", "--learning_rate", "1e-3", "--save_strategy", "steps", "--save_steps", "2"]
SFT += ["--weighting", "uniform", "--lr_scheduler_type", "constant"]


def losses(run: Path) -> list[tuple[Any, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def test_a_resumed_mixture_takes_the_steps_of_one_that_was_not_stopped(
    sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", "{data: a.jsonl, weight: 1}", "--data", "{data: b.jsonl, weight: 3}"]
    for steps, more in ((4, ["--out", "once"]), (2, ["--out", "twice"])):
        assert main(["sft", *SFT, *data, *more, "--max_steps", str(steps)]) == 0
    assert "a.jsonl (weight 1) + b.jsonl (weight 3), train:" in capsys.readouterr().err
    assert main(["sft", "--out", "twice", "--resume", "--max_steps", "4"]) == 0
    assert losses(sets / "once") == losses(sets / "twice")
    once, twice = (sets / run / "model" / "model.safetensors" for run in ("once", "twice"))
    assert once.read_bytes() == twice.read_bytes()
    saved = (sets / "twice" / "config.yaml").read_text()
    assert "weight: 3" in saved
    assert "a.jsonl" in saved
