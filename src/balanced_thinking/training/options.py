"""Our own training arguments with their defaults and help.

No torch: `--help` and the checks of the command line read them here. The configs of the trainers inherit them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.loss.schedules import SCHEDULES, TWO_WEIGHTS, FlatteningRule, Schedule
from balanced_thinking.loss.variants import HEAD_IMPLEMENTATIONS, NORMALIZE, TOKEN_GATE_ON, TOKEN_GATES
from balanced_thinking.loss.weightings import WEIGHTINGS
from balanced_thinking.scoring.scorers import SCORERS, get_scorer
from balanced_thinking.segments import get_format
from balanced_thinking.segments.trim import OVERFLOW
from balanced_thinking.training.algorithms import ALGORITHMS, AlgorithmArguments
from balanced_thinking.training.default_weights import (
    ONE_WEIGHT,
    WEIGHTING_OPTIONS,
    resolve_segment_weights,
    resolve_weighting,
)
from balanced_thinking.training.rewards import REWARDS, check_rewards

WEIGHTING = tuple(WEIGHTINGS)
CREDIT = ("completion", "segment")
ON_NONFINITE = ("stop", "skip")
_CREDIT_SCHEDULES = [name for name in SCHEDULES if name != "adaptive"]  # adaptive needs a think loss
# TRL's arguments for which the commands have other defaults. `disable_tqdm` is among them because transformers would
# hide the progress bar from a user who asks for fewer warnings.
DEFAULTS = {"report_to": "none", "logging_steps": 10, "save_total_limit": 2, "disable_tqdm": False}
# What only `scale` follows.
_SCALE_ONLY_OPTIONS = (
    *WEIGHTING_OPTIONS[1:],
    *("schedule_hold_start", "schedule_hold_end", "adaptive_tolerance", "adaptive_latest", "normalize"),
)
DEFAULTS_HELP = {
    "report_to": "Where metrics go besides metrics.jsonl: tensorboard, trackio, wandb ...",
    "logging_steps": "Optimizer steps per row of metrics.jsonl.",
    "save_total_limit": "Number of checkpoints to keep.",
}


def option_field(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})  # `Any`, so that the field keeps its own type


# Of options that both stages have.
_MAX_HOURS = (
    "Time budget, from the start of the command: then a checkpoint is saved and the exit code is 143. The longest "
    "step, evaluation and save so far are kept in reserve."
)
# A name, a definition or a `ReasoningFormat`. Of such a union transformers' parser of commands reads a text or JSON.
if TYPE_CHECKING:
    _Format = Any
else:
    _Format = dict[str, Any] | str | None
_REASONING_FORMAT = "Name of the completions' reasoning format, or its definition."
_ON_NONFINITE = (
    f"What happens at a loss or gradient that is NaN or infinite: {' or '.join(ON_NONFINITE)}. skip leaves the update "
    "out; it reads every step, for which a GPU waits."
)
_NONFINITE_LIMIT = "on_nonfinite skip: maximum number of skipped updates before the run stops."


@dataclass
class ScaleSFTOptions:
    """What `ScaleSFTConfig` adds to TRL's `SFTConfig`, and where its defaults differ."""

    weighting: str | None = option_field(
        None,
        f"{', '.join(WEIGHTING)}. scale: a weight for thinking and one for the answer; uniform: plain SFT, one mean "
        "over all supervised tokens; example-mean: plain SFT, a mean over each example, then over these; sftkey: "
        "uniform, then the answer alone; null: scale, or uniform for the format direct.",
    )
    schedule: str | None = option_field(
        None,
        f"How the weight moves from thinking to answering: {', '.join(SCHEDULES)}; null: {TWO_WEIGHTS.name}.",
    )
    think_weight_start: float | None = option_field(
        None,
        f"Weight of the think segment at the first step. The answer's is 1 minus it, unless it has its own. null: "
        f"{ONE_WEIGHT['think_weight_start']} if only think_weight_end is given, else {TWO_WEIGHTS.start:g}.",
    )
    think_weight_end: float | None = option_field(
        None,
        f"Weight of the think segment at the last step. null: {ONE_WEIGHT['think_weight_end']} if only "
        f"think_weight_start is given, else {TWO_WEIGHTS.end:g}.",
    )
    schedule_hold_start: float = option_field(
        0.0, "Share of training, at its start, during which the weight stays constant."
    )
    schedule_hold_end: float = option_field(
        0.0, "Share of training, at its end, during which the weight stays constant."
    )
    adaptive_tolerance: float = option_field(
        0.05,
        "schedule adaptive: the weight moves once the think loss falls by less than this share in 1/20 of training.",
    )
    adaptive_latest: float = option_field(
        0.5, "schedule adaptive: the share of training after which the weight moves in any case."
    )
    normalize: str = option_field(
        "example", f"What a segment's mean runs over: {', '.join(NORMALIZE)}. token is plain SFT."
    )
    reasoning_format: _Format = option_field("think-answer", _REASONING_FORMAT)
    overflow: str = option_field("error", f"What to do with a sample longer than max_length: {', '.join(OVERFLOW)}.")
    packing: bool = option_field(
        False,
        "Whether the samples of a micro-batch share rows, without padding; per_device_train_batch_size counts samples.",
    )
    pack_tokens: int | None = option_field(
        None, "Tokens of a packed row; null: one row for all samples (eager attention: as long as the longest sample)."
    )
    image_cache: str | None = option_field(
        None,
        "Folder that keeps the image processor's output for each image; null: none. It may be deleted at any time.",
    )
    image_cache_gib: float = option_field(
        20.0, "Size limit of that folder in GiB; the least recently used entries are deleted first."
    )
    head_impl: str = option_field("auto", f"Implementation of last layer and loss: {', '.join(HEAD_IMPLEMENTATIONS)}.")
    log_entropy: bool = option_field(
        False, "Whether to log the mean entropy (nats) of predictions, for each segment and for both."
    )
    max_length: int | None = option_field(4096, "Maximum tokens of a sample, prompt and images included; null: none.")
    dataloader_num_workers: int | None = option_field(
        None, "Processes that decode and process images; null: 4 with a GPU, else none."
    )
    # transformers logs a NaN as 0 by default; we stop instead.
    logging_nan_inf_filter: bool = option_field(False, "Keep it false: a run stops before a non-finite update.")

    max_hours: float | None = option_field(None, _MAX_HOURS)
    on_nonfinite: str = option_field("stop", _ON_NONFINITE)
    nonfinite_limit: int = option_field(10, _NONFINITE_LIMIT)
    bf16: bool | None = option_field(None, "bfloat16 mixed precision; null: on where a GPU supports it.")
    dataloader_pin_memory: bool = option_field(True, "Pin batches in memory; without a GPU always off.")
    # New ones come last, because scripts may rely on the order.
    answer_weight_start: float | None = option_field(
        None,
        "Weight of the answer at the first step, independent of the think weight. null: 1 minus a think weight that is "
        f"given, else {TWO_WEIGHTS.answer_start}.",
    )
    answer_weight_end: float | None = option_field(
        None,
        "Weight of the answer at the last step; set together with answer_weight_start. null: 1 minus a think weight "
        f"that is given, else {TWO_WEIGHTS.answer_end:g}.",
    )
    closing_tag_factor: float = option_field(
        1.0,
        "Factor on the tokens that close the thinking, open and close the answer and end the turn, in weighted means.",
    )
    token_gate: str = option_field(
        "none",
        f"Factor on a token's loss, from its prediction: {', '.join(TOKEN_GATES)}. dft: its own probability; eaft: the "
        "entropy of the prediction (both without gradient).",
    )
    token_gate_on: str = option_field("all", f"The tokens that token_gate changes: {' or '.join(TOKEN_GATE_ON)}.")
    match_gradient_norm: float | None = option_field(
        None, "Norm to which the gradient of every step is scaled, up or down; null: none. Not for DeepSpeed."
    )
    validation_generate: int = option_field(
        0, "Rows of the validation split to answer at each evaluation, for eval_accuracy and eval_malformed; 0: none."
    )
    validation_max_new_tokens: int = option_field(512, "Longest answer of validation_generate, in tokens.")
    validation_scorer: str = option_field("exact", f"Scorer of validation_generate: {', '.join(SCORERS)}.")
    early_stopping_patience: int | None = option_field(
        None, "Evaluations without improvement of metric_for_best_model after which the training ends; null: never."
    )
    early_stopping_threshold: float = option_field(0.0, "An improvement counts if it is larger than this.")
    chat_template_kwargs: dict[str, Any] | str | None = option_field(
        None, "Variables of the chat template, such as enable_thinking=false. The model is saved with them."
    )

    def check_options(self) -> None:
        """Raises ValueError for a value that an option cannot have."""
        _refuse_no_time(self.max_hours)
        if self.weighting is not None:
            _refuse_unknown(self, "weighting", WEIGHTING)
        _refuse_unknown(self, "normalize", NORMALIZE)
        _refuse_unknown(self, "overflow", OVERFLOW)
        _refuse_unknown(self, "head_impl", HEAD_IMPLEMENTATIONS)
        _refuse_unknown(self, "on_nonfinite", ON_NONFINITE)
        _refuse_unknown(self, "token_gate", TOKEN_GATES)
        _refuse_unknown(self, "token_gate_on", TOKEN_GATE_ON)
        if self.token_gate == "none" and self.token_gate_on != "all":
            raise ValueError(f"token_gate_on is {self.token_gate_on!r}, but token_gate is 'none'; choose a gate")
        get_format(self.reasoning_format)
        get_scorer(self.validation_scorer)
        for name in ("closing_tag_factor", "match_gradient_norm"):
            _refuse_not_positive(self, name)
        self.weight_schedule()
        FlatteningRule(self.adaptive_tolerance, self.adaptive_latest)

    @property
    def chosen_weighting(self) -> str:
        """`weighting`, or what it is where it is null."""
        return resolve_weighting(vars(self))["weighting"]

    @property
    def states_weights(self) -> bool:
        """Whether anything is given that decides the weights of the segments."""
        return any(getattr(self, name) is not None for name in WEIGHTING_OPTIONS)

    def weight_schedule(self) -> Schedule:
        chosen = resolve_segment_weights(vars(self))
        return Schedule(
            chosen["schedule"],
            chosen["think_weight_start"],
            chosen["think_weight_end"],
            self.schedule_hold_start,
            self.schedule_hold_end,
            chosen.get("answer_weight_start"),
            chosen.get("answer_weight_end"),
        )


def given_segment_options(values: Mapping[str, Any]) -> Iterator[str]:
    """The options among some training arguments that weigh the segments and have another value than by default."""
    for name in _SCALE_ONLY_OPTIONS:
        if values.get(name) not in (None, getattr(ScaleSFTOptions, name)):
            yield name


@dataclass
class ScaleGRPOOptions(AlgorithmArguments):
    """What `ScaleGRPOConfig` adds to TRL's `GRPOConfig`, and where its defaults differ."""

    rewards: dict[str, float] | None = option_field(
        None,
        f"Weight of each reward: {', '.join(REWARDS)}, or your own module:function. null: accuracy 1.0, format 0.2.",
    )
    reward_scorer: str = option_field(
        "numeric", f"How the accuracy reward compares answers: {', '.join(SCORERS)}, or module:function for your own."
    )
    think_budget: int = option_field(256, "Number of think tokens above which the conciseness reward falls.")
    reasoning_format: _Format = option_field("think-answer", _REASONING_FORMAT)
    credit: str = option_field(
        "completion",
        "completion: all tokens get the same advantage; segment: reasoning and answer share it by weight, as in SCALe.",
    )
    schedule: str = option_field(
        "constant", f"How credit moves from thinking to answering: {', '.join(_CREDIT_SCHEDULES)}."
    )
    think_weight_start: float = option_field(0.5, "Share of the credit that thinking gets at the first step.")
    think_weight_end: float = option_field(0.5, "Share of the credit that thinking gets at the last step.")
    max_hours: float | None = option_field(None, _MAX_HOURS)
    on_nonfinite: str = option_field("stop", _ON_NONFINITE)
    nonfinite_limit: int = option_field(10, _NONFINITE_LIMIT)
    bf16: bool | None = option_field(None, "bfloat16 mixed precision; null: on where a GPU supports it.")
    dataloader_pin_memory: bool = option_field(True, "Pin batches in memory; without a GPU always off.")
    algorithm: str | None = option_field(
        None,
        f"Variant of GRPO: {', '.join(ALGORITHMS)}. Sets TRL's arguments for its loss, except those that are given; "
        "null: TRL's defaults.",
    )

    def check_options(self) -> None:
        """Raises ValueError for a value that an option cannot have."""
        _refuse_no_time(self.max_hours)
        if self.algorithm is not None:
            _refuse_unknown(self, "algorithm", tuple(ALGORITHMS))
        if self.rewards is not None:
            check_rewards(self.rewards)
        get_scorer(self.reward_scorer)
        get_format(self.reasoning_format)
        _refuse_unknown(self, "credit", CREDIT)
        _refuse_unknown(self, "on_nonfinite", ON_NONFINITE)
        if self.think_budget < 1:
            raise ValueError(f"think_budget is {self.think_budget}; expected at least 1 token")
        if self.schedule == "adaptive":
            raise ValueError(
                "schedule='adaptive' needs a think loss, which GRPO does not have; choose another schedule"
            )
        self.credit_schedule()

    def credit_schedule(self) -> Schedule:
        return Schedule(self.schedule, self.think_weight_start, self.think_weight_end)


def _refuse_unknown(options: Any, name: str, known: Sequence[str]) -> None:
    if (value := getattr(options, name)) not in known:
        raise ValueError(f"{name} is {value!r}{did_you_mean(str(value), known)}; known: {', '.join(known)}")


def _refuse_not_positive(options: Any, name: str) -> None:
    value = getattr(options, name)
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; expected a finite number above 0")


def _refuse_no_time(max_hours: float | None) -> None:
    if max_hours is not None and not 0 < max_hours < math.inf:
        raise ValueError(f"max_hours is {max_hours}; expected more than 0 hours and finite, or null for no limit")
