"""What a processor has. For a text-only model it is the tokenizer itself. No torch."""

from __future__ import annotations

from typing import Any


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor; a tokenizer, and None, as it is."""
    return getattr(processor, "tokenizer", processor)


def takes_pictures(processor: Any) -> bool:
    """Whether it prepares pictures, too, as those of vision-language models do."""
    return hasattr(processor, "image_processor")
