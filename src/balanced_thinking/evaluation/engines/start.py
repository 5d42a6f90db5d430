"""Which engine generates: what was asked for, checked, and started once it is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.evaluation.engines.identity import model_identity
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.evaluation.engines.server import ServerEngine
from balanced_thinking.evaluation.engines.vllm import VllmEngine
from balanced_thinking.evaluation.resume import evaluation_ranks
from balanced_thinking.models.adapters import refuse_served_base, warn_of_served_adapter
from balanced_thinking.models.dtypes import dtype_name
from balanced_thinking.models.load import checkpoint_dtype, load_model, load_processor
from balanced_thinking.models.quantization import check_quantization
from balanced_thinking.models.weights import refuse_nonfinite_files

ENGINES = ("transformers", "vllm")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class EngineOptions:
    """What generates the completions.

    Attributes:
        name: one of `ENGINES`, in this process.
        server: the address of an OpenAI-compatible server that serves the model instead. Then only the model's
            tokenizer is loaded here.
        served_model: the model's name there, needed if it serves several.
        dtype: of the weights, one of `DTYPES`; auto: on a GPU what the checkpoint says, on a CPU float32.
        allow_missing: tensors that the checkpoint may lack, as for `load_model`.
        image_options: options of the image processor, such as `max_pixels`, that replace the checkpoint's own.
        quantization: nf4 or int8, of the language model's layers; None: dense weights.
    """

    name: str = "transformers"
    server: str | None = None
    served_model: str | None = None
    dtype: str = "auto"
    allow_missing: tuple[str, ...] = ()
    image_options: Mapping[str, Any] = field(default_factory=dict)
    quantization: str | None = None

    def __post_init__(self) -> None:
        check_quantization(self.quantization)
        if self.quantization is not None and (self.server is not None or self.name != "transformers"):
            where = f"--server {self.server}" if self.server is not None else f"--engine {self.name}"
            raise RecipeError(f"{where} loads the weights itself: leave --quantization {self.quantization} out")
        if self.name not in ENGINES:
            suggestion = did_you_mean(self.name, ENGINES)
            raise RecipeError(f"there is no engine {self.name!r}{suggestion}; known: {', '.join(ENGINES)}")
        if self.dtype not in DTYPES:
            raise RecipeError(
                f"there is no dtype {self.dtype!r}{did_you_mean(self.dtype, DTYPES)}; known: {', '.join(DTYPES)}"
            )
        if self.server is not None and self.name != "transformers":
            raise RecipeError(f"--server {self.server} generates by itself: leave --engine {self.name} out")
        if self.server is not None and self.dtype != "auto":
            raise RecipeError(f"--server {self.server} has its own dtype: leave --dtype {self.dtype} out")
        if self.server is not None and self.image_options:
            raise RecipeError(
                f"--server {self.server} prepares pictures itself, so --image_options {dict(self.image_options)} would "
                "change nothing: start the server with them (vLLM: --mm-processor-kwargs), and leave them out here"
            )

    @property
    def engine_name(self) -> str:
        """What summaries call the engine."""
        return self.name if self.server is None else ServerEngine.name


def read_engine(engine: EngineOptions | str | None) -> EngineOptions:
    """The options that a short form means: None, one of `ENGINES`, or a server's address."""
    if isinstance(engine, EngineOptions):
        return engine
    if engine is not None and engine.startswith(("http://", "https://")):
        return EngineOptions(server=engine)
    return EngineOptions(name=engine or "transformers")


def resolve_dtype(options: EngineOptions, model: str) -> EngineOptions:
    """The options with a dtype, which is known before the weights are loaded, because it is a part of what an
    evaluation is. A server has its own; vLLM decides where it is left to it."""
    if options.dtype != "auto" or options.server is not None or options.name == "vllm":
        return options
    on_cpu = evaluation_ranks().device.type == "cpu"
    return replace(options, dtype="float32" if on_cpu else dtype_name(checkpoint_dtype(model)))


def start_engine(options: EngineOptions, model: str) -> Engine:
    """Load a model, or reach its server. Raises ValueError and ConnectionError where that fails."""
    if options.server is not None or options.name == "vllm":
        processor = load_processor(model)
        if options.server is None:
            refuse_nonfinite_files(model)  # vLLM would answer with them
            return VllmEngine(model, processor, dtype=options.dtype, image_options=options.image_options)
        warn_of_served_adapter(model)
        engine = ServerEngine(options.server, processor, served_model=options.served_model)
        refuse_served_base(model, engine.served_model)
        return engine
    chosen = {} if options.dtype == "float32" else {"dtype": getattr(torch, options.dtype)}
    how: dict[str, Any] = {"allow_missing": options.allow_missing, "image_options": options.image_options}
    loaded = load_model(model, quantization=options.quantization, **how, **chosen)
    return LocalEngine(loaded.model.to(evaluation_ranks().device), loaded.processor)


def weights_identity(options: EngineOptions, model: str) -> str:
    """Distinguishes the model that answers from those that answered before: a server, or what is loaded.

    Its tokenizer and chat template count, too: they write the prompts.
    """
    pictures = f" {json.dumps(options.image_options, sort_keys=True)}" if options.image_options else ""
    return f"{options.server} {options.served_model} {options.name} {model_identity(model)}{pictures}"


def describe_weights(options: EngineOptions) -> str:
    """The number type of the weights, as results record it: `float32`, or `float32/nf4` where they are quantized."""
    return options.dtype if options.quantization is None else f"{options.dtype}/{options.quantization}"
