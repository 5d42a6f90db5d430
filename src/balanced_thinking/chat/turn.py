"""What a model says to a question: while it is generated, and as a scored record afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from balanced_thinking.chat.question import Question
from balanced_thinking.data.example import Example
from balanced_thinking.report.compare.completions import Segment, split_completion
from balanced_thinking.runs.records import Prediction
from balanced_thinking.segments import PROBLEMS, ReasoningFormat

THINKING, ANSWER = "thinking", "answer"  # kinds of segments
END_TOKEN, CLOSED, LIMIT, USER = "its end token", "its closed answer", "the limit of tokens", "you"
SERVER = "the server"


@dataclass(frozen=True)
class Progress:
    """A reply so far. `opened` is the thinking that the prompt has opened; `seconds` since the question."""

    model: str
    text: str
    format: ReasoningFormat
    opened: str
    tokens: int
    seconds: float

    def segments(self) -> Iterator[Segment]:
        return split_completion(self.text, self.format, ("unclosed_think",) if self.opened else ())


@dataclass(frozen=True)
class Turn:
    """A model's complete reply.

    Attributes:
        model: its name on the command line.
        example: what it was asked.
        ids: the generated token ids, the end token included.
        prediction: the reply as an evaluation records it; None where the model could not be asked.
        format: what parsed it.
        seconds: from the question to the last token, the reading of the prompt included.
        stopped_by: END_TOKEN, CLOSED, LIMIT, USER or SERVER.
        refusal: why the model could not be asked; "" where it was.
    """

    model: str
    question: Question
    example: Example
    format: ReasoningFormat
    ids: list[int] = field(default_factory=list, repr=False)
    prediction: Prediction | None = None
    seconds: float = 0.0
    stopped_by: str = ""
    refusal: str = ""

    @property
    def is_scored(self) -> bool:
        """Whether the right answer is known. Without one the reply is neither right nor wrong."""
        return self.prediction is not None and self.question.answer is not None

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def verdict(self) -> str:
        """`right`, or what the right answer is; "" where none is known."""
        if self.prediction is None or not self.is_scored:
            return ""
        return "right" if self.prediction.correct else f"wrong: the right answer is {self.question.answer}"

    @property
    def flaws(self) -> list[str]:
        """What is wrong with the form of the reply, in sentences."""
        if self.prediction is None or self.stopped_by == USER:
            return []
        cut = ["truncated: --max-new-tokens allows more"] if self.stopped_by == LIMIT else []
        cut += [f"withheld by the server: {self.prediction.withheld}"] if self.stopped_by == SERVER else []
        form = [PROBLEMS[name].partition(" (")[0] for name in self.prediction.problems]  # (in a table: ...)
        what = "malformed" if self.prediction.malformed else "form"
        return [*cut, *([f"{what}: {'; '.join(form)}"] if form else [])]

    def segments(self) -> list[Segment]:
        if self.prediction is None:
            return []
        return list(split_completion(self.prediction.completion, self.format, self.prediction.problems))

    def thinking(self) -> str:
        """The reasoning with its tags."""
        return "".join(segment.text for segment in self.segments() if segment.kind != ANSWER).strip()

    def summary(self) -> str:
        """Tokens, seconds and the end, in one line."""
        if self.prediction is None:
            return ""
        counts = f"{self.prediction.think_tokens} thinking + {self.prediction.answer_tokens} answer tokens"
        ended = "stopped" if self.stopped_by == USER else "ended"
        speed = f"{self.seconds:.1f} s, {self.tokens_per_second:.0f} tokens/s"
        return f"{counts}, {speed}, {ended} by {self.stopped_by}"

    def with_answer(self, answer: str, prediction: Prediction) -> Turn:
        """The turn with a right answer that became known later, and the prediction scored against it."""
        return replace(
            self,
            question=replace(self.question, answer=answer),
            example=replace(self.example, answer=answer),
            prediction=prediction,
        )
