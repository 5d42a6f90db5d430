"""SCALe-SFT and plain SFT: TRL's SFTTrainer with segments from the collator and weights from the schedule."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from trl import SFTTrainer

from balanced_thinking.batch.collator import ImageCache, ScaleCollator
from balanced_thinking.batch.feeding import OneBatchAhead, keep_batches_on_host
from balanced_thinking.batch.info import BATCH_INFO, CLOSING_TAGS, BatchInfo, segments_of_targets
from balanced_thinking.batch.turn_end import ensure_pad_token
from balanced_thinking.data.rows import ANSWER_FEATURES
from balanced_thinking.loss.schedules import FlatteningRule
from balanced_thinking.loss.weightings import Progress, StepWeights
from balanced_thinking.models.freezing import learns_from_pictures_alone
from balanced_thinking.models.parts import without_adapter
from balanced_thinking.models.processor_parts import tokenizer_of
from balanced_thinking.models.quantization import quantization_of
from balanced_thinking.models.template_variables import fix_template_variables
from balanced_thinking.packing.attention import use_packed_rows, use_per_sample_attention
from balanced_thinking.packing.masks import bidirectional_image_masks, has_image_masks
from balanced_thinking.segments import IGNORE
from balanced_thinking.training.best_checks import EVALUATED, measured_by_sft
from balanced_thinking.training.blank_pictures import StillPictureParts
from balanced_thinking.training.callbacks import ThinkLossMonitor
from balanced_thinking.training.changes import ABOUT_WEIGHTING, check_weighting
from balanced_thinking.training.early_stopping import EarlyStopping, check_measured
from balanced_thinking.training.gradient_norm import MatchedGradientNorm
from balanced_thinking.training.head import FullPrecisionLoss, attach_weighted_head, check_weighted_head
from balanced_thinking.training.metrics import SegmentTotals, refuse_all_dropped
from balanced_thinking.training.packing import choose_packing
from balanced_thinking.training.safety import SafeTrainer, refuse_split_examples
from balanced_thinking.training.sample_order import make_sampler, refuse_no_micro_batch
from balanced_thinking.training.sft_config import ScaleSFTConfig, refuse_unusable_arguments
from balanced_thinking.training.sharded import refuse_quantized_shards
from balanced_thinking.training.streams import complete_last_step
from balanced_thinking.training.validation_answers import check_validation_rows, score_validation_answers
from balanced_thinking.training.weighing import TokenWeigher


class ScaleSFTTrainer(MatchedGradientNorm, SafeTrainer, SFTTrainer):
    """TRL's SFTTrainer with the scheduled, per-segment loss.

    Takes TRL's own datasets: `prompt` + `completion`, or `messages`, of which only the last turn is trained on; with
    `images`, `image` or neither. Loss and gradient do not depend on micro-batches and ranks.
    """

    _tag_names = ("trl", "sft", "balanced-thinking")
    # Our denominators already cover the complete global batch.
    loss_is_scaled_for_ga = True
    _still_parts: StillPictureParts | None = None
    # The context in which the model attends to packed samples.
    _attention: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __init__(
        self,
        model: Any,
        args: ScaleSFTConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        args = ScaleSFTConfig() if args is None else args
        kwargs |= {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
        refuse_unusable_arguments(model, args, data_collator, kwargs)
        # TRL packs before the collator, and text only. Ours packs in the collator, images too.
        packing, args.packing = args.packing, False
        try:
            # `list` is a placeholder: our collator needs the processor, which TRL determines in its own __init__.
            super().__init__(model, args, data_collator or list, processing_class=processing_class, **kwargs)
        except StopIteration as error:
            raise ValueError("train_dataset has no rows; expected at least one") from error
        finally:
            args.packing = packing
        if args.chat_template_kwargs:
            fix_template_variables(self.processing_class, args.chat_template_kwargs)
        refuse_split_examples(self.accelerator.parallelism_config)
        refuse_no_micro_batch(self.train_dataset, args, self.accelerator.num_processes)
        if getattr(self, "aux_loss_enabled", False):
            raise ValueError("a router loss cannot be exact with segment weights; set router_aux_loss_coef=0.0")
        base = without_adapter(self.accelerator.unwrap_model(self.model))
        if self._is_sharded():
            refuse_quantized_shards(quantization_of(base))
        self._packing = choose_packing(base, args.pack_tokens, self.accelerator) if args.packing else None
        if self._packing is not None:
            self._attention = partial(use_per_sample_attention, base)
        self.weigher = TokenWeigher(args)
        if data_collator is None:
            self.data_collator = self._make_collator(base)
        self.schedule = self.weigher.schedule
        check_measured(self, measured_by_sft(vars(args)))
        self._totals = {"train": SegmentTotals(), "eval": SegmentTotals()}
        self._sums_before: torch.Tensor | None = None
        self._think_monitor: ThinkLossMonitor | None = None
        self._add_own_callbacks(base)
        attach_weighted_head(base, args.head_impl, args.log_entropy)
        check_weighted_head(base)
        if args.validation_generate:
            check_validation_rows(self)

    def _make_collator(self, base: Any) -> ScaleCollator:
        args = self.args
        ensure_pad_token(tokenizer_of(self.processing_class), args.pad_token)
        collator = ScaleCollator(
            self.processing_class,
            args.reasoning_format,
            args.max_length,
            args.overflow,
            args.pad_to_multiple_of,
            self._packing,
            always_image=self._is_sharded() or learns_from_pictures_alone(base),
            image_cache=ImageCache(args.image_cache, args.image_cache_gib) if args.image_cache else None,
        )
        if self.weigher.needs_marks:
            collator.mark_closing_tags()
        return collator

    def _add_own_callbacks(self, base: Any) -> None:
        args = self.args
        if self.schedule.name == "adaptive" and args.chosen_weighting == "scale":
            rule = FlatteningRule(args.adaptive_tolerance, args.adaptive_latest)
            self._think_monitor = ThinkLossMonitor(rule, self._sum_over_ranks)
            self.add_callback(self._think_monitor)
        if getattr(self.data_collator, "always_image", False):
            shares_gradients = self._is_sharded() and not self.accelerator.is_fsdp2
            self._still_parts = StillPictureParts(base, shares_gradients)
            self.add_callback(self._still_parts)
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(args.early_stopping_patience, args.early_stopping_threshold))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not isinstance(dataset, Dataset):  # a stream has no order to choose
            return super()._get_train_sampler(train_dataset)
        return make_sampler(self, dataset, packed=self._packing is not None)

    def _get_eval_sampler(self, eval_dataset: Any) -> None:
        """None: the order of the data, whatever that of training, so that predictions stay beside their rows."""

    # Rows stay unchanged until the collator: segments need the complete completion, and images stay paths until then.
    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """The dataset as it is; TRL would tokenize it here."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # these may be read by a collator of the user's own
        read = ("id", "messages", "prompt", "completion", "image", "images", "tools", *ANSWER_FEATURES)
        self._signature_columns: list[str] = [*dict.fromkeys((*self._signature_columns, *read))]

    def segment_weights(self) -> StepWeights:
        """The weights of the current optimizer step.

        They depend on the step, and for `adaptive` on the trainer's state, so that resuming is exact.
        """
        moved_at = self._think_monitor.moved_at(self.state) if self._think_monitor else None
        share = self.state.global_step / max(1, self.state.max_steps - 1)
        return self.weigher.step_weights(Progress(share, moved_at))

    def get_train_dataloader(self) -> Any:
        return keep_batches_on_host(super().get_train_dataloader())

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[Any, Any]:
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = complete_last_step(batches, num_batches, self.data_collator)
        return OneBatchAhead(batches, self._move_to_device), counts

    def _move_to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        device = self.args.device
        return batch if device.type == "cpu" else send_to_device(batch, device, non_blocking=True)

    def _sum_over_ranks(self, sums: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(sums, "sum")

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        """The denominators: the step's `count_examples_and_tokens`, over all its micro-batches and all ranks.

        Also notes in each micro-batch how many supervised tokens each segment has, and the step's pictures.
        """
        if not batch_samples:
            return None
        counts = torch.stack([self.weigher.count_batch(batch) for batch in batch_samples]).sum(0)
        counts = counts.float() if counts.is_floating_point() else counts  # not every device has float64
        pictures = sum(BatchInfo.from_batch(batch).pictures for batch in batch_samples)
        sums = self._sum_over_ranks(torch.cat([counts.flatten(), counts.new_tensor([pictures])]).to(device))
        if self._still_parts is not None:
            self._still_parts.note_pictures(sums[-1:])
        return sums[:-1].view_as(counts)

    def _describe_checkpoint(self) -> dict[str, Any]:
        return super()._describe_checkpoint() | {ABOUT_WEIGHTING: self.weigher.describe()}

    def _refuse_unsuitable(self, checkpoint: str) -> None:
        super()._refuse_unsuitable(checkpoint)
        check_weighting(Path(checkpoint), self)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with self._attention():
            found = super().train(*args, **kwargs)
        refuse_all_dropped(self.state.log_history, self.args.max_length)
        return found

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        training = self.model.training
        totals = self._totals["train" if training else "eval"]
        totals.start_clock()
        inputs = dict(inputs)
        info, row_segments = BatchInfo.from_batch(inputs), segments_of_targets(inputs)
        info = info.to(row_segments.device)
        factors = self.weigher.find_factors(inputs, info) if training else None
        for name in (BATCH_INFO, CLOSING_TAGS, "segment_ids"):
            inputs.pop(name, None)
        segments = info.unpack_samples(row_segments)
        if not training:
            segments = segments.masked_fill(self._mark_repeated_samples(info, segments)[:, None], IGNORE)
        weights = self.segment_weights() if training else self.weigher.evaluation_weights()
        per_token, known = self.weigher.weigh_tokens(segments, weights, num_items_in_batch, factors, info.supervised)
        gate = self.weigher.find_gate(row_segments) if training else ()
        carrier = FullPrecisionLoss(info.pack_samples(per_token, row_segments), known, *gate)
        attended = inputs["attention_mask"].sum() if info.token_indices is None else info.count_packed_tokens()
        if info.lengths_by_row is not None and "token_type_ids" in inputs and has_image_masks(self.model.config):
            config, types = self.model.config.get_text_config(), inputs["token_type_ids"]
            inputs["attention_mask"] = bidirectional_image_masks(config, info.lengths_by_row, types, self.model.dtype)
        with use_packed_rows(info.lengths_by_row):
            loss = carrier.restore_precision(model(**inputs, token_weights=carrier, use_cache=False).loss)
        found = carrier.found
        token_values = [values for values in (found.nll, found.correct, found.entropy) if values is not None]
        nll, correct, *entropy = map(info.unpack_samples, token_values)
        means = totals.add_batch(segments, nll, correct, attended, info.dropped, per_token, *entropy)
        totals.weights, totals.training = weights, training
        if training:
            self._notes.segments.append(means)
        if training and self._think_monitor:
            self._think_monitor.add_think_loss(nll, segments)
        # DDP averages gradients over the ranks, but the denominators are those of the global batch.
        loss = loss * self.accelerator.num_processes if training else loss
        if not return_outputs:
            return loss
        with torch.no_grad(), use_packed_rows(info.lengths_by_row):
            return loss, model(**{k: v for k, v in inputs.items() if k != "labels"}, use_cache=False)

    def _mark_repeated_samples(self, info: BatchInfo, segments: torch.Tensor) -> torch.Tensor:
        """(E,) which samples of an evaluation's batch are repetitions.

        accelerate fills the last round of the ranks with the first samples.
        """
        loader, samples = self.accelerator.gradient_state, len(segments)
        repeated = torch.zeros(samples, dtype=torch.bool, device=segments.device)
        if self.accelerator.num_processes > 1 and loader.end_of_dataloader and loader.remainder > 0:
            mine = loader.remainder - self.accelerator.process_index * self.args.eval_batch_size
            kept = torch.tensor(range(samples) if info.kept is None else info.kept, device=segments.device).long()
            repeated[: len(kept)] = kept >= mine
        return repeated

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """As upstream, with what the best checkpoint may be chosen by. The loss is a mean over the examples, which
        neither the size of a micro-batch nor a dropped sample changes."""
        self._totals["eval"] = SegmentTotals()
        with self._attention():
            output = super().evaluation_loop(dataloader, *args, **kwargs)
        found = self._totals["eval"].compute_metrics(self._sum_over_ranks)
        metrics = {name: value for name, value in found.items() if name in EVALUATED or name.endswith("entropy")}
        prefix = kwargs.get("metric_key_prefix", "eval")
        if self.args.validation_generate and prefix == "eval":
            metrics |= score_validation_answers(self, dataloader.dataset)
        output.metrics.update({f"{prefix}_{name}": value for name, value in metrics.items()})
        return output

    def remember_metrics(self) -> None:
        self._sums_before = self._totals["train"].sums

    def forget_step_metrics(self) -> None:
        self._totals["train"].leave_out_since(self._sums_before)
        if self._think_monitor:
            self._think_monitor.sums = None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "train" if self.model.training else "eval"
        period, self._totals[mode] = self._totals[mode], SegmentTotals()
        metrics = period.compute_metrics(self._sum_over_ranks)
        metrics.pop("loss", None)  # already in the logs
        tokens = int(metrics.pop("tokens", 0))
        counts_itself = self.args.include_num_input_tokens_seen not in (False, "no")  # transformers
        if mode == "train" and not counts_itself:
            self.state.num_input_tokens_seen += tokens
        if metrics:  # as TRL counts: attended tokens, prompt and images included, of all ranks since the training began
            metrics["num_tokens"] = self.state.num_input_tokens_seen
        self._metrics[mode] |= {name: [value] for name, value in metrics.items()}
        super().log(logs, start_time)
