"""What is wrong with a training or with outputs, and its cure: in the same words in the log and in the report."""

from __future__ import annotations

from collections.abc import Mapping

from balanced_thinking.system.text import list_some

# Names that a row of metrics.jsonl may have in `warnings`.
TRAINING_WARNINGS = {
    "all_clipped": (
        "every completion was cut off at max_completion_length: raise it. If the texts go on after their answer, the "
        "model does not write its end token: see `balanced inspect --model`"
    ),
    "most_clipped": (
        "half of the completions or more were cut off at max_completion_length, so they had no answer: raise it"
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
_SHOWN_REASONS, _LONGEST_REASON = 3, 40
TOO_LONG = "context_length"  # a reason of what was withheld
TOO_LONG_CURE = "lower --max-new-tokens, or give the server a longer context (vLLM: --max-model-len)"
MAJORITY = 0.5  # from this share on, an accuracy says more about the settings than about the model


def advise_on_outputs(
    n: int, truncated: int, malformed: int, max_new_tokens: int | None = None, *, withheld: int = 0
) -> str:
    """What to change where most outputs were cut off, or have no answer; empty where most are complete.

    Of `withheld` outputs `describe_withheld` speaks.
    """
    malformed -= min(withheld, malformed)
    if n and truncated >= MAJORITY * n:
        limit = f" (now {max_new_tokens})" if max_new_tokens else ""
        return f"{_share(truncated, n)} outputs were cut off: raise --max-new-tokens{limit}"
    if n and malformed >= MAJORITY * n:
        return (
            f"{_share(malformed, n)} outputs have no answer that can be read: choose the --format that the model "
            "writes, ask for it with --prompt instructed, or train the model on it"
        )
    return ""


def describe_withheld(n: int, withheld: Mapping[str, int]) -> str:
    """What a server did not answer, and why; empty where there is nothing."""
    count = sum(withheld.values())
    if not count:
        return ""
    ordered = sorted(withheld.items(), key=lambda item: -item[1])
    reasons = list_some([f"{name[:_LONGEST_REASON]}: {number:,}" for name, number in ordered], _SHOWN_REASONS)
    cures = [f"for {TOO_LONG}, {TOO_LONG_CURE}"] if TOO_LONG in withheld else []
    if withheld.keys() - {TOO_LONG}:
        cures.append(
            "see its log, or its provider's settings of filters; --max-new-tokens and --format do not change it"
        )
    return (
        f"{'all' if count == n else f'{count:,} of {n:,}'} outputs were withheld by the server ({reasons}) and count "
        f"as wrong: {'. For the others, '.join(cures)}"
    )


def withholds_most(n: int, withheld: Mapping[str, int]) -> bool:
    """Whether so many outputs were withheld that an accuracy says more about the server than about the model."""
    return bool(n) and sum(withheld.values()) >= MAJORITY * n


def _share(part: int, n: int) -> str:
    return "all" if part == n else f"{part / n:.0%} of the"
