"""Run folders as training and evaluating would leave them, without either."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

STEPS = 20
# How often each arm is right, and how often its output is malformed.
ARMS = {
    "sft": (0.60, 0.06),
    "scale-sft": (0.70, 0.03),
    "sft+grpo": (0.71, 0.02),
    "scale-sft+grpo": (0.80, 0.01),
}
SETTINGS = ("ratio-10", "ratio-40")
COLORS = ("red", "blue", "green", "yellow", "purple")


def write_run(
    folder: Path,
    correct: Sequence[bool],
    *,
    split: str = "world-test",
    data: str = "world",
    extra: dict[str, Any] | None = None,
    **provenance: Any,
) -> Path:
    """A finished run with one prediction for each of `correct`; `extra` is put into every prediction."""
    rows = [row(i, ok) | (extra or {}) for i, ok in enumerate(correct)]
    write_evaluation(folder / "eval" / split, rows, data=data)
    facts = {"arm": folder.parent.name, "finished": "2026-11-24T03:40:00Z", "train_seconds": 120.0}
    (folder / "provenance.json").write_text(json.dumps(facts | provenance))
    write_config(folder, "scale")
    write_metrics(folder, [{"step": s, "answer_nll": 3.0 - s / 10} for s in range(STEPS)])
    return folder


def write_evaluation(folder: Path, rows: Sequence[dict[str, Any]], *, data: str = "world") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    counts = {key: sum(r[key] for r in rows) for key in ("correct", "malformed", "truncated")}
    summary = {"n": len(rows), **counts, "format": "think-answer", "data": data}
    (folder / "summary.json").write_text(json.dumps(summary))


def write_config(folder: Path, weighting: str) -> None:
    """As a run stores it: the recipe, with the training arguments under `training`."""
    config = {"model": "world-base", "lora": {"r": 8}, "training": {"weighting": weighting, "max_steps": STEPS}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def write_metrics(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))


def row(i: int, correct: bool) -> dict[str, Any]:
    answer = "red" if correct else "blue"
    return {
        "id": f"item-{i}",
        "question": "which color ?",
        "images": [],
        "gold": "red",
        "choices": [],
        "prediction": answer,
        "correct": correct,
        "problems": [],
        "malformed": False,
        "truncated": False,
        "think_tokens": 40,
        "answer_tokens": 4,
        "completion": f"<think>it looks {answer} .</think>\n<answer>{answer}</answer>",
        "family": ("count", "spatial")[i % 2],
    }


def outcomes(both: int, only: int, other: int, neither: int) -> tuple[list[bool], list[bool]]:
    """(arm, baseline) with these paired counts."""
    arm = [True] * (both + only) + [False] * (other + neither)
    base = [True] * both + [False] * only + [True] * other + [False] * neither
    return arm, base


def write_study(
    root: Path, *, seeds: int = 3, settings: Sequence[str] = SETTINGS, n: int = 120, splits: Sequence[str] = ("test",)
) -> Path:
    """Four arms, the last two of which start from the first two, with a plan and a ledger."""
    root.mkdir(parents=True, exist_ok=True)
    plan = {
        "arms": {arm: {"stage": _stage(arm)} for arm in ARMS},
        "settings": {name: {} for name in settings},
        "seeds": list(range(seeds)),
        "contrasts": [["scale-sft", "sft"], ["scale-sft", "sft+grpo"], ["scale-sft+grpo", "sft+grpo"]],
        "margin": 1.0,
    }
    (root / "study.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    ledger: list[dict[str, Any]] = []
    for setting in settings or [""]:
        for arm in ARMS:
            for seed in range(seeds):
                ledger += _study_run(root, "/".join(filter(None, (setting, arm, f"seed-{seed}"))), arm, seed, n, splits)
    (root / "ledger.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in ledger))
    return root


def _stage(arm: str) -> str:
    return "grpo" if arm.endswith("+grpo") else "sft"


def _study_run(root: Path, name: str, arm: str, seed: int, n: int, splits: Sequence[str]) -> list[dict[str, Any]]:
    folder, stage, rng = root / name, _stage(arm), random.Random(name)
    folder.mkdir(parents=True)
    parent = str(folder).replace("+grpo", "") if stage == "grpo" else "world-base"
    weighting = {"weighting": "scale" if arm.startswith("scale") else "uniform"} if stage == "sft" else {}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": parent, "stage": stage, "training": weighting}))
    seconds = rng.uniform(90, 120) if stage == "sft" else rng.uniform(500, 700)
    facts = {"arm": arm, "seed": seed, "finished": "2026-11-24T03:40:00Z", "train_seconds": seconds}
    (folder / "provenance.json").write_text(json.dumps(facts))
    write_metrics(folder, [_logged(stage, step, rng) for step in range(60 if stage == "sft" else 20)])
    for split in splits:
        picture = Image.new("RGB", (120, 120), "white")
        ImageDraw.Draw(picture).ellipse((20, 20, 90, 90), fill=COLORS[seed % 5])
        (folder / "eval" / f"world-{split}").mkdir(parents=True)
        picture.save(folder / "eval" / f"world-{split}" / "picture.png")
        write_evaluation(folder / "eval" / f"world-{split}", [_reply(i, arm, rng) for i in range(n)])
    cost = {"cpu_seconds": 2 * seconds, "wall_seconds": seconds, "tokens": 300_000, "peak_mib": 1500}
    return [{"run": name, "part": "train", **cost}] + [
        {"run": name, "part": f"world-{split}", "wall_seconds": 12.5, "cpu_seconds": 24.0, "tokens": 9000}
        for split in splits
    ]


def _logged(stage: str, step: int, rng: random.Random) -> dict[str, Any]:
    if stage == "sft":
        losses = {"think_nll": 2 / (1 + step), "answer_nll": 2.0 - step / 40, "w_think": 0.9 - step / 80}
        return {"step": step, **losses, "grad_norm": rng.uniform(0.5, 1)}
    rewards = {"reward": step / 20, "rewards/accuracy/mean": step / 25, "completions/mean_length": 60 - step}
    return {"step": step, **rewards, "think_tokens": 50 - step, "kl": step / 1e4, "grad_norm": rng.uniform(0.1, 0.2)}


def _reply(i: int, arm: str, rng: random.Random) -> dict[str, Any]:
    right, malformed = ARMS[arm]
    # The same items are hard for every arm, as in real predictions.
    easy, flawed = random.Random(i).random() < 0.4, rng.random() < malformed
    correct = not flawed and (easy or rng.random() < (right - 0.4) / 0.6)
    gold = COLORS[i % 5]
    given = gold if correct else COLORS[(i + 1) % 5]
    seen = gold if rng.random() < 0.3 else given
    think = f"the tile is at the north . its neighbors are empty .\nso its color is {seen} ."
    whole = f"<think>{think}" if flawed else f"<think>{think}</think>\n<answer>{given}</answer>"
    truncated = flawed and rng.random() < 0.5
    return row(i, correct) | {
        "gold": gold,
        "prediction": None if flawed else given,
        "malformed": flawed,
        "truncated": truncated,
        "problems": ["unclosed_think", "missing_answer"] if flawed else [],
        "completion": whole,
        "think_tokens": 24,
        "images": ["picture.png"],
    }
