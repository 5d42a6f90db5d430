"""Asks every node of a cluster, before a study starts, whether its runs can be processed there, all nodes at once."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.study.check import merge_faults
from balanced_thinking.study.executors.code_version import code_differences, describe_code
from balanced_thinking.study.executors.node_check import PROBE, NodeReport, NodeRequest
from balanced_thinking.study.executors.on_nodes import NodeProgram, NodeResult
from balanced_thinking.study.executors.ray_cluster import ClusterError, Node
from balanced_thinking.study.executors.shared_folder import read_if_there, wait_until
from balanced_thinking.study.load import to_yaml
from balanced_thinking.study.plan import Study

logger = logging.getLogger(__name__)
NODE_SECONDS = 300.0  # for a node to answer: it imports torch from a slow disk
_ANSWER_SECONDS = 20.0
_MODULE = "balanced_thinking.study.executors.node_check"
Ask = Callable[[Mapping[str, NodeProgram]], Mapping[str, NodeResult]]


def check_nodes(study: Study, root: Path, nodes: Sequence[Node], environment: Mapping[str, str], ask: Ask) -> None:
    """Raises ClusterError, with every fault of every node.

    `ask` runs a program on each node (by its identity) and returns how they ended. `root` is absolute. It is made if
    needed, and removed again if it was.
    """
    logger.info("asking %d nodes whether they share %s, and whether the runs can start there", len(nodes), root)
    with _probe_in(root) as probe:
        token = secrets.token_hex(16)
        probe.write_text(token)
        _remove_old_probes(probe)
        requests = {node.identity: _request_for(node, study, probe, token) for node in nodes}
        programs = {node.identity: _program_for(node, requests[node.identity], environment) for node in nodes}
        answers = ask(programs)
        found = merge_faults(
            (node.title, fault)
            for node in nodes
            for fault in node_faults(requests[node.identity], answers[node.identity])
        )
    if found:
        raise ClusterError("\n  ".join([f"the study cannot start on this cluster ({len(nodes)} nodes):", *found]))


@contextmanager
def _probe_in(root: Path) -> Iterator[Path]:
    """The name of a file in `root`. All files whose names begin with it are removed in the end."""
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    probe = root / f"{PROBE}{secrets.token_hex(4)}"
    try:
        yield probe
    finally:
        for path in root.glob(f"*{probe.name}*"):
            path.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):  # something is in it
                folder.rmdir()


def _remove_old_probes(probe: Path) -> None:
    """Those of a command that was killed while it asked. By the clock of the file system, as all times there."""
    now = probe.stat().st_mtime
    for path in probe.parent.glob(f"*{PROBE}*"):
        with suppress(FileNotFoundError):
            if now - path.stat().st_mtime > 2 * NODE_SECONDS:
                path.unlink()


def _request_for(node: Node, study: Study, probe: Path, token: str) -> NodeRequest:
    return NodeRequest(
        root=str(probe.parent),
        plan=to_yaml(study),
        probe=probe.name,
        token=token,
        answer=f"{probe.name}-{node.identity}",
        expected=describe_code(),
    )


def _program_for(node: Node, request: NodeRequest, environment: Mapping[str, str]) -> NodeProgram:
    """As a run would see it: with one GPU where there are any. Ray hides all of them from a task that asks for none."""
    gpu = {"CUDA_VISIBLE_DEVICES": "0" if node.gpus else ""}
    stdin = json.dumps(asdict(request))
    return NodeProgram(_MODULE, (), str(Path.cwd()), dict(environment) | gpu, stdin, timeout_seconds=NODE_SECONDS)


def node_faults(request: NodeRequest, answer: NodeResult) -> Iterator[str]:
    """What makes a node unusable, each with what to do about it."""
    report = _read_report(answer)
    if report is None:
        said = (answer.error.strip().splitlines() or [f"exit code {answer.code}"])[-1]
        yield (
            f"cannot run our code in {Path.cwd()}: {said}; install the same version of balanced-thinking there, and "
            "run this command in a folder that every node has"
        )
        return
    shared = "choose an --out on a disk that all nodes share under the same path"
    differing = list(code_differences(report.code, request.expected))
    if differing:
        yield f"runs other code: {', '.join(differing)}; install the same versions everywhere, or results would differ"
    if report.sees:
        yield f"does not share {request.root} with this machine: it finds {report.sees}; {shared}"
    elif report.writes:
        yield f"cannot write to {request.root}: {report.writes}; give its user the right to, or {shared}"
    elif not _is_answer_seen(request):
        yield f"writes to another {request.root}: its file does not appear here; {shared}"
    yield from report.faults


def _is_answer_seen(request: NodeRequest) -> bool:
    path = Path(request.root) / request.answer
    return wait_until(lambda: read_if_there(path) == request.token, [path.parent], _ANSWER_SECONDS)


def _read_report(answer: NodeResult) -> NodeReport | None:
    try:
        values: Any = parse_json(answer.out.splitlines()[-1])
        return NodeReport(**values)
    except (IndexError, ValueError, TypeError):
        return None
