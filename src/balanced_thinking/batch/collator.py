"""Rows of prompt, images and completion -> padded or packed tensors, with every supervised token's segment.

The prompt goes through the model's own processor as the chat template wrote it, in training and evaluation alike: no
special token is added, as TRL and vLLM's chat server add none. The completion is tokenized once, whole, and its
segments come from that tokenization's character offsets, so the token ids are those of plain tokenization.

Runs in data-loader workers: it holds no state and reports what it dropped inside the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from balanced_thinking.batch.pictures import CachedImageProcessor, select_images
from balanced_thinking.batch.rendering import assistant_text, render_row, template_drops_content, to_prompt_completion
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.images import decode_rgb, open_image
from balanced_thinking.packing.layout import PackingLayout, best_fit_decreasing
from balanced_thinking.packing.positions import RopeIndex
from balanced_thinking.segments import IGNORE, Parsed, ReasoningFormat, get_format, parse, token_segments
from balanced_thinking.segments.trim import SENTENCE_GAPS, WORD_GAPS, split_think, trim_think

OVERFLOW = ("error", "drop", "trim_think")
# What a processor returns for each token besides its id; completions hold no image, so theirs is 0.
_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")
_FILLER_SIDE = 56  # pixels; no image processor asks for more


@dataclass(frozen=True)
class Completion:
    """One tokenized completion: ids and segments, both of its length."""

    ids: list[int]
    segments: list[int]


def _open_images(row: Mapping[str, Any], *, convert: bool = True) -> list[Image.Image]:
    try:
        return [open_image(image, convert=convert) for image in row["images"]]
    except RowError as error:
        raise RowError(f"sample {row.get('id', '?')}: {error}") from error


class ScaleCollator:
    """Collates rows into `input_ids`, `attention_mask`, `labels`, `segment_ids` (all (B, L)), `kept` (the places of the
    rows that were not dropped), `dropped` () and the pictures' tensors.

    With `packing` several samples share a row: then there is no `attention_mask`, but `position_ids`, `places` and
    `rows`, the samples' lengths (see `PackingLayout`), and with `varlen` what FlashAttention asks for.

    Args:
        processor: the model's processor, or its tokenizer for a text-only model.
        reasoning_format: name or definition of the format of the completions.
        max_length: tokens a sample may have, prompt and picture included; `None` for no limit.
        overflow: what becomes of a longer one: `error` names it; `drop` leaves it out (and counts it in `dropped`);
            `trim_think` takes sentences out of the middle of its reasoning and keeps the answer.
        pad_to_multiple_of: rounds the padded length up.
        packing: whether the samples of a batch share rows, which are as long as the longest sample, or `pack_tokens`
            where that is more.
        rope_index: the model's positions where they are not plain ones.
        varlen: whether packed rows tell FlashAttention where samples begin.
        always_picture: whether a batch without any gets a blank one, for models in shards: their ranks must run the
            same layers.
        image_cache: a folder that keeps what the image processor makes of a picture, of `image_cache_gib` at most.
    """

    def __init__(
        self,
        processor: Any,
        reasoning_format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
        max_length: int | None = None,
        overflow: str = "error",
        pad_to_multiple_of: int | None = None,
        packing: bool = False,
        pack_tokens: int | None = None,
        rope_index: RopeIndex | None = None,
        varlen: bool = False,
        always_picture: bool = False,
        image_cache: str | Path | None = None,
        image_cache_gib: float = 20.0,
    ) -> None:
        if overflow not in OVERFLOW:
            raise ValueError(f"overflow is {overflow!r}; known: {', '.join(OVERFLOW)}")
        self.processor, self.tokenizer = processor, getattr(processor, "tokenizer", processor)
        self.format = get_format(reasoning_format)
        self.max_length, self.overflow, self.pad_to_multiple_of = max_length, overflow, pad_to_multiple_of
        self.packing, self.pack_tokens, self.rope_index, self.varlen = packing, pack_tokens, rope_index, varlen
        self.always_picture = always_picture and hasattr(processor, "image_processor")
        self._cached = image_cache is not None and hasattr(processor, "image_processor")
        if image_cache is not None and self._cached:
            self.processor = copy(processor)  # the one that was given stays as it is, and is what gets saved
            limit = int(image_cache_gib * 2**30)
            cached = CachedImageProcessor(processor.image_processor, Path(image_cache).expanduser(), limit, decode_rgb)
            self.processor.image_processor = cached

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        plain = [to_prompt_completion(row) for row in rows]
        texts = [render_row(row, self.processor) for row in plain]
        images = [_open_images(row, convert=not self._cached) for row in plain]
        prompts = self._tokenize_prompts([text["prompt"] for text in texts], images)
        completions = [
            self._fit_completion(row["id"], self._parse_completion(row, text["completion"]), len(ids))
            for row, text, ids in zip(plain, texts, prompts["ids"], strict=True)
        ]
        kept = [i for i, completion in enumerate(completions) if completion is not None]
        asked, shown = [texts[i]["prompt"] for i in kept], [images[i] for i in kept]
        whole = [completion for completion in completions if completion is not None]
        if not kept or (self.always_picture and not any(shown)):
            text, pictures = self._make_filler_prompt()
            asked, shown, whole = [*asked, text], [*shown, pictures], [*whole, Completion([], [])]
        if len(kept) < len(rows) or len(whole) > len(kept):
            prompts = self._tokenize_prompts(asked, shown)
        packs = self.packing and (len(whole) > 1 or self.varlen)
        batch = self._collate_packed(prompts, whole, shown) if packs else self._collate_padded(prompts, whole)
        return batch | {"kept": torch.tensor(kept, dtype=torch.long), "dropped": torch.tensor(len(rows) - len(kept))}

    def _make_filler_prompt(self) -> tuple[str, list[Image.Image]]:
        """The text and pictures of a prompt without a target: a batch must hold something for the model to run on."""
        chats = getattr(self.processor, "chat_template", None) is not None
        row: dict[str, Any] = {"prompt": [{"role": "user", "content": "."}] if chats else ".", "images": []}
        if self.always_picture and chats:
            row["images"] = [Image.new("RGB", (_FILLER_SIDE, _FILLER_SIDE))]
        return render_row(row, self.processor)["prompt"], _open_images(row, convert=not self._cached)

    def collate_prompts(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Left-padded prompts for generation: rows of `prompt` and `images`, encoded as for training."""
        texts = [render_row(row, self.processor)["prompt"] for row in rows]
        images = [_open_images(row, convert=not self._cached) for row in rows]
        return self._run_processor(texts, images, padding_side="left")

    def _run_processor(
        self, texts: list[str], images: list[list[Image.Image]], padding_side: str
    ) -> dict[str, torch.Tensor]:
        # The chat template has already written the special tokens.
        common = {"add_special_tokens": False, "padding": True, "padding_side": padding_side, "return_tensors": "pt"}
        if not hasattr(self.processor, "image_processor"):
            return dict(self.tokenizer(texts, **common))
        return dict(self.processor(text=texts, images=self._arrange_images(images) if any(images) else None, **common))

    def _tokenize_prompts(self, texts: list[str], images: list[list[Image.Image]]) -> dict[str, Any]:
        """The prompts' ids and token types, a list per row, and the pictures' tensors."""
        output = self._run_processor(texts, images, padding_side="right")
        mask = output.pop("attention_mask").bool()
        rows = {"ids": output.pop("input_ids")} | {k: output.pop(k) for k in _TOKEN_TYPES if k in output}
        unpadded = {k: [value[m].tolist() for value, m in zip(v, mask, strict=True)] for k, v in rows.items()}
        return unpadded | {"tensors": output}

    def _arrange_images(self, images: list[list[Image.Image]]) -> Any:
        """Pictures as the processors take them: Gemma counts them per row, the others in one list."""
        flat = [image for row in images for image in row]
        return images if type(self.processor).__name__.startswith("Gemma") else flat

    def _tokenize_completion(self, parsed: Parsed) -> Completion:
        encoded = self.tokenizer(parsed.text, add_special_tokens=False, return_offsets_mapping=True)
        return Completion(encoded["input_ids"], token_segments(parsed, encoded["offset_mapping"]))

    def _parse_completion(self, row: Mapping[str, Any], text: str) -> Parsed:
        """The rendered completion taken apart, once it is known to say what the row says."""
        parsed, raw = parse(text, self.format), assistant_text(row["completion"])
        if raw is not None and raw not in text and template_drops_content(parse(raw, self.format), parsed):
            raise RowError(
                f"sample {row['id']}: the chat template dropped the reasoning, or changed the answer, of the row: "
                f"{raw[:80]!r} became {text[:80]!r}; pass a chat template that keeps it (the processor's "
                "`chat_template`), or prompts and completions as plain text"
            )
        if parsed.answer is None:
            raise RowError(
                f"sample {row['id']}: no answer was found in its completion ({', '.join(parsed.problems)}) with "
                f"reasoning_format {self.format.name!r}: {text[:80]!r}; mend the row, choose the data's "
                "reasoning_format, or load the data with --on-bad-row drop"
            )
        return parsed

    def _fit_completion(self, identity: str, parsed: Parsed, prompt_length: int) -> Completion | None:
        """The completion within `max_length`, by the overflow policy; `None` where the sample is dropped."""
        completion = self._tokenize_completion(parsed)
        if self.max_length is None or prompt_length + len(completion.ids) <= self.max_length:
            return completion
        if self.overflow == "drop":
            return None
        room = self.max_length - prompt_length
        trimmed = self._trim_completion(parsed, room) if self.overflow == "trim_think" else None
        if trimmed is None:
            cure = "overflow=trim_think to shorten its reasoning, " if self.overflow == "error" else ""
            raise RowError(
                f"sample {identity} has {prompt_length + len(completion.ids)} tokens ({prompt_length} of them "
                f"prompt and picture), but max_length is {self.max_length}; raise max_length, or set {cure}"
                "overflow=drop to leave such samples out"
            )
        return trimmed

    def _trim_completion(self, parsed: Parsed, room: int) -> Completion | None:
        """The longest trimmed completion of at most `room` tokens; by words where whole sentences leave nothing."""
        format = get_format(parsed.format) if self.format.name == "auto" else self.format
        for pattern in (SENTENCE_GAPS, WORD_GAPS):
            units = split_think(parsed, pattern, format)
            best, low, high = None, 1, len(units) - 1
            while low <= high:
                middle = (low + high) // 2
                candidate = self._tokenize_completion(parse(trim_think(parsed, middle, units), self.format))
                if len(candidate.ids) <= room:
                    best, low = candidate, middle + 1
                else:
                    high = middle - 1
            if best is not None:
                return best
        return None

    def _join_columns(self, prompts: dict[str, Any], completions: Sequence[Completion]) -> dict[str, list[list[int]]]:
        """Ids, segments and token types of prompt + completion, a list for each sample."""
        pairs = list(zip(prompts["ids"], completions, strict=True))
        columns = {"input_ids": [p + c.ids for p, c in pairs]}
        # Nothing comes before a sample's first token, so that none predicts it.
        columns["segment_ids"] = [[IGNORE, *([IGNORE] * len(p) + c.segments)[1:]] for p, c in pairs]
        for name in _TOKEN_TYPES:
            if name in prompts:
                columns[name] = [t + [0] * len(c.ids) for t, c in zip(prompts[name], completions, strict=True)]
        return columns

    def _columns_to_tensors(self, columns: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, torch.Tensor]:
        """Right-padded, with the labels that the segments leave."""
        fillers = {"input_ids": self.tokenizer.pad_token_id, "segment_ids": IGNORE}
        batch = {name: self._pad_rows(rows, fillers.get(name, 0)) for name, rows in columns.items()}
        batch["labels"] = batch["input_ids"].masked_fill(batch["segment_ids"] == IGNORE, -100)
        return batch

    def _collate_padded(self, prompts: dict[str, Any], completions: Sequence[Completion]) -> dict[str, torch.Tensor]:
        """A row for each sample."""
        columns = self._join_columns(prompts, completions)
        columns["attention_mask"] = [[1] * len(row) for row in columns["input_ids"]]
        return dict(prompts["tensors"]) | self._columns_to_tensors(columns)

    def _collate_packed(
        self, prompts: dict[str, Any], completions: Sequence[Completion], images: Sequence[Sequence[Any]]
    ) -> dict[str, Any]:
        """Rows of several samples, and the pictures in the order in which their samples lie."""
        columns = self._join_columns(prompts, completions)
        lengths = [len(ids) for ids in columns["input_ids"]]
        layout = PackingLayout(best_fit_decreasing(lengths, max(self.pack_tokens or 0, *lengths)), lengths)
        batch: dict[str, Any] = self._columns_to_tensors(
            {name: layout.join_samples(samples) for name, samples in columns.items()}
        )
        width = batch["input_ids"].shape[1]
        own = self._model_positions(columns, prompts["tensors"]) if self.rope_index else None
        positions = layout.position_ids(own)
        batch["position_ids"] = torch.nn.functional.pad(positions, (0, width - positions.shape[-1]))
        batch["places"], batch["rows"] = layout.token_places(width), layout.row_lengths
        batch |= layout.flash_arguments(width) if self.varlen else {}
        starts = [0, *accumulate(len(row) for row in images)]
        pictures = [k for i in layout.sample_order for k in range(starts[i], starts[i + 1])]
        return batch | dict(select_images(prompts["tensors"], pictures, len(pictures)) if pictures else {})

    def _model_positions(
        self, columns: Mapping[str, Sequence[Sequence[int]]], tensors: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        assert self.rope_index is not None
        padded = {name: self._pad_rows(columns[name], 0) for name in ("input_ids", *_TOKEN_TYPES) if name in columns}
        padded["attention_mask"] = self._pad_rows([[1] * len(row) for row in columns["input_ids"]], 0)
        if "image_grid_thw" in tensors:
            padded["image_grid_thw"] = tensors["image_grid_thw"]
        return self.rope_index(**padded)

    def _pad_rows(self, rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        length, multiple = max(map(len, rows)), self.pad_to_multiple_of or 1
        length = -(-length // multiple) * multiple
        return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows], dtype=torch.long)
