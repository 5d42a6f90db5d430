"""The commands that compare: `study`, `report` and `demo`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from balanced_thinking.cli.output import show_result
from balanced_thinking.cli.parser import (
    Parser,
    finite_number,
    gpu_share,
    job_count,
    positive_integer,
    positive_number,
    seed_number,
)
from balanced_thinking.data.permissions import permit
from balanced_thinking.runs.paths import StudyFiles


def add_report_options(parser: Parser) -> None:
    parser.add_argument("runs", type=Path, help="folder of run directories")
    parser.add_argument("--html", type=Path, help="the page to write  [RUNS/report.html]")
    parser.add_argument(
        "--markdown", type=Path, help="the same tables as Markdown  [beside the page, or in the archive's folder]"
    )
    parser.add_argument(
        "--archive",
        type=Path,
        metavar="DIR",
        help="also store the results there: tables, plan, ledger, and all runs without weights in runs.tar.xz  [no]",
    )
    parser.add_argument("--figure", type=Path, help="the main figure as an SVG file, for a document  [not written]")
    parser.add_argument(
        "--allow-outside", action="store_true", help="also show pictures that are outside the folder of their run"
    )


def run_report(arguments: argparse.Namespace) -> Path:
    from balanced_thinking.runs.find import explain_missing_runs
    from balanced_thinking.runs.load import NoRunsError

    if not arguments.runs.exists():  # known before matplotlib is imported
        raise NoRunsError(explain_missing_runs(arguments.runs))
    from balanced_thinking.report import write_report

    html, archive = arguments.html or StudyFiles(arguments.runs).report, arguments.archive
    markdown = arguments.markdown or (html.with_suffix(".md") if archive is None else archive / "report.md")
    with permit(outside=arguments.allow_outside):
        page = write_report(arguments.runs, html, markdown, arguments.figure)
    if archive is None:
        return page
    from balanced_thinking.report.write.archive import archive_runs

    return archive_runs(arguments.runs, archive)


def add_study_options(parser: Parser) -> None:
    parser.add_argument("study", type=Path, help="the study, a YAML file such as recipes/world/study.yaml")
    parser.add_argument(
        "--config", type=Path, action="append", help="a file whose keys override the study's; may be repeated  [none]"
    )
    parser.add_argument(
        "--data", action="append", help="training data of all stages; may be repeated  [the study's own]"
    )
    parser.add_argument(
        "--test-data",
        action="append",
        help="data to evaluate on; may be repeated  [the study's own; of --data the split test]",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, the ledger and the report")
    _add_execution_options(parser)


def _add_execution_options(parser: Parser) -> None:
    parser.add_argument(
        "--jobs",
        type=job_count,
        help="runs at the same time, each on one GPU  [the number of GPUs; without one, of CPU cores; with Ray, what "
        "fits into the cluster]",
    )
    parser.add_argument(
        "--max-hours",
        type=positive_number,
        help="time budget: then the runs save and stop, and the exit code is 143; the same command continues  [none]",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the plan, what is done of it and an estimate; run nothing"
    )
    _add_ray_options(parser)


def _add_ray_options(parser: Parser) -> None:
    """Read by the executor `ray` alone: the local one refuses them."""
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="what starts the runs: this machine (local), or Ray on one machine or a cluster, with results on a path "
        "that all its nodes share",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="the cluster: auto (that of this node), HOST:PORT, or ray://HOST:PORT from outside  [a local Ray is "
        "started, which ends with the command]",
    )
    parser.add_argument(
        "--gpus-per-run",
        type=gpu_share,
        help="GPUs of each Ray task: 1, 0, or a share such as 0.5, with which runs share a GPU  [1 where the cluster "
        "has GPUs, else 0]",
    )
    parser.add_argument(
        "--cpus-per-run",
        type=job_count,
        help="CPU cores of each Ray task, and threads of its run  [its GPU's share of the cores of a node; without "
        "GPUs 1]",
    )


def run_study_file(arguments: argparse.Namespace) -> Path | None:
    from balanced_thinking.study.load import load_study

    files = [arguments.study, *(arguments.config or ())]
    return _run_and_report(load_study(files, arguments.data or (), arguments.test_data or ()), arguments)


def _run_and_report(study: Any, arguments: argparse.Namespace) -> Path | None:
    from balanced_thinking.report import write_report
    from balanced_thinking.study.run import check_study, describe_plan, hold_study, run_study

    with _choose_executor(arguments) as executor:
        if arguments.dry_run:
            check_study(study, arguments.out, executor)
            show_result(describe_plan(study, arguments.out, arguments.jobs or executor.count_slots()))
            return None
        with hold_study(arguments.out):
            run_study(study, arguments.out, jobs=arguments.jobs, max_hours=arguments.max_hours, executor=executor)
            page = StudyFiles(arguments.out).report
            return write_report(arguments.out, page, page.with_suffix(".md"))


def _choose_executor(arguments: argparse.Namespace) -> Any:
    from balanced_thinking.study.executors.choose import choose_executor
    from balanced_thinking.study.executors.ray_executor import RayOptions

    options = RayOptions(arguments.ray_address, arguments.cpus_per_run, arguments.gpus_per_run)
    return choose_executor(arguments.executor, options)


def add_demo_options(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the runs and their report")
    parser.add_argument("--seeds", type=seed_number, nargs="+", help="each arm is run once per seed  [the study's]")
    parser.add_argument("--ratio", type=finite_number, help="think tokens per answer token in the data  [the study's]")
    parser.add_argument("--steps", type=positive_integer, help="optimizer steps of SFT  [the study's]")
    parser.add_argument("--grpo-steps", type=positive_integer, help="optimizer steps of GRPO  [the study's]")
    parser.add_argument("--n", type=positive_integer, help="samples of each test split  [the study's]")
    _add_execution_options(parser)


def run_demo(arguments: argparse.Namespace) -> Path | None:
    from balanced_thinking.study.demo import demo_study

    study = demo_study(
        seeds=arguments.seeds,
        ratio=arguments.ratio,
        steps=arguments.steps,
        grpo_steps=arguments.grpo_steps,
        samples=arguments.n,
    )
    return _run_and_report(study, arguments)
