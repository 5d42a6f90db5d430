"""Start the engine that a user asked for, and resolve the dtype of its weights."""

from __future__ import annotations

from pathlib import Path

import torch

from balanced_thinking.config.names import did_you_mean
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.evaluation.engines.local import Generator
from balanced_thinking.evaluation.engines.server import Server
from balanced_thinking.evaluation.engines.vllm import Vllm
from balanced_thinking.evaluation.resume import ranks
from balanced_thinking.models.load import checkpoint_dtype, load_model, load_processor
from balanced_thinking.segments import ReasoningFormat

ENGINES = ("transformers", "vllm")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def weights_identity(folder: str, server: str | None, served: str | None, engine: str) -> str:
    """Tells who answers from who answered before."""
    return f"{server} {served} {engine} {_file_stamps(folder)}"


def check_engine(engine: str, server: str | None) -> None:
    if engine not in ENGINES:
        raise ValueError(f"there is no engine {engine!r}{did_you_mean(engine, ENGINES)}; known: {', '.join(ENGINES)}")
    if engine != "transformers" and server is not None:
        raise ValueError(f"--server {server} generates by itself: leave --engine {engine} out")


def resolve_dtype(dtype: str, model: str, server: str | None, engine: str) -> str:
    """The dtype of the weights, settled before they are loaded, because it tells one evaluation from another; a server
    has its own, and vLLM decides by itself where it is left to it."""
    if dtype not in DTYPES:
        raise ValueError(f"there is no dtype {dtype!r}{did_you_mean(dtype, DTYPES)}; known: {', '.join(DTYPES)}")
    if server is not None and dtype != "auto":
        raise ValueError(f"--server {server} has its own dtype: leave --dtype {dtype} out")
    if dtype != "auto" or server is not None or engine == "vllm":
        return dtype
    return "float32" if ranks().device.type == "cpu" else str(checkpoint_dtype(model)).removeprefix("torch.")


def start_engine(
    model: str,
    server: str | None,
    served: str | None,
    engine: str,
    dtype: str,
    format: ReasoningFormat,
    max_new_tokens: int,
) -> Engine:
    if server is not None or engine == "vllm":
        processor = load_processor(model)
        tokenizer = getattr(processor, "tokenizer", processor)
        if server is None:
            return Vllm(model, tokenizer, format, max_new_tokens, dtype=dtype)
        return Server(server, tokenizer, format, max_new_tokens, served=served)
    loaded = load_model(model, **({} if dtype == "float32" else {"dtype": getattr(torch, dtype)}))
    return Generator(loaded.model.to(ranks().device), loaded.processor, format, max_new_tokens)


def _file_stamps(folder: str) -> str:
    """Tells a local model's weights and processor from those that lay in its folder before."""
    place = Path(folder)
    patterns = ("*.safetensors", "*.bin", "*config.json") if place.is_dir() else ()
    files = sorted(file for pattern in patterns for file in place.glob(pattern))
    return " ".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)
