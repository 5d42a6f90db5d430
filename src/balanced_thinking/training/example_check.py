"""What training would refuse, found with the model's processor by the check that runs before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from balanced_thinking.data.bad_rows import BadRow
from balanced_thinking.data.checks import find_written_problems, to_bad_row
from balanced_thinking.data.example import Example
from balanced_thinking.data.rows import to_dataset, to_prompts_dataset
from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.segments import ReasoningFormat, get_format


class ModelCheck(NamedTuple):
    """The examples that can be trained on, and the others.

    `tokens` are those of each complete sample, 0 where they were not counted; `measured` are the examples in their
    order, the good ones first. `are_complete`: whether completions were checked, too, as SFT's are.
    """

    examples: list[Example]
    bad_rows: list[BadRow]
    tokens: list[int]
    measured: list[Example]
    are_complete: bool = True


def has_chat_template(processor: Any) -> bool:
    """Whether a processor, or a tokenizer, can write a prompt. Without one, only lengths can be counted."""
    tokenizer = tokenizer_of(processor)
    return any(getattr(one, "chat_template", None) for one in (processor, tokenizer))


def check_with_model(
    examples: Sequence[Example], format: str | ReasoningFormat, processor: Any, max_length: int | None
) -> ModelCheck:
    """Check examples as SFT would take them, or their prompts alone, as GRPO would, if none has reasoning."""
    # Imported here, because without a model no inspection needs torch.
    from balanced_thinking.batch.collator import ScaleCollator
    from balanced_thinking.batch.row_check import RowChecker
    from balanced_thinking.training.preflight import check_rows

    if not examples:
        return ModelCheck([], [], [], [])
    written = get_format(format)
    trained = any(example.think for example in examples) or not written.think_required
    rows = to_dataset(examples, format) if trained else to_prompts_dataset(examples)
    checker = RowChecker(ScaleCollator(processor, format, max_length), completions=trained, count_all=True)
    found = check_rows(rows, checker, "rows")
    problems = {index: list(named) for index, named in found.problems.items()}
    if trained:
        for index, example in enumerate(examples):
            if named := find_written_problems(example, written):
                problems[index] = named
    good = [index for index in range(len(examples)) if index not in problems]
    bad_rows = [to_bad_row(examples[index], index + 1, named) for index, named in sorted(problems.items())]
    order = (*good, *sorted(problems))
    tokens = [found.tokens[index] for index in order]
    measured = [examples[index] for index in order]
    return ModelCheck([examples[index] for index in good], bad_rows, tokens, measured, trained)
