"""What kind of data it is: what the embedded world's options `conclusion`, `false_steps`, `wording` and `ratio` vary.

The thresholds were set on training rows of the embedded world (docs/your-data.md says how) and hold for words of other
data as far as docs/your-data.md shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from balanced_thinking.inspection.conclusion import Conclusions
from balanced_thinking.inspection.supported import describe_supported

UNKNOWN = "unknown"
# Shares of the rows whose last sentence concludes with a candidate: from here on stated, up to here unstated.
STATED_FROM, UNSTATED_TO = 0.80, 0.55
# From this share on, conclusions contradict the answer, or places of the reasoning the model, often.
CONFLICTING_FROM = 0.03
# From this entropy on (nats per think token), there are several ways to say the same, as a model knows that follows the
# text: whose nll is at most so much above its entropy, in nats or as a factor.
VARIED_FROM, FOLLOWS_TO, FOLLOWS_FACTOR = 0.08, 0.75, 1.5
# For another model: from this share on, of the words of the reasoning that surprise it.
SURPRISING_FROM = 0.27
FEWEST_PLACES = 30  # fewer say nothing about a share of 3 %


@dataclass(frozen=True)
class SegmentLoss:
    """A segment's tokens: their number, their mean nll, the mean entropy of the model's predictions (nats per token),
    and the share of tokens with several ways to go on."""

    tokens: int
    nll: float
    entropy: float
    open_share: float


@dataclass(frozen=True)
class LossMeasure:
    """What a model says of a sample of rows.

    Values are tokens of the reasoning that are a number or one of the data's frequent answers. values: those that come
    after `losses.EXPECTED` tokens that the model had expected. conflicts: where it is sure of another value. words: all
    other tokens of the reasoning. surprises: words that the model gave less than 5 %.
    """

    model: str
    rows: int
    think: SegmentLoss
    answer: SegmentLoss
    values: int
    conflicts: int
    words: int
    surprises: int

    @property
    def think_share(self) -> float:
        """The share of plain SFT's loss, in nats, that the reasoning has."""
        think, answer = (segment.tokens * segment.nll for segment in (self.think, self.answer))
        return think / (think + answer) if think + answer else 0.0

    @property
    def follows_text(self) -> bool:
        """Whether the model expects such text: else its entropy says little about it."""
        entropy = self.think.entropy
        return self.think.nll <= max(entropy + FOLLOWS_TO, entropy * FOLLOWS_FACTOR)

    @property
    def conflict_share(self) -> float | None:
        """The share of values where the model is sure of another one; None where too few were seen."""
        return self.conflicts / self.values if self.values >= FEWEST_PLACES else None

    @property
    def surprise_share(self) -> float | None:
        """The share of words that surprise the model; None where too few were seen."""
        return self.surprises / self.words if self.words >= FEWEST_PLACES else None


@dataclass(frozen=True)
class DataKind:
    """The kind of a data set, in the words of the embedded world's options where they fit.

    Attributes:
        conclusion: `stated`, `unstated` or `mixed`: whether the last sentences of the reasoning state the answer.
        steps: `agreeing` or `conflicting`: whether the reasoning contradicts the answer, or the model, often. `unknown`
            where no conclusion is stated and no model was asked.
        wording: `fixed`, `varied`, or `unknown` without a model.
        ratio: median of the reasoning's length divided by the answer's.
        conclusions, losses: what was counted.
    """

    conclusion: str
    steps: str
    wording: str
    ratio: float
    conclusions: Conclusions
    losses: LossMeasure | None = None


def judge_kind(conclusions: Conclusions, ratio: float, losses: LossMeasure | None = None) -> DataKind:
    """The kind from what was counted over rows with reasoning."""
    conclusion = _judge_share(conclusions.stated)
    # Without a conclusion the last sentence is a step, and the candidate in it need not be the answer.
    by_model = losses.conflict_share if losses is not None else None
    contradicting = by_model if conclusion == "unstated" else conclusions.disagreeing
    steps = UNKNOWN
    if contradicting is not None:
        steps = "conflicting" if contradicting >= CONFLICTING_FROM else "agreeing"
    return DataKind(conclusion, steps, _judge_wording(losses), ratio, conclusions, losses)


def _judge_share(stated: float) -> str:
    return "stated" if stated >= STATED_FROM else "unstated" if stated <= UNSTATED_TO else "mixed"


def _judge_wording(losses: LossMeasure | None) -> str:
    if losses is None:
        return UNKNOWN
    if losses.follows_text:
        return "varied" if losses.think.entropy >= VARIED_FROM else "fixed"
    if losses.surprise_share is None:
        return UNKNOWN
    return "varied" if losses.surprise_share >= SURPRISING_FROM else "fixed"


def describe_kind(kind: DataKind) -> str:
    """The kind in one line."""
    return (
        f"kind: {', '.join([_say_conclusion(kind), _say_steps(kind), _say_wording(kind), f'ratio {kind.ratio:.0f}'])}"
    )


def _say_conclusion(kind: DataKind) -> str:
    share = f"{kind.conclusions.stated:.0%}"
    return {
        "stated": f"the answer is stated in the last sentence ({share})",
        "unstated": f"the answer is mostly not stated in the last sentence (stated in {share})",
        "mixed": f"the answer is stated in the last sentence of some rows ({share})",
    }[kind.conclusion]


def _say_steps(kind: DataKind) -> str:
    if kind.steps == UNKNOWN:
        return "false steps not measured"
    if kind.conclusion != "unstated":
        return f"reasoning and answer disagree in {_percent(kind.conclusions.disagreeing or 0)} of these"
    assert kind.losses is not None
    often = "contains" if kind.steps == "conflicting" else "hardly contains"
    return f"the reasoning {often} false steps ({_percent(kind.losses.conflict_share or 0)} confident conflicts)"


def _say_wording(kind: DataKind) -> str:
    if kind.wording == UNKNOWN or kind.losses is None:
        return "wording not measured"
    if kind.losses.follows_text:
        return f"wording {kind.wording} ({kind.losses.think.entropy:.2f} nats of entropy per think token)"
    return f"wording {kind.wording} ({_percent(kind.losses.surprise_share or 0)} surprising words)"


def _percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def explain_kind(kind: DataKind) -> list[str]:
    """What was counted, one line each, and which setting our results support."""
    found = kind.conclusions
    shares = [n / found.rows for n in (found.answer, found.other, found.unclear)]
    lines = [
        f"the last sentence of the reasoning names the answer in {_percent(shares[0])}, another candidate in "
        f"{_percent(shares[1])}, several in {_percent(shares[2])}, none in {_percent(max(0.0, 1 - sum(shares)))} of "
        f"{found.rows:,} rows"
    ]
    lines += (
        _explain_losses(kind.losses) if kind.losses else ["--model MODEL --losses measures wording and false steps"]
    )
    return [*lines, describe_supported(kind.conclusion, kind.steps)]


def _explain_losses(losses: LossMeasure) -> list[str]:
    think, answer = losses.think, losses.answer
    lines = [
        f"loss of {losses.model} on {losses.rows:,} rows, nats per token: reasoning {think.nll:.2f} (entropy "
        f"{think.entropy:.2f}; {_percent(think.open_share)} of the tokens have several ways to go on), answer "
        f"{answer.nll:.2f} (entropy {answer.entropy:.2f}); the reasoning has {_percent(losses.think_share)} of plain "
        "SFT's loss"
    ]
    if not losses.follows_text:
        lines.append(
            f"{losses.model} expects other text than this (its nll is far above its entropy): after a short plain SFT "
            "on these data it says more"
        )
        if losses.surprise_share is not None:
            share = f"{losses.surprises:,} of {losses.words:,} words ({_percent(losses.surprise_share)})"
            lines.append(f"surprises: the model gave less than 5% to {share}")
    share = f"{losses.conflicts:,} of {losses.values:,} numbers and frequent answers"
    if losses.conflict_share is None:
        return [*lines, f"confident conflicts: too few places to judge ({share})"]
    shown = f"{share} ({_percent(losses.conflict_share)})"
    return [*lines, f"confident conflicts: the model is sure of another one at {shown} that the reasoning names"]
