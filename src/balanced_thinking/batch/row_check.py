"""Check a row as the trainer would see it, before training: its text, its length and its pictures.

The text goes through the collator's own path. Pictures are decoded, but the image processor runs only where the length
of a sample cannot be counted without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import transformers

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.messages import row_images, to_prompt_completion
from balanced_thinking.batch.picture_rules import check_picture_size, count_picture_tokens
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.checks import Problem, find_picture_problem
from balanced_thinking.data.images import image_size, picture_name, picture_source
from balanced_thinking.data.picture_files import UNREADABLE
from balanced_thinking.models.processor_parts import takes_pictures
from balanced_thinking.segments import ANSWER, THINK

# Per picture: the count without the image processor may be wrong by this much, so that nearer to `max_length` than
# this the processor itself counts.
_UNCERTAIN_TOKENS = 16
_ADDED_TOKENS = 16  # what a tokenizer may add to a text without a character of its own


class CheckedRow(NamedTuple):
    """What was found. `tokens`: of the complete sample, 0 where they were not counted.

    `too_long`: the sample is longer than `max_length`, and `overflow` leaves it out.
    """

    tokens: int
    problems: tuple[Problem, ...] = ()
    too_long: bool = False


class RowLengths(NamedTuple):
    """Tokens of a sample's parts. A row of GRPO has a prompt only."""

    prompt: int
    think: int = 0
    answer: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.think + self.answer


class RowChecker:
    """Checks rows in any of TRL's forms.

    Args:
        collator: the trainer's own, or one with the same settings.
        completions: whether rows have completions; GRPO's have none.
        verify_images: whether to decode each picture.
        count_all: whether to count the tokens also of samples that are short enough in any case.
    """

    def __init__(
        self,
        collator: ScaleCollator,
        *,
        completions: bool = True,
        verify_images: bool = True,
        count_all: bool = False,
    ) -> None:
        self.collator, self.completions, self.verify_images = collator, completions, verify_images
        self.count_all = count_all
        if completions:
            collator.completions.refuse_slow_tokenizer()
        backend = getattr(collator.tokenizer, "backend_tokenizer", None)
        # A token stands for at least one byte, unless a normalization writes characters out (NFKC, NFKD).
        collator.tokenizer("", add_special_tokens=False)  # ends the truncation that a tokenizer's file may ask for
        self._bytes_are_a_bound = backend is not None and "NFK" not in repr(backend.normalizer)

    def check_row(self, row: Mapping[str, Any]) -> CheckedRow:
        pictures = row_images(row)
        problems = list(self._find_picture_problems(pictures))
        plain = {**row, "id": str(row.get("id", "?")), "images": pictures}
        try:
            if not self.completions:
                return CheckedRow(self._count_prompt(plain, pictures if not problems else []), tuple(problems))
            return self._check_sample(to_prompt_completion(plain), problems)
        except RowError as error:
            return CheckedRow(0, (_as_problem(error, plain), *problems))

    def measure_row(self, row: Mapping[str, Any]) -> RowLengths | None:
        """The lengths of a row without problems, as the trainer will cut it; None where `overflow` leaves it out."""
        plain = {**row, "id": str(row.get("id", "?")), "images": (pictures := row_images(row))}
        if not self.completions:
            return RowLengths(self._count_prompt(plain, pictures))
        sample = to_prompt_completion(plain)
        rendered = self.collator.renderer.render_row(sample)
        prompt = self._count_text(rendered.prompt) + self._count_picture_tokens(pictures)
        completion = self.collator.completions.encode_completion(sample["id"], rendered, prompt)
        if completion is None:
            return None
        return RowLengths(prompt, completion.segments.count(THINK), completion.segments.count(ANSWER))

    def _find_picture_problems(self, pictures: Sequence[Any]) -> Iterator[Problem]:
        if pictures and not takes_pictures(self.collator.processor):
            yield Problem("text_only_model", f"the first of {len(pictures)}: {picture_name(pictures[0])}")
            return
        for picture in pictures:
            try:
                source = picture_source(picture)
                found = find_picture_problem(source) if self.verify_images else None
                if found is None:
                    check_picture_size(self.collator.processor, *image_size(source), name=picture_name(picture))
            except RowError as error:
                found = Problem(error.problem, error.shown)
            except UNREADABLE as error:
                found = Problem("broken_image", str(error))
            if found is not None:
                yield found

    def _count_prompt(self, row: Mapping[str, Any], pictures: Sequence[Any]) -> int:
        text = self.collator.renderer.render_prompt(row).text
        return self._count_text(text) + self._count_picture_tokens(pictures)

    def _check_sample(self, row: Mapping[str, Any], problems: Sequence[Problem]) -> CheckedRow:
        """Raises RowError for what is wrong with the texts."""
        rendered, encoder = self.collator.renderer.render_row(row), self.collator.completions
        encoder.parse_completion(row["id"], rendered)
        pictures = [] if problems else row["images"]
        of_pictures, limit = self._count_picture_tokens(pictures), encoder.max_length
        uncertain = _UNCERTAIN_TOKENS * len(pictures)
        most = len(rendered.prompt.encode()) + len(rendered.completion.encode()) + of_pictures + _ADDED_TOKENS
        fits = limit is None or (self._bytes_are_a_bound and most + uncertain < limit)
        if fits and not self.count_all:
            return CheckedRow(0, tuple(problems))
        prompt = self._count_text(rendered.prompt) + of_pictures
        total = prompt + self._count_text(rendered.completion)
        if limit is None or total < limit - uncertain or problems:
            return CheckedRow(total, tuple(problems))
        if pictures and total <= limit + uncertain:
            prompt = int(self.collator.collate_prompts([row])["attention_mask"].sum())
        try:
            completion = encoder.encode_completion(row["id"], rendered, prompt)
        except RowError as error:
            return CheckedRow(total, (_as_problem(error, row),))
        return CheckedRow(total, too_long=completion is None)

    def _count_text(self, text: str) -> int:
        tokenizer = self.collator.tokenizer
        if not tokenizer.is_fast:
            return len(tokenizer(text, add_special_tokens=False)["input_ids"])
        return len(tokenizer.backend_tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def _count_picture_tokens(self, pictures: Sequence[Any]) -> int:
        """The tokens that pictures add to a prompt whose text has one placeholder for each."""
        sizes = [image_size(picture_source(picture)) for picture in pictures]
        return sum(count_picture_tokens(self.collator.processor, sizes)) if sizes else 0

    def fingerprint(self) -> str:
        """Identifies what the result of a check follows from, besides the rows."""
        processor, tokenizer = self.collator.processor, self.collator.tokenizer
        images = getattr(processor, "image_processor", None)
        encoder = self.collator.completions
        parts = [
            transformers.__version__,
            type(processor).__name__,
            getattr(processor, "chat_template", None),
            tokenizer.chat_template,
            tokenizer.eos_token,
            tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items()),
            images and images.to_json_string(),
            encoder.format,
            encoder.max_length,
            encoder.overflow,
            self.completions,
            self.verify_images,
            self.count_all,
        ]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def _as_problem(error: RowError, row: Mapping[str, Any]) -> Problem:
    """The error without the row's id, which the table of bad rows shows in any case."""
    return Problem(error.problem, error.shown.removeprefix(f"sample {row['id']}").lstrip(": "))
