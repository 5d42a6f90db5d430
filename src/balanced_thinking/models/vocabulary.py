"""Do tokenizer and model speak of the same tokens? Ids beyond the embedding would fail in the middle of a step."""

from __future__ import annotations

from typing import Any

from balanced_thinking.config.errors import UsageError
from balanced_thinking.models.processor_parts import takes_pictures, tokenizer_of
from balanced_thinking.system.text import list_some

_MODALITIES = ("image", "video", "audio", "vision")
# Configurations' names of the tokens that pictures are written as.
_PICTURE_IDS = ("image_token_id", "image_token_index", "video_token_id", "vision_start_token_id", "boi_token_index")


class VocabularyError(UsageError, ValueError):
    """A tokenizer with ids that the model's embedding does not have."""


def check_vocabulary(model: Any, processor: Any, path: str) -> None:
    """Raises VocabularyError where a token's id is not below the number of rows of the embedding."""
    tokenizer = tokenizer_of(processor)
    embedding = model.get_input_embeddings().weight
    rows = getattr(embedding, "ds_shape", embedding.shape)[0]  # ZeRO-3 holds the shape apart
    sees = takes_pictures(processor)
    beyond = sorted(
        (number, token)
        for token, number in tokenizer.get_vocab().items()
        if number >= rows and (sees or not _is_of_a_modality(tokenizer, number, token))
    )
    if beyond:
        names = list_some([f"{token!r} ({number})" for number, token in beyond], 4)
        raise VocabularyError(
            f"{path}: the tokenizer has {len(tokenizer):,} tokens, but the model's embedding has {rows:,} rows; none "
            f"for {names}. Call model.resize_token_embeddings({beyond[-1][0] + 1}) and save model and "
            "tokenizer again, or use the tokenizer that belongs to the weights"
        )
    for name in _PICTURE_IDS if sees else ():
        number = getattr(model.config, name, None)
        if isinstance(number, int) and number >= rows:
            raise VocabularyError(
                f"{path}: {name} in config.json is {number:,}, but the model's embedding has {rows:,} rows; expected "
                "the id of the token that the processor writes for a picture"
            )
    _refuse_other_picture_token(model.config, processor, path)


def _refuse_other_picture_token(config: Any, processor: Any, path: str) -> None:
    """Raises VocabularyError where the model takes another token for a picture than the processor writes."""
    written = [number for number in getattr(processor, "image_token_ids", None) or () if number is not None]
    if written and isinstance(patch := getattr(processor, "img_patch_token", None), str):  # Llama 4 writes these
        written.append(tokenizer_of(processor).convert_tokens_to_ids(patch))
    for name in ("image_token_id", "image_token_index"):
        number = getattr(config, name, None)
        if written and isinstance(number, int) and number not in written:
            tokens = list_some([f"{token} ({one})" for one in written if (token := _token(processor, one))], 4)
            raise VocabularyError(
                f"{path}: {name} in config.json is {number:,} ({_token(processor, number)}), and for a picture the "
                f"processor writes {tokens}; expected the same token. Use the tokenizer that belongs to the weights"
            )


def _token(processor: Any, number: int) -> str:
    return str(tokenizer_of(processor).convert_ids_to_tokens(number))


def _is_of_a_modality(tokenizer: Any, number: int, token: str) -> bool:
    """Whether it stands for a picture or sound, which a model of text alone never gets, as in Gemma 3 1B."""
    added = tokenizer.added_tokens_decoder.get(number)
    return added is not None and added.special and any(kind in token for kind in _MODALITIES)
