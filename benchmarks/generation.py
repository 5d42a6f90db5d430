"""Answers to an evaluation's examples, against transformers' own batched generation of the same tokens.

    python benchmarks/generation.py [--size tiny|small] [--examples 128] [--batch 32] [--rounds 3] [--json FILE]
    python benchmarks/generation.py --size 3b --device cuda --json benchmarks/results/generation-3b-cuda.json

Commands of record: `--size tiny`, and `--size small --examples 32 --batch 16 --rounds 2` (2 CPU cores, 2 and 6
minutes). Greedy answers of random weights, each ended after a number of tokens drawn from a log-normal distribution
with a median of 128, as ragged as published rationales are. The examples lie in the order of the data.

| contestant | what it is |
| --- | --- |
| `ours` | `balanced eval`'s generator: like lengths together, rows that have ended leave the batch |
| `transformers` | `generate` on batches in the order of the data, until the last row has ended |
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from balanced_thinking.cpu.attention import fast_matmuls_and_attention
from balanced_thinking.data.example import Example
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.data.world import load
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.evaluation.results import batches_by_length
from harness import Figures, contest, measured, options_of, peak_mib, reset_peak, table
from sft_step import BATCHES, build

CONTESTANTS = ("ours", "transformers")
SPREAD = 0.6


class TokenCounts(NamedTuple):
    """How many tokens an answer has: drawn from a log-normal distribution, by its prompt."""

    median: int = 128
    most: int = 512

    def of(self, prompt_ids: tuple[int, ...]) -> int:
        drawn = random.Random(repr(prompt_ids)).lognormvariate(0, SPREAD)
        return min(self.most, max(8, int(self.median * drawn)))


class EndsWhenTold(LogitsProcessor):
    """Lets each row say its stop token after a number of tokens of its own, told by its prompt, and never before."""

    def __init__(self, generator: LocalEngine, tokens: TokenCounts) -> None:
        self.tokens = tokens
        self.stop, self.padding = generator.tokenizer.eos_token_id, generator.tokenizer.pad_token_id
        self.starts: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.starts = self.starts or input_ids.shape[1]
        written = input_ids.shape[1] - self.starts
        scores[:, self.stop] = float("-inf")
        for row, ids in enumerate(input_ids[:, : self.starts].tolist()):
            if written >= self.tokens.of(tuple(token for token in ids if token != self.padding)) - 1:
                scores[row] = float("-inf")
                scores[row, self.stop] = 0.0
        return scores


def measure(name: str, options: argparse.Namespace) -> Figures:
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    tokens = TokenCounts(options.median_tokens, options.most_tokens)
    model, processor = build(options.size, options.device)
    generator = LocalEngine(model.to(options.device), processor, max_new_tokens=tokens.most)
    examples = list(load(split="test", n=options.examples))
    generate = model.generate

    def told(**inputs: Any) -> Any:
        return generate(**inputs, logits_processor=LogitsProcessorList([ends]))

    model.generate = told
    answers: list[int] = [0] * len(examples)
    batches = [list(range(i, min(i + options.batch, len(examples)))) for i in range(0, len(examples), options.batch)]
    if name == "ours":
        batches = batches_by_length(examples, options.batch)
    complete = generator.complete if name == "ours" else lambda chunk: whole_batch(generator, chunk)
    before, wall, cpu = 0.0, 0.0, 0.0
    with fast_matmuls_and_attention() if name == "ours" else nullcontext():
        for k, batch in enumerate([batches[0][:2], *batches]):  # the first is a warm-up
            if k == 1:
                before, wall, cpu = reset_peak(), time.perf_counter(), time.process_time()
            ends = EndsWhenTold(generator, tokens)
            for index, ids in zip(batch, complete([examples[i] for i in batch]), strict=True):
                answers[index] = len(ids)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = torch.cuda.max_memory_allocated() / 2**20 if options.device == "cuda" else peak_mib(before)
    return {
        "tokens_per_second": sum(answers) / wall,
        "cpu_seconds": cpu,
        "peak_mib": memory,
        "tokens": float(sum(answers)),
    }


@torch.inference_mode()
def whole_batch(generator: LocalEngine, examples: list[Example]) -> list[list[int]]:
    """What an evaluation script does: `generate`, then cut each row after its stop token."""
    rows = [{"id": e.id, "prompt": prompt_messages(e), "images": list(e.images)} for e in examples]
    inputs = {k: v.to(generator.model.device) for k, v in generator.collator.collate_prompts(rows).items()}
    start, stop = inputs["input_ids"].shape[1], generator.tokenizer.eos_token_id
    options = {"eos_token_id": stop, "pad_token_id": generator.tokenizer.pad_token_id}
    found = generator.model.generate(**inputs, max_new_tokens=generator.max_new_tokens, do_sample=False, **options)
    return [ids[: ids.index(stop) + 1] for ids in found[:, start:].tolist()]


def main() -> int:
    parser = options_of(__doc__, CONTESTANTS, rounds=3)
    parser.add_argument("--size", choices=tuple(BATCHES), default="tiny", help="of the model (default tiny)")
    parser.add_argument("--examples", type=int, default=128, help="to answer (default 128)")
    parser.add_argument("--batch", type=int, default=32, help="rows of a batch (default 32)")
    counts = TokenCounts()
    parser.add_argument("--median-tokens", type=int, default=counts.median, help="of an answer (default 128)")
    parser.add_argument("--most-tokens", type=int, default=counts.most, help="of an answer (default 512)")
    options = parser.parse_args()
    if options.measure:
        measured(options.measure, options, measure)
        return 0
    passed_on = ("size", "examples", "batch", "median_tokens", "most_tokens", "threads", "device")
    arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in passed_on]
    about = {name: getattr(options, name) for name in passed_on[:5]}
    result = contest(__file__, options, CONTESTANTS, arguments, "transformers", **about)
    memory = "GPU's peak MiB" if options.device == "cuda" else "added peak MiB"
    columns = {"tokens_per_second": "tokens/s:,.0f", "cpu_seconds": "CPU s:.1f", "peak_mib": f"{memory}:,.0f"}
    print(table(result, columns, "transformers"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
