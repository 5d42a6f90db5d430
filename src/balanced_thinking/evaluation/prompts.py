"""Prompts: how an example's question is put to the model. To add one, write a function, name it in `PROMPTS`.

A benchmark's figure belongs to a pair of a prompt and a scorer (`docs/data.md` lists the usual ones); every summary and
report names both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.data.example import Example
from balanced_thinking.segments import ReasoningFormat, render

Prompt = Callable[[Example, ReasoningFormat], str]


def question(example: Example, format: ReasoningFormat) -> str:
    """The question as the adapter writes it, options included: what models are trained on here."""
    return example.question


def instructed(example: Example, format: ReasoningFormat) -> str:
    """The question, and what an output must look like: for models that were not trained on the format."""
    shape = render("your reasoning, step by step", "your final answer", format)
    return f"{example.question}\n\nWrite your output exactly in this form:\n{shape}"


def _with(line: str) -> Prompt:
    """The question with lmms-eval 0.7.3's line of a benchmark behind it, which leaves no room to reason."""
    return lambda example, format: f"{example.question}\n{line}"


def get_prompt(name: str) -> Prompt:
    """The prompt of this name. Raises ValueError for an unknown one."""
    if name not in PROMPTS:
        raise ValueError(f"there is no prompt {name!r}{did_you_mean(name, PROMPTS)}; known: {', '.join(PROMPTS)}")
    return PROMPTS[name]


def apply_prompt(example: Example, prompt: str, format: ReasoningFormat) -> Example:
    """The example with its question put as the prompt puts it."""
    return replace(example, question=get_prompt(prompt)(example, format))


PROMPTS: dict[str, Prompt] = {
    "question": question,
    "instructed": instructed,
    "lmms-scienceqa": _with("Answer with the option's letter from the given choices directly."),
    "lmms-chartqa": _with("Answer the question with a single word."),
    "lmms-vqa": _with("Answer the question using a single word or phrase."),
}
