"""The tokenizer of the tiny models: byte-level BPE like the real ones, so that any text survives a round trip.

Its merges are learned from the words of the embedded world, so that each of these is one token.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from balanced_thinking.data.world.questions import FAMILIES
from balanced_thinking.data.world.scene import COLORS, PLACES, SHAPES, SIZES
from balanced_thinking.data.world.wordings import PARAPHRASES, WORDINGS

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_SENTENCES = (
    "row column has a an the is are at it its with of left right above below there no not more than all but one "
    "so each "
    "counting makes that empty picture describe answer once option digit hidden question mark tile tiles plus "
    "minus and "
    "system user assistant model You are a helpful assistant . , : ? yes no"
)


def _corpus_words() -> Iterator[str]:
    texts = [_SENTENCES, *PLACES, *COLORS, *SHAPES, *SIZES, *(f"{shape}s" for shape in SHAPES), "crosses"]
    for family in FAMILIES:
        texts += [*WORDINGS[family], *PARAPHRASES[family]]
    for text in texts:
        for word in text.split():
            if not word.startswith("{"):
                yield word
    yield from (str(number) for number in range(21))
    yield from string.ascii_uppercase[:4]


def make_tokenizer(
    specials: Sequence[str] = (), extra: Mapping[str, str] | None = None, **kwargs: str
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer.

    `specials` and `extra` (name -> token) are the special tokens that the architecture's processor expects.
    """
    # Each word both at the start and inside of a text, repeated so that it outweighs accidental pairs.
    corpus = [f"{word} {word} {word}" for word in sorted(set(_corpus_words()))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=1, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    # Ordinary added tokens, as in Qwen3: one token each, and never hidden by skip_special_tokens.
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=dict(extra or {}) or None, **kwargs)
    if specials:
        fast.add_special_tokens({"additional_special_tokens": list(specials)}, replace_extra_special_tokens=False)
    return fast
