"""Executors, without Ray: who starts a run, what nodes are asked, and what is refused by name."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.runs.ledger import read_ledger, write_ledger_entry
from balanced_thinking.runs.records import LedgerEntry
from balanced_thinking.study import worker as study_worker
from balanced_thinking.study.executors import node_check, ray_check, ray_cluster, ray_worker, shared_folder
from balanced_thinking.study.executors.choose import choose_executor
from balanced_thinking.study.executors.code_version import code_differences, describe_code
from balanced_thinking.study.executors.local import LocalExecutor
from balanced_thinking.study.executors.node_check import NodeRequest, report_node
from balanced_thinking.study.executors.on_nodes import NodeResult
from balanced_thinking.study.executors.ray_cluster import ClusterError, Node, Resources, choose_resources, usable_nodes
from balanced_thinking.study.executors.ray_executor import RayExecutor, RayOptions, environment_for_nodes
from balanced_thinking.study.executors.ray_worker import MOST_LOSSES, RayWorker
from balanced_thinking.study.load import make_study
from balanced_thinking.study.run import run_study
from tests.study.helpers import SMALL, finish


class Recording:
    """An executor whose runs end at once, with results."""

    def __init__(self, root: Path, code: int = 0) -> None:
        self.root, self.code, self.started = root, code, list[str]()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None: ...

    def count_slots(self) -> int:
        return 1

    def check(self, study: Any, root: Path) -> None:
        self.started.append("check")

    def start(self, root: Path, run: Any, jobs: int, others: Any) -> Any:
        self.started.append(f"{run.name} {jobs} {len(others)}")
        if not self.code:
            finish(root, SMALL, run.name, "world-test")
            for part in ("train", "world-test"):
                write_ledger_entry(root, LedgerEntry(run=run.name, part=part))
            (root / run.name / "eval" / "world-test" / "summary.json").write_text(
                '{"n": 1, "correct": 1, "accuracy": 1}'
            )
        return SimpleProcess(self.code)


class SimpleProcess:
    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code

    def send_signal(self, number: int) -> None: ...

    def kill(self) -> None: ...


def test_a_study_asks_its_executor_once_for_each_run_and_the_parent_first(tmp_path: Path) -> None:
    executor = Recording(tmp_path)
    run_study(make_study(SMALL), tmp_path, executor=executor)
    assert executor.started == ["check", "sft/seed-0 1 0", "sft+grpo/seed-0 1 0"]
    run_study(make_study(SMALL), tmp_path, executor=executor)
    assert len(executor.started) == 3, "a finished study was started again"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "slurm"], "invalid choice: 'slurm'"),
        (["--gpus-per-run", "2"], "expected a number from 0 to 1: a run of a study is one process"),
        (["--gpus-per-run", "nan"], "expected a number from 0 to 1"),
        (["--cpus-per-run", "0"], "--cpus-per-run"),
        (["--gpus-per-run", "1"], "--gpus-per-run is of --executor ray"),
        (["--ray-address", "auto"], "--ray-address is of --executor ray"),
        (["--executor", "ray", "--ray-address", "10.0.0.1"], "expected auto (the cluster of this node), HOST:PORT"),
        (["--executor", "ray", "--ray-address", "http://a:1"], "--ray-address is 'http://a:1'"),
    ],
)
@pytest.mark.parametrize("command", [["study", "recipes/world/demo.yaml"], ["demo"]])
def test_options_of_ray_are_checked_before_anything_starts(
    command: list[str], words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([*command, "--out", str(tmp_path / "s"), *words])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "s").exists()


def test_without_ray_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit, match="2"):
        main(["study", "recipes/world/demo.yaml", "--out", str(tmp_path / "s"), "--executor", "ray"])
    assert "pip install 'balanced-thinking[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("address", [None, "auto", "10.0.0.1:6379", "ray://head.example:10001", "[::1]:6379"])
def test_every_form_of_a_cluster_s_address_is_accepted(address: str | None) -> None:
    assert isinstance(choose_executor("ray", RayOptions(address)), RayExecutor)


def test_the_default_executor_is_this_machine() -> None:
    assert isinstance(choose_executor("local", RayOptions()), LocalExecutor)


def node(cpus: float, gpus: float = 0, name: str = "n") -> Node:
    return Node(name * 16, "10.0.0.1", name, cpus, gpus)


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "need", "slots"),
    [
        ([node(4), node(2)], None, None, Resources(1, 0.0), 6),  # as on one machine: a run per core
        ([node(4)], 3, None, Resources(3, 0.0), 1),
        ([node(2), node(64, 8), node(48, 8)], None, None, Resources(6, 1.0), 16),  # the smallest share; not the head
        ([node(16, 4)], None, 0.5, Resources(2, 0.5), 8),
        ([node(16, 4)], None, 0.0, Resources(1, 0.0), 16),
        ([node(2, 8)], None, None, Resources(1, 1.0), 2),  # the cores are the limit
    ],
)
def test_what_a_run_needs_follows_from_the_nodes(
    nodes: list[Node], cpus: int | None, gpus: float | None, need: Resources, slots: int
) -> None:
    assert choose_resources(nodes, cpus, gpus) == need
    assert sum(each.slots(need) for each in usable_nodes(nodes, need)) == slots


def test_a_cluster_without_room_for_a_run_is_refused_with_what_its_nodes_have() -> None:
    with pytest.raises(ClusterError, match=r"8 CPUs and 1 GPUs, and no node .*\(n: 4 CPUs, 0 GPUs\); lower --cpus-per"):
        usable_nodes([node(4)], Resources(8, 1.0))


def request_in(root: Path, expected: dict[str, str] | None = None) -> NodeRequest:
    return NodeRequest(str(root), "", ".shared-1", "token", ".shared-1-n", expected or describe_code())


def answer_of(request: NodeRequest) -> NodeResult:
    """What the node's process writes, which is asked in this one."""
    return NodeResult(0, json.dumps(asdict(report_node(request))) + "\n")


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_check, "_PROBE_SECONDS", 0.0)
    monkeypatch.setattr(ray_check, "_ANSWER_SECONDS", 0.0)
    monkeypatch.setattr(node_check, "_find_faults", lambda _: ("a fault",))


@pytest.mark.usefixtures("_impatient")
def test_a_node_that_shares_the_folder_is_asked_for_faults_of_the_runs(tmp_path: Path) -> None:
    (tmp_path / ".shared-1").write_text("token")
    request = request_in(tmp_path)
    assert list(ray_check.node_faults(request, answer_of(request))) == ["a fault"]


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "it finds no such folder; choose an --out on a disk that all nodes share"),
        ("", "it finds a folder without what was written there just now"),
        ("of another study", "it finds a folder without what was written there just now"),
    ],
)
def test_a_node_that_does_not_share_the_folder_is_refused(found: str | None, said: str, tmp_path: Path) -> None:
    root = tmp_path / "s"
    if found is not None:
        root.mkdir()
        (root / ".shared-1").write_text(found)
    request = request_in(root)
    (fault,) = ray_check.node_faults(request, answer_of(request))
    assert said in fault


@pytest.mark.usefixtures("_impatient")
def test_a_node_that_cannot_write_or_writes_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".shared-1").write_text("token")
    request = request_in(tmp_path)
    elsewhere = answer_of(request)
    (tmp_path / ".shared-1-n").unlink()
    assert "its file does not appear here" in next(ray_check.node_faults(request, elsewhere))

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(node_check, "write_atomically", refuse)
    assert "cannot write to" in (fault := next(ray_check.node_faults(request, answer_of(request))))
    assert "Permission denied" in fault


@pytest.mark.usefixtures("_impatient")
def test_a_node_with_other_code_is_refused_and_not_asked_for_faults(tmp_path: Path) -> None:
    (tmp_path / ".shared-1").write_text("token")
    here = describe_code()
    request = request_in(tmp_path, here | {"torch": "1.0", "balanced_thinking's source": "0" * 64})
    (fault,) = ray_check.node_faults(request, answer_of(request))
    assert f"torch {here['torch']} (here 1.0)" in fault
    assert "(here 000000000000)" in fault


def test_a_node_without_our_package_is_refused() -> None:
    request = request_in(Path("/nowhere"))
    error = "Traceback\n/usr/bin/python3: No module named balanced_thinking"
    (fault,) = ray_check.node_faults(request, NodeResult(1, "", error))
    assert "No module named balanced_thinking; install the same version" in fault


def test_probes_of_a_killed_command_are_removed_and_those_of_another_stay(tmp_path: Path) -> None:
    old, young = tmp_path / ".shared-old-n", tmp_path / ".shared-young"
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    study = make_study(SMALL)
    with pytest.raises(
        ClusterError, match=r"cannot start on this cluster \(1 nodes\):\s+node n \(10.0.0.1, nnnnnnnn\): "
    ):
        ray_check.check_nodes(study, tmp_path, [node(1)], {}, lambda asked: dict.fromkeys(asked, NodeResult(1)))
    assert [path.name for path in tmp_path.iterdir()] == [young.name]


def test_a_missing_package_is_a_difference() -> None:
    assert list(code_differences({}, {"trl": "1.16.0"})) == ["trl none (here 1.16.0)"]


def test_nodes_get_the_variables_of_the_study_and_no_secret() -> None:
    here = {"DATA": "/data", "HF_TOKEN": "secret", "HOME": "/root", "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
    plan = "model: ${DATA}/model"
    assert environment_for_nodes(plan, here) == {"DATA": "/data", "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}


class FakeRay:
    """Tasks that end as a list says."""

    class exceptions:  # noqa: N801, as in Ray
        RayError = type("RayError", (Exception,), {})
        RayTaskError = type("RayTaskError", (RayError,), {})
        TaskCancelledError = type("TaskCancelledError", (RayError,), {})
        NodeDiedError = type("NodeDiedError", (RayError,), {})

    def __init__(self, *ends: Any) -> None:
        self.ends, self.submitted, self.cancelled = list(ends), 0, 0

    def submit(self) -> int:
        self.submitted += 1
        return self.submitted

    def wait(self, tasks: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return tasks, []

    def get(self, task: int) -> Any:
        if isinstance(end := self.ends.pop(0), Exception):
            raise end
        return end

    def cancel(self, task: int) -> None:
        self.cancelled += 1


def ray_worker_in(root: Path, ray: FakeRay) -> RayWorker:
    run = make_study(SMALL).planned_runs()[0]
    (root / run.name).mkdir(parents=True)
    return RayWorker(ray, ray.submit, root, run)


LOST = FakeRay.exceptions.NodeDiedError("gone")
CANCELLED = FakeRay.exceptions.TaskCancelledError()
BROKEN = FakeRay.exceptions.RayTaskError("ray::task\nOSError: no such file")


@pytest.mark.parametrize(
    ("ends", "codes", "log"),
    [
        ([NodeResult(-9)], [-9], ""),  # as on one machine: not started again
        ([LOST, NodeResult(-9)], [None, -9], ""),  # the node was lost: started again
        ([LOST] * (MOST_LOSSES + 1), [None] * MOST_LOSSES + [1], "lost with its node or the Ray process there"),
        ([CANCELLED], [-signal.SIGTERM], ""),
        ([BROKEN], [1], "its task failed: OSError: no such file"),
        ([NodeResult(1, error="FileNotFoundError: /x")], [1], "FileNotFoundError: /x"),
        ([NodeResult(0)], [None], ""),  # its results are not seen yet
    ],
)
def test_how_a_task_ends_is_how_its_run_ends(
    ends: list[Any], codes: list[int | None], log: str, tmp_path: Path
) -> None:
    worker = ray_worker_in(tmp_path, ray := FakeRay(*ends))
    assert [worker.poll() for _ in codes] == codes
    assert ray.submitted == 1 + sum(isinstance(end, FakeRay.exceptions.NodeDiedError) for end in ends[:MOST_LOSSES])
    place = tmp_path / "sft" / "seed-0" / "log.txt"
    assert log in (place.read_text() if place.exists() else "")


def test_a_run_that_is_stopping_is_not_started_again(tmp_path: Path) -> None:
    worker = ray_worker_in(tmp_path, ray := FakeRay(LOST))
    worker.send_signal(signal.SIGTERM)
    assert worker.poll() == -signal.SIGTERM
    assert (ray.submitted, ray.cancelled) == (1, 1)


def test_results_that_never_appear_are_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_worker, "PATIENCE_SECONDS", -1.0)
    worker = ray_worker_in(tmp_path, FakeRay(NodeResult(0)))
    assert worker.poll() == 1
    assert "did not appear" in (tmp_path / "sft" / "seed-0" / "log.txt").read_text()


def test_results_that_appear_end_the_run(tmp_path: Path) -> None:
    worker = ray_worker_in(tmp_path, FakeRay(NodeResult(0)))
    assert worker.poll() is None
    finish(tmp_path, SMALL, "sft/seed-0", "world-test")
    assert worker.poll() == 0


def test_a_worker_refuses_other_code_and_another_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_worker, "wait_until", lambda seen, _: seen())
    with pytest.raises(RecipeError, match=r"has other code than the study.*expected 000000000000; install the same"):
        study_worker._refuse_other_code("0" * 64)
    (tmp_path / "study.yaml").write_text("a: 1")
    study_worker._wait_for_plan(tmp_path, shared_folder.file_digest(tmp_path / "study.yaml"))
    with pytest.raises(RecipeError, match=r"another .*study.yaml than the study has written.*choose another --out"):
        study_worker._wait_for_plan(tmp_path, "0" * 64)


def test_waiting_ends_when_something_is_seen_and_when_patience_ends(tmp_path: Path) -> None:
    place = tmp_path / "file"
    seen = iter([False, True])
    assert shared_folder.wait_until(lambda: next(seen), [tmp_path], 5)
    assert not shared_folder.wait_until(place.exists, [tmp_path / "none"], 0)


def test_rows_of_the_ledger_are_written_one_at_a_time(tmp_path: Path) -> None:
    entry = LedgerEntry(run="sft/seed-0", part="train")
    for part in ("train", "world-test"):
        write_ledger_entry(tmp_path, replace(entry, part=part))
    assert [row.part for row in read_ledger(tmp_path, [])] == ["train", "world-test"]
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.jsonl"], "the lock stayed behind"


def test_the_handler_of_sigterm_is_ours_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets one that ends the process without saving."""
    before = signal.getsignal(signal.SIGTERM)
    fake = SimpleNamespace(
        init=lambda **_: signal.signal(signal.SIGTERM, lambda *_: None),
        shutdown=lambda: None,
        exceptions=FakeRay.exceptions,
    )
    monkeypatch.setattr(ray_cluster, "import_ray", lambda: fake)
    with ray_cluster.connect("auto"):
        assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_cluster_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    fake = SimpleNamespace(init=refuse, shutdown=lambda: None, exceptions=FakeRay.exceptions)
    monkeypatch.setattr(ray_cluster, "import_ray", lambda: fake)
    with pytest.raises(ClusterError, match=r"no Ray cluster can be used at auto: Could not find.*ray start --head"):
        ray_cluster.connect("auto").__enter__()
