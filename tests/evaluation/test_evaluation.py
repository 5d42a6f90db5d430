"""Generation and scoring: batching changes nothing, every sample is kept, the counts are right."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from balanced_thinking.data.example import Example
from balanced_thinking.data.registry import result_folder_name
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.data.world import load
from balanced_thinking.evaluation import results, resume
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.evaluation.engines.local import FinishedSequences, LocalEngine
from balanced_thinking.evaluation.results import answer_task, batches_by_length, summarize
from balanced_thinking.evaluation.task import Task, item_digest
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.segments import get_format
from balanced_thinking.statistics.intervals import wilson_interval
from balanced_thinking.system.process import Clock
from tests.conftest import ARCHITECTURES


def evaluate_examples(model: Any, examples: Any, out: Path, **about: Any) -> Any:
    """`answer_task` on a task of these examples; the limit is the engine's own."""
    named = {"split": "test", "model_name": "tiny", "weights": ""} | about
    chosen = {name: about[name] for name in ("batch_size", "scorer") if name in about}
    benchmark = Benchmark(about.get("data", "x"), max_new_tokens=model.max_new_tokens, **chosen)
    task = Task(benchmark, named["split"], examples, get_format("think-answer"), named["model_name"], named["weights"])
    return answer_task(model, task, out)


def generator(architecture: str, max_new_tokens: int = 12) -> LocalEngine:
    return LocalEngine(*build_tiny(architecture), max_new_tokens=max_new_tokens)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_sample_is_answered_alike_alone_and_in_a_batch(architecture: str) -> None:
    examples = [next(load(split="test", n=1, seed=s)) for s in range(3)]
    examples.append(Example("none", "which color ?", (), None, "red"))
    model = generator(architecture)
    together = model.complete(examples)
    for example, ids in zip(examples, together, strict=True):
        assert model.complete([example]) == [ids]


def restless(architecture: str, max_new_tokens: int) -> LocalEngine:
    """A model that never says the same twice: its weights are large and its head shares none with the embedding."""
    model = generator(architecture, max_new_tokens)
    for name, parameter in model.model.double().named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            parameter.data.mul_(6)
    head = model.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(
        torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0)).double()
    )
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_that_have_ended_leave_the_batch_and_the_others_say_what_they_would_have(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [next(load(split="test", n=1, seed=seed)) for seed in range(5)]
    examples.append(Example("none", "which color ?", (), None, "red"))
    model = restless(architecture, max_new_tokens=30)
    alone = [model.complete([example])[0] for example in examples]
    model.scorer.stops = sorted({said[at] for said, at in zip(alone, (3, 6, 12, 20), strict=False)})
    expected = [said[: next((i for i, t in enumerate(said) if t in model.scorer.stops), 29) + 1] for said in alone]
    assert len({len(said) for said in expected}) >= 4
    generate, sizes = model._generate, []
    monkeypatch.setattr(model, "_generate", lambda i, *a: sizes.append(len(i["input_ids"])) or generate(i, *a))
    assert model.complete(examples) == expected
    assert sizes[0] == 6
    assert all(2 * later <= earlier for earlier, later in pairwise(sizes))
    assert len(sizes) > 1


@pytest.mark.parametrize(
    ("text", "stopped", "expected"),
    [
        # a well-formed right answer
        ("<think>a b</think><answer>red</answer>", True, {"correct": True, "malformed": False, "truncated": False}),
        # a wrong one
        ("<think>a b</think><answer>blue</answer>", True, {"correct": False, "malformed": False, "truncated": False}),
        # no answer: malformed, and not right although the word occurs
        ("<think>red red</think>", True, {"correct": False, "malformed": True, "truncated": False}),
        # cut off while thinking: malformed and truncated
        ("<think>red red", False, {"correct": False, "malformed": True, "truncated": True}),
        # cut off inside the answer, which may have gone on: not right, though what is there would be
        ("<think>a b</think><answer>red", False, {"correct": False, "malformed": False, "truncated": True}),
        # stopped by itself without the closing tag: all of the answer is there
        ("<think>a b</think><answer>red", True, {"correct": True, "malformed": False, "truncated": False}),
        # ended where the answer is closed: nothing is missing
        ("<think>a b</think><answer>red</answer>", False, {"correct": True, "malformed": False, "truncated": False}),
    ],
)
def test_outputs_are_judged_by_the_parser(text: str, stopped: bool, expected: dict[str, bool]) -> None:
    model = generator("qwen2")
    ids = model.tokenizer(text).input_ids + [model.tokenizer.eos_token_id] * stopped
    prediction = model.scorer.score_completion(Example("one", "?", (), None, "red"), ids)
    assert {name: getattr(prediction, name) for name in expected} == expected
    assert prediction.completion == text
    assert prediction.think_tokens + prediction.answer_tokens == len(ids)


@pytest.mark.parametrize(
    ("text", "format", "correct"),
    [
        # a format without a closing tag: what is cut off may have gone on
        ("<think>a</think>red", "deepseek-r1", False),
        # the box is closed
        ("a \\boxed{red} .", "boxed", True),
        ("a \\boxed{red", "boxed", False),
    ],
)
def test_an_answer_that_was_cut_off_is_never_right(text: str, format: str, correct: bool) -> None:
    model = LocalEngine(*build_tiny("qwen2"), reasoning_format=format)
    prediction = model.scorer.score_completion(Example("one", "?", (), None, "red"), model.tokenizer(text).input_ids)
    assert (prediction.prediction, prediction.correct, prediction.truncated) == ("red", correct, True)


def test_a_text_only_model_is_refused_data_with_pictures_before_anything_is_written(tmp_path: Path) -> None:
    examples = [Example("none", "which color ?", (), None, "red"), *load(split="test", n=2)]
    with pytest.raises(ValueError, match=r"takes text only, but 2 of 3 examples have pictures \(test-0-000000"):
        evaluate_examples(generator("qwen2"), examples, tmp_path / "out", data="world", split="test", model_name="tiny")
    assert not (tmp_path / "out").exists()


def test_results_stay_until_new_ones_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [Example(str(i), "which color ?", (), None, "red") for i in range(3)]
    about: dict[str, Any] = {"data": "x", "split": "test", "model_name": "tiny", "batch_size": 1}
    model = generator("qwen2")
    evaluate_examples(model, examples, tmp_path, **about)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"predictions.jsonl", "summary.json"}
    with pytest.raises(ValueError, match="did you mean 'exact'"):
        evaluate_examples(model, examples, tmp_path, scorer="exactly", **about)
    monkeypatch.setattr(model, "complete", lambda chunk: [[model.tokenizer.eos_token_id]] if chunk[0].id == "0" else 0)
    with pytest.raises(TypeError):
        evaluate_examples(model, examples, tmp_path, **about)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("world", "world-test"),
        ("puzzlevqa:some/folder", "puzzlevqa-test"),
        ("some/mine.jsonl", "mine-test"),
        ("some/mine.v2.jsonl", "mine.v2-test"),
        ("jsonl:some/mine.jsonl", "mine-test"),
        ("some/test.jsonl", "some-test"),  # the stem is the split
        (".", "here-test"),  # a folder, here the current one
        ("test.jsonl", "here-test"),
    ],
)
def test_results_are_named_after_the_data_and_the_split(
    data: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert result_folder_name(data, "test") == expected


@pytest.mark.parametrize(("split", "expected"), [("dev/easy", "mine-dev-easy"), ("../../x", "mine-..-..-x")])
def test_results_of_any_split_lie_in_one_folder(split: str, expected: str) -> None:
    assert result_folder_name("mine.jsonl", split) == expected


def test_every_sample_is_kept_in_order_and_the_summary_counts_them(tmp_path: Path) -> None:
    examples = list(load(split="test", n=5))
    model = generator("qwen2_5_vl")
    summary = evaluate_examples(model, examples, tmp_path, data="world", split="test", model_name="tiny", batch_size=2)
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()
    ]
    assert [row["id"] for row in rows] == [example.id for example in examples]
    assert all((tmp_path / row["images"][0]).is_file() for row in rows)
    assert json.loads((tmp_path / "summary.json").read_text())["n"] == summary.n == 5
    assert (summary.wilson_low, summary.wilson_high) == wilson_interval(summary.correct, 5)
    assert summary.malformed == sum(row["malformed"] for row in rows)


def test_the_summary_tells_what_was_asked_and_by_whom(tmp_path: Path) -> None:
    examples = [Example(str(i), "which color ?", (), None, "red") for i in range(3)]
    about: dict[str, Any] = {"data": "x", "split": "test", "model_name": "tiny"}
    summary = evaluate_examples(generator("qwen2", 7), examples, tmp_path / "a", **about)
    assert (summary.engine, summary.max_new_tokens) == ("transformers", 7)
    again = evaluate_examples(generator("qwen2", 3), examples, tmp_path / "b", **about)
    assert again.items == summary.items
    other = [replace(examples[0], question="which colour ?"), *examples[1:]]
    changed = evaluate_examples(generator("qwen2"), other, tmp_path / "c", **about)
    assert changed.items != summary.items
    rows = [json.loads((tmp_path / name / "predictions.jsonl").read_text().splitlines()[0]) for name in "abc"]
    assert rows[0]["digest"] == rows[1]["digest"] != rows[2]["digest"]


def test_an_item_is_told_by_its_pictures_wherever_they_lie(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path, color in zip(paths, ("red", "red", "blue"), strict=True):
        Image.new("RGB", (8, 8), color).save(path)
    same, moved, other = (item_digest(Example("one", "which color ?", (path,), None, "red")) for path in paths)
    assert same == moved != other


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(ValueError, match="--split"):
        summarize([], data="x", split="y", scorer="exact", format="think-answer", wall_seconds=0.0, model="m")


def test_generation_is_greedy_and_repeatable() -> None:
    examples = list(load(split="test", n=2))
    model = generator("gemma3")
    torch.manual_seed(1)
    first = model.complete(examples)
    torch.manual_seed(2)
    assert model.complete(examples) == first


@pytest.mark.parametrize("setting", [{"repetition_penalty": 1.5}, {"min_new_tokens": 20}, {"no_repeat_ngram_size": 1}])
def test_a_checkpoint_s_own_generation_settings_play_no_part(setting: dict[str, Any]) -> None:
    examples = [next(load(split="test", n=1, seed=seed)) for seed in range(3)]
    model = generator("qwen2_5_vl", max_new_tokens=20)  # says one token again and again, then another one
    model.scorer.stops = [model.complete(examples[:1])[0][-1]]
    plain = model.complete(examples)
    for name, value in setting.items():
        setattr(model.model.generation_config, name, value)
    told = copy(model.model.generation_config)
    assert model.complete(examples) == plain
    assert model.model.generation_config == told  # saved with the model as it was
    rows = [{"prompt": prompt_messages(example), "images": list(example.images)} for example in examples[:1]]
    inputs = model.collator.collate_prompts(rows)
    swayed = model.model.generate(**inputs, max_new_tokens=20, do_sample=False, eos_token_id=model.scorer.stops)
    assert swayed[0, inputs["input_ids"].shape[1] :].tolist() != plain[0]  # elsewhere they do


CLOSED = "<think>a b</think><answer>red</answer>"


@pytest.mark.parametrize(
    ("text", "format", "expected"),
    [
        (CLOSED, "think-answer", True),
        (CLOSED + " and then some", "think-answer", False),  # malformed, and so is what comes
        ("<think>a b</think><answer>red", "think-answer", False),
        ("<think>a <answer>b</answer>", "think-answer", False),  # still thinking: it may answer yet
        ("red</answer>", "think-answer", False),
        ("\\boxed{red}", "boxed", False),  # another box may follow
        (CLOSED, "auto", True),
        (CLOSED, "direct", False),
    ],
)
def test_a_generation_ends_where_the_format_closes_the_answer(text: str, format: str, expected: bool) -> None:
    tokenizer = build_tiny("qwen2")[1]
    prompt = tokenizer("<answer>which</answer> ?").input_ids
    rows = torch.tensor([prompt + tokenizer(text).input_ids])
    scorer = CompletionScorer(tokenizer, (), format)
    assert FinishedSequences(scorer, len(prompt), 1000)(rows, None).tolist() == [expected]


def test_rows_that_have_answered_stop_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = generator("qwen2", max_new_tokens=60)
    long, short = "<think>a b c d e</think><answer>blue</answer>", CLOSED
    said = [model.tokenizer(f"{text} more words").input_ids for text in (short, long)]
    longest = max(map(len, said))

    class Told:
        """Writes what it was told to, whatever it is asked."""

        def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            step = ids.shape[1] - starts[0]
            for row, tokens in enumerate(said[-len(ids) :]):  # the first one ends first
                scores[row] = float("-inf")
                scores[row, tokens[min(step, len(tokens) - 1)]] = 0.0
            return scores

    generate, starts = model.model.generate, []

    def forced(**inputs: Any) -> Any:
        starts.append(inputs["input_ids"].shape[1])
        return generate(**inputs, logits_processor=[Told()])

    monkeypatch.setattr(model.model, "generate", forced)
    found = model.complete([Example(str(i), "which ?", (), None, "red") for i in range(2)])
    assert [model.tokenizer.decode(ids) for ids in found] == [short, long]
    assert longest < 60
    assert not model.scorer.score_completion(Example("0", "which ?", (), None, "red"), found[0]).truncated


def test_an_evaluation_that_was_stopped_goes_on_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = list(load(split="test", n=7))
    about: dict[str, Any] = {"data": "world", "split": "test", "model_name": "tiny", "batch_size": 2}
    model = generator("qwen2_5_vl")
    evaluate_examples(model, examples, tmp_path / "whole", **about)
    complete, asked = model.complete, []

    def failing(chunk: list[Example]) -> list[list[int]]:
        asked.extend(example.id for example in chunk)
        if len(asked) > 4:
            raise KeyboardInterrupt
        return complete(chunk)

    monkeypatch.setattr(model, "complete", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate_examples(model, examples, tmp_path / "cut", **about)
    partial = tmp_path / "cut" / ".resume-0.jsonl"
    # The kill came in the middle of a row, and of a character.
    partial.write_bytes(partial.read_bytes()[:-20] + "ü".encode()[:1])
    first, asked[:] = asked[:2], []
    monkeypatch.setattr(model, "complete", lambda chunk: asked.extend(e.id for e in chunk) or complete(chunk))
    evaluate_examples(model, examples, tmp_path / "cut", **about)
    assert sorted([*asked, *first]) == sorted(example.id for example in examples)
    files = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    assert not partial.exists()
    asked.clear()
    replaced = [replace(examples[0], answer="another"), *examples[1:]]
    monkeypatch.setattr(model, "complete", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate_examples(model, examples, tmp_path / "cut", **about)
    asked.clear()
    monkeypatch.setattr(model, "complete", lambda chunk: asked.extend(e.id for e in chunk) or complete(chunk))
    evaluate_examples(model, replaced, tmp_path / "cut", **about)
    assert len(asked) == 7  # another gold is another evaluation
    asked.clear()
    evaluate_examples(model, examples, tmp_path / "cut", **about, weights="retrained")
    assert len(asked) == 7


def test_the_seconds_of_an_evaluation_that_was_stopped_are_those_of_all_its_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batches = generator("qwen2"), []
    monkeypatch.setattr(resume, "read_clock", lambda: Clock(10.0 * len(batches), 3.0 * len(batches)))

    def complete(chunk: list[Example]) -> list[list[int]]:
        """A batch takes ten seconds; the process is killed in the third one and, started again, in the fifth."""
        batches.append(chunk)
        if len(batches) in (3, 5):
            raise KeyboardInterrupt
        return [[model.tokenizer.eos_token_id] for _ in chunk]

    monkeypatch.setattr(model, "complete", complete)
    examples = [Example(str(i), "which color ?", (), None, "red") for i in range(6)]
    about: dict[str, Any] = {"data": "x", "split": "test", "model_name": "tiny", "batch_size": 1}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate_examples(model, examples, tmp_path, **about)
    summary = evaluate_examples(model, examples, tmp_path, **about)
    assert len(batches) == 8
    assert (summary.wall_seconds, summary.cpu_seconds) == (60.0, 18.0)


def test_a_smaller_batch_keeps_what_was_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = list(load(split="test", n=7))
    about: dict[str, Any] = {"data": "world", "split": "test", "model_name": "tiny"}
    model, asked = generator("qwen2_5_vl"), []
    complete = model.complete

    def failing(chunk: list[Example]) -> list[list[int]]:
        if asked:
            raise MemoryError
        asked.extend(example.id for example in chunk)
        return complete(chunk)

    monkeypatch.setattr(model, "complete", failing)
    with pytest.raises(MemoryError):
        evaluate_examples(model, examples, tmp_path, **about, batch_size=4)
    monkeypatch.setattr(model, "complete", lambda chunk: asked.extend(e.id for e in chunk) or complete(chunk))
    assert evaluate_examples(model, examples, tmp_path, **about, batch_size=2).n == 7
    assert sorted(asked) == sorted(example.id for example in examples)  # each one once


def test_what_was_answered_outlives_a_failure_of_the_last_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = list(load(split="test", n=4))
    about: dict[str, Any] = {"data": "world", "split": "test", "model_name": "tiny", "batch_size": 2}
    model = generator("qwen2_5_vl")
    with monkeypatch.context() as patch:
        patch.setattr(results, "_write_pictures", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            evaluate_examples(model, examples, tmp_path, **about)
    monkeypatch.setattr(model, "complete", lambda chunk: pytest.fail("it was answered already"))
    assert evaluate_examples(model, examples, tmp_path, **about).n == 4


def test_batches_hold_every_example_once_and_like_lengths_together() -> None:
    examples = [Example(str(i), "word " * (i * 7 % 10), (), None, "red") for i in range(10)]
    batches = batches_by_length(examples, 3)
    assert sorted(index for batch in batches for index in batch) == list(range(10))
    lengths = [len(examples[index].question) for batch in batches for index in batch]
    assert lengths == sorted(lengths, reverse=True)
