"""The Triton head: its kernel under Triton's interpreter against float64 truth, and compiled for a real GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

import pytest
import torch

from balanced_thinking.loss.linear_cross_entropy import weighted_linear_cross_entropy
from tests.conftest import some_now
from tests.loss.test_linear_cross_entropy import (
    CASES,
    Case,
    ProductCounter,
    case_named,
    entropy_error,
    errors,
    make_case,
    truth,
    worst,
)

pytest.importorskip("triton", reason="Triton is not installed (it exists for Linux only)")
from balanced_thinking.loss import chunks, triton

BLOCKS = ("one block", "many blocks")


@pytest.fixture(params=BLOCKS)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of 101 logits in one block of 128, or in four of 32."""
    if request.param == "many blocks":
        monkeypatch.setattr(triton, "_BLOCK", 32)


# The interpreter rounds to bfloat16 by cutting bits off, which costs up to two roundings more than a GPU's.
ROUNDINGS = {torch.float32: 6, torch.bfloat16: 3, torch.float16: 2}


@pytest.mark.parametrize(
    ("name", "dtype", "blocks"),
    some_now(
        lambda name, dtype, blocks: (
            dtype == (torch.float16 if name == "everything" else torch.bfloat16)
            and name not in ("all supervised", "scaled")
            and (blocks == "many blocks" or name not in ("plain", "bias", "softcap"))
        ),
        [name for name in CASES if "sharp" not in name or "capped" in name],
        ROUNDINGS,
        BLOCKS,
    ),
    indirect=["blocks"],
)
def test_the_kernel_is_no_worse_than_naive_against_float64(name: str, dtype: torch.dtype, blocks: None) -> None:
    case, roundings = case_named(name, dtype), ROUNDINGS[dtype]
    naive, fast = errors(case, "reference", 0.37), errors(case, "triton", 0.37)
    assert fast.keys() == naive.keys()
    for field, error in fast.items():
        assert error <= naive[field] + roundings * torch.finfo(dtype).eps, (field, error, naive[field])


def test_a_target_whose_probability_underflows_keeps_its_nll(blocks: None) -> None:
    case = case_named("sharp rows, underflowing targets", torch.float32)
    assert errors(case, "triton")["nll"] < 1e-6


@pytest.mark.parametrize("chunk", [1, 5, 37])
def test_chunks_give_what_one_gives(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = chunks.ChunkPolicy(chunk_bytes=1, min_rows=chunk, block_bytes=1)
    monkeypatch.setattr(chunks, "CPU_POLICY", policy)
    assert max(errors(make_case(bias=True), "triton").values()) < 2e-6


def test_metrics_are_those_of_the_reference(blocks: None) -> None:
    case = make_case(softcap=3.0)
    fast, slow = case.run("triton"), case.run("reference")
    torch.testing.assert_close(fast.nll_T, slow.nll_T, rtol=1e-5, atol=1e-5)
    assert torch.equal(fast.correct_T, slow.correct_T)


@pytest.mark.parametrize("name", some_now(lambda name: name in ("everything", "sharp and capped"), CASES))
def test_entropy_is_returned_where_it_is_asked_for(name: str, blocks: None) -> None:
    assert entropy_error(case_named(name, torch.float32), "triton") < 2e-6


def test_a_tie_across_blocks_goes_to_the_first(blocks: None) -> None:
    head_VD = torch.zeros(101, 4)
    head_VD[[3, 70]] = 1.0
    out = weighted_linear_cross_entropy(torch.ones(2, 4), head_VD, torch.tensor([3, 70]), torch.ones(2), impl="triton")
    assert out.correct_T.tolist() == [True, False]


@pytest.mark.parametrize(("frozen", "products"), [((), 3), (("head_VD",), 2), (("hidden_TD", "head_VD"), 1)])
def test_frozen_inputs_save_products(frozen: tuple[str, ...], products: int) -> None:
    case = make_case(ignored=0.0)
    case = Case(*((t.detach() if n in frozen else t) for n, t in list(vars(case).items())[:3]), case.weights_T + 1.0)
    with ProductCounter() as counter:
        out = case.run("triton")
        if out.loss.requires_grad:
            out.loss.backward()
    assert counter.count == products
    for name, grad in case.grads().items():
        assert worst(grad, truth(case)[2][name]) < 1e-6


def test_float64_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"accumulates in float32.*impl='chunked'"):
        make_case(dtype=torch.float64).run("triton")


def test_on_a_cpu_auto_is_the_chunked_head_and_triton_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert errors(make_case(dtype=torch.float64), "auto")["loss"] < 1e-14
    monkeypatch.setattr(triton.triton.knobs.runtime, "interpret", False)
    with pytest.raises(ValueError, match="needs a GPU, but hidden_TD is on cpu: use impl='auto'"):
        make_case().run("triton")


COMPILE = r"""
import re, subprocess, sys, tempfile, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from balanced_thinking.loss.triton import _BLOCK, _WARPS, _score_row

kinds = {"row_stride": "i32", "targets_C": "*i64", "correct_C": "*i1", "V": "i32", "logit_scale": "fp32"}
for case in sys.argv[1:]:
    dtype, *flags = case.split(",")
    grad, cap, entropy = (flag == "True" for flag in flags)
    constants = {"HAS_GRAD": grad, "SOFTCAP": cap, "ENTROPY": entropy, "BLOCK": _BLOCK}
    signature = {name: "constexpr" if name in constants else kinds.get(name, "*fp32") for name in _score_row.arg_names}
    signature |= {"logits_CV": f"*{dtype}", "softcap": "fp32"}
    places = {(_score_row.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=_score_row, signature=signature, constexprs=places)
    kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": _WARPS})
    assert "tanh" not in kernel.asm["ptx"]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(kernel.asm["ptx"])
        file.flush()
        command = [triton.knobs.nvidia.ptxas.path, "-v", "--gpu-name=sm_90a", file.name, "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    print(*re.findall(r"(\d+) bytes spill (?:stores|loads)", report))
"""


COMPILED = [",".join(map(str, case)) for case in product(("fp32", "bf16", "fp16"), *[(False, True)] * 3)]


@pytest.mark.parametrize(
    "cases",
    [pytest.param(COMPILED, id="all", marks=pytest.mark.slow), pytest.param(["bf16,True,True,True"], id="everything")],
)
def test_the_kernel_compiles_for_a_gpu_without_one(cases: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE, *cases]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "0"] * len(cases)  # nothing spilled
