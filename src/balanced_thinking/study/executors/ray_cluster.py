"""The connection to a Ray cluster, and its nodes.

Of Ray's own services none is started beside the ones that run tasks: no dashboard, no usage statistics.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.system.process import usable_cores

logger = logging.getLogger(__name__)
_STORE_BYTES = 80 << 20  # the least that Ray allows: our tasks pass a few hundred bytes


class ClusterError(RecipeError):
    """The cluster cannot be used for this study. Nothing was started."""


@dataclass(frozen=True)
class Resources:
    """What one run needs of a node."""

    cpus: int
    gpus: float


@dataclass(frozen=True)
class Node:
    """A node that Ray calls alive."""

    identity: str
    address: str
    host: str
    cpus: float
    gpus: float

    @property
    def title(self) -> str:
        return f"node {self.host} ({self.address}, {self.identity[:8]})"

    def slots(self, need: Resources) -> int:
        """How many runs fit on it at the same time."""
        by_gpu = [int(self.gpus / need.gpus + 1e-9)] if need.gpus else []
        return min([int(self.cpus // need.cpus), *by_gpu])


def import_ray() -> Any:
    """Raises ClusterError where Ray is not installed."""
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "--executor ray needs Ray, which is not installed: pip install 'balanced-thinking[ray]', here and on every "
            "node, or leave --executor out"
        ) from error
    return ray


@contextmanager
def connect(address: str | None) -> Iterator[Any]:
    """Connect to the cluster at an address, or start a local one, which ends with the block. Gives the module `ray`."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = import_ray()
    before = signal.getsignal(signal.SIGTERM)
    try:
        _initialize(ray, address)
        _restore_handler(before)  # Ray has set one that ends the process without saving
        yield ray
    finally:
        ray.shutdown()
        _restore_handler(before)


def _restore_handler(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _initialize(ray: Any, address: str | None) -> None:
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address is None:
            # As runs that Ray has not started: no lower priority, and memory is the system's business.
            os.environ.setdefault("RAY_worker_niceness", "0")
            os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
            ray.init(
                address="local",
                num_cpus=usable_cores(),
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                **quiet,
            )
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError, ImportError, ray.exceptions.RayError) as error:
        raise ClusterError(_describe_failure(address, error)) from error


def _describe_failure(address: str | None, error: BaseException) -> str:
    said = " ".join(str(error).split())[:300] or type(error).__name__
    if address is None:
        return f"no local Ray could be started: {said}"
    fix = "start one with `ray start --head`, correct --ray-address, or leave it out for a Ray of this machine alone"
    return f"no Ray cluster can be used at {address}: {said}; {fix}"


def list_nodes(ray: Any) -> list[Node]:
    """The nodes that are alive, by address."""
    found = [
        Node(
            identity=row["NodeID"],
            address=row["NodeManagerAddress"],
            host=row["NodeManagerHostname"],
            cpus=row["Resources"].get("CPU", 0.0),
            gpus=row["Resources"].get("GPU", 0.0),
        )
        for row in ray.nodes()
        if row["Alive"]
    ]
    return sorted(found, key=lambda node: (node.address, node.identity))


def choose_resources(nodes: list[Node], cpus: int | None, gpus: float | None) -> Resources:
    """What a run needs where the user does not say: a GPU if the cluster has any, and its share of a node's cores."""
    if gpus is None:
        gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    if cpus is None:
        shares = [int(node.cpus * gpus // node.gpus) for node in nodes if node.gpus >= gpus > 0 and node.cpus >= 1]
        cpus = max(1, min(shares, default=1))
    return Resources(cpus, gpus)


def usable_nodes(nodes: list[Node], need: Resources) -> list[Node]:
    """The nodes on which a run fits. Raises ClusterError where there is none."""
    usable = [node for node in nodes if node.slots(need)]
    if not usable:
        has = "; ".join(f"{node.host}: {node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "none is alive"
        raise ClusterError(
            f"a run needs {need.cpus} CPUs and {need.gpus:g} GPUs, and no node of the cluster has them ({has}); lower "
            "--cpus-per-run or --gpus-per-run, or start Ray on a node that has them"
        )
    return usable
