"""Samples of different lengths in rows without padding, with positions of their own: none attends to another.

Each sample is attended to by itself (`attention`), or transformers tells the samples of a row apart by positions that
start again, as it does in every attention implementation that it offers; Qwen's three-axis rotary positions are the
model's own, taken sample by sample.

Shapes: E samples, R rows, L positions of a row, P predicted tokens of the longest sample (all but its first).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from balanced_thinking.attention import NAME as BY_SAMPLE
from balanced_thinking.attention import Samples, packed_rows

# Vision models by `model_type`; others may let pictures see each other in ways that a packed row would mix up.
TESTED = ("qwen2_5_vl", "llava_next", "gemma3")
_ROUNDING = 1e-3  # far below what another sample's tokens would change
_TEXT_TOKENS = 6  # of each sample of the probe


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of indices: longest first, each into the fullest bin that it fits in. A longer one than `capacity` has a bin
    of its own."""
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [b for b, free in enumerate(room) if free >= lengths[index]]
        if fitting:
            best = min(fitting, key=room.__getitem__)
            bins[best].append(index)
            room[best] -= lengths[index]
        else:
            bins.append([index])
            room.append(capacity - lengths[index])
    return bins


@dataclass(frozen=True)
class Layout:
    """Which samples lie in which row, one after the other."""

    rows: list[list[int]]
    lengths: list[int]

    @property
    def order(self) -> list[int]:
        """The samples as they lie, row by row."""
        return [index for row in self.rows for index in row]

    @property
    def row_lengths(self) -> list[list[int]]:
        """The samples' lengths, row by row."""
        return [[self.lengths[index] for index in row] for row in self.rows]

    @property
    def width(self) -> int:
        return max(map(sum, self.row_lengths))

    def varlen(self, width: int) -> dict[str, Any]:
        """What FlashAttention's kernels ask for, under transformers' names: the edges of the samples in the flattened
        rows, and the longest sample. A row's filler is one sample more. Not given, transformers infers them from the
        positions, and waits for the device in every layer."""
        rows = ([*lengths, width - sum(lengths)] for lengths in self.row_lengths)
        lengths = [length for row in rows for length in row if length]
        edges = torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32)
        longest = max(lengths)
        return {"cu_seq_lens_q": edges, "cu_seq_lens_k": edges, "max_length_q": longest, "max_length_k": longest}

    def join(self, samples: Sequence[Sequence[int]]) -> list[list[int]]:
        """A list of values for each sample -> one for each row."""
        return [[value for index in row for value in samples[index]] for row in self.rows]

    def positions(self, of_samples: Tensor | None = None) -> Tensor:
        """(R, L) positions that start again with each sample. With `of_samples` (axes, E, longest), a model's own,
        (1 + axes, R, L): the plain ones first, as transformers expects them."""
        plain = [torch.arange(length) for length in self.lengths]
        if of_samples is None:
            return self._filled([plain])[0]
        own = [[axis[index, :length] for index, length in enumerate(self.lengths)] for axis in of_samples]
        return self._filled([plain, *own])

    def _filled(self, axes: Sequence[Sequence[Tensor]]) -> Tensor:
        # Equal positions tell padding apart from the sample before it: each filler is a sample of its own.
        filled = torch.zeros(len(axes), len(self.rows), self.width, dtype=torch.long)
        for a, samples in enumerate(axes):
            for r, row in enumerate(self.rows):
                joined = torch.cat([samples[index] for index in row])
                filled[a, r, : len(joined)] = joined
        return filled

    def places(self, width: int) -> Tensor:
        """(E, P): where each sample's predicted tokens lie in a flattened (R, width - 1), -1 where it has none left."""
        places = torch.full((len(self.lengths), max(self.lengths) - 1), -1)
        for r, (row, lengths) in enumerate(zip(self.rows, self.row_lengths, strict=True)):
            for index, start in zip(row, accumulate(lengths, initial=0), strict=False):
                count = self.lengths[index] - 1
                places[index, :count] = torch.arange(count) + start + r * (width - 1)
        return places


def unpack(values_RL: Tensor, places_EP: Tensor) -> Tensor:
    """Values of the predicted positions, (R, L - 1), as a row for each sample, (E, P), zero where it has none left."""
    return values_RL.flatten()[places_EP.clamp(min=0)].masked_fill(places_EP < 0, 0)


def pack(values_EP: Tensor, places_EP: Tensor, like_RL: Tensor) -> Tensor:
    """`unpack` undone: (R, L - 1), zero where no sample lies."""
    spare = like_RL.numel()  # a place past the end for what is no token
    flat = values_EP.new_zeros(spare + 1)
    flat.scatter_(0, places_EP.masked_fill(places_EP < 0, spare).flatten(), values_EP.flatten())
    return flat[:spare].view_as(like_RL)


def two_way_masks(
    config: Any, rows: Sequence[Sequence[int]], types_RL: Tensor, dtype: torch.dtype
) -> dict[str, Any] | None:
    """Gemma 3's masks of packed rows, by kind of layer, in which a picture's tokens see each other both ways: `Samples`
    where it attends sample by sample, else (R, 1, L, L). transformers 5.23 looks a sliding layer's pictures up at
    positions within the sample, so that in a packed row the later samples get those of the first. None for
    FlashAttention, which has no such masks: transformers lets pictures be read one way there, packed or not.
    """
    attention = config._attn_implementation or ""
    if "flash" in attention:
        return None
    windows = {"full_attention": None, "sliding_attention": config.sliding_window}
    alone = {
        kind: [_two_way_mask(types_RL[row, span] == 1, window) for row, span in Samples(rows).spans()]
        for kind, window in windows.items()
    }
    if attention == BY_SAMPLE:
        return {kind: Samples(rows, masks=masks) for kind, masks in alone.items()}
    dense = {kind: _dense(masks, rows, types_RL) for kind, masks in alone.items()}
    if attention != "eager":
        return dense
    lowest = torch.finfo(dtype).min
    return {kind: torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, lowest) for kind, mask in dense.items()}


def _two_way_mask(picture_S: Tensor, window: int | None) -> Tensor:
    """(S, S), True where a query (first axis) of a sample sees a key."""
    begins_S = picture_S & ~torch.nn.functional.pad(picture_S, (1, 0))[:-1]
    block_S = torch.where(picture_S, begins_S.cumsum(0), -1)
    together_SS = (block_S[:, None] == block_S) & picture_S
    return (torch.ones_like(together_SS).tril() | together_SS).triu(1 - (window or len(picture_S)))


def _dense(masks: Sequence[Tensor], rows: Sequence[Sequence[int]], like_RL: Tensor) -> Tensor:
    """(R, 1, L, L): each sample's own mask in its place; a filler sees itself."""
    width = like_RL.shape[1]
    mask = torch.eye(width, dtype=torch.bool, device=like_RL.device).repeat(len(like_RL), 1, 1)
    for (row, span), mask_SS in zip(Samples(rows).spans(), masks, strict=True):
        mask[row, span, span] = mask_SS
    return mask[:, None]


class RopeIndex:
    """A model's own `get_rope_index` without its weights: the collator carries it into data-loader workers."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.kind, self.config = type(model), model.config

    @classmethod
    def of(cls, model: PreTrainedModel) -> RopeIndex | None:
        """That of `model` or of the part below its head; None where positions are plain."""
        return next((cls(part) for part in (model, model.base_model) if hasattr(part, "get_rope_index")), None)

    def __call__(self, **inputs: Tensor) -> Tensor:
        """(axes, E, L) positions of right-padded samples."""
        bare: Any = object.__new__(self.kind)
        bare.__dict__["config"] = self.config
        return bare.get_rope_index(**inputs)[0]


@torch.no_grad()
def keeps_samples_apart(model: PreTrainedModel) -> bool:
    """Whether what a sample's tokens become does not depend on what lies before it in its row.

    A forward of twelve tokens tells; it says nothing of pictures, so of the models that have them only those are
    trusted that our tests pack. FlashAttention's kernels keep samples apart by themselves.
    """
    if hasattr(model.config, "vision_config") and model.config.model_type not in TESTED:
        return False
    if "flash" in (model.config.get_text_config()._attn_implementation or ""):
        return True
    device, vocabulary = model.device, model.config.get_text_config().vocab_size
    text = torch.arange(1, 2 * _TEXT_TOKENS + 1, device=device) % vocabulary
    other = torch.cat([text[:_TEXT_TOKENS].flip(0), text[_TEXT_TOKENS:]])
    training, last = model.training, []
    model.eval()
    try:
        for ids in (text, other):
            with packed_rows([[_TEXT_TOKENS, _TEXT_TOKENS]]), _gathered_in_forward(model):
                last.append(model.base_model(**_probe_inputs(model, ids)).last_hidden_state[0, _TEXT_TOKENS:])
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
        return False  # it does not take such positions at all
    finally:
        model.train(training)
    return bool((last[0] - last[1]).abs().max() <= _ROUNDING * last[0].abs().max())


@contextmanager
def _gathered_in_forward(model: PreTrainedModel) -> Iterator[None]:
    """ZeRO-3 shards a model as it is loaded, but gathers its parameters only once its engine is there: until then each
    module's own are gathered here, for the time of its forward."""
    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed

    held: dict[torch.nn.Module, ExitStack] = {}

    def gather(module: torch.nn.Module, *_: Any) -> None:
        held[module] = ExitStack()
        held[module].enter_context(deepspeed.zero.GatheredParameters(list(module.parameters(recurse=False))))

    def release(module: torch.nn.Module, *_: Any) -> None:
        held.pop(module).close()

    with ExitStack() as hooks:
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                hooks.callback(module.register_forward_pre_hook(gather).remove)
                hooks.callback(module.register_forward_hook(release).remove)
        try:
            yield
        finally:
            for left in held.values():  # where a forward failed
                left.close()


def _probe_inputs(model: PreTrainedModel, ids: Tensor) -> dict[str, Any]:
    layout = Layout([[0, 1]], [_TEXT_TOKENS, _TEXT_TOKENS])
    axes = layout.positions()[None].expand(3, -1, -1) if RopeIndex.of(model) else None
    positions = layout.positions() if axes is None else torch.cat([layout.positions()[None], axes])
    return {"input_ids": ids[None], "position_ids": positions.to(ids.device), "use_cache": False}
