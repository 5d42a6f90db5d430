"""Every example runs as a user runs it, and prints what its docstring promises."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.forked import run_forked

FOLDER = Path(__file__).resolve().parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("[0-9]*.py"))
# What each must print: figures that do not depend on the machine, or their shape.
EXPECTED = {
    "101": [r"^answer: B$", r"unclosed_think, answer_inside_think, no_answer", r"^boxed:  3 in the format boxed$"],
    "102": [r"^my-000002: B because 'Blue all over.', 1 picture$", r"^3 bad rows:$", r"broken_image", r"missing_image"],
    "103": [r"^step 1: weights 1\.00 \+ 0\.10", r"^step 4: weights 1\.00 \+ 1\.00.*answer \d+\.\d\d$"],
    "104": [r"^\d+ of 12 right, \d+%$", r"^95 % interval \d+% to \d+%$", r"truncated, scorer exact$"],
    "105": [r"^step 2: reward 0\.\d{3} \(accuracy 0\.\d\d, format 1\.00, one_word 1\.00\), malformed 0%$"],
    "106": [r"^a - b: -5\.0 points \(95 % interval -7\.0 to -3\.5\)$", r"^Holm: \[0\.03, 0\.06, 0\.06\]$"],
    "107": [r"^loss 20\.4044 nats$", r"gradients: \d\.\de-0[678]$", r"^gradient of the prompt: 0\.0$"],
    "108": [r"^ +cosine: 0\.90 0\.78 0\.50 0\.22 0\.10$", r"^ +stairs: 0\.90 0\.63 0\.37 0\.10 0\.10$"],
    "109": [r"^step 1: loss 6\.370 nats$", r"^step 4: loss 5\.\d{3} nats$"],
    "110": [r"^step 1: loss 6\.370 nats$", r"^step 4: loss 5\.\d{3} nats$"],
    "111": [r"^16 rows, 0 bad ones left out$", r"^exported: README\.md .*model\.safetensors", r"^2 of 2 answers"],
}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_runs_and_prints_what_it_promises(file: Path, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        code = run_forked([sys.executable, str(file)], cwd=tmp_path, env=environment, stdout=stdout, stderr=stderr)
    assert code == 0, err.read_text()[-2000:]
    for pattern in EXPECTED[file.name[:3]]:
        assert re.search(pattern, out.read_text(), re.MULTILINE), (pattern, out.read_text())


def test_examples_are_numbered_short_and_listed() -> None:
    assert [file.name[:3] for file in EXAMPLES] == list(EXPECTED)
    assert {
        file.name: len(file.read_text().splitlines()) for file in EXAMPLES if len(file.read_text().splitlines()) > 60
    } == {}
    listed = (FOLDER / "README.md").read_text()
    assert [file.name for file in EXAMPLES if f"({file.name})" not in listed] == []
