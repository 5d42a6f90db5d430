"""Studies on a Ray cluster of two nodes give the results of one on this machine: `make test-ray`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from balanced_thinking.runs.paths import RunFiles
from tests.cluster.nodes import TwoNodes, start_cluster, wait_for
from tests.cluster.studies import ClusterStudy

pytest.importorskip("ray", reason="Ray is not installed; make test-ray installs it")
pytestmark = [pytest.mark.slow, pytest.mark.cluster]
FIRST = "sft/seed-0"
CHECKPOINTS, EVALUATIONS = "*/seed-*/checkpoints/checkpoint-*", "*/seed-*/eval/*"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed study on this machine gives."""
    study = ClusterStudy(tmp_path_factory.mktemp("local"), "--jobs", "2")
    study.run()
    return study.results()


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    with start_cluster() as nodes:
        yield nodes


@pytest.fixture
def study(cluster: TwoNodes, tmp_path: Path) -> Iterator[ClusterStudy]:
    study = ClusterStudy(tmp_path, "--executor", "ray", "--ray-address", cluster.address)
    yield study
    for process in (*study.drivers, *study.workers()):
        process.kill()


def has_checkpoint(study: ClusterStudy, name: str = FIRST) -> bool:
    return any(RunFiles(study.root / name).checkpoints.glob("checkpoint-*"))


def worker_of(study: ClusterStudy, name: str) -> psutil.Process | None:
    return next((process for process in study.workers() if name in process.cmdline()), None)


def test_the_dry_run_asks_the_nodes_and_writes_nothing(study: ClusterStudy) -> None:
    said = study.run("--dry-run")
    assert "asking 2 nodes whether they share" in said
    assert "3 runs, 0 of them complete" in said
    assert not study.root.exists()


needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="a node with other disks needs root")


@needs_mounts
def test_a_node_that_does_not_share_the_folder_is_refused(cluster: TwoNodes, study: ClusterStudy) -> None:
    with cluster.add_node_in_own_mounts(f"mount -t tmpfs none {study.folder}"):
        said = study.run(code=2)
    assert f"does not share {study.root} with this machine: it finds no such folder" in said
    assert "choose an --out on a disk that all nodes share" in said
    assert not study.root.exists()


@needs_mounts
def test_a_node_with_other_code_is_refused(cluster: TwoNodes, study: ClusterStudy, tmp_path: Path) -> None:
    from balanced_thinking.training import recipe

    other = tmp_path / "other.py"
    other.write_text(Path(recipe.__file__).read_text() + "# another version\n")
    with cluster.add_node_in_own_mounts(f"mount --bind {other} {recipe.__file__}"):
        said = study.run(code=2)
    assert "runs other code: balanced_thinking's source" in said
    assert "install the same versions everywhere" in said


def test_an_undisturbed_study_gives_the_same_results(study: ClusterStudy, expected: dict[str, Any]) -> None:
    driver = study.start()
    wait_for(lambda: len(study.workers()) == 2 or driver.poll() is not None, "the second worker")
    parents = {process.parents()[1].pid for process in study.workers()}
    assert driver.wait(timeout=600) == 0, study.text()[-3000:]
    assert len(parents) == 2, "both runs were on one node"
    assert study.results() == expected
    assert len(expected) == 3 + 3 + 2
    assert not list(study.root.glob(".shared*"))


def test_a_killed_run_has_failed_and_a_lost_node_moves_its_run_to_another(
    cluster: TwoNodes, study: ClusterStudy, expected: dict[str, Any]
) -> None:
    driver = study.start()
    wait_for(lambda: has_checkpoint(study) or driver.poll() is not None, "a checkpoint")
    worker = worker_of(study, FIRST)
    assert worker, study.text()[-3000:]
    worker.kill()
    assert driver.wait(timeout=600) == 1
    assert f"{FIRST}: failed (ended by signal 9, Killed)" in study.text()
    assert "1 of 3 runs failed, 1 more that start from them were left out" in study.text()

    driver = study.start()
    wait_for(lambda: worker_of(study, FIRST) or driver.poll() is not None, "the run that was killed")
    worker = worker_of(study, FIRST)
    assert worker, study.text()[-3000:]
    try:
        cluster.kill_node_of(worker)
        assert driver.wait(timeout=600) == 0, study.text()[-3000:]
    finally:
        cluster.add_node()
    assert not worker.is_running(), "the run went on after its node was lost"
    assert f"{FIRST}: lost with its node" in study.text()
    assert study.results() == expected


def is_evaluating(study: ClusterStudy) -> bool:
    return any(study.root.glob(EVALUATIONS))


MOMENTS = {
    "while the nodes are checked": lambda study: any(study.root.glob(".shared-*")),
    "in a training": has_checkpoint,
    "in an evaluation": is_evaluating,
    "in the run that starts from another": lambda study: has_checkpoint(study, "sft+grpo/seed-0"),
}


def test_a_driver_that_is_killed_again_and_again_leaves_the_same_results(
    study: ClusterStudy, expected: dict[str, Any]
) -> None:
    for moment, has_come in MOMENTS.items():
        driver = study.start()
        wait_for(lambda has_come=has_come, driver=driver: has_come(study) or driver.poll() is not None, moment)
        assert driver.poll() is None, f"{moment}: {study.text()[-3000:]}"
        driver.kill()
        driver.wait()
        wait_for(lambda: not study.workers(), f"the end of the runs after a kill {moment}", 120)
    study.run()
    assert study.results() == expected
    assert not study.workers()


def test_signals_make_the_runs_save_and_stop_and_the_same_command_continues(
    study: ClusterStudy, expected: dict[str, Any]
) -> None:
    for number, pattern in ((signal.SIGTERM, CHECKPOINTS), (signal.SIGINT, EVALUATIONS)):
        known = {*study.root.glob(pattern)}  # what an earlier start has left says nothing about this one

        def has_more(pattern: str = pattern, known: set[Path] = known) -> bool:
            return not known.issuperset(study.root.glob(pattern))

        driver = study.start()
        wait_for(lambda driver=driver, has_more=has_more: has_more() or driver.poll() is not None, "a run")
        driver.send_signal(number)
        assert driver.wait(timeout=120) in (128 + number, -number), study.text()[-3000:]
        assert not study.workers(), "a run went on"
    assert study.text().count("the runs save and stop") == 2
    assert "the same command continues where it stopped" in study.text()
    study.run()
    assert study.results() == expected


def test_a_study_without_a_cluster_starts_a_local_ray(tmp_path: Path, expected: dict[str, Any]) -> None:
    study = ClusterStudy(tmp_path, "--executor", "ray", "--jobs", "2")
    study.run()
    assert study.results() == expected
