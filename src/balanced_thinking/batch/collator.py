"""Rows of prompt, images and completion -> padded or packed tensors, with a segment for every supervised token.

The prompt goes through the model's own processor as the chat template wrote it, in training and in evaluation. No
special token is added, as TRL and vLLM's chat server add none.

The collator runs in data-loader workers: it keeps no state, and reports dropped rows inside the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from PIL import Image
from transformers import ProcessorMixin

from balanced_thinking.batch.completions import Completion, CompletionEncoder
from balanced_thinking.batch.info import BATCH_INFO, CLOSING_TAGS, BatchInfo
from balanced_thinking.batch.messages import row_images, to_prompt_completion
from balanced_thinking.batch.picture_rules import REFUSALS, check_picture_size
from balanced_thinking.batch.pictures import CachedImageProcessor, order_by_sample, refuse_unsuited_cache
from balanced_thinking.batch.rendering import RenderedRow, RowRenderer
from balanced_thinking.batch.turn_end import ensure_pad_token
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.images import decode_rgb, image_size, open_image, picture_name
from balanced_thinking.models.processor_parts import takes_pictures, tokenizer_of
from balanced_thinking.packing.layout import PackingLayout, best_fit_decreasing
from balanced_thinking.packing.positions import RopeIndex
from balanced_thinking.segments import IGNORE, ReasoningFormat
from balanced_thinking.system.files import expand_home

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
# What a processor returns for each token besides its id. Completions hold no image, so theirs is 0.
_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")
_BLANK_SIDE = 56  # pixels; no image processor asks for more


@dataclass(frozen=True)
class Packing:
    """Samples of a batch share rows.

    Args:
        row_tokens: length of a row; at least that of the longest sample, which is also the default.
        rope_index: the model's positions, if they are not plain ones.
        flash_attention: whether to add the arguments from which FlashAttention learns where samples begin.
    """

    row_tokens: int | None = None
    rope_index: RopeIndex | None = None
    flash_attention: bool = False


@dataclass(frozen=True)
class ImageCache:
    """A folder that keeps the image processor's output for each image, up to `limit_gib` GiB."""

    folder: str | Path
    limit_gib: float = 20.0


class _TokenizedPrompts(NamedTuple):
    """Per row the ids and token types of the prompt, without padding; and the tensors of all images."""

    ids: list[list[int]]
    token_types: dict[str, list[list[int]]]
    image_tensors: dict[str, torch.Tensor]


class _PreparedRow(NamedTuple):
    text: RenderedRow
    images: list[Image.Image]


_Columns = dict[str, list[list[int]]]  # name -> a list of values per sample


class ScaleCollator:
    """Collates rows into `input_ids`, `attention_mask`, `labels`, `segment_ids` (all (B, L)) and the image tensors.

    With `packing` there is no `attention_mask`; `position_ids` separate the samples of a row. `batch_info` is a
    `BatchInfo`: which rows the batch holds, and where in packed rows they are.

    Args:
        processor: the model's processor, or its tokenizer for a text-only model.
        reasoning_format: name or definition of the format of the completions.
        max_length: most tokens of a sample, prompt and images included; `None` for no limit.
        overflow: what happens to a longer sample. `error` raises; `drop` leaves it out and counts it; `trim_think`
            removes sentences from the middle of its reasoning and keeps the answer.
        pad_to_multiple_of: rounds the padded length up.
        packing: how samples share rows; `None` for one sample per row.
        always_image: whether a batch without images gets a blank one, so that all ranks of a sharded model run alike.
        image_cache: where processed images are kept; `None` for nowhere.
    """

    # Whether a row that cannot be used is left out and counted as dropped, instead of stopping the training.
    drop_bad_rows = False

    def __init__(
        self,
        processor: Any,
        reasoning_format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
        max_length: int | None = None,
        overflow: str = "error",
        pad_to_multiple_of: int | None = None,
        packing: Packing | None = None,
        always_image: bool = False,
        image_cache: ImageCache | None = None,
    ) -> None:
        self.processor, self.tokenizer = processor, ensure_pad_token(tokenizer_of(processor))
        self.renderer = RowRenderer(processor, reasoning_format)
        self.completions = CompletionEncoder(self.tokenizer, self.renderer.format, max_length, overflow)
        self.pad_to_multiple_of, self.packing = pad_to_multiple_of, packing
        self.always_image = always_image and takes_pictures(processor)
        self._cached = image_cache is not None and takes_pictures(processor)
        if image_cache is not None and self._cached:
            self.processor = copy(processor)  # the user's own stays as it is: it gets saved with the model
            folder, limit_bytes = expand_home(image_cache.folder), int(image_cache.limit_gib * 2**30)
            refuse_unsuited_cache(own := processor.image_processor)
            self.processor.image_processor = CachedImageProcessor(own, folder, limit_bytes, decode_rgb)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        prepared = {i: found for i, row in enumerate(rows) if (found := self._or_drop(self._prepare_row, row))}
        texts, images = [one.text for one in prepared.values()], [one.images for one in prepared.values()]
        with self._name_refused_picture([rows[i] for i in prepared], images):
            prompts = self._tokenize_prompts([text.prompt for text in texts], images) if prepared else None
        encoded = {
            i: self._or_drop(self.completions.encode_completion, str(rows[i].get("id", "?")), text, len(ids))
            for i, text, ids in zip(prepared, texts, prompts.ids if prompts else [], strict=True)
        }
        kept = [i for i, completion in encoded.items() if completion is not None]
        prompt_texts, images = [prepared[i].text.prompt for i in kept], [prepared[i].images for i in kept]
        completions = [completion for completion in encoded.values() if completion is not None]
        if not kept or (self.always_image and not any(images)):
            text, blank = self._make_filler_prompt()
            prompt_texts, images = [*prompt_texts, text], [*images, blank]
            completions.append(Completion([], []))
        if prompts is None or len(kept) < len(prepared) or len(completions) > len(kept):
            prompts = self._tokenize_prompts(prompt_texts, images)
        ids = tuple(str(rows[i].get("id", "?")) for i in kept)
        info = BatchInfo(tuple(kept), len(rows) - len(kept), ids=ids, pictures=sum(map(bool, images[: len(kept)])))
        if self.packing and (len(completions) > 1 or self.packing.flash_attention):
            return self._collate_packed(self.packing, prompts, completions, images, info)
        return self._collate_padded(prompts, completions) | {BATCH_INFO: info}

    def mark_closing_tags(self) -> None:
        """From now on add `closing_tags`, (B, L) of 0 and 1: the tokens that `mark_closing_tokens` marks."""
        self.completions = replace(self.completions, marks_closing=True)

    def _prepare_row(self, row: Mapping[str, Any]) -> _PreparedRow:
        plain = to_prompt_completion(row)
        images = self._open_images(plain)
        for picture in images if self.drop_bad_rows else ():  # else the processor finds it, once for all
            check_picture_size(self.processor, *image_size(picture))
        return _PreparedRow(self.renderer.render_row(plain), images)

    def _or_drop(self, work: Callable[..., Result], *arguments: Any) -> Result | None:
        """The work's result; None for a row that cannot be used, if such rows are to be dropped."""
        try:
            return work(*arguments)
        except RowError as error:
            if not self.drop_bad_rows:
                raise
            logger.warning("a row was left out: %s", error)
            return None

    def collate_prompts(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Left-padded prompts for generation: rows of `prompt` and `images`, encoded as for training."""
        texts = [self.renderer.render_prompt(row).text for row in rows]
        images = [self._open_images(row) for row in rows]
        with self._name_refused_picture(rows, images):
            return self._run_processor(texts, images, padding_side="left")

    def _open_images(self, row: Mapping[str, Any]) -> list[Image.Image]:
        if row["images"] and not takes_pictures(self.processor):
            found = f"sample {row.get('id', '?')} has a picture, but the model takes text only"
            raise RowError(found, "text_only_model")
        try:
            return [open_image(image, convert=not self._cached) for image in row["images"]]
        except RowError as error:
            raise RowError(f"sample {row.get('id', '?')}: {error}", error.problem) from error

    @contextmanager
    def _name_refused_picture(
        self, rows: Sequence[Mapping[str, Any]], images: list[list[Image.Image]]
    ) -> Iterator[None]:
        """Raises RowError for the picture whose size the image processor refuses, where that is why it fails."""
        try:
            yield
        except REFUSALS as error:
            for row, opened in zip(rows, images, strict=True):
                for reference, picture in zip(row_images(row), opened, strict=True):
                    name = f"sample {row.get('id', '?')}: the image {picture_name(reference)}"
                    check_picture_size(self.processor, *image_size(picture), name=name, cause=error)
            raise

    def _make_filler_prompt(self) -> tuple[str, list[Image.Image]]:
        """Text and images of a prompt without a target, for batches in which the model would have nothing to run on."""
        has_template = getattr(self.processor, "chat_template", None) is not None
        row: dict[str, Any] = {"prompt": [{"role": "user", "content": "."}] if has_template else ".", "images": []}
        if self.always_image and has_template:
            row["images"] = [Image.new("RGB", (_BLANK_SIDE, _BLANK_SIDE))]
        return self.renderer.render_prompt(row).text, self._open_images(row)

    def _run_processor(self, texts: list[str], images: list[list[Image.Image]], padding_side: str) -> dict[str, Any]:
        # The chat template has already written the special tokens.
        common = {"add_special_tokens": False, "padding": True, "padding_side": padding_side, "return_tensors": "pt"}
        if not takes_pictures(self.processor):
            return dict(self.tokenizer(texts, **common))
        arranged = self._arrange_images(images) if any(images) else None
        return dict(self.processor(text=texts, images=arranged, **common))

    def _arrange_images(self, images: list[list[Image.Image]]) -> Any:
        """Images as the processor expects them: a list per row where it arranges or counts them itself, else one."""
        own = type(self.processor).prepare_inputs_layout is not ProcessorMixin.prepare_inputs_layout
        counts = "batch_num_images" in getattr(self.processor.image_processor, "model_input_names", ())
        return images if own or counts else [image for row in images for image in row]

    def _image_token_ids(self) -> set[int]:
        return {number for number in getattr(self.processor, "image_token_ids", ()) or () if number is not None}

    def _tokenize_prompts(self, texts: list[str], images: list[list[Image.Image]]) -> _TokenizedPrompts:
        output = self._run_processor(texts, images, padding_side="right")
        mask = output.pop("attention_mask").bool()

        def remove_padding(padded: torch.Tensor) -> list[list[int]]:
            return [value[m].tolist() for value, m in zip(padded, mask, strict=True)]

        ids = remove_padding(output.pop("input_ids"))
        types = {name: remove_padding(output.pop(name)) for name in _TOKEN_TYPES if name in output}
        return _TokenizedPrompts(ids, types, output)

    def _collate_padded(self, prompts: _TokenizedPrompts, completions: Sequence[Completion]) -> dict[str, Any]:
        """A row per sample."""
        columns = self._join_columns(prompts, completions)
        columns["attention_mask"] = [[1] * len(row) for row in columns["input_ids"]]
        return prompts.image_tensors | self._columns_to_tensors(columns)

    def _collate_packed(
        self,
        packing: Packing,
        prompts: _TokenizedPrompts,
        completions: Sequence[Completion],
        images: Sequence[Sequence[Any]],
        info: BatchInfo,
    ) -> dict[str, Any]:
        """Rows of several samples, and the images in the order of their samples."""
        columns = self._join_columns(prompts, completions)
        lengths = [len(ids) for ids in columns["input_ids"]]
        layout = PackingLayout(best_fit_decreasing(lengths, max(packing.row_tokens or 0, *lengths)), lengths)
        joined = {name: layout.join_samples(samples) for name, samples in columns.items()}
        batch: dict[str, Any] = self._columns_to_tensors(joined)
        width = batch["input_ids"].shape[1]
        own = self._rope_positions(packing.rope_index, columns, prompts) if packing.rope_index else None
        positions = layout.position_ids(own)
        batch["position_ids"] = torch.nn.functional.pad(positions, (0, width - positions.shape[-1]))
        batch |= layout.flash_arguments(width) if packing.flash_attention else {}
        if any(images):
            marks = self._image_token_ids()
            tokens = [sum(number in marks for number in ids) for ids in prompts.ids]
            batch |= order_by_sample(prompts.image_tensors, list(map(len, images)), tokens, layout.sample_order)
        indices, lengths_by_row = layout.token_indices(width), layout.lengths_by_row
        return batch | {BATCH_INFO: replace(info, token_indices=indices, lengths_by_row=lengths_by_row)}

    def _join_columns(self, prompts: _TokenizedPrompts, completions: Sequence[Completion]) -> _Columns:
        """Ids, segments and token types of prompt + completion, a list per sample."""
        pairs = list(zip(prompts.ids, completions, strict=True))
        columns = {"input_ids": [p + c.ids for p, c in pairs]}
        # A sample's first token is predicted by nothing, so it has no segment.
        columns["segment_ids"] = [[IGNORE, *([IGNORE] * len(p) + c.segments)[1:]] for p, c in pairs]
        if self.completions.marks_closing:
            columns[CLOSING_TAGS] = [[0] * len(p) + c.closing for p, c in pairs]
        for name, types in prompts.token_types.items():
            columns[name] = [t + [0] * len(c.ids) for t, c in zip(types, completions, strict=True)]
        return columns

    def _columns_to_tensors(self, columns: _Columns) -> dict[str, torch.Tensor]:
        """Right-padded tensors, and the labels of the tokens that have a segment."""
        fillers = {"input_ids": self.tokenizer.pad_token_id, "segment_ids": IGNORE}
        batch = {name: self._pad_rows(rows, fillers.get(name, 0)) for name, rows in columns.items()}
        batch["labels"] = batch["input_ids"].masked_fill(batch["segment_ids"] == IGNORE, -100)
        return batch

    def _rope_positions(self, rope_index: RopeIndex, columns: _Columns, prompts: _TokenizedPrompts) -> torch.Tensor:
        padded = {name: self._pad_rows(columns[name], 0) for name in ("input_ids", *_TOKEN_TYPES) if name in columns}
        padded["attention_mask"] = self._pad_rows([[1] * len(row) for row in columns["input_ids"]], 0)
        if "image_grid_thw" in prompts.image_tensors:
            padded["image_grid_thw"] = prompts.image_tensors["image_grid_thw"]
        return rope_index(**padded)

    def _pad_rows(self, rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        multiple = self.pad_to_multiple_of or 1
        length = -(-max(map(len, rows)) // multiple) * multiple
        return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows], dtype=torch.long)
