"""What is wrong with a training or with outputs, and its cure: in the same words in the log and in the report."""

from __future__ import annotations

# Names that a row of metrics.jsonl may have in `warnings`.
TRAINING_WARNINGS = {
    "all_clipped": (
        "every completion was cut off at max_completion_length: raise it. If the texts go on after their answer, the "
        "model does not write its end token: see `balanced inspect --model`"
    ),
    "all_empty": (
        "every completion was empty: the model ends its turn at once. Compare the prompts with those of its training, "
        "and see what the chat template opens"
    ),
    "no_format": (
        "no completion had the reasoning format: start from a model that was trained on it, set reasoning_format to "
        "what the model writes, or see what the chat template opens (`balanced inspect --model`)"
    ),
    "no_advantage": (
        "all completions of a prompt had the same reward, so no gradient came from them: choose rows that the model "
        "solves sometimes, raise num_generations or temperature, or start from a model that writes the format"
    ),
    "nothing_learned": "nothing was learned: no step of the run had an advantage",
}
_MOST = 0.5  # from this share on, an accuracy says more about the settings than about the model


def advise_on_outputs(n: int, truncated: int, malformed: int, max_new_tokens: int | None = None) -> str:
    """What to change where most outputs were cut off, or have no answer; empty where most are complete."""
    if n and truncated >= _MOST * n:
        limit = f" (now {max_new_tokens})" if max_new_tokens else ""
        return f"{_share(truncated, n)} outputs were cut off: raise --max-new-tokens{limit}"
    if n and malformed >= _MOST * n:
        return (
            f"{_share(malformed, n)} outputs have no answer that can be read: choose the --format that the model "
            "writes, ask for it with --prompt instructed, or train the model on it"
        )
    return ""


def _share(part: int, n: int) -> str:
    return "all" if part == n else f"{part / n:.0%} of the"
