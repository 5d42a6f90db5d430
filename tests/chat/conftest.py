"""A session of two models that is loaded once: the embedded reasoner, and a text-only one with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from balanced_thinking.chat.session import ChatOptions, Session, load_models
from balanced_thinking.data.example import Example
from balanced_thinking.data.world import load
from balanced_thinking.evaluation.engines.engine import Listener
from balanced_thinking.evaluation.sampling import Sampling


@pytest.fixture(scope="session")
def reasoner() -> Session:
    options = ChatOptions(max_new_tokens=100)
    return Session(load_models(["world-reasoner", "tiny:qwen2"], options), options)


@pytest.fixture
def session(reasoner: Session) -> Session:
    """With its usual limit and greedy again, whatever the test before has changed."""
    for model in reasoner.models:
        model.engine.configure("think-answer", 100)
        model.engine.sampling = Sampling()
    return reasoner


@pytest.fixture(scope="session")
def world_example() -> Example:
    return next(iter(load(split="test", n=1)))


@pytest.fixture
def picture(world_example: Example, tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    world_example.images[0].save(path)
    return path


@pytest.fixture
def paused(session: Session, monkeypatch: pytest.MonkeyPatch) -> Session:
    """The reasoner alone, which waits after three tokens until it is stopped."""
    alone = Session(session.models[:1], session.options)
    engine = alone.models[0].engine
    stream = engine.stream

    def stream_until_stopped(example: Example, listener: Listener) -> list[int]:
        def pausing(ids: list[int]) -> bool:
            goes_on = listener(ids)
            return not alone._stop.wait(60) if len(ids) >= 3 else goes_on

        return stream(example, pausing)

    monkeypatch.setattr(engine, "stream", stream_until_stopped)
    return alone
