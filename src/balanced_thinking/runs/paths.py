"""Where the files of a run and of a study are. Nobody else spells their names.

RUN/config.yaml        the resolved recipe
RUN/provenance.json    arm, seed, versions, commit, device, command, times
RUN/metrics.jsonl      one object a logging step
RUN/model/             the trained model (or adapter) and its processor
RUN/checkpoints/       what an interrupted training resumes from
RUN/base/              the base of an adapter, or a reference model, that has no other folder
RUN/eval/<label>/      predictions.jsonl, summary.json, images/; the label is <data>-<split>
RUN/preflight.json     which rows were left out before the first step, and why
RUN/log.txt            what a study's worker printed

STUDY/study.yaml       the plan
STUDY/ledger.jsonl     one object for each finished part of a run
STUDY/report.html      and report.md, report.csv, report-contrasts.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
METRICS = "metrics.jsonl"
MODEL = "model"
CHECKPOINTS = "checkpoints"
EVALUATIONS = "eval"
PREDICTIONS = "predictions.jsonl"
SUMMARY = "summary.json"
PREFLIGHT = "preflight.json"
LOG = "log.txt"
PLAN = "study.yaml"
LEDGER = "ledger.jsonl"
REPORT = "report.html"


@dataclass(frozen=True)
class EvaluationFiles:
    """The results of one model on one split, in `folder`."""

    folder: Path

    @property
    def predictions(self) -> Path:
        return self.folder / PREDICTIONS

    @property
    def summary(self) -> Path:
        """Written last: where it is, the results are complete."""
        return self.folder / SUMMARY

    @property
    def images(self) -> Path:
        """Pictures that the report's sample browser shows."""
        return self.folder / "images"


@dataclass(frozen=True)
class RunFiles:
    """One training run, in `folder`."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / CONFIG

    @property
    def provenance(self) -> Path:
        return self.folder / PROVENANCE

    @property
    def metrics(self) -> Path:
        return self.folder / METRICS

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    @property
    def base_model(self) -> Path:
        return self.folder / "base"

    @property
    def preflight(self) -> Path:
        return self.folder / PREFLIGHT

    @property
    def log(self) -> Path:
        return self.folder / LOG

    @property
    def evaluations(self) -> Path:
        return self.folder / EVALUATIONS

    def evaluation(self, label: str) -> EvaluationFiles:
        return EvaluationFiles(self.evaluations / label)


@dataclass(frozen=True)
class StudyFiles:
    """A study and its runs, in `folder`."""

    folder: Path

    @property
    def plan(self) -> Path:
        return self.folder / PLAN

    @property
    def ledger(self) -> Path:
        return self.folder / LEDGER

    @property
    def report(self) -> Path:
        return self.folder / REPORT

    def run(self, name: str) -> RunFiles:
        return RunFiles(self.folder / name)
