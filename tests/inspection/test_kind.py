"""The kind of a data set is named right: for the embedded world's eight kinds, and for published sets."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from balanced_thinking.cli import main
from balanced_thinking.inspection import Inspection, inspect_data, measure_losses
from balanced_thinking.inspection.conclusion import Conclusions
from balanced_thinking.inspection.kind import (
    DataKind,
    LossMeasure,
    SegmentLoss,
    describe_kind,
    explain_kind,
    judge_kind,
)
from balanced_thinking.inspection.supported import RESULTS, SUPPORTED, Supported, describe_supported, find_supported
from balanced_thinking.models.load import LoadedModel, load_model
from tests.conftest import REPOSITORY

KINDS = list(product(("stated", "unstated"), (0.0, 0.3), ("fixed", "varied")))
# Thresholds were set on training rows of seed 0.
SEED, SPLIT, RATIO = 7, "test", 10


@pytest.fixture(scope="module")
def reasoner() -> LoadedModel:
    return load_model("world-reasoner")


def inspect_world(conclusion: str, false_steps: float, wording: str, rows: int, ratio: int = RATIO) -> Inspection:
    options = {"conclusion": conclusion, "false_steps": false_steps, "wording": wording}
    options |= {"n": rows, "ratio": ratio, "seed": SEED}
    return inspect_data("world", split=SPLIT, options=options)


def kind_of(found: Inspection) -> DataKind:
    assert found.kind is not None
    return found.kind


def steps_word(false_steps: float) -> str:
    return "conflicting" if false_steps else "agreeing"


@pytest.mark.parametrize(("conclusion", "false_steps", "wording"), KINDS)
def test_the_text_alone_shows_conclusion_and_disagreement(conclusion: str, false_steps: float, wording: str) -> None:
    kind = kind_of(inspect_world(conclusion, false_steps, wording, 120))
    assert kind.conclusion == conclusion
    assert kind.steps == (steps_word(false_steps) if conclusion == "stated" else "unknown")
    assert kind.wording == "unknown"
    assert kind.ratio == pytest.approx(RATIO, rel=0.05)


@pytest.mark.parametrize(
    ("conclusion", "false_steps", "wording", "rows", "ratio"),
    [
        *(("unstated", steps, "fixed", 48, RATIO) for steps in (0.0, 0.3)),
        *(("unstated", steps, "varied", 96, RATIO) for steps in (0.0, 0.3)),
        *(
            pytest.param(*kind, 256, ratio, marks=pytest.mark.slow, id=f"{kind}, ratio {ratio}")
            for kind in KINDS
            for ratio in (10, 20, 40)
        ),
    ],
)
def test_a_model_shows_false_steps_and_wording(
    conclusion: str, false_steps: float, wording: str, rows: int, ratio: int, reasoner: LoadedModel
) -> None:
    found = inspect_world(conclusion, false_steps, wording, 160, ratio)
    kind = kind_of(measure_losses(found, reasoner, rows=rows))
    assert (kind.conclusion, kind.steps, kind.wording) == (conclusion, steps_word(false_steps), wording)


@pytest.mark.parametrize(
    ("data", "limit", "conclusion", "least", "most_disagreement"),
    [
        ("puzzlevqa:puzzlevqa", 40, "stated", 0.99, 0.0),
        ("gsm8k:cot/gsm8k.tsv", 300, "stated", 0.97, 0.02),
        ("ecqa:cot/ecqa.tsv", 300, "mixed", 0.65, 0.02),  # explanations, of which not all name the answer last
        ("qasc:cot/qasc.tsv", 300, "stated", 0.80, 0.02),
    ],
)
def test_the_kind_of_published_data(
    data: str, limit: int, conclusion: str, least: float, most_disagreement: float, real_data: Path
) -> None:
    name, _, place = data.partition(":")
    if not (real_data / place).exists():
        pytest.skip(f"no {place} in the folder of third-party data")
    kind = kind_of(inspect_data(f"{name}:{real_data / place}", limit=limit))
    assert (kind.conclusion, kind.steps) == (conclusion, "agreeing")
    assert kind.conclusions.stated >= least
    assert kind.conclusions.disagreeing is not None
    assert kind.conclusions.disagreeing <= most_disagreement


def test_losses_are_those_of_the_reference(reasoner: LoadedModel) -> None:
    """Means of nll and entropy per segment, and the share of the loss, against the complete logits."""
    from balanced_thinking.batch.collator import ScaleCollator
    from balanced_thinking.batch.info import BATCH_INFO
    from balanced_thinking.data.rows import to_dataset

    found = measure_losses(inspect_world("stated", 0.3, "fixed", 12), reasoner, name="mine")
    losses = found.losses
    assert losses is not None
    batch = ScaleCollator(reasoner.processor)(
        list(to_dataset([sample.example for sample in found.samples], found.format))
    )
    batch.pop(BATCH_INFO)
    segments, labels = batch.pop("segment_ids")[:, 1:], batch.pop("labels")[:, 1:]
    with torch.no_grad():
        logs = reasoner.model(**batch).logits[:, :-1].double().log_softmax(-1)
    nll = -logs.gather(2, labels.clamp(min=0)[..., None])[..., 0]
    entropy = -(logs.exp() * logs).sum(-1)
    for segment, measured in ((1, losses.think), (2, losses.answer)):
        mask = segments == segment
        assert measured.tokens == mask.sum()
        assert measured.nll == pytest.approx(nll[mask].mean().item(), rel=1e-4)
        assert measured.entropy == pytest.approx(entropy[mask].mean().item(), rel=1e-3)
        assert measured.open_share == pytest.approx((entropy[mask] > 0.5).double().mean().item(), abs=1e-3)
    think = nll[segments == 1].sum()
    assert losses.think_share == pytest.approx((think / (think + nll[segments == 2].sum())).item(), rel=1e-4)
    assert (losses.model, losses.rows) == ("mine", 12)


def test_a_model_that_does_not_follow_says_so() -> None:
    losses = LossMeasure("m", 9, SegmentLoss(90, 4.0, 0.2, 0.1), SegmentLoss(9, 1.0, 0.5, 0.1), 10, 5, 80, 8)
    conclusions = Conclusions(100, 30, 10, 40)
    kind = judge_kind(conclusions, 10.0, losses)
    assert (kind.steps, kind.wording) == ("unknown", "fixed")  # ten values are too few
    assert "expects other text" in "\n".join(explain_kind(kind))
    assert "10% surprising words" in describe_kind(kind)
    language = replace(losses, think=SegmentLoss(90, 4.1, 3.2, 0.9))  # a language model's nats on free text
    kind = judge_kind(conclusions, 10.0, language)
    assert kind.wording == "varied"
    assert "3.20 nats of entropy per think token" in describe_kind(kind)


def test_data_without_reasoning_have_no_kind(reasoner: LoadedModel) -> None:
    found = inspect_data("world", options={"n": 8, "style": "direct"})
    assert found.kind is None
    assert measure_losses(found, reasoner).losses is None


def test_inspect_shows_the_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    words = ["inspect", "world", "--limit", "24", "--data_options.ratio", "10", "--html", str(page)]
    assert main([*words, "--model", "world-reasoner", "--losses"]) == 0
    said = capsys.readouterr().out
    (line,) = re.findall(r"^kind: .*$", said, re.MULTILINE)
    for text in (said, page.read_text()):
        assert "kind: the answer is stated in the last sentence (88%), reasoning and answer disagree in 0%" in text
        assert "wording fixed (0.0" in text
        assert "loss of world-reasoner on 24 rows, nats per token: reasoning 0.0" in text
        assert RESULTS in text
    assert line.endswith("per think token), ratio 10")
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", "world", "--losses"])
    assert "--losses are those of a model" in capsys.readouterr().err


def test_each_kind_has_one_line_of_support() -> None:
    kinds = [(one.conclusion, one.steps) for one in SUPPORTED]
    assert sorted(kinds) == sorted(product(("stated", "mixed", "unstated"), ("agreeing", "conflicting")))
    headings = [
        line.lstrip("# ").strip() for line in (REPOSITORY / RESULTS).read_text().splitlines() if line[:1] == "#"
    ]
    for one in SUPPORTED:
        assert one.measured == bool(one.section)
        assert not one.measured or one.section in headings
    assert find_supported("stated", "unknown") is None


def test_support_is_said_only_where_it_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Supported("mixed", "agreeing", "think_weight_end: 0.5", "In short")
    monkeypatch.setattr("balanced_thinking.inspection.supported.SUPPORTED", (line, Supported("stated", "agreeing")))
    said = describe_supported("mixed", "agreeing")
    assert said == f"for such data our results support think_weight_end: 0.5 ({RESULTS}, In short)"
    assert "do not decide yet" in describe_supported("stated", "agreeing")
    assert "balanced study" in describe_supported("stated", "agreeing")
    assert "depends on what was not measured here" in describe_supported("stated", "unknown")
