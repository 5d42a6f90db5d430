"""What a processor says about a picture's size before the picture is processed: whether it takes it, and its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from PIL import Image

from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.models.processor_parts import takes_pictures

# What an image processor raises for a size that it cannot take, by itself or through numpy, torch and Pillow.
REFUSALS = (ValueError, RuntimeError, ArithmeticError, LookupError, TypeError, OSError, MemoryError)
# What `get_number_of_image_patches` and `_get_num_multimodal_tokens` raise where they do not know a configuration.
_UNKNOWN = (AttributeError, LookupError, TypeError)
_KEPT_SIZES = 4096  # answers that are kept for each processor
# Sizes that any known image processor takes. Of those only some are tried on a processor without a rule of its own.
_USUAL_SIDE, _USUAL_RATIO, _TRIED_SIZES = 64, 8, 16
_PROBE = (112, 84)  # width and height of the picture with which token counts are compared once

Size = tuple[int, int]  # width and height in pixels, upright


class PictureRules:
    """The rules of one processor. Answers are kept, so that a size is looked at once.

    Args:
        processor: of a vision-language model. Its settings must not change afterwards.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._images = vars(processor.image_processor).get("_inner", processor.image_processor)  # without a cache
        self._refusals: dict[Size, str | None] = {}
        self._added: dict[Size, int] = {}
        self._tried = 0
        self._uncounted: int | None = None

    def find_refusal(self, size: Size) -> str | None:
        """Why the image processor does not take a picture of this size; None where it does."""
        if size not in self._refusals:
            if len(self._refusals) >= _KEPT_SIZES:
                self._refusals.clear()
            self._refusals[size] = self._ask_rule(size)
        return self._refusals[size]

    def _ask_rule(self, size: Size) -> str | None:
        width, height = size
        rule = getattr(self._images, "get_number_of_image_patches", None)
        if rule is not None:
            try:
                rule(height, width, {})
            except _UNKNOWN:
                pass
            except REFUSALS as error:
                return str(error)
            else:
                return None
        usual = min(size) >= _USUAL_SIDE and max(size) <= _USUAL_RATIO * min(size)
        if usual and self._tried >= _TRIED_SIZES:
            return None
        self._tried += usual
        try:
            self._images([Image.new("RGB", size)], return_tensors="pt")
        except REFUSALS as error:
            return str(error) or type(error).__name__
        return None

    def count_added_tokens(self, sizes: Sequence[Size]) -> list[int]:
        """Tokens that pictures of these sizes add to a prompt whose text has one placeholder for each.

        Raises RowError for a size that is refused.
        """
        for size in sizes:
            check_picture_size(self._processor, *size)
        if len(self._added) >= _KEPT_SIZES:
            self._added.clear()
        if unknown := [size for size in dict.fromkeys(sizes) if size not in self._added]:
            self._added |= dict(zip(unknown, self._count_new(unknown), strict=True))
        return [self._added[size] for size in sizes]

    def _count_new(self, sizes: Sequence[Size]) -> list[int]:
        claimed = self._count_claimed([_PROBE, *sizes])  # one call for all, because each call is slow
        if claimed is None:
            return [self._count_real(size) for size in sizes]
        if self._uncounted is None:
            self._uncounted = self._count_real(_PROBE) - claimed[0]
        return [count + self._uncounted for count in claimed[1:]]

    def _count_claimed(self, sizes: Sequence[Size]) -> list[int] | None:
        """What the processor says itself. Some leave out tokens around a picture."""
        with suppress(*_UNKNOWN):
            sides = [(height, width) for width, height in sizes]
            return list(self._processor._get_num_multimodal_tokens(image_sizes=sides).num_image_tokens)
        return None

    def _count_real(self, size: Size) -> int:
        """By processing a blank picture of this size."""
        processor, tokenizer = self._processor, self._processor.tokenizer
        text = self._write_placeholder()
        plain = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        output = processor(text=[text], images=[[Image.new("RGB", size)]], add_special_tokens=False)
        return len(output["input_ids"][0]) - plain

    def _write_placeholder(self) -> str:
        """A prompt with one picture, as the chat template writes it."""
        if getattr(self._processor, "chat_template", None) is None:
            return self._processor.image_token
        content = [{"type": "image"}, {"type": "text", "text": "."}]
        return self._processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)


_rules: WeakKeyDictionary[Any, PictureRules] = WeakKeyDictionary()


def picture_rules(processor: Any) -> PictureRules | None:
    """The rules of a processor, made once for each; None for a tokenizer."""
    if not takes_pictures(processor):
        return None
    if processor not in _rules:
        _rules[processor] = PictureRules(processor)
    return _rules[processor]


def check_picture_size(
    processor: Any, width: int, height: int, name: str = "a picture", cause: Exception | None = None
) -> None:
    """Raises RowError (`picture_refused`) where the image processor does not take a picture of this size.

    Args:
        name: of the picture's file, for the message.
        cause: what the processor raised, if it was tried.
    """
    rules = picture_rules(processor)
    if rules is not None and (reason := rules.find_refusal((width, height))) is not None:
        raise RowError(
            f"{name} has {width} x {height} pixels, which the image processor refuses. Cut or pad it to another size, "
            f"or leave out its row with --on-bad-row drop. The processor says: {reason}",
            problem="picture_refused",
        ) from cause


def count_picture_tokens(processor: Any, sizes: Sequence[Size]) -> list[int]:
    """Tokens that pictures of these widths and heights add to a prompt whose text has one placeholder for each.

    Nothing is processed, except once a blank picture. A processor that cannot say it processes one for each size.
    Raises RowError for a size that is refused.
    """
    rules = picture_rules(processor)
    return [] if rules is None else rules.count_added_tokens(sizes)
