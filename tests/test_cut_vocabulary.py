"""A model whose vocabulary was cut writes and reads a study's rows as before."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from balanced_thinking.data.world_text import load
from balanced_thinking.models.tiny import build_tiny
from tests.conftest import REPOSITORY

STUDY = """
seeds: [0]
stages: {sft: {model: MODEL, data: world-text, data_options: {n: 40, ratio: 15}}}
arms: {sft: {}}
evaluate: {world-text: {options: {n: 8, ratio: 15}}}
"""

RECIPE = "{model: MODEL, data: world-text, data_options: {n: 40, ratio: 15}}"


@pytest.mark.parametrize("text", [STUDY, RECIPE], ids=["study", "recipe"])
def test_a_cut_model_reads_the_same_tokens_and_gives_them_the_same_logits(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for part in build_tiny("qwen2"):
        part.save_pretrained(whole)
    (tmp_path / "plan.yaml").write_text(text.replace("MODEL", str(whole)))
    monkeypatch.setattr(sys, "argv", ["cut_vocabulary.py", str(whole), str(cut), str(tmp_path / "plan.yaml")])
    assert importlib.import_module("cut_vocabulary").main() == 0

    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (whole, cut)]
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (whole, cut)]
    sizes = [model.config.vocab_size for model in models]
    assert sizes[1] < sizes[0]
    assert f"{sizes[1]:,} of {len(tokenizers[0]):,} tokens" in capsys.readouterr().out
    thinking = next(iter(load(n=1, seed=0, ratio=15))).think + " <think>"
    old, new = (tokenizer.encode(thinking) for tokenizer in tokenizers)
    assert [tokenizers[0].decode([one]) for one in old] == [tokenizers[1].decode([one]) for one in new]
    names = [tokenizers[1].convert_ids_to_tokens(one) for one in range(sizes[1])]
    kept = tokenizers[0].convert_tokens_to_ids(names)
    with torch.no_grad():
        logits = [model(torch.tensor([ids])).logits[0] for model, ids in zip(models, (old, new), strict=True)]
    torch.testing.assert_close(logits[1], logits[0][:, kept])
    assert models[1].generation_config.eos_token_id is not None
    ends = [model.generation_config.eos_token_id for model in models]
    assert tokenizers[0].convert_ids_to_tokens(ends[0]) == tokenizers[1].convert_ids_to_tokens(ends[1])
    rare = "Zwölf Boxkämpfer"  # not in the study: it falls back to smaller pieces, down to bytes
    assert tokenizers[1].decode(tokenizers[1].encode(rare)) == rare
