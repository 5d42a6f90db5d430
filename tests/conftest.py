"""Shared pieces: tiny models, a small world data set, the folder of third-party data."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import settings

from balanced_thinking.data.rows import to_dataset
from balanced_thinking.data.world import load
from tests.skips import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401, hooks of pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background job, and its children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Rows that one test has read are of no use to the user of this machine.
os.environ["BALANCED_THINKING_CACHE"] = _store = tempfile.mkdtemp(prefix="balanced-thinking-tests-")
atexit.register(shutil.rmtree, _store, ignore_errors=True)
os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined; with a GPU, too
settings.register_profile("busy machine", deadline=None)  # an example may take long where other work goes on
settings.load_profile("busy machine")

REPOSITORY = Path(__file__).resolve().parents[1]
ARCHITECTURES = ("qwen2_5_vl", "llava_next", "gemma3")
EACH_ONCE = {("qwen2_5_vl", "example"), ("gemma3", "batch"), ("llava_next", "token")}  # of `normalize`


def named_output(variable: str) -> Path | None:
    """The file that an environment variable names, seen from the repository: tests change their folder."""
    name = os.environ.get(variable)
    return REPOSITORY / name if name else None


def pytest_collection_finish() -> None:
    freeze_imports()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    yield
    if nextitem is None or nextitem.path != item.path:
        freeze_imports()


def freeze_imports() -> None:
    """What has been imported stays: without this, each collection of garbage looks at a million such objects, and
    every training ends with one. And torch's loggers may reach the root: pytest adds its handlers to each that does
    not, six times a test."""
    gc.collect()
    gc.freeze()
    for name, logger in logging.getLogger().manager.loggerDict.items():
        if name.startswith("torch") and isinstance(logger, logging.Logger):
            logger.propagate = True


def some_now(keep: Callable[..., bool], *axes: Iterable[Any]) -> list[Any]:
    """All combinations for `parametrize`; those that `keep` refuses are of the long form, `make test-long`."""
    found = []
    for values in product(*axes):
        name = "-".join(map(str, values))
        found.append(pytest.param(*values, id=name, marks=() if keep(*values) else pytest.mark.slow))
    return found


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world_rows() -> Dataset:
    """Eight rows of lengths that differ, so that padding and denominators matter."""
    return to_dataset([next(load(n=1, seed=seed, ratio=ratio)) for seed, ratio in enumerate((5, 10, 20, 40) * 2)])


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Third-party files that are no part of the project."""
    folder = Path(os.environ.get("BALANCED_THINKING_DATA", REPOSITORY / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no third-party data at {folder}; set BALANCED_THINKING_DATA to the folder that holds puzzlevqa/")
    return folder
