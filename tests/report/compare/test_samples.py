"""The samples of a page: which are chosen, their completions and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from balanced_thinking.report.compare.completions import split_completion
from balanced_thinking.report.compare.images import embed_image
from balanced_thinking.report.compare.samples import MAX_BYTES, SAMPLES, choose_samples
from balanced_thinking.runs.load import load_runs
from tests.report.synthetic import write_run


def test_samples_with_disagreement_come_first_and_pictures_before_none(study: Path) -> None:
    for arm in ("sft", "scale-sft"):
        path = study / arm / "seed-0/eval/world-test/predictions.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for i in (5, 80):  # the arms agree on both
            rows[i]["images"] = [f"{i}.png"]
            Image.new("RGB", (4, 4), "red").save(path.parent / f"{i}.png")
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    samples = choose_samples(load_runs(study), ("sft", "scale-sft"), "world-test", study)
    assert (samples.disagreements, samples.total, len(samples.items)) == (11, 100, SAMPLES)
    assert sum(sample.arms_disagree for sample in samples.items) == 11
    agreeing = [sample for sample in samples.items if not sample.arms_disagree]
    pictured = [sample for sample in agreeing if sample.images]
    assert [sample.id for sample in pictured] == ["item-5", "item-80"]
    assert pictured[0].images[0].startswith("data:image/png;base64,")
    assert [[reply.verdict for reply in sample.replies] for sample in pictured] == [["correct"] * 2, ["wrong"] * 2]


def test_samples_include_malformed_ones(tmp_path: Path) -> None:
    for arm in ("sft", "scale-sft"):
        folder = write_run(tmp_path / arm / "seed-0", [arm == "sft"] * 100 + [True] * 100)
        path = folder / "eval/world-test/predictions.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[150]["malformed"] = True
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    samples = choose_samples(load_runs(tmp_path), ("sft", "scale-sft"), "world-test", tmp_path)
    assert [sample.id for sample in samples.items if sample.has_malformed_reply] == ["item-150"]
    assert len(samples.items) == 48


def test_large_pictures_and_long_texts_do_not_make_a_large_page(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    for arm in ("sft", "scale-sft"):
        extra = {"images": ["noise.png"], "completion": "<think>" + "long " * 20_000}
        folder = write_run(tmp_path / arm / "seed-0", [arm == "sft"] * 60, extra=extra)
        Image.fromarray(noise).save(folder / "eval/world-test/noise.png")
    uri = embed_image(tmp_path / "sft/seed-0/eval/world-test/noise.png", tmp_path)
    assert uri is not None
    assert uri.startswith("data:image/jpeg;base64,")
    samples = choose_samples(load_runs(tmp_path), ("sft", "scale-sft"), "world-test", tmp_path)
    assert 1 < len(samples.items) < 48
    assert sum(sample.approximate_bytes for sample in samples.items) <= MAX_BYTES


@pytest.mark.parametrize(
    ("completion", "kinds"),
    [
        ("<think>a</think>\n<answer>b</answer>", ["thinking", "answer"]),
        ("<think>a without an end", ["thinking"]),  # no answer: all of it is thinking
        ("", []),
    ],
)
def test_the_segments_together_are_the_completion(completion: str, kinds: list[str]) -> None:
    segments = list(split_completion(completion, "think-answer"))
    assert "".join(segment.text for segment in segments) == completion
    assert [segment.kind for segment in segments] == kinds


def test_a_thinking_that_the_prompt_opened_and_that_was_cut_off_is_no_answer() -> None:
    """A text without any tag is an answer in this format, unless its prompt had opened the thinking."""
    kinds = [
        [segment.kind for segment in split_completion("I count the dots", "kimi", problems)]
        for problems in ((), ("unclosed_think", "no_answer"))
    ]
    assert kinds == [["answer"], ["thinking"]]


def test_only_pictures_inside_the_run_folder_are_embedded(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    Image.new("RGB", (900, 600), "red").save(tmp_path / "secret.png")
    Image.new("RGB", (900, 600), "red").save(tmp_path / "runs/kept.png")
    (tmp_path / "runs/text.png").write_text("no picture")
    root = tmp_path / "runs"
    assert embed_image(root / "../secret.png", root) is None
    assert embed_image(root / "text.png", root) is None
    assert embed_image(root / "absent.png", root) is None
    assert embed_image(root / "nul\0.png", root) is None
    assert embed_image(root / "kept.png", root) is not None


def test_a_decompression_bomb_is_not_opened(tmp_path: Path) -> None:
    Image.new("1", (10_000, 6_000)).save(tmp_path / "bomb.png")
    assert embed_image(tmp_path / "bomb.png", tmp_path) is None
