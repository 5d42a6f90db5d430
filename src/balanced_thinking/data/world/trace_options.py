"""What kind of traces the embedded world writes: its data options besides the ratio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypedDict

from balanced_thinking.data.bad_rows import UnknownDataError
from balanced_thinking.data.options import check_known_name
from balanced_thinking.data.world.falsehoods import make_false
from balanced_thinking.data.world.phrasing import vary_wording
from balanced_thinking.data.world.scene import Scene

CONCLUSIONS = ("stated", "unstated")
WORDINGS_OF_TRACES = ("fixed", "varied")


class TraceSettings(TypedDict, total=False):
    """The options of `TraceOptions` by name, as `load` takes them."""

    conclusion: str
    false_steps: float
    wording: str


@dataclass(frozen=True)
class TraceOptions:
    """How traces are written.

    Args:
        conclusion: `unstated` leaves out the last step, which states the answer: the answer must be drawn from the
            steps before it. Facts about the picture may still say what the question asks.
        false_steps: the probability from 0 to 1 that a sentence has a wrong word (`falsehoods`), the last step
            included, as in reasoning that another model wrote after the answer. The question is repeated correctly,
            and the answer stays right.
        wording: `varied` draws one of two or three ways to say each sentence (`phrasing`), with the same facts.
    """

    conclusion: str = "stated"
    false_steps: float = 0.0
    wording: str = "fixed"

    def __post_init__(self) -> None:
        check_known_name("the embedded world", "conclusion", self.conclusion, CONCLUSIONS)
        check_known_name("the embedded world", "wording", self.wording, WORDINGS_OF_TRACES)
        if not 0 <= self.false_steps <= 1:
            raise UnknownDataError(f"the option false_steps is {self.false_steps}; expected a share from 0 to 1")

    def choose_steps(self, steps: tuple[str, ...]) -> tuple[str, ...]:
        """The steps to the answer that the trace has."""
        return steps if self.conclusion == "stated" else steps[:-1]

    def make_editor(self, scene: Scene, identity: str) -> Callable[[str], str]:
        """A function from a true sentence in its first way to the sentence that the trace has.

        `identity` is the seed of its draws. Those of one option do not depend on the other options.
        """
        truth, words = Random(f"{identity}/false_steps"), Random(f"{identity}/wording")

        def edit(sentence: str) -> str:
            if self.false_steps and truth.random() < self.false_steps:
                sentence = make_false(sentence, scene, truth)
            return vary_wording(sentence, words) if self.wording == "varied" else sentence

        return edit
