"""SCALe-SFT and plain SFT: TRL's SFTTrainer with segments from the collator and weights from the schedule."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from torch.utils.data import RandomSampler
from trl import SFTTrainer

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.feeding import OneBatchAhead, keep_on_host
from balanced_thinking.batch.sampling import LengthEstimator, LengthSampler, StepSampler
from balanced_thinking.loss.schedules import FlatteningRule
from balanced_thinking.loss.weights import count_examples_and_tokens, count_weighted_tokens, token_weights
from balanced_thinking.packing.attention import packed_rows, use_per_sample_attention
from balanced_thinking.packing.layout import pack_into_rows, unpack_to_samples
from balanced_thinking.packing.masks import bidirectional_image_masks
from balanced_thinking.packing.positions import RopeIndex
from balanced_thinking.packing.probe import isolates_samples
from balanced_thinking.segments import IGNORE
from balanced_thinking.training.callbacks import ThinkLossMonitor
from balanced_thinking.training.head import FullPrecisionLoss, attach_weighted_head
from balanced_thinking.training.metrics import EVALUATION_WEIGHTS, SegmentTotals
from balanced_thinking.training.safety import SafeTrainer
from balanced_thinking.training.sft_config import ScaleSFTConfig

logger = logging.getLogger(__name__)
_ONE_ROW = 2**31  # tokens: no micro-batch has more


def _by_sample(values: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
    """Values of the predicted positions as a row for each sample, however the batch is laid out."""
    places = batch.get("places")
    return values if places is None else unpack_to_samples(values, places)


class ScaleSFTTrainer(SafeTrainer, SFTTrainer):
    """TRL's SFTTrainer with the scheduled, per-segment loss.

    Takes TRL's own datasets: `prompt` + `completion` or `messages`, with `images`, `image` or neither. The loss and its
    gradient are the same however the global batch is cut into micro-batches and ranks.
    """

    _tag_names = ("trl", "sft", "balanced-thinking")
    # Our denominators already cover the whole global batch.
    loss_is_scaled_for_ga = True
    _groups_lengths = False
    _attention: Callable[[], AbstractContextManager[Any]] = nullcontext  # within which packed samples are attended to

    def __init__(
        self,
        model: Any = None,
        args: ScaleSFTConfig | None = None,
        data_collator: Any = None,
        *,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        args = args or ScaleSFTConfig()
        for name, why in (
            ("compute_loss_func", "replaces the weighted loss"),
            ("formatting_func", "hides the segments"),
        ):
            if kwargs.get(name) is not None:
                raise ValueError(f"{name} {why}; leave it out, or use trl.SFTTrainer")
        if getattr(kwargs.get("peft_config"), "is_prompt_learning", False):
            raise ValueError(
                "peft_config adds virtual tokens to the prompt, which have no segment; use LoRA or full fine-tuning"
            )
        if data_collator is not None and args.packing:
            raise ValueError("packing=True packs in our own collator, and another one was given; leave one of them out")
        # TRL packs text only, and before the collator: ours packs there, pictures too.
        packing, args.packing = args.packing, False
        try:
            # TRL settles the processor while it starts, so our collator takes the place of a stand-in afterwards.
            super().__init__(model, args, data_collator or list, processing_class=processing_class, **kwargs)
        finally:
            args.packing = packing
        self._refuse_parallelism()
        if getattr(self, "aux_loss_enabled", False):
            raise ValueError(
                "the model's router loss cannot be exact with segment weights; set router_aux_loss_coef=0.0"
            )
        unwrapped = self.accelerator.unwrap_model(self.model)
        base = unwrapped.get_base_model() if hasattr(unwrapped, "get_base_model") else unwrapped
        if data_collator is None:
            self.data_collator = ScaleCollator(
                self.processing_class,
                args.reasoning_format,
                args.max_length,
                args.overflow,
                args.pad_to_multiple_of,
                always_picture=self._is_sharded(),
                image_cache=args.image_cache,
                image_cache_gib=args.image_cache_gib,
                **(self._packing_options(base) if args.packing else {}),
            )
        self.normalize = "token" if args.weighting == "uniform" else args.normalize
        self.schedule = args.weight_schedule()
        self._totals = {"train": SegmentTotals(), "eval": SegmentTotals()}
        self._flattening: ThinkLossMonitor | None = None
        if self.schedule.name == "adaptive" and args.weighting == "scale":
            rule = FlatteningRule(args.adaptive_tolerance, args.adaptive_latest)
            self._flattening = ThinkLossMonitor(rule, self._sum_over_ranks)
            self.add_callback(self._flattening)
        attach_weighted_head(base, args.head_impl, args.log_entropy)

    def _packing_options(self, model: Any) -> dict[str, Any]:
        """The collator's options for packing; none, and a word about it, where the model can't tell samples apart."""
        with use_per_sample_attention(model) as by_sample:
            # The first rank tells for all, which must sample alike: under FSDP it may be the only one with weights.
            apart = torch.tensor(float(isolates_samples(model)), device=self.args.device)
        if not self.accelerator.reduce(apart * self.accelerator.is_main_process, "sum"):
            self._groups_lengths = True
            logger.warning(
                "packing: it is not known that %s keeps the samples of a row apart, so micro-batches are padded and "
                "made of samples of similar length instead",
                type(model).__name__,
            )
            return {}
        flash = "flash" in (model.config.get_text_config()._attn_implementation or "")
        if flash and self.args.pack_tokens is not None:
            raise ValueError(
                f"pack_tokens is {self.args.pack_tokens}, but FlashAttention takes one row of all samples; leave it "
                "out, and bound the memory by per_device_train_batch_size"
            )
        self._attention = partial(use_per_sample_attention, model)
        # A dense mask costs a row's length squared; attended to one by one, samples lie in one row without filler.
        tokens = self.args.pack_tokens or (_ONE_ROW if flash or by_sample else None)
        return {"packing": True, "pack_tokens": tokens, "rope_index": RopeIndex.from_model(model), "varlen": flash}

    def _refuse_parallelism(self) -> None:
        plan = self.accelerator.parallelism_config
        for name in ("cp", "sp", "tp"):
            if plan is not None and getattr(plan, f"{name}_enabled", False):
                raise ValueError(
                    f"{name}_size > 1 cannot be exact with segment weights: a rank would see part of an example; "
                    f"set parallelism_config.{name}_size=1 and shard with DDP, FSDP or ZeRO-3 instead"
                )

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        args, strategy = self.args, self.args.train_sampling_strategy
        if strategy == "sequential" or not isinstance(dataset, Dataset):  # a stream has no order to choose
            return super()._get_train_sampler(train_dataset)
        lengths = LengthEstimator(dataset, self.processing_class)
        if strategy == "group_by_length" or (self._groups_lengths and strategy == "random"):
            batch = self._train_batch_size * args.gradient_accumulation_steps
            return LengthSampler(batch, lengths(range(len(dataset))), args.seed)
        if self.accelerator.split_batches or self.accelerator.dispatch_batches:
            return super()._get_train_sampler(train_dataset)
        return StepSampler(
            RandomSampler(dataset),
            lengths,
            self._train_batch_size,
            args.gradient_accumulation_steps,
            self.accelerator.num_processes,
            self.accelerator.process_index,
            packed=args.packing and not self._groups_lengths,
            drop_last=args.dataloader_drop_last,
        )

    def _get_eval_sampler(self, eval_dataset: Any) -> None:
        """In the data's own order whatever that of training, as predictions are read beside their rows."""

    # Rows stay as they are until the collator: segments need the whole completion, and pictures stay paths until then.
    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["id", "messages", "prompt", "completion", "image", "images"]

    def segment_weights(self) -> tuple[float, float]:
        """(think, answer) weights of the optimizer step under way. They depend on the step, and for `adaptive` on what
        the trainer's state keeps, so resuming is exact."""
        moved_at = self._flattening.moved_at(self.state) if self._flattening else None
        return self.schedule.weights(self.state.global_step / max(1, self.state.max_steps - 1), moved_at)

    def get_train_dataloader(self) -> Any:
        return keep_on_host(super().get_train_dataloader())

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[Any, Any]:
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        return OneBatchAhead(batches, self._move_to_device), counts

    def _move_to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        device = self.args.device
        return batch if device.type == "cpu" else send_to_device(batch, device, non_blocking=True)

    def _sum_over_ranks(self, sums: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(sums, "sum")

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        """The denominators: the step's `count_examples_and_tokens`, over all its micro-batches and all ranks.

        Also writes each micro-batch's number of supervised tokens of each segment into it.
        """
        if not batch_samples:
            return None
        counts = []
        for batch in batch_samples:
            segments = batch["segment_ids"][:, 1:]
            counts.append(count_examples_and_tokens(_by_sample(segments, batch)))
            # Known here, before the batch is moved. A collator of the user's own may have other labels than segments.
            if torch.equal(batch["labels"][:, 1:] != -100, segments != IGNORE):
                batch["supervised"] = counts[-1][1].tolist()
        return self.accelerator.reduce(torch.stack(counts).sum(0).to(device), "sum")

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with self._attention():
            return super().train(*args, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        training = self.model.training
        totals = self._totals["train" if training else "eval"]
        totals.start_clock()
        inputs = dict(inputs)
        packed_segments = inputs.pop("segment_ids")[:, 1:]
        places, rows = inputs.pop("places", None), inputs.pop("rows", None)
        segments = _by_sample(packed_segments, {"places": places})
        dropped, kept, supervised = inputs.pop("dropped"), inputs.pop("kept"), inputs.pop("supervised", None)
        if not training:
            segments = segments.masked_fill(self._repeated_samples(kept, len(segments))[:, None], IGNORE)
        counts = count_examples_and_tokens(segments) if num_items_in_batch is None else num_items_in_batch
        think, answer = self.segment_weights() if training else EVALUATION_WEIGHTS
        normalize = self.normalize if training or self.normalize == "token" else "example"
        weights = token_weights(segments, counts, think, answer, normalize)
        if places is not None:
            weights = pack_into_rows(weights, places, packed_segments)
            if "token_type_ids" in inputs:
                config, types = self.model.config.get_text_config(), inputs["token_type_ids"]
                inputs["attention_mask"] = bidirectional_image_masks(config, rows, types, self.model.dtype)
        exact = FullPrecisionLoss(weights, supervised and count_weighted_tokens(supervised, think, answer, normalize))
        with packed_rows(rows):
            loss = exact.restore_precision(model(**inputs, token_weights=exact, use_cache=False).loss)
        found = exact.found
        of_tokens = [values for values in (found.nll, found.correct, found.entropy) if values is not None]
        nll, correct, *entropy = (_by_sample(values, {"places": places}) for values in of_tokens)
        attended = inputs["attention_mask"].sum() if places is None else (places >= 0).sum() + len(places)
        totals.add_batch(segments, nll, correct, [attended, dropped], *entropy)
        totals.weights = (think, answer) if training else None
        if training and self._flattening:
            self._flattening.add_batch(nll, segments)
        # DDP averages gradients over the ranks, but the denominators are those of the global batch.
        loss = loss * self.accelerator.num_processes if training else loss
        if not return_outputs:
            return loss
        with torch.no_grad(), packed_rows(rows):
            return loss, model(**{k: v for k, v in inputs.items() if k != "labels"}, use_cache=False)

    def _repeated_samples(self, kept: torch.Tensor, samples: int) -> torch.Tensor:
        """(E,) which samples of an evaluation's batch came before: accelerate fills the last round of the ranks up with
        the first samples."""
        loader, repeated = self.accelerator.gradient_state, torch.zeros(samples, dtype=torch.bool, device=kept.device)
        if self.accelerator.num_processes > 1 and loader.end_of_dataloader and loader.remainder > 0:
            mine = loader.remainder - self.accelerator.process_index * self.args.eval_batch_size
            repeated[: len(kept)] = kept >= mine
        return repeated

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of an evaluation is taken over its examples, so that neither the size of a micro-batch nor a
        dropped sample moves it."""
        self._totals["eval"] = SegmentTotals()
        with self._attention():
            output = super().evaluation_loop(*args, **kwargs)
        metrics = self._totals["eval"].compute_metrics(self._sum_over_ranks, self.normalize)
        if "loss" in metrics:
            output.metrics[f"{kwargs.get('metric_key_prefix', 'eval')}_loss"] = metrics["loss"]
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "train" if self.model.training else "eval"
        period, self._totals[mode] = self._totals[mode], SegmentTotals()
        metrics = period.compute_metrics(self._sum_over_ranks, self.normalize)
        metrics.pop("loss", None)  # stands in the logs already
        tokens = int(metrics.pop("tokens", 0))
        if mode == "train":
            self._add_seen_tokens(tokens)
        if metrics:  # as TRL counts them: attended, prompt and picture included, over all ranks and the whole training
            metrics["num_tokens"] = self.state.num_input_tokens_seen
        self._metrics[mode] |= {name: [value] for name, value in metrics.items()}
        super().log(logs, start_time)

    def _add_seen_tokens(self, tokens: int) -> None:
        if self.args.include_num_input_tokens_seen in (False, "no"):  # else transformers counts
            self.state.num_input_tokens_seen += tokens

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # Of a logging period that has begun: a run that goes on from here will not see them.
        self._add_seen_tokens(self._totals["train"].count_new_tokens(self._sum_over_ranks))
        super()._save_checkpoint(*args, **kwargs)
