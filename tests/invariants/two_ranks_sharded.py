"""Run by torch.distributed.run on two gloo ranks: the gradients of a model that accelerate has sharded by FSDP2, each
rank with half of the samples."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.training.gradient_norm import scale_to_norm_
from balanced_thinking.training.head import FullPrecisionLoss, attach_weighted_head

# What a model may do with its head: share the embedding's weight or keep its own, with the last norm beside it or not.
SHARDED = ("llava_next", "qwen2_5_vl", "gemma3", "qwen2", "qwen2-untied")
MESHES = {"sharded": (1, 2), "replicated": (2, 1)}
RUNS = [*((case, "sharded") for case in SHARDED), *((case, "replicated") for case in ("gemma3", "qwen2-untied"))]
NORM = 0.7
_AXES = ("dp_replicate", "dp_shard")


def gradients(
    case: str, half: int | None = None, mesh: tuple[int, int] | None = None, norm: float | None = None
) -> dict[str, torch.Tensor]:
    """Whole gradients by name, of half of the samples or of all; scaled to this norm."""
    model = build_tiny(case.removesuffix("-untied"))[0]
    if case.endswith("-untied"):
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    attach_weighted_head(model)
    if mesh is not None:
        model = fsdp2_prepare_model(_accelerator(mesh, type(model.get_decoder().layers[0])), model)
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (4, 12), generator=rng)  # no picture's token
    weights = torch.rand(4, 11, generator=rng)
    mine = slice(None) if half is None else slice(2 * half, 2 * half + 2)
    for micro_batch in torch.arange(4)[mine].split(1):  # gradients add up over micro-batches
        inputs = {"input_ids": ids[micro_batch], "attention_mask": torch.ones_like(ids[micro_batch])}
        loss = model(**inputs, labels=ids[micro_batch], token_weights=weights[micro_batch], use_cache=False).loss
        (loss if half is None else 2 * loss).backward()  # ranks are averaged
    if norm is not None:
        sharded = [p.grad for p in model.parameters() if p.grad is not None]
        scale_to_norm_(sharded, torch.nn.utils.get_total_norm(sharded), norm)
    return {name: _gather_full(p.grad) for name, p in model.named_parameters() if p.grad is not None}


def in_low_precision() -> dict[str, Any]:
    """What FSDP2's bfloat16 leaves of weights that it would round, and of the loss."""
    model = build_tiny("qwen2")[0]
    attach_weighted_head(model)
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.bfloat16, output_dtype=torch.bfloat16)
    model = fsdp2_prepare_model(_accelerator(MESHES["sharded"], type(model.get_decoder().layers[0]), policy), model)
    ids = torch.randint(5, 60, (2, 12), generator=torch.Generator().manual_seed(0))
    exact = FullPrecisionLoss(torch.full((2, 11), 1 / 3))
    loss = exact.restore_precision(model(input_ids=ids, labels=ids, token_weights=exact, use_cache=False).loss)
    loss.backward()
    moved = sum(float(_gather_full(p.grad).abs().sum()) for p in model.parameters())
    return {"loss": loss.detach(), "nll": exact.found.nll, "moved": moved}


def _gather_full(grad: torch.Tensor) -> torch.Tensor:
    return grad.full_tensor() if isinstance(grad, DTensor) else grad


def _accelerator(mesh: tuple[int, int], layer: type, policy: Any = None) -> Any:
    """As much of an Accelerator as sharding asks for: it offers FSDP on a GPU only."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=[layer.__name__],
        mixed_precision_policy=policy,
    )
    return SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        torch_device_mesh=init_device_mesh("cpu", mesh, mesh_dim_names=_AXES),
        parallelism_config=SimpleNamespace(fsdp_dim_names=_AXES),
        mixed_precision="no",
        is_main_process=torch.distributed.get_rank() == 0,
        device=torch.device("cpu"),
    )


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    low = in_low_precision()
    found = {f"{case}/{mesh}": gradients(case, rank, MESHES[mesh]) for case, mesh in RUNS}
    found["matched"] = gradients("gemma3", rank, MESHES["sharded"], norm=NORM)
    if rank == 0:
        torch.save(low, folder / "low.pt")
    torch.save(found, folder / f"found-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
