"""A session of two models that is loaded once: the embedded reasoner, and a text-only one with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from balanced_thinking.chat.session import ChatOptions, Session, load_models
from balanced_thinking.data.example import Example
from balanced_thinking.data.world import load


@pytest.fixture(scope="session")
def reasoner() -> Session:
    options = ChatOptions(max_new_tokens=100)
    return Session(load_models(["world-reasoner", "tiny:qwen2"], options), options)


@pytest.fixture
def session(reasoner: Session) -> Session:
    """With its usual limit and greedy again, whatever the test before has changed."""
    for model in reasoner.models:
        model.engine.configure("think-answer", 100)
        model.engine.temperature = 0.0
    return reasoner


@pytest.fixture(scope="session")
def world_example() -> Example:
    return next(iter(load(split="test", n=1)))


@pytest.fixture
def picture(world_example: Example, tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    world_example.images[0].save(path)
    return path
