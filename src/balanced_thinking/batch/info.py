"""What a batch knows about its samples besides the model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from balanced_thinking.packing.layout import pack_into_rows, unpack_to_samples

BATCH_INFO = "batch_info"
CLOSING_TAGS = "closing_tags"  # a batch's key for marks of closing tags, which the trainer takes out as well


@dataclass(frozen=True, eq=False)
class BatchInfo:
    """Belongs to a batch under the key `batch_info`; the trainer takes it out before the model sees the batch.

    It is pickled by data-loader workers, pinned by torch and moved by accelerate together with the batch.

    Args:
        kept: indices, among the collated rows, of the samples in the batch; None for all of them.
        dropped: number of rows that were left out, for their length or as bad rows.
        token_indices: (E, P) of packed rows, from `PackingLayout.token_indices`; None for padded rows.
        lengths_by_row: lengths of the samples of each packed row; None for padded rows.
        supervised: number of supervised tokens of each segment, where it is known on the host.
        ids: those of the batch's rows, in their order, for messages.
        pictures: number of samples with a picture, a blank one aside.
    """

    kept: tuple[int, ...] | None = None
    dropped: int = 0
    token_indices: Tensor | None = None
    lengths_by_row: list[list[int]] | None = None
    supervised: tuple[int, ...] | None = None
    ids: tuple[str, ...] = ()
    pictures: int = 0

    @classmethod
    def from_batch(cls, batch: Mapping[str, Any]) -> BatchInfo:
        """That of the batch. A collator of the user's own need not add one: then each row is one sample."""
        return batch.get(BATCH_INFO) or cls()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> BatchInfo:
        if self.token_indices is None:
            return self
        return replace(self, token_indices=self.token_indices.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> BatchInfo:
        return self if self.token_indices is None else replace(self, token_indices=self.token_indices.pin_memory())

    def unpack_samples(self, values: Tensor) -> Tensor:
        """Values of the predicted positions as a row per sample, whether rows are packed or padded."""
        return values if self.token_indices is None else unpack_to_samples(values, self.token_indices)

    def pack_samples(self, values: Tensor, like: Tensor) -> Tensor:
        """The inverse of `unpack_samples`, in the shape of `like`."""
        return values if self.token_indices is None else pack_into_rows(values, self.token_indices, like)

    def count_packed_tokens(self) -> Tensor:
        """Tokens of all samples of packed rows, as a scalar on their device."""
        assert self.token_indices is not None, "padded rows have an attention_mask"
        return (self.token_indices >= 0).sum() + len(self.token_indices)  # each sample's first token has no index


def segments_of_targets(batch: Mapping[str, Any]) -> Tensor:
    """(B, L - 1) the segment of each token that a batch predicts.

    Raises ValueError for a batch of a collator that does not say which token belongs to which segment.
    """
    if "segment_ids" not in batch:
        raise ValueError(
            f"the batch has no segment_ids (it has {', '.join(batch)}); leave data_collator out, or have it add what "
            "balanced_thinking.segments.label_segments gives"
        )
    # `label_segments` gives lists.
    return torch.as_tensor(batch["segment_ids"], device=batch["labels"].device)[:, 1:]
