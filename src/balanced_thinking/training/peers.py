"""Notices that another rank of a training is gone or has failed, and ends this one with a sentence in place of a hang.

Every rank waits, in threads, for a word from its neighbours in a ring, over a gloo group of its own: the connection of
a process that was killed closes at once, also where the training itself waits in a collective of NCCL.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from balanced_thinking.config.errors import BalancedThinkingError
from balanced_thinking.system.ending import end_at_once

logger = logging.getLogger(__name__)
_GOODBYE, _FAILED, _GONE = range(3)
_PATIENCE_SECONDS = 10.0  # of a thread, until the training itself has noticed
_NOTICE_SECONDS = 5.0  # of a training that has lost a connection, until a thread knows whose
_FATES = {
    _FAILED: "stopped with an error, which it reports itself",
    _GONE: "is gone (it was killed, or its machine was)",
}


class LostRankError(BalancedThinkingError, RuntimeError):
    """Another rank ended before this one."""


class PeerWatch:
    """Watches the neighbours of this rank inside `watching_peers`. One process: no cost.

    Every rank must construct it at the same point. `advise` says how to go on, in the words after a semicolon.
    """

    def __init__(self, args: Any, advise: Callable[[], str]) -> None:
        several = args.world_size > 1 and dist.is_available() and dist.is_initialized()
        # A year: a neighbour may take long, but a connection that closes is noticed at once.
        self._group = dist.new_group(backend="gloo", timeout=timedelta(days=365)) if several else None
        self._peers = sorted({(args.process_index + way) % args.world_size for way in (-1, 1)}) if several else []
        self._advise = advise
        self._depth = 0
        self._left = threading.Event()  # the training has ended, in whatever way
        self._noticed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sent: list[Any] = []  # each holds the tensor that it sends
        self.lost: str | None = None  # which rank, and what happened to it

    @contextmanager
    def watching_peers(self) -> Iterator[None]:
        """Raises LostRankError where the block fails because another rank is lost. May be entered again inside."""
        if self._group is None or self._depth:
            yield
            return
        self._depth += 1
        self._left.clear()
        self._threads = [threading.Thread(target=self._follow_peer, args=(p,), daemon=True) for p in self._peers]
        for thread in self._threads:
            thread.start()
        try:
            yield
        except Exception as error:
            if isinstance(error, RuntimeError) and not isinstance(error, BalancedThinkingError) and _is_lost(error):
                self._noticed.wait(_NOTICE_SECONDS)
            self._left.set()
            if self.lost is not None and not isinstance(error, BalancedThinkingError):
                raise LostRankError(self._describe_loss()) from error
            self._send_word(_FAILED)
            raise
        except BaseException:
            self._send_word(_GOODBYE)
            raise
        else:
            self._send_word(_GOODBYE)
        finally:
            self._left.set()
            self._depth -= 1

    def _send_word(self, word: int) -> None:
        """Tell the neighbours how this rank ends, and wait for theirs for a while."""
        for peer in self._peers:
            with suppress(RuntimeError):  # it is gone itself
                self._sent.append(dist.isend(torch.tensor([word], dtype=torch.int32), peer, group=self._group))
        if word == _GOODBYE:
            for thread in self._threads:
                thread.join(_PATIENCE_SECONDS)

    def _follow_peer(self, peer: int) -> None:
        word = torch.full((1,), _GONE, dtype=torch.int32)
        with suppress(RuntimeError):  # its connection is closed
            dist.recv(word, peer, group=self._group)
        if int(word) == _GOODBYE or self._left.is_set():
            return
        self.lost = self.lost or f"rank {peer} {_FATES[int(word)]}"
        self._noticed.set()
        if not self._left.wait(_PATIENCE_SECONDS):  # the training waits for the lost rank, in C, for minutes
            logger.error("\n%s", self._describe_loss())
            end_at_once(1)

    def _describe_loss(self) -> str:
        return f"{self.lost}, so this rank stops, too; {self._advise()}"


def _is_lost(error: RuntimeError) -> bool:
    """Whether it may come from a connection to another rank."""
    return isinstance(error, dist.DistError) or any(
        word in str(error).lower() for word in ("connection", "gloo", "nccl")
    )
