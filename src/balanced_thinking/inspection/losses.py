"""What a model says of the data's tokens: how probable each is, how many ways there are to go on, where it objects.

A forward without gradients over a sample of rows, so it needs less memory than a training step on as many rows.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from torch import Tensor

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.info import BATCH_INFO
from balanced_thinking.data.rows import to_dataset
from balanced_thinking.inspection.conclusion import find_answer_set
from balanced_thinking.inspection.facts import Inspection, Sample
from balanced_thinking.inspection.kind import LossMeasure, SegmentLoss
from balanced_thinking.loss.linear_cross_entropy import weighted_linear_cross_entropy
from balanced_thinking.models.load import LoadedModel
from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.segments import ANSWER, IGNORE, THINK
from balanced_thinking.system.progress import count_progress
from balanced_thinking.training.head import read_logit_scale, read_softcap

ROWS, TOKENS = 256, 24_576  # that are looked at, at most; pictures and prompts are counted
EXPECTED = 24  # tokens in a row that the model had expected; after a surprise it may have lost the thread
_SURPRISE = 3.0  # nats; a token that the model gave less than 5 %
_SURE = 0.8  # probability
_OPEN = 0.5  # nats of entropy of a prediction with several ways to go on
_BATCH_TOKENS, _BATCH_ROWS = 4096, 16  # of a padded batch, unless one row alone is longer
_NUMBERS = tuple(map(str, range(100)))
_FIELDS = ("tokens", "nll", "entropy", "open")


class _Scores(NamedTuple):
    """Of every predicted position of a batch, (B, L - 1): nll and entropy in nats, and the largest probability of
    another candidate where the target is one, else -1."""

    segments: Tensor
    nll: Tensor
    entropy: Tensor
    other: Tensor


def measure_losses(found: Inspection, loaded: LoadedModel, *, rows: int = ROWS, name: str = "") -> Inspection:
    """The inspection with the losses of a model on random samples that have reasoning.

    They are at most `rows`, and have at most `TOKENS` tokens together. The model is moved to the accelerator if there
    is one. `name`: what results call it.
    """
    chosen = _choose_samples(found.samples_with_reasoning, rows)
    if not chosen:
        return found
    device = PartialState().device
    model = loaded.model.to(device).eval()
    tokenizer = tokenizer_of(loaded.processor)
    candidates = _candidate_tokens(tokenizer, find_answer_set([sample.example for sample in found.samples])).to(device)
    collator = ScaleCollator(loaded.processor, found.format)
    sums = torch.zeros(2, len(_FIELDS), dtype=torch.float64)
    judged = torch.zeros(4, dtype=torch.int64)
    with count_progress("rows scored", len(chosen)) as advance:
        for batch in _make_batches(chosen):
            dataset = to_dataset([sample.example for sample in batch], found.format)
            scores = _score_batch(model, collator(list(dataset)), candidates)
            sums += _sum_segments(scores)
            judged += _count_surprises(scores)
            for _ in batch:
                advance()
    name = name or getattr(model.config, "_name_or_path", "") or type(model).__name__
    think, answer = (_average(values) for values in sums.tolist())
    return replace(found, losses=LossMeasure(name, len(chosen), think, answer, *judged.tolist()))


def _choose_samples(samples: Sequence[Sample], rows: int) -> list[Sample]:
    shuffled = random.Random(0).sample(samples, min(rows, len(samples)))
    ends = itertools.accumulate(map(_length, shuffled))
    return [sample for k, (sample, end) in enumerate(zip(shuffled, ends, strict=True)) if k == 0 or end <= TOKENS]


def _make_batches(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Samples of similar length share a batch, the longest first: memory that suffices for it suffices for all."""
    batch: list[Sample] = []
    for sample in sorted(samples, key=_length, reverse=True):
        if batch and (len(batch) == _BATCH_ROWS or (len(batch) + 1) * _length(batch[0]) > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(sample)
    yield batch


def _length(sample: Sample) -> int:
    return sample.total or sample.think + sample.answer


def _candidate_tokens(tokenizer: Any, words: Sequence[str]) -> Tensor:
    """The ids of tokens that alone are a number, or an answer that the data give again and again; sorted."""
    spellings = [spelled for word in (*_NUMBERS, *words) for spelled in (word, f" {word}", word.capitalize())]
    ids = tokenizer(spellings, add_special_tokens=False)["input_ids"]
    return torch.tensor(sorted({one[0] for one in ids if len(one) == 1}), dtype=torch.int64)


@torch.no_grad()
def _score_batch(model: Any, batch: Mapping[str, Any], candidates: Tensor) -> _Scores:
    inputs = {name: value.to(candidates.device) for name, value in batch.items() if name != BATCH_INFO}
    segments, labels = inputs.pop("segment_ids")[:, 1:], inputs.pop("labels")[:, 1:]
    kept = segments != IGNORE
    hidden_TD = model.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1][kept]
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    softcap, scale = read_softcap(config), read_logit_scale(config)
    bias_V = getattr(head, "bias", None)
    output = weighted_linear_cross_entropy(
        hidden_TD,
        head.weight,
        labels[kept],
        torch.zeros(len(hidden_TD), device=hidden_TD.device),
        bias_V=bias_V,
        softcap=softcap,
        logit_scale=scale,
        entropy=True,
    )
    nll_T, entropy_T = output.nll_T, output.entropy_T  # type: ignore[union-attr]
    logits_TC = hidden_TD @ head.weight[candidates].T + (0 if bias_V is None else bias_V[candidates])
    logits_TC = scale * logits_TC.float()
    if softcap:
        logits_TC = softcap * torch.tanh(logits_TC / softcap)
    other_T = _most_probable_other(logits_TC, nll_T, labels[kept], candidates)
    filled = (torch.full(segments.shape, empty, device=segments.device) for empty in (0.0, 0.0, -1.0))
    return _Scores(
        segments,
        *(
            whole.masked_scatter(kept, values.to(whole.dtype))
            for whole, values in zip(filled, (nll_T, entropy_T, other_T), strict=True)
        ),
    )


def _most_probable_other(logits_TC: Tensor, nll_T: Tensor, labels_T: Tensor, candidates: Tensor) -> Tensor:
    """The probability of the most probable candidate besides the target; -1 where the target is none."""
    if not len(candidates):
        return torch.full_like(nll_T, -1.0)
    named = torch.isin(labels_T, candidates)
    own = torch.searchsorted(candidates, labels_T.where(named, candidates[0]))[:, None]
    target_T = logits_TC.gather(1, own)[:, 0]
    best_T = logits_TC.scatter(1, own, float("-inf")).amax(1)
    return torch.where(named, torch.exp(best_T - target_T - nll_T), -1.0)


def _sum_segments(scores: _Scores) -> Tensor:
    """(2, 4): `_FIELDS` of both segments."""
    rows = []
    for segment in (THINK, ANSWER):
        mask = (scores.segments == segment).cpu()
        nll, entropy = (values.cpu()[mask].double() for values in (scores.nll, scores.entropy))
        rows.append(torch.stack([mask.sum().double(), nll.sum(), entropy.sum(), (entropy > _OPEN).sum().double()]))
    return torch.stack(rows)


def _count_surprises(scores: _Scores) -> Tensor:
    """(4,): values, conflicts, words and surprises of a `LossMeasure`."""
    width = scores.nll.shape[1]
    places = torch.arange(width, device=scores.nll.device).expand_as(scores.segments)
    surprises = torch.where(scores.nll > _SURPRISE, places, -width - EXPECTED)
    before = surprises.cummax(1).values.roll(1, dims=1)
    before[:, 0] = -width - EXPECTED
    think, is_value = scores.segments == THINK, scores.other >= 0
    values, words = think & is_value & (places - before > EXPECTED), think & ~is_value
    counted = (values, values & (scores.other > _SURE), words, words & (scores.nll > _SURPRISE))
    return torch.stack([mask.sum() for mask in counted]).cpu()


def _average(sums: Sequence[float]) -> SegmentLoss:
    tokens, *rest = sums
    return SegmentLoss(int(tokens), *(value / max(1.0, tokens) for value in rest))
