"""An evaluation that runs out of memory goes on with smaller batches, and keeps what it has answered."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.benchmarks import Benchmark
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.evaluation.memory import EvaluationMemoryError
from balanced_thinking.evaluation.results import answer_task
from balanced_thinking.evaluation.run import evaluate
from balanced_thinking.evaluation.task import Task
from balanced_thinking.models.load import LoadedModel
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.models.weights import WeightsError, refuse_nonfinite_files
from balanced_thinking.segments import get_format
from tests.evaluation.test_run import Parrot

LACK = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes."
EXAMPLES = [Example(id=f"e{i}", question="Is it? " * (1 + i), images=(), think=None, answer="no") for i in range(7)]


class Narrow(LocalEngine):
    """Has memory for `rows` examples at a time, and for none whose id is in `refused`."""

    rows, refused = 2, ("",)

    def complete(self, examples: Sequence[Example]) -> list[list[int]]:
        self.asked.append(len(examples))
        if len(examples) > self.rows or any(example.id in self.refused for example in examples):
            raise RuntimeError(LACK)
        return [[self.tokenizer.eos_token_id] for _ in examples]


@pytest.fixture(scope="module")
def engine() -> Any:
    return Narrow(*build_tiny("qwen2"))


def _task(batch_size: int) -> Task:
    return Task(Benchmark("mine", batch_size=batch_size), "test", EXAMPLES, get_format("think-answer"), "m")


def test_a_batch_is_halved_until_it_fits(engine: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine.asked, engine.refused = [], ()
    with caplog.at_level(logging.WARNING):
        summary = answer_task(engine, _task(6), tmp_path)
    assert engine.asked == [6, 3, 1, 1, 1, 1, 1, 1, 1]  # six and then one, longest first
    assert summary.n == 7
    assert summary.reduced_batch_size == 1
    assert [record.getMessage().rpartition("; ")[2] for record in caplog.records] == [
        "the evaluation goes on with 3",
        "the evaluation goes on with 1",
    ]
    engine.asked = []
    assert answer_task(engine, _task(2), tmp_path / "small").reduced_batch_size is None
    assert engine.asked == [2, 2, 2, 1]


def test_an_example_that_does_not_fit_alone_is_named_and_the_answers_are_kept(engine: Any, tmp_path: Path) -> None:
    engine.asked, engine.refused = [], ("e2",)
    with pytest.raises(EvaluationMemoryError, match=r"4\.0 GiB .* while answering e2 alone \(a prompt of \d+ tokens"):
        answer_task(engine, _task(4), tmp_path)
    engine.asked, engine.refused = [], ()
    assert answer_task(engine, _task(4), tmp_path).n == 7
    assert sum(engine.asked) < 7


def test_a_server_s_lack_of_memory_is_its_own(tmp_path: Path) -> None:
    class Full(Parrot):
        def complete(self, examples: Sequence[Example]) -> list[list[int]]:
            raise ConnectionError("the server answered 500: out of memory")

    with pytest.raises(ConnectionError):
        answer_task(Full(), _task(4), tmp_path)


def test_weights_that_are_not_finite_are_refused_by_name_in_memory_and_in_files(tmp_path: Path) -> None:
    model, processor = build_tiny("qwen2")
    with torch.no_grad():
        model.model.norm.weight[0] = math.inf
    with pytest.raises(WeightsError, match=r"model\.norm\.weight"):
        evaluate(LoadedModel(model, processor), [EXAMPLES[0]])
    for name, options in {"one": {}, "shards": {"max_shard_size": "50KB"}}.items():
        model.save_pretrained(tmp_path / name, **options)
        with pytest.raises(WeightsError, match=r"1 tensor in .*model\S*\.safetensors .*: model\.norm\.weight"):
            refuse_nonfinite_files(str(tmp_path / name))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin .*: model\.norm\.weight"):
        refuse_nonfinite_files(str(tmp_path))
    refuse_nonfinite_files("a-hub/name")
