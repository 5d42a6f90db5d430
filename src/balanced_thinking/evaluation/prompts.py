"""Prompts: the text of a question as the model gets it. To add one, write a function and name it in `PROMPTS`.

A benchmark's figure belongs to a pair of a prompt and a scorer; `docs/data.md` lists the usual pairs. Every summary and
report names both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.data.example import Example
from balanced_thinking.segments import ReasoningFormat, render

Prompt = Callable[[Example, ReasoningFormat], str]


def plain_question(example: Example, format: ReasoningFormat) -> str:
    """The question as the adapter writes it, options included; training uses the same text."""
    return example.question


def question_with_format(example: Example, format: ReasoningFormat) -> str:
    """The question and the form of the output, for models that were not trained on the format."""
    shape = render("your reasoning, step by step", "your final answer", format)
    return f"{example.question}\n\nWrite your output exactly in this form:\n{shape}"


def _question_then(line: str) -> Prompt:
    """The question, then lmms-eval 0.7.3's line for a benchmark, which leaves no room to reason."""
    return lambda example, format: f"{example.question}\n{line}"


def get_prompt(name: str) -> Prompt:
    """The prompt of this name. Raises ValueError for an unknown one."""
    if name not in PROMPTS:
        raise ValueError(f"there is no prompt {name!r}{did_you_mean(name, PROMPTS)}; known: {', '.join(PROMPTS)}")
    return PROMPTS[name]


def apply_prompt(example: Example, prompt: str, format: ReasoningFormat) -> Example:
    """The example with the question that the prompt makes of it."""
    return replace(example, question=get_prompt(prompt)(example, format))


PROMPTS: dict[str, Prompt] = {
    "question": plain_question,
    "instructed": question_with_format,
    "lmms-scienceqa": _question_then("Answer with the option's letter from the given choices directly."),
    "lmms-chartqa": _question_then("Answer the question with a single word."),
    "lmms-vqa": _question_then("Answer the question using a single word or phrase."),
}
