"""`evaluate`, the one path of Python, the command line and studies."""

from __future__ import annotations

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from balanced_thinking import Benchmark, Example, evaluate, load_model
from balanced_thinking.cli import main
from balanced_thinking.data.bad_rows import BadRowsError
from balanced_thinking.data.load import load_data
from balanced_thinking.data.world import load
from balanced_thinking.evaluation import in_the_way, run, task
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.evaluation.engines import start
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.evaluation.engines.start import EngineOptions, read_engine, weights_identity
from balanced_thinking.evaluation.model import EvaluatedModel
from balanced_thinking.evaluation.run import evaluate_benchmarks
from balanced_thinking.evaluation.training_rows import count_training_rows
from balanced_thinking.models.load import LoadedModel
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.runs.evaluations import Evaluation, Tally
from balanced_thinking.runs.records import SCHEMA, Summary
from tests.cli.tiny_commands import exit_code

SMALL = Benchmark("world", options={"n": 3}, max_new_tokens=4)


def tiny(architecture: str = "qwen2_5_vl") -> LoadedModel:
    return LoadedModel(*build_tiny(architecture))


def questions(n: int = 3) -> list[Example]:
    return [Example(str(i), "which color ?", (), None, "red") for i in range(n)]


class Parrot(Engine):
    """Answers red, and counts what it is asked."""

    name = "parrot"

    def __init__(self) -> None:
        super().__init__(CompletionScorer(build_tiny("qwen2")[1]))
        self.asked: list[str] = []

    def complete(self, examples: Any) -> list[list[int]]:
        self.asked += [example.id for example in examples]
        return [self.tokenize_completion("<think>a</think><answer>red</answer>", True) for _ in examples]


class OtherParrot(Parrot):
    name = "another"


def test_its_signature_is_the_documented_one() -> None:
    parameters = signature(evaluate).parameters
    assert list(parameters) == ["model", "benchmark", "split", "engine", "out"]
    assert parameters["split"].default == "test"
    assert all(parameters[name].kind is parameters[name].KEYWORD_ONLY for name in ("engine", "out"))


def test_a_loaded_model_answers_a_list_of_examples_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = list(load(split="test", n=3))
    summary = evaluate(tiny(), Benchmark(examples, max_new_tokens=4))
    assert (summary.n, summary.data, summary.schema) == (3, "examples", SCHEMA)
    assert [prediction.id for prediction in summary.predictions] == [example.id for example in examples]
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_examples_alone_is_a_benchmark() -> None:
    engine = Parrot()
    summary = evaluate("world-base", questions(), engine=engine)
    assert (summary.n, summary.correct, summary.engine) == (3, 3, "parrot")
    assert summary.max_new_tokens == Benchmark("world").max_new_tokens == engine.max_new_tokens


def test_an_instruction_may_name_the_special_tags_of_the_format_that_is_asked_for() -> None:
    loaded = tiny("qwen2")
    loaded.processor.add_tokens(["<|begin_of_box|>", "<|end_of_box|>"], special_tokens=True)
    loaded.model.resize_token_embeddings(len(loaded.processor))
    benchmark = Benchmark(questions(), format="glm-box", prompt="instructed", max_new_tokens=2)
    assert evaluate(loaded, benchmark).n == 3


def test_bad_examples_are_refused_or_dropped_as_bad_rows() -> None:
    rows = [*questions(2), Example("empty", "", (), None, "red")]
    with pytest.raises(BadRowsError, match="no_question"):
        evaluate("world-base", rows, engine=Parrot())
    assert evaluate("world-base", Benchmark(rows, on_bad_row="drop"), engine=Parrot()).dropped == 1
    with pytest.raises(ValueError, match="there is nothing to evaluate"):
        evaluate("world-base", [], engine=Parrot())


def write_questions(file: Path, first: int, last: int) -> str:
    rows = [{"question": f"What is {n} ?", "think": "so .", "answer": str(n)} for n in range(first, last)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_items_that_the_model_was_trained_on_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of its own run and of the run that it starts from. A file may be every split."""
    trained, new = write_questions(tmp_path / "a.jsonl", 0, 3), write_questions(tmp_path / "b.jsonl", 3, 7)
    third = write_questions(tmp_path / "c.jsonl", 7, 9)
    for name, recipe in {
        "first": {"model": "world-base", "data": [trained, {"data": third, "limit": 1}]},
        "second": {"model": str(tmp_path / "first"), "data": new, "stage": "grpo"},
    }.items():
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
        (tmp_path / name / "config.yaml").write_text(json.dumps(recipe))
    first, second = (EvaluatedModel(name, "", config=tmp_path / name / "config.yaml") for name in ("first", "second"))

    def count(model: EvaluatedModel, data: str, split: str = "test") -> int:
        return count_training_rows(model, Benchmark(data), split, load_data(data).examples)

    assert [count(first, data) for data in (trained, new, third)] == [3, 0, 1]
    assert "c.jsonl, split test: 1 of 2 items are rows that the model was trained on" in caplog.text
    assert [count(second, data) for data in (trained, new, third)] == [3, 4, 1]
    relative = {"model": "./first", "data": "b.jsonl", "stage": "grpo"}  # started in another folder than this one
    (tmp_path / "second" / "config.yaml").write_text(json.dumps(relative))
    (tmp_path / "second" / "provenance.json").write_text(json.dumps({"working_folder": ".."}))
    assert [count(second, data) for data in (trained, new, third)] == [3, 4, 1]
    assert count(EvaluatedModel("hub/name", "hub/name"), trained) == 0
    world = {"model": "tiny:qwen2", "data": "world", "data_options": {"n": 4}}
    (tmp_path / "first" / "config.yaml").write_text(json.dumps(world))
    asked = load_data("world", options={"n": 6}).examples
    assert count_training_rows(first, Benchmark("world"), "train", asked) == 4
    assert count_training_rows(first, Benchmark("world"), "test", asked) == 0  # another split of the same set


def test_a_summary_and_a_report_say_that_items_are_training_rows() -> None:
    summary = Summary(n=1, correct=1, data="mine", scorer="exact", trained_on=1, dtype="float32")
    found = Evaluation("mine-test", Path(), summary, Tally(1, 1))
    assert found.asked == "prompt question, scorer exact, 1 of 1 items are training rows"


def test_a_second_call_returns_the_finished_result(tmp_path: Path) -> None:
    first, second = Parrot(), Parrot()
    done = evaluate("world-base", questions(), engine=first, out=tmp_path)
    again = evaluate("world-base", questions(), engine=second, out=tmp_path)
    assert again == done
    assert again.predictions == done.predictions
    assert (len(first.asked), second.asked) == (3, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"benchmark": Benchmark(questions(), scorer="numeric")}, "scorer was exact and is numeric"),
        ({"benchmark": Benchmark(questions(), max_new_tokens=9)}, "max_new_tokens was 512 and is 9"),
        ({"benchmark": questions(2)}, "other weights or prompts, other items"),
        ({"split": "val"}, "split was test and is val"),
        ({"model": "elsewhere"}, "model was world-base and is elsewhere"),
        ({"engine": OtherParrot()}, "engine was parrot and is another"),
    ],
)
def test_results_of_another_evaluation_stay_and_the_difference_is_named(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    call: dict[str, Any] = {"model": "world-base", "benchmark": questions()}
    evaluate(**call, engine=Parrot(), out=tmp_path)
    before = (tmp_path / "summary.json").read_bytes()
    with pytest.raises(FileExistsError, match=f"already holds results of another evaluation .*{said}.*--overwrite"):
        evaluate(**(call | {"engine": Parrot()} | change), out=tmp_path)
    assert (tmp_path / "summary.json").read_bytes() == before


def stop_an_evaluation(out: Path, engine: Parrot | None = None) -> dict[str, Any]:
    """The arguments of an evaluation with the first two of its answers in `out`."""
    call: dict[str, Any] = {"model": "world-base", "benchmark": Benchmark(questions(5), batch_size=2)}
    engine = engine or Parrot()
    complete = engine.complete

    def fail_in_the_second_batch(examples: Any) -> list[list[int]]:
        if engine.asked:
            raise KeyboardInterrupt
        return complete(examples)

    engine.complete = fail_in_the_second_batch  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        evaluate(**call, engine=engine, out=out)
    return call


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"benchmark": Benchmark(questions(5), scorer="numeric")}, "scorer was exact and is numeric"),
        ({"benchmark": Benchmark(questions(5), prompt="instructed")}, "prompt was question and is instructed"),
        ({"benchmark": Benchmark(questions(5), limit=3)}, "number of items was 5 and is 3"),
        ({"benchmark": list(reversed(questions(5)))}, "the same settings, with other weights or prompts"),
    ],
)
def test_answers_of_an_unfinished_evaluation_stay_and_the_difference_is_named(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    call = stop_an_evaluation(tmp_path)
    before = (tmp_path / ".resume-0.jsonl").read_bytes()
    other = Parrot()
    with pytest.raises(
        FileExistsError, match=rf"{tmp_path} holds 2 answers of another .* not finished \({said}.*--overwrite"
    ):
        evaluate(**(call | change), engine=other, out=tmp_path)
    assert (tmp_path / ".resume-0.jsonl").read_bytes() == before
    assert other.asked == []
    rest = Parrot()
    assert evaluate(**call, engine=rest, out=tmp_path).n == 5
    assert len(rest.asked) == 3


def test_answers_of_an_unfinished_evaluation_are_deleted_where_that_was_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop_an_evaluation(tmp_path)
    other, benchmark = Parrot(), Benchmark(questions(5), scorer="numeric", splits=("test",))
    (found,) = evaluate_benchmarks("world-base", [benchmark], engine=other, out=tmp_path, overwrite=True)
    assert (found.summary.scorer, len(other.asked)) == ("numeric", 5)
    assert "holds 2 answers of another evaluation" in caplog.text
    assert sorted(path.name for path in tmp_path.glob(".resume*")) == []


def test_another_model_of_a_server_does_not_continue_an_evaluation(tmp_path: Path) -> None:
    first, other, again = Parrot(), Parrot(), Parrot()
    first.served_model = again.served_model = "model-one"
    other.served_model = "model-two"
    call = stop_an_evaluation(tmp_path, first)
    with pytest.raises(FileExistsError, match="server's model model-one, but the server has model-two now"):
        evaluate(**call, engine=other, out=tmp_path)
    assert other.asked == []
    summary = evaluate(**call, engine=again, out=tmp_path)
    assert (summary.n, len(again.asked), summary.served_model) == (5, 3, "model-one")


def test_answers_of_a_server_s_other_model_are_deleted_where_that_was_asked_for(tmp_path: Path) -> None:
    first, other = Parrot(), Parrot()
    first.served_model, other.served_model = "model-one", "model-two"
    stop_an_evaluation(tmp_path, first)
    benchmark = Benchmark(questions(5), batch_size=1, splits=("test",))
    (found,) = evaluate_benchmarks("world-base", [benchmark], engine=other, out=tmp_path, overwrite=True)
    assert (len(other.asked), found.summary.served_model) == (5, "model-two")


def test_answers_of_an_earlier_version_name_no_settings(tmp_path: Path) -> None:
    call = stop_an_evaluation(tmp_path)
    file = tmp_path / ".resume-0.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], *lines[2:]]))
    with pytest.raises(FileExistsError, match=r"holds 2 answers .*an earlier version began it"):
        evaluate(**(call | {"benchmark": questions(4)}), engine=Parrot(), out=tmp_path)
    assert evaluate(**call, engine=Parrot(), out=tmp_path).n == 5


def test_all_ranks_hear_of_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank may see no file yet, as on a slow network file system."""
    monkeypatch.setattr(in_the_way, "broadcast_object_list", lambda _: ["runs/x holds 2 answers"])
    with pytest.raises(FileExistsError, match="runs/x holds 2 answers"):
        evaluate("world-base", questions(), engine=Parrot(), out=tmp_path)


def test_a_file_without_an_answer_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".resume-0.jsonl").write_text('another\n{"scorer": "numeric"}\n[0.0, 0.0, []]\n')
    assert evaluate("world-base", questions(), engine=Parrot(), out=tmp_path).n == 3


def test_results_that_cannot_be_read_stay(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"schema": 99}')
    with pytest.raises(FileExistsError, match=r"schema 99; .*upgrade; choose another --out"):
        evaluate("world-base", questions(), engine=Parrot(), out=tmp_path)


def test_a_model_in_memory_is_known_by_its_weights(tmp_path: Path) -> None:
    loaded, benchmark = tiny("qwen2"), Benchmark(questions(), max_new_tokens=3)
    done = evaluate(loaded, benchmark, out=tmp_path)
    assert evaluate(loaded, benchmark, out=tmp_path) == done
    with torch.no_grad():
        next(loaded.model.parameters()).add_(1e-3)
    with pytest.raises(FileExistsError, match="other weights"):
        evaluate(loaded, benchmark, out=tmp_path)


FILES = ["chat_template.jinja", "tokenizer.json", "config.json", "model.safetensors", "vocab.json", "merges.txt"]
FILES += ["special_tokens_map.json", "spiece.model", "vocab.txt", "additional_chat_templates/tools.jinja"]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_is_known_by_every_file_that_an_answer_depends_on(name: str, tmp_path: Path) -> None:
    """A chat template that was edited writes other prompts."""
    (file := tmp_path / name).parent.mkdir(exist_ok=True)
    file.write_text("{}")
    before = weights_identity(EngineOptions(), str(tmp_path))
    assert weights_identity(EngineOptions(), str(tmp_path)) == before
    file.write_text("{ }")
    assert weights_identity(EngineOptions(), str(tmp_path)) != before


def test_a_folder_is_known_as_before_where_it_holds_no_further_files(tmp_path: Path) -> None:
    """Results of earlier versions stay the results of a folder that did not change."""
    stamps = []
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (file := tmp_path / name).write_text("{}")
        stamps.append(f"{name}:2:{file.stat().st_mtime_ns}")
    (tmp_path / "README.md").write_text("no part of the model")
    assert weights_identity(EngineOptions(), str(tmp_path)) == f"None None transformers {' '.join(stamps)}"


def test_an_adapter_is_known_by_its_base_too(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder, name in ((base, "config.json"), (base, "model.safetensors"), (adapter, "adapter_model.safetensors")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = weights_identity(EngineOptions(), str(adapter))
    assert weights_identity(EngineOptions(), str(adapter)) == before
    (base / "model.safetensors").write_text("{ }")
    assert weights_identity(EngineOptions(), str(adapter)) != before
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "world-base"}))
    assert weights_identity(EngineOptions(), str(adapter)).endswith(" base(world-base )")


def test_a_hub_name_is_known_by_its_commit_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = [weights_identity(EngineOptions(), "owner/name")]
    for commit in ("a" * 40, "b" * 40):
        (snapshot := tmp_path / "models--owner--name" / "snapshots" / commit).mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (tmp_path / "models--owner--name" / "refs").mkdir(exist_ok=True)
        (tmp_path / "models--owner--name" / "refs" / "main").write_text(commit)
        found.append(weights_identity(EngineOptions(), "owner/name"))
    assert found == [f"None None transformers {text}" for text in ("", f"commit:{'a' * 40}", f"commit:{'b' * 40}")]


def test_the_weights_are_known_after_the_processor_was_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading it may bring another commit of a hub name into the cache."""
    happened: list[str] = []
    monkeypatch.setattr(run, "load_processor", lambda *_: happened.append("processor") or build_tiny("qwen2")[1])
    monkeypatch.setattr(run, "weights_identity", lambda *_: happened.append("weights") or "")
    source = run.ModelSource.connect("owner/name", EngineOptions(dtype="float32"))
    source.make_task(Benchmark(questions()), "test")
    assert happened == ["processor", "weights"]


def test_a_model_in_memory_keeps_its_mode_and_is_answered_without_dropout() -> None:
    loaded, benchmark = tiny("qwen2"), Benchmark(questions(1), max_new_tokens=3)
    model = loaded.model.train()
    model.model.layers[0].eval()
    modes = {name: part.training for name, part in model.named_modules()}
    during: list[bool] = []
    model.register_forward_pre_hook(lambda part, _: during.append(part.training))
    evaluate(loaded, benchmark)
    assert during
    assert not any(during)
    assert {name: part.training for name, part in model.named_modules()} == modes


def test_data_are_read_once_and_the_model_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, loaded = [], []
    load_data, load_any = task.load_data, start.load_model
    monkeypatch.setattr(task, "load_data", lambda data, **how: read.append(how["split"]) or load_data(data, **how))
    monkeypatch.setattr(start, "load_model", lambda name, **how: loaded.append(name) or load_any(name, **how))
    benchmarks = [replace(SMALL, splits=("test", "test_compositional"))]
    found = evaluate_benchmarks("world-base", benchmarks, out=tmp_path)
    assert (read, loaded) == (["test", "test_compositional"], ["world-base"])
    assert [one.folder for one in found] == [tmp_path / "world-test", tmp_path / "world-test_compositional"]
    evaluate_benchmarks("world-base", benchmarks, out=tmp_path)
    assert loaded == ["world-base"]  # everything is finished


def test_python_and_the_command_line_give_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate("world-base", SMALL, out=tmp_path / "python")
    words = ["--data_options.n", "3", "--max-new-tokens", "4", "--out", str(tmp_path / "command")]
    command = ["eval", "--model", "world-base", "--data", "world", *words]
    assert main(command) == 0
    files = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("python", "command")]
    assert files[0] == files[1]
    both = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("python", "command")]
    assert both[0]["task"] == both[1]["task"]
    assert main(command) == 0  # again: the finished result
    assert exit_code([*command, "--scorer", "numeric"]) == 2
    assert "scorer was exact and is numeric" in capsys.readouterr().err
    assert main([*command, "--scorer", "numeric", "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (None, EngineOptions()),
        ("vllm", EngineOptions("vllm")),
        ("http://localhost:8000/v1", EngineOptions(server="http://localhost:8000/v1")),
        (EngineOptions(dtype="bfloat16"), EngineOptions(dtype="bfloat16")),
    ],
)
def test_an_engine_has_short_forms(engine: Any, expected: EngineOptions) -> None:
    assert read_engine(engine) == expected


@pytest.mark.parametrize(
    ("model", "engine", "said"),
    [
        ("world-base", "vlm", "no engine 'vlm' (did you mean 'vllm'?)"),
        (tiny, "vllm", "the model is in memory and generates there"),
        (
            lambda: build_tiny("qwen2")[0],
            None,
            "is a Qwen2ForCausalLM; expected a path, a hub name",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_data_are_read(
    model: Any, engine: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_task_data", lambda *_: pytest.fail("data was read"))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared below)
        evaluate(model if isinstance(model, str) else model(), "world", engine=engine)
    assert said in str(caught.value)


def test_load_model_gives_what_evaluate_takes(tmp_path: Path) -> None:
    loaded = load_model("world-base")
    summary = evaluate(loaded, Benchmark(questions(1), format="direct", max_new_tokens=4), out=tmp_path)
    assert (summary.model, summary.format, summary.dtype) == (loaded.source, "direct", "float32")
