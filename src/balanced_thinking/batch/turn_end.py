"""The token that ends a turn: what the chat template writes after the assistant's text, and where generation stops.

The template, the tokenizer's `eos_token` and the model's `generation_config` may each name another one. The first
special token after the assistant's text is what a model learns to end its turn with, so generation must stop at it.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any, NamedTuple

from jinja2.exceptions import TemplateError

from balanced_thinking.batch.messages import template_messages
from balanced_thinking.batch.special_tokens import SpecialTokens
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.models.processor_parts import takes_pictures, tokenizer_of

logger = logging.getLogger(__name__)
# What a chat template raises: by its own decision, or because a message is not as it expects.
TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError)
_PROBE = "Yes"  # an answer that no template rewrites


class TurnEnd(NamedTuple):
    """How a completion ends.

    Attributes:
        text: everything after the assistant's text, with an end token in it; without words after that token.
        before: the part of `text` before the end token.
        token: the end token; None where there is none.
        id: its id in the vocabulary.
        appended: whether the template left it out.
    """

    text: str
    before: str
    token: str | None
    id: int | None
    appended: bool = False


class TurnEnds:
    """Decides how completions end, by what the chat template of a processor wrote after the assistant's text."""

    def __init__(self, processor: Any) -> None:
        self._processor, self._tokenizer = processor, tokenizer_of(processor)
        self._special = SpecialTokens(processor)
        self._known: dict[str, TurnEnd] = {}  # a template has one, or very few

    @cached_property
    def usual(self) -> str | None:
        """What the template writes after any text of the assistant; None without a template, or one that refuses."""
        if getattr(self._processor, "chat_template", None) is None:
            return None
        images = 0 if takes_pictures(self._processor) else None
        talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _PROBE}]
        try:
            messages = template_messages(talk, images, "probe")
            text = self._processor.apply_chat_template(messages, tokenize=False)
        except (RowError, *TEMPLATE_ERRORS):
            return None
        start = text.rfind(_PROBE)
        return None if start < 0 else text[start + len(_PROBE) :]

    def complete(self, written: str) -> TurnEnd:
        """The end of a turn after which the template wrote this text.

        Some templates write no end token (LLaVA-1.5's). A model that never sees one does not learn to stop, so the
        tokenizer's `eos_token` is appended.
        """
        if written not in self._known:
            self._known[written] = self._find_end(written)
        return self._known[written]

    def _find_end(self, written: str) -> TurnEnd:
        ids = self._tokenizer.convert_tokens_to_ids
        if (found := self._special.find_first(written)) is not None:
            end = found.start + len(found.token)
            text = written[:end] if self._has_words(written[end:]) else written
            return TurnEnd(text, written[: found.start], found.token, ids(found.token))
        eos = self._tokenizer.eos_token
        if eos is None:
            return TurnEnd(written, written, None, None)
        return TurnEnd(written.rstrip() + eos, written.rstrip(), eos, ids(eos), appended=True)

    def _has_words(self, text: str) -> bool:
        """Whether there is more than white space and special tokens: the start of a turn that nobody has taken."""
        for token in self._special.tokens:
            text = text.replace(token, "")
        return bool(text.strip())


def find_turn_end(processor: Any) -> TurnEnd | None:
    """How the processor's chat template ends a turn of the assistant; None without a template, or one that refuses."""
    ends = TurnEnds(processor)
    return None if ends.usual is None else ends.complete(ends.usual)


def stop_token_ids(generation_config: Any, tokenizer: Any) -> list[int]:
    """The ids at which generation stops, by the model's settings and its tokenizer; sorted."""
    named = getattr(generation_config, "eos_token_id", None)
    found = {one for one in ([named] if isinstance(named, int) else named or []) if isinstance(one, int)}
    return sorted(found | ({tokenizer.eos_token_id} - {None}))


def add_stop_token(model: Any, processor: Any) -> TurnEnd | None:
    """Let the model's own settings stop where its chat template ends a turn; they are saved with it.

    Returns the end that was added; None where they stopped there already, or nothing is known about it.
    """
    config, tokenizer = getattr(model, "generation_config", None), tokenizer_of(processor)
    end = find_turn_end(processor)
    if config is None or end is None or end.id is None or end.id in stop_token_ids(config, tokenizer):
        return None
    config.eos_token_id = [*stop_token_ids(config, tokenizer), end.id]
    logger.info("%s", describe_added_stop(end, tokenizer))
    return end


def describe_added_stop(end: TurnEnd, tokenizer: Any) -> str:
    """One line for the log."""
    return (
        f"the chat template ends a turn with {end.token!r}, which neither eos_token ({tokenizer.eos_token!r}) nor "
        "generation_config names: it is added to the tokens at which generation stops"
    )


def ensure_pad_token(tokenizer: Any, token: str | None = None) -> Any:
    """The tokenizer with this token for padding; without one it keeps its own, else takes its end token, as in TRL.

    Padding is masked and never a target. Raises ValueError for a token that the vocabulary does not have, and where
    there is none.
    """
    if token is not None and token not in tokenizer.get_vocab():
        raise ValueError(f"pad_token is {token!r}, which the tokenizer does not have; expected one of its tokens")
    chosen = token or tokenizer.pad_token or tokenizer.eos_token
    if chosen is None:
        raise RecipeError(
            "the tokenizer has neither a pad_token nor an eos_token, so that samples of a batch cannot be padded; set "
            "pad_token to one of its tokens, here or in its tokenizer_config.json"
        )
    tokenizer.pad_token = chosen
    return tokenizer
