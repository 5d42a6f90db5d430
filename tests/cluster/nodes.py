"""A Ray cluster on this machine: a head without cores, and nodes of one core, each with processes of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

RAY = str(Path(sys.executable).with_name("ray"))
# As `ray start` sets it up, except that tasks have no lower priority here: they share two cores with the rest of Ray.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "10",
}


class TwoNodes:
    """`address` is that of the cluster. Nodes can be killed and added."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.address: str = cluster.address
        self.nodes: list[Any] = []

    def add_node(self) -> None:
        self.nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False))

    def kill_node_of(self, worker: psutil.Process) -> None:
        """SIGKILL for the raylet of the node on which a worker runs."""
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in self.nodes}
        pid = next(parent.pid for parent in worker.parents() if parent.pid in raylets)
        os.kill(pid, signal.SIGKILL)
        node = raylets[pid]
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    @contextmanager
    def add_node_in_own_mounts(self, mount: str) -> Iterator[None]:
        """A third node of two cores with mounts of its own: `mount` is a shell command. Needs root."""
        start = f"{mount} && exec {RAY} start --address {self.address} --num-cpus 2 --block --disable-usage-stats"
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", start]
        before = self.count_alive()
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_for(lambda: self.count_alive() > before or process.poll() is not None, "the third node")
            assert process.poll() is None, "the third node ended at its start"
            yield
        finally:
            started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            for each in [*started, process]:
                each.kill()
            process.wait()
            wait_for(lambda: self.count_alive() == before, "the end of the third node")

    def count_alive(self) -> int:
        code = "import ray; ray.init(address='auto', log_to_driver=False); print([n['Alive'] for n in ray.nodes()])"
        environment = os.environ | {"RAY_ADDRESS": self.address}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        (line,) = re.findall(r"^\[(?:True|False).*\]$", done.stdout, re.MULTILINE)  # Ray prints advice there, too
        return line.count("True")


@contextmanager
def start_cluster() -> Iterator[TwoNodes]:
    os.environ.update(ENVIRONMENT)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = TwoNodes(cluster)
        nodes.add_node()
        nodes.add_node()
        cluster.wait_for_nodes()
        yield nodes
    finally:
        cluster.shutdown()


def wait_for(condition: Any, what: str, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds:.0f} s"
        time.sleep(0.05)
