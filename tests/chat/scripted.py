"""A session whose models say what a test wants, without weights: one well formed, one hostile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from balanced_thinking.chat.question import Question
from balanced_thinking.chat.session import ChatOptions, Session
from balanced_thinking.chat.turn import CLOSED, LIMIT, USER, Progress, Turn
from balanced_thinking.runs.records import Prediction
from balanced_thinking.segments import get_format, parse

FORMAT = get_format("think-answer")
GOOD, HOSTILE = "runs/good", "runs/hostile"
ATTACK = (
    "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">${document.title='taken'}"
)
TEXTS = {
    GOOD: "<think>The tile is small . It is red .</think><answer>red</answer>",
    HOSTILE: f"<think>{ATTACK} {{{{7*7}}}} <style>*{{display:none}}</style>",
}


class ScriptedSession(Session):
    """Says `TEXTS`. A question with `slowly` in it is answered until it is stopped."""

    def __init__(self) -> None:
        engine = SimpleNamespace(name="transformers", scorer=SimpleNamespace(format=FORMAT))
        models: list[Any] = [
            SimpleNamespace(name=name, engine=engine, dtype="float32", format=FORMAT) for name in TEXTS
        ]
        super().__init__(models, ChatOptions())

    def ask(self, question: Question) -> Iterator[Progress | Turn]:
        self._stop.clear()
        self._asked += 1
        for name, text in TEXTS.items():
            if self._stop.is_set():
                return
            yield Progress(name, text[:20], FORMAT, "", 5, 0.1)
            while "slowly" in question.text and not self._stop.is_set():
                time.sleep(0.05)
            yield self._turn(name, text[:20] if self._stop.is_set() else text, question)

    def _turn(self, name: str, text: str, question: Question) -> Turn:
        parsed, example = parse(text), question.to_example(f"{self._asked}", "question", FORMAT)
        prediction = Prediction(
            id=example.id,
            question=example.question,
            gold=example.answer,
            prediction=parsed.answer,
            correct=parsed.answer is not None and parsed.answer == question.answer,
            problems=list(parsed.problems),
            malformed=parsed.answer is None,
            think_tokens=12,
            answer_tokens=3,
            completion=text,
        )
        ended = USER if self._stop.is_set() else CLOSED if parsed.answer else LIMIT
        return Turn(name, question, example, FORMAT, [1] * 15, prediction, 0.5, ended)
