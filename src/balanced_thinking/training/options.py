"""The training arguments that are ours, with their defaults and help. No torch: `--help` and the command line's checks
read them here, and the configs of the trainers inherit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.loss.schedules import SCHEDULES, FlatteningRule, Schedule
from balanced_thinking.loss.variants import HEAD_IMPLEMENTATIONS, NORMALIZE
from balanced_thinking.scoring.scorers import SCORERS, get_scorer
from balanced_thinking.segments import get_format
from balanced_thinking.segments.trim import OVERFLOW
from balanced_thinking.training.rewards import REWARDS, check_rewards

WEIGHTING = ("scale", "uniform")
CREDIT = ("completion", "segment")
_CREDIT_SCHEDULES = [name for name in SCHEDULES if name != "adaptive"]  # which follows a think loss
# What the commands set of TRL's arguments where nothing else is asked for. `disable_tqdm` is among them because
# transformers hides the progress bar from whoever asks for fewer warnings.
DEFAULTS = {"report_to": "none", "logging_steps": 10, "save_total_limit": 2, "disable_tqdm": False}
DEFAULTS_HELP = {
    "report_to": "Where metrics.jsonl goes, too: tensorboard, trackio, wandb ...",
    "logging_steps": "Optimizer steps between two rows of metrics.jsonl.",
    "save_total_limit": "Checkpoints that are kept.",
}


def option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})  # typed as the field that it is a default of


@dataclass
class ScaleSFTOptions:
    """What `ScaleSFTConfig` adds to TRL's `SFTConfig`, and where its defaults differ."""

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
    head_impl: str = option("auto", f"Implementation of the weighted head: {', '.join(HEAD_IMPLEMENTATIONS)}.")
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

    def check_options(self) -> None:
        """Raises ValueError for a value that none of these options can have."""
        _refuse_unknown(self, "weighting", WEIGHTING)
        _refuse_unknown(self, "normalize", NORMALIZE)
        _refuse_unknown(self, "overflow", OVERFLOW)
        _refuse_unknown(self, "head_impl", HEAD_IMPLEMENTATIONS)
        get_format(self.reasoning_format)
        self.weight_schedule()
        FlatteningRule(self.adaptive_tolerance, self.adaptive_latest)

    def weight_schedule(self) -> Schedule:
        return Schedule(
            self.schedule,
            self.think_weight_start,
            self.think_weight_end,
            self.schedule_hold_start,
            self.schedule_hold_end,
        )


@dataclass
class ScaleGRPOOptions:
    """What `ScaleGRPOConfig` adds to TRL's `GRPOConfig`, and where its defaults differ."""

    rewards: dict[str, float] | None = option(
        None, f"Weight of each reward: {', '.join(REWARDS)}. null: accuracy 1.0, format 0.2."
    )
    reward_scorer: str = option("numeric", f"How the accuracy reward compares answers: {', '.join(SCORERS)}.")
    think_budget: int = option(256, "Think tokens from which on the conciseness reward falls.")
    reasoning_format: Any = option("think-answer", "Name of the completions' reasoning format, or its definition.")
    credit: str = option(
        "completion",
        f"What an advantage is credited to: {' or '.join(CREDIT)} (each one's mean, weighted as in SCALe).",
    )
    schedule: str = option("constant", f"How credit moves from thinking to answering: {', '.join(_CREDIT_SCHEDULES)}.")
    think_weight_start: float = option(0.5, "Share of the credit that thinking gets at the first step.")
    think_weight_end: float = option(0.5, "Share of the credit that thinking gets at the last step.")
    bf16: bool | None = option(None, "bfloat16 mixed precision; on where a GPU supports it.")
    dataloader_pin_memory: bool = option(True, "Pin batches in memory; only where there is a GPU.")

    def check_options(self) -> None:
        """Raises ValueError for a value that none of these options can have."""
        if self.rewards is not None:
            check_rewards(self.rewards)
        get_scorer(self.reward_scorer)
        get_format(self.reasoning_format)
        _refuse_unknown(self, "credit", CREDIT)
        if self.think_budget < 1:
            raise ValueError(f"think_budget is {self.think_budget}; expected at least 1 token")
        if self.schedule == "adaptive":
            raise ValueError("schedule='adaptive' follows a think loss, which GRPO has not; choose another schedule")
        self.credit_schedule()

    def credit_schedule(self) -> Schedule:
        return Schedule(self.schedule, self.think_weight_start, self.think_weight_end)


def _refuse_unknown(options: Any, name: str, known: Sequence[str]) -> None:
    if (value := getattr(options, name)) not in known:
        raise ValueError(f"{name} is {value!r}{did_you_mean(str(value), known)}; known: {', '.join(known)}")
