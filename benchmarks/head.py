"""Time and memory of the weighted head against TRL's, forward and backward.

    python benchmarks/head.py [--shape 512,32000,2048,0.5] [--rounds 5] [--json FILE] [--device cpu|cuda]
    python benchmarks/head.py --sweep --device cuda --rounds 1 --only chunked,triton,trl,liger,cce [--json FILE]

Command of record: python benchmarks/head.py --json benchmarks/results/head-cpu.json (2 CPU cores, about 5 minutes);
expected at the default shape: `chunked` at most 0.20 of TRL's CPU seconds and 0.25 of its added peak memory.
Needs Linux (/proc). Shapes: T tokens, N supervised tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from balanced_thinking.loss.chunks import balanced_spans, chunk_policy
from balanced_thinking.loss.linear_cross_entropy import weighted_linear_cross_entropy
from harness import Figures, Rows, contest, measured, options_of, peak_mib, reset_peak, table


class Shape(NamedTuple):
    hidden: int
    vocabulary: int
    tokens: int
    ignored: float


TARGET_SHAPE = Shape(512, 32000, 2048, 0.5)
# What a sweep changes one at a time: tokens, vocabulary, hidden size, ignored share, dtype, whether the head is frozen.
SWEEPS: dict[str, tuple[Shape, dict[str, Sequence[Any]]]] = {
    "cpu": (
        TARGET_SHAPE,
        {
            "tokens": (512, 8192),
            "vocabulary": (8000, 151_936),
            "hidden": (256, 2048),
            "ignored": (0.0, 0.9),
            "dtype": ("bfloat16",),
            "frozen": (True,),
        },
    ),
    "cuda": (
        Shape(2048, 151_936, 8192, 0.5),
        {
            "tokens": (2048, 32_768),
            "vocabulary": (32_000, 262_144),
            "hidden": (1024, 4096),
            "ignored": (0.0, 0.9),
            "dtype": ("float16", "float32"),
            "frozen": (True,),
        },
    ),
}
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
WARM_UP_SHAPE = Shape(64, 1000, 96, 0.5)
TARGETS = {"seconds": 0.20, "peak_mib": 0.25}  # ours over TRL's, at TARGET_SHAPE on a CPU
BASELINE, PRODUCTS = "trl", "three_products"


def chunked(hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, weights_T: Tensor) -> Tensor:
    return weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, weights_T, impl="chunked").loss


def triton(hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, weights_T: Tensor) -> Tensor:
    return weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, weights_T, impl="triton").loss


def reference(hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, weights_T: Tensor) -> Tensor:
    return weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, weights_T, impl="reference").loss


def naive(hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, weights_T: Tensor) -> Tensor:
    logits_TV = (hidden_TD @ head_VD.t()).float()
    return (F.cross_entropy(logits_TV, labels_T, reduction="none") * weights_T).sum()


def naive_compacted(hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, weights_T: Tensor) -> Tensor:
    rows_N = (labels_T != -100).nonzero().squeeze(1)
    return naive(hidden_TD[rows_N], head_VD, labels_T[rows_N], weights_T[rows_N])


def three_products(hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, weights_T: Tensor) -> Tensor:
    """The products that every exact head needs and nothing else: ours, without what is between them.

    The supervised rows, chunks as large as ours, torch's default way to multiply. Its "loss" is no loss.
    """
    hidden_ND, *_ = compacted(hidden_TD.detach(), labels_T, weights_T)
    most = _rows_of_a_chunk(head_VD)
    spans = list(balanced_spans(0, len(hidden_ND), most))
    weight_VD = head_VD.detach()
    buffer_CV = head_VD.new_empty(max(rows for _, rows in spans), len(head_VD))
    grad_ND, grad_VD = torch.empty_like(hidden_ND), torch.empty_like(weight_VD)
    for start, rows in spans:
        hidden_CD, logits_CV = hidden_ND[start : start + rows], buffer_CV[:rows]
        torch.mm(hidden_CD, weight_VD.t(), out=logits_CV)
        torch.mm(logits_CV, weight_VD, out=grad_ND[start : start + rows])
        grad_VD.addmm_(logits_CV.t(), hidden_CD, beta=float(start > 0))
    return hidden_TD.sum() * 0.0 + grad_ND[0, 0].detach()


def trl(hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, weights_T: Tensor) -> Tensor:
    """TRL's `add_fused_lm_head` as its SFTTrainer sets it up: without Triton it scores every position."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction, _use_triton
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    outputs = ("log_probs", "entropy", "is_top1")
    mask_T = labels_T != -100
    options = (None, 1.0, outputs)  # softcap, logit scale
    compact = _use_triton(hidden_TD.device)
    rows, targets = (hidden_TD[mask_T], labels_T[mask_T]) if compact else (hidden_TD, labels_T.clamp(min=0))
    scored = ChunkedLogProbFunction.apply(rows, head_VD, None, targets, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, *options)[0]
    log_probs_T = scored.new_zeros(mask_T.shape).masked_scatter(mask_T, scored) if compact else scored
    return -(log_probs_T.masked_fill(~mask_T, 0) * weights_T).sum()


def compacted(hidden_TD: Tensor, labels_T: Tensor, weights_T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The supervised rows: what every peer below is given, so that none pays for the others."""
    rows_N = (labels_T != -100).nonzero().squeeze(1)
    return hidden_TD[rows_N], labels_T[rows_N], weights_T[rows_N]


def torch_fused(hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, weights_T: Tensor) -> Tensor:
    """torch's own, with chunks as large as ours: its default of tiny ones takes several times as long."""
    hidden_ND, labels_N, weights_N = compacted(hidden_TD, labels_T, weights_T)
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=_rows_of_a_chunk(head_VD), acc_policy="compact")
    return (F.linear_cross_entropy(hidden_ND, head_VD, labels_N, reduction="none", options=options) * weights_N).sum()


def _rows_of_a_chunk(head_VD: Tensor) -> int:
    policy = chunk_policy(head_VD.device)
    return max(policy.min_rows, policy.chunk_bytes // (len(head_VD) * head_VD.element_size()))


def liger(hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, weights_T: Tensor) -> Tensor:
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    hidden_ND, labels_N, weights_N = compacted(hidden_TD, labels_T, weights_T)
    options = (None, None, -100, 0.0, 0.0, "none")  # bias, class weights, ignored label, z-loss, smoothing, reduction
    return (LigerFusedLinearCrossEntropyFunction.apply(hidden_ND, head_VD, labels_N, *options)[0] * weights_N).sum()


def cce(hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, weights_T: Tensor) -> Tensor:
    """Cut cross-entropy with its filter, which leaves out small gradients before they are weighted: not exact."""
    from cut_cross_entropy import linear_cross_entropy

    hidden_ND, labels_N, weights_N = compacted(hidden_TD, labels_T, weights_T)
    return (linear_cross_entropy(hidden_ND, head_VD, labels_N, reduction="none") * weights_N).sum()


Head = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
EVERYWHERE = (chunked, three_products, reference, naive_compacted, naive, torch_fused, trl)
HEADS: dict[str, Head] = {head.__name__: head for head in (*EVERYWHERE, triton, liger, cce)}


def contestants(device: str) -> tuple[str, ...]:
    """Those that run on the device and are installed; torch has its own since 2.13."""
    older = not hasattr(torch.nn, "LinearCrossEntropyOptions")
    names = [head.__name__ for head in EVERYWHERE if not (older and head is torch_fused)]
    if device == "cuda":
        packages = {"triton": "triton", "liger": "liger_kernel", "cce": "cut_cross_entropy"}
        names += [name for name, package in packages.items() if find_spec(package)]
    return tuple(names)


def inputs(shape: Shape, device: str, dtype: torch.dtype, frozen: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random hidden states, head, labels and non-uniform weights, drawn on the device."""
    rng = torch.Generator(device).manual_seed(0)
    drawn: dict[str, Any] = {"generator": rng, "device": device}
    hidden_TD = torch.randn(shape.tokens, shape.hidden, **drawn).to(dtype)
    head_VD = (torch.randn(shape.vocabulary, shape.hidden, **drawn) / shape.hidden**0.5).to(dtype)
    labels_T = torch.randint(0, shape.vocabulary, (shape.tokens,), **drawn)
    labels_T[torch.rand(shape.tokens, **drawn) < shape.ignored] = -100
    weights_T = torch.rand(shape.tokens, **drawn) / shape.tokens
    return hidden_TD.requires_grad_(), head_VD.requires_grad_(not frozen), labels_T, weights_T


def step(head: Head, tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> float:
    tensors[0].grad = tensors[1].grad = None
    loss = head(*tensors)
    loss.backward()
    return loss.item()


def measure_cpu(head: Head, tensors: tuple[Tensor, Tensor, Tensor, Tensor], iterations: int) -> dict[str, float]:
    """CPU seconds of all threads (a busy neighbour changes them little), and the first step's added peak memory."""
    before_mib, seconds, added_mib, loss = reset_peak(), [], 0.0, 0.0
    for i in range(iterations):
        start = time.process_time()
        loss = step(head, tensors)
        seconds.append(time.process_time() - start)
        if i == 0:
            added_mib = peak_mib(before_mib)
    return {"seconds": statistics.median(seconds), "peak_mib": added_mib, "loss": loss}


def measure_cuda(head: Head, tensors: tuple[Tensor, Tensor, Tensor, Tensor], iterations: int) -> dict[str, float]:
    """Seconds between CUDA events, after one step that the allocator and the compilers warm up on."""
    step(head, tensors)
    tensors[0].grad = tensors[1].grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, seconds, loss = torch.cuda.memory_allocated(), [], 0.0
    for _ in range(iterations):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        loss = step(head, tensors)
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1000)
    added_mib = (torch.cuda.max_memory_allocated() - before) / 2**20
    return {"seconds": statistics.median(seconds), "peak_mib": added_mib, "loss": loss}


def measure_shape(
    name: str, shape: Shape, device: str, dtype: str, frozen: bool = False, iterations: int = 3
) -> dict[str, float]:
    """Seconds (median) and added peak memory of a contestant at one shape, after a small warm-up."""
    kind = device, getattr(torch, dtype), frozen
    step(HEADS[name], inputs(WARM_UP_SHAPE, *kind))  # imports, thread pools, kernels
    return (measure_cpu if device == "cpu" else measure_cuda)(HEADS[name], inputs(shape, *kind), iterations)


def measure(name: str, options: argparse.Namespace) -> Figures:
    return measure_shape(
        name, options.shape, options.device, options.dtype, options.frozen, iterations=options.iterations
    )


def meets_targets(rows: Rows) -> bool:
    passed = True
    for field, limit in TARGETS.items():
        ratio = rows["chunked"].get(f"{field}_ratio", {"median": float("nan")})["median"]
        passed &= ratio <= limit
        print(f"{'PASS' if ratio <= limit else 'FAIL'} chunked {field}: {ratio:.3f} of TRL's, at most {limit:.2f}")
    return passed


def parse_shape(text: str) -> Shape:
    try:
        hidden, vocabulary, tokens, ignored = text.split(",")
        return Shape(int(hidden), int(vocabulary), int(tokens), float(ignored))
    except ValueError:
        expected = "hidden,vocabulary,tokens,ignored share, like 512,32000,2048,0.5"
        raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}") from None


def cases(options: argparse.Namespace) -> dict[str, argparse.Namespace]:
    """A sweep's options by the name of the case: the base's, then with one axis changed at a time."""
    shape, axes = SWEEPS[options.device]
    base = vars(options) | {"shape": shape}
    found = {"base": argparse.Namespace(**base)}
    for axis, values in axes.items():
        for value in values:
            changed = {"shape": shape._replace(**{axis: value})} if axis in Shape._fields else {axis: value}
            found[f"{axis} {value}"] = argparse.Namespace(**base | changed)
    return found


def arguments_of(case: argparse.Namespace) -> list[str]:
    words = ["--shape", ",".join(map(str, case.shape)), "--device", case.device, "--dtype", case.dtype]
    words += ["--threads", str(case.threads), "--iterations", str(case.iterations)]
    return words + ["--frozen"] * case.frozen


def sweep(options: argparse.Namespace, chosen: Sequence[str]) -> None:
    """Each case in turn; the JSON has them all by name."""
    swept: dict[str, Any] = {}
    for name, case in cases(options).items():
        swept[name] = about = {"shape": case.shape._asdict(), "dtype": case.dtype, "frozen": case.frozen}

        def together(rows: Rows, about: dict[str, Any] = about) -> dict[str, Any]:
            about["figures"] = rows
            return swept

        rows = contest(
            __file__, case, chosen, arguments_of(case), BASELINE, together, beside=PRODUCTS, iterations=case.iterations
        )
        print(f"\n{name}: {about['shape']}, {case.dtype}{', frozen' * case.frozen}\n\n{as_table(rows, case.device)}")


def as_table(rows: Rows, device: str) -> str:
    seconds = "GPU s:.4f" if device == "cuda" else "CPU s:.2f"
    return table(rows, {"seconds": seconds, "peak_mib": "added peak MiB:.0f"}, BASELINE)


def parse_options() -> argparse.Namespace:
    parser = options_of(__doc__, tuple(HEADS))
    about = "hidden,vocabulary,tokens,ignored share"
    parser.add_argument("--shape", type=parse_shape, default=TARGET_SHAPE, help=about)
    parser.add_argument("--iterations", type=int, default=3, help="steps timed in each process (default 3)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default float32, on cuda bfloat16")
    parser.add_argument("--frozen", action="store_true", help="no gradient of the head, as with LoRA")
    parser.add_argument("--only", help="contestants beside trl, as in chunked,triton (default: all)")
    parser.add_argument("--sweep", action="store_true", help="a shape, then each axis of it by itself; ignores --shape")
    options = parser.parse_args()
    options.dtype = options.dtype or DTYPES[options.device]
    return options


def main() -> int:
    options = parse_options()
    if options.measure:
        measured(options.measure, options, measure)
        return 0
    known = contestants(options.device)
    chosen = [n for n in known if options.only is None or n in (*options.only.split(","), BASELINE)]
    if options.sweep:
        sweep(options, chosen)
        return 0
    about = {"dtype": options.dtype, "frozen": options.frozen, "shape": options.shape._asdict()}
    arguments = arguments_of(options)
    rows = contest(
        __file__, options, chosen, arguments, BASELINE, beside=PRODUCTS, iterations=options.iterations, **about
    )
    print(as_table(rows, options.device))
    if f"seconds_of_{PRODUCTS}" in rows.get("chunked", {}):
        print(f"chunked takes {rows['chunked'][f'seconds_of_{PRODUCTS}']['median']:.3f} of its three products alone")
    judged = (options.device, options.shape, options.dtype, options.frozen) == ("cpu", TARGET_SHAPE, "float32", False)
    return 0 if not judged or "chunked" not in rows or meets_targets(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
