"""Does a sample's output depend on the samples beside it?

Shapes: B samples, K generated tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.conformance.subject import Subject
from balanced_thinking.conformance.table import PropertyError
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.models.load import LoadedModel

_TOKENS = 4  # of each output
_ROUNDING = 1e-4  # largest relative difference of logits; a fault makes it many times larger


def check_generation(subject: Subject) -> str:
    """Greedy outputs of samples one by one are those of all in one batch, padded on the left."""
    loaded, rows = subject.load(), subject.prompt_rows()
    together = generated_logits(loaded, subject, rows)
    alone = torch.cat([generated_logits(loaded, subject, [row]) for row in rows])
    errors = compare_while_equal(together, alone)
    if not max(errors) <= _ROUNDING:
        worst = max(range(len(rows)), key=errors.__getitem__)
        raise PropertyError(
            f"the logits of sample {rows[worst]['id']} differ by {errors[worst]:.0e} (relative) between batch 1 and "
            f"batch {len(rows)}; at most {_ROUNDING:.0e} is rounding"
        )
    engine = LocalEngine(loaded.model, loaded.processor, subject.format, max_new_tokens=_TOKENS)
    outputs = engine.complete(subject.examples)
    for example, output, logits_KV in zip(subject.examples, outputs, alone, strict=True):
        if (single := engine.complete([example])[0]) != output and not is_tie(single, output, logits_KV):
            raise PropertyError(f"the output of sample {example.id} differs between batch 1 and batch {len(outputs)}")
    return f"{len(rows)} outputs are the same alone and in one batch; logits differ by {max(errors):.0e} (relative)"


@torch.no_grad()
def generated_logits(loaded: LoadedModel, subject: Subject, rows: list[dict[str, Any]]) -> Tensor:
    """(B, K, V) float64: the logits of greedy generation, for the prompts of `rows` in one batch."""
    inputs = ScaleCollator(loaded.processor, subject.format).collate_prompts(rows)
    output: Any = loaded.model.eval().generate(
        **inputs,
        max_new_tokens=_TOKENS,
        min_new_tokens=_TOKENS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        pad_token_id=subject.tokenizer.pad_token_id,
    )
    return torch.stack(output.logits, 1).double()


def compare_while_equal(found_BKV: Tensor, expected_BKV: Tensor) -> list[float]:
    """The largest relative difference of each sample's logits, up to the first token that is not the same."""
    errors = []
    for found_KV, expected_KV in zip(found_BKV, expected_BKV, strict=True):
        unlike = (found_KV.argmax(-1) != expected_KV.argmax(-1)).nonzero()
        until = int(unlike[0]) + 1 if len(unlike) else len(found_KV)
        errors.append(relative_difference(found_KV[:until], expected_KV[:until]))
    return errors


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, divided by the largest absolute value of `expected`."""
    return float((found - expected).abs().max() / expected.abs().max())


def is_tie(first: list[int], second: list[int], logits_KV: Tensor) -> bool:
    """Whether the first tokens that differ have logits that rounding cannot order."""
    place = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    pair = logits_KV[place, [first[place], second[place]]]
    return bool((pair[0] - pair[1]).abs() <= _ROUNDING * logits_KV[place].abs().max())
