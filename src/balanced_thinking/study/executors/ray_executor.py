"""Each run of a study is a Ray task, which Ray places on a node with the cores and the GPU that it needs.

The task starts `study.worker` on its node. Results are on a path that all nodes share.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from balanced_thinking.runs.paths import RunFiles, StudyFiles
from balanced_thinking.study.executors import on_nodes
from balanced_thinking.study.executors.code_version import source_digest
from balanced_thinking.study.executors.interface import Worker
from balanced_thinking.study.executors.on_nodes import NodeProgram, NodeResult
from balanced_thinking.study.executors.ray_check import NODE_SECONDS, check_nodes
from balanced_thinking.study.executors.ray_cluster import (
    Node,
    Resources,
    choose_resources,
    connect,
    list_nodes,
    usable_nodes,
)
from balanced_thinking.study.executors.ray_worker import RayWorker
from balanced_thinking.study.executors.shared_folder import file_digest
from balanced_thinking.study.load import to_yaml
from balanced_thinking.study.plan import PlannedRun, Study

logger = logging.getLogger(__name__)
_MODULE = "balanced_thinking.study.worker"
# What decides how a run works on its node. Everything else there is the node's own, secrets and folders included.
_PASSED_ON = re.compile(
    r"PYTHONPATH|OMP_NUM_THREADS|TOKENIZERS_PARALLELISM|TRANSFORMERS_VERBOSITY|(HF_HUB|HF_DATASETS|TRANSFORMERS)_OFFLINE"
    r"|BALANCED_THINKING_\w+"
)
_NAMED = re.compile(r"\$\{?(\w+)", re.ASCII)  # a variable in a study's text


@dataclass(frozen=True)
class RayOptions:
    """`address` is that of a cluster, None for a Ray of this machine alone. `cpus_per_run` and `gpus_per_run` follow
    from the cluster's nodes where they are None."""

    address: str | None = None
    cpus_per_run: int | None = None
    gpus_per_run: float | None = None


class RayExecutor:
    """Runs as Ray tasks."""

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._stack = ExitStack()
        self._environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._ray: Any = stack.enter_context(connect(self._options.address))
            self._ray.cloudpickle.register_pickle_by_value(on_nodes)
            nodes = list_nodes(self._ray)
            self._need: Resources = choose_resources(nodes, self._options.cpus_per_run, self._options.gpus_per_run)
            self._nodes: list[Node] = usable_nodes(nodes, self._need)
            self._stack = stack.pop_all()
        need = f"{self._need.cpus} CPUs and {self._need.gpus:g} GPUs"
        logger.info("a run needs %s: %d of %d nodes of the Ray cluster have them", need, len(self._nodes), len(nodes))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def count_slots(self) -> int:
        """How many runs fit into the cluster as it is now."""
        return sum(node.slots(self._need) for node in self._nodes)

    def check(self, study: Study, root: Path) -> None:
        """Raises ClusterError, also where a node does not share the study's folder or runs other code."""
        self._environment = environment_for_nodes(to_yaml(study), os.environ)
        check_nodes(study, root.absolute(), self._nodes, self._environment, self._ask)

    def _ask(self, programs: Mapping[str, NodeProgram]) -> dict[str, NodeResult]:
        """Run a program on each of some nodes, at once."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote = self._ray.remote(num_cpus=0, max_retries=1)(on_nodes.run_program)
        tasks = {
            identity: remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(identity, soft=False)).remote(
                program
            )
            for identity, program in programs.items()
        }
        self._ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=NODE_SECONDS + 60)
        return {identity: self._result_of(task) for identity, task in tasks.items()}

    def _result_of(self, task: Any) -> NodeResult:
        try:
            return self._ray.get(task, timeout=1.0)
        except self._ray.exceptions.RayError as error:
            said = (str(error).strip().splitlines() or [""])[-1]
            return NodeResult(1, error=f"{type(error).__name__} {said}")

    def start(self, root: Path, run: PlannedRun, jobs: int, others: Collection[Worker]) -> RayWorker:
        program = self._program_for(root.absolute(), run)
        remote = self._ray.remote(
            num_cpus=self._need.cpus,
            num_gpus=self._need.gpus,
            max_retries=0,  # `RayWorker` submits again what was lost, and says so
            scheduling_strategy="SPREAD",
        )(on_nodes.watch_program).options(name=run.name)
        return RayWorker(self._ray, lambda: remote.remote(program), root, run)

    def _program_for(self, root: Path, run: PlannedRun) -> NodeProgram:
        plan = file_digest(StudyFiles(root).plan)
        words = (str(root), run.name, "--plan", plan, "--source", source_digest())
        defaults = {"OMP_NUM_THREADS": str(self._need.cpus), "TRANSFORMERS_VERBOSITY": "error"}
        hidden = {} if self._need.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        return NodeProgram(
            _MODULE,
            words,
            folder=str(Path.cwd()),
            environment=defaults | self._environment | hidden,
            log=str(RunFiles(root / run.name).log),
        )


def environment_for_nodes(plan: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a study's runs need on a node: those that its text names, and some that decide how we work."""
    named = set(_NAMED.findall(plan))
    return {name: value for name, value in environment.items() if name in named or _PASSED_ON.fullmatch(name)}
