"""The options of SFT: TRL's and ours, with what cannot be exact refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from balanced_thinking.batch.completions import OVERFLOW
from balanced_thinking.loss.schedules import SCHEDULES, FlatteningRule, Schedule
from balanced_thinking.loss.weights import NORMALIZE
from balanced_thinking.training.safety import set_device_defaults

WEIGHTING = ("scale", "uniform")


def option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})  # typed as the field that it is a default of


@dataclass
class ScaleSFTConfig(SFTConfig):
    """TRL's `SFTConfig` and the options of SCALe. Everything it takes works as before, but for what cannot be exact."""

    weighting: str = option("scale", f"{' or '.join(WEIGHTING)}; uniform is plain SFT.")
    schedule: str = option("cosine", f"How the weight moves from thinking to answering: {', '.join(SCHEDULES)}.")
    think_weight_start: float = option(
        0.9, "Weight of the think segment at the first step; the answer's is 1 minus it."
    )
    think_weight_end: float = option(0.5, "Weight of the think segment at the last step.")
    schedule_hold_start: float = option(0.0, "Share of training during which the weight rests at its start.")
    schedule_hold_end: float = option(0.0, "Share of training during which the weight rests at its end.")
    adaptive_tolerance: float = option(
        0.05, "schedule adaptive: it moves once the think loss falls by less than this share in a 20th of the training."
    )
    adaptive_latest: float = option(0.5, "schedule adaptive: the share of training after which it moves in any case.")
    normalize: str = option("example", f"What a segment's mean runs over: {', '.join(NORMALIZE)} (token is plain SFT).")
    reasoning_format: Any = option("think-answer", "Name of the completions' reasoning format, or its definition.")
    overflow: str = option("error", f"What becomes of a sample longer than max_length: {', '.join(OVERFLOW)}.")
    packing: bool = option(
        False,
        "Whether the samples of a micro-batch share rows without padding; per_device_train_batch_size counts samples.",
    )
    pack_tokens: int | None = option(
        None, "Tokens of a packed row; null: one row of all samples, with eager attention as long as the longest one."
    )
    image_cache: str | None = option(
        None, "Folder that keeps what the image processor makes of each picture; safe to delete."
    )
    image_cache_gib: float = option(20.0, "GiB that the folder may grow to; what was not used for longest goes.")
    head_impl: str = option("auto", "Implementation of the weighted head: auto, triton, chunked, reference.")
    log_entropy: bool = option(
        False, "Whether the predictions' mean entropy (nats) is logged, too, for each segment and for both."
    )
    max_length: int | None = option(4096, "Tokens of a sample, prompt and picture included; null for no limit.")
    dataloader_num_workers: int | None = option(
        None, "Processes that decode and process pictures; null: 4 where there is a GPU, else none."
    )
    # transformers logs a NaN as 0 by default; we stop at one instead.
    logging_nan_inf_filter: bool = option(False, "Kept off: a run stops before a non-finite update.")

    bf16: bool | None = option(None, "bfloat16 mixed precision; on where a GPU supports it.")
    dataloader_pin_memory: bool = option(True, "Pin batches in memory; only where there is a GPU.")

    def __post_init__(self) -> None:
        set_device_defaults(self)
        super().__post_init__()
        for name, known in (("weighting", WEIGHTING), ("normalize", NORMALIZE), ("overflow", OVERFLOW)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")
        self.weight_schedule()
        FlatteningRule(self.adaptive_tolerance, self.adaptive_latest)
        self._refuse_inexact()

    def weight_schedule(self) -> Schedule:
        return Schedule(
            self.schedule,
            self.think_weight_start,
            self.think_weight_end,
            self.schedule_hold_start,
            self.schedule_hold_end,
        )

    def _refuse_inexact(self) -> None:
        completions = "only the completion is trained on"
        refused = {
            "label_smoothing_factor": (self.label_smoothing_factor != 0, "it changes the nll under the weights; set 0"),
            "loss_type": (self.loss_type != "nll", "DFT has weights of its own; set nll"),
            "eval_packing": (self.eval_packing is not None, "evaluation packs as training does; set packing alone"),
            "padding_free": (self.padding_free, "TRL's collator knows no segments; set packing=True instead"),
            "assistant_only_loss": (self.assistant_only_loss, f"{completions}; set false"),
            "completion_only_loss": (self.completion_only_loss is False, f"{completions}; leave it out"),
            "use_liger_kernel": (self.use_liger_kernel, "it replaces the forward of the weighted head; set false"),
            "router_aux_loss_coef": (bool(self.router_aux_loss_coef), "it is a mean per micro-batch; set 0"),
        }
        for name, (found, why) in refused.items():
            if found:
                raise ValueError(f"{name}={getattr(self, name)!r} cannot be exact with segment weights: {why}")
