"""Balanced Thinking: teach vision-language models to reason and be right.

The public names, each imported when it is first used, so that `import balanced_thinking` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balanced_thinking.batch.collator import ScaleCollator
    from balanced_thinking.config.errors import BalancedThinkingError
    from balanced_thinking.conformance.run import check_model_conformance
    from balanced_thinking.conformance.table import Conformance
    from balanced_thinking.data.example import Example
    from balanced_thinking.data.load import load_data
    from balanced_thinking.data.rows import to_dataset, to_prompts_dataset
    from balanced_thinking.evaluation.benchmarks import Benchmark
    from balanced_thinking.evaluation.engines.start import EngineOptions
    from balanced_thinking.evaluation.run import evaluate
    from balanced_thinking.export.run import Exported, ExportOptions, export_model
    from balanced_thinking.export.samples import SampleOptions
    from balanced_thinking.loss.linear_cross_entropy import LossOutput, weighted_linear_cross_entropy
    from balanced_thinking.loss.schedules import Schedule
    from balanced_thinking.models.load import LoadedModel, load_model
    from balanced_thinking.segments import Parsed, parse, render
    from balanced_thinking.training.grpo import ScaleGRPOTrainer
    from balanced_thinking.training.grpo_config import ScaleGRPOConfig
    from balanced_thinking.training.sft import ScaleSFTTrainer
    from balanced_thinking.training.sft_config import ScaleSFTConfig

    __version__: str

_HOMES = {
    "BalancedThinkingError": "config.errors",
    "Benchmark": "evaluation.benchmarks",
    "Conformance": "conformance.table",
    "EngineOptions": "evaluation.engines.start",
    "Example": "data.example",
    "ExportOptions": "export.run",
    "Exported": "export.run",
    "LoadedModel": "models.load",
    "LossOutput": "loss.linear_cross_entropy",
    "Parsed": "segments",
    "SampleOptions": "export.samples",
    "ScaleCollator": "batch.collator",
    "ScaleGRPOConfig": "training.grpo_config",
    "ScaleGRPOTrainer": "training.grpo",
    "ScaleSFTConfig": "training.sft_config",
    "ScaleSFTTrainer": "training.sft",
    "Schedule": "loss.schedules",
    "check_model_conformance": "conformance.run",
    "evaluate": "evaluation.run",
    "export_model": "export.run",
    "load_data": "data.load",
    "load_model": "models.load",
    "parse": "segments",
    "render": "segments",
    "to_dataset": "data.rows",
    "to_prompts_dataset": "data.rows",
    "weighted_linear_cross_entropy": "loss.linear_cross_entropy",
}

__all__ = [
    "BalancedThinkingError",
    "Benchmark",
    "Conformance",
    "EngineOptions",
    "Example",
    "ExportOptions",
    "Exported",
    "LoadedModel",
    "LossOutput",
    "Parsed",
    "SampleOptions",
    "ScaleCollator",
    "ScaleGRPOConfig",
    "ScaleGRPOTrainer",
    "ScaleSFTConfig",
    "ScaleSFTTrainer",
    "Schedule",
    "check_model_conformance",
    "evaluate",
    "export_model",
    "load_data",
    "load_model",
    "parse",
    "render",
    "to_dataset",
    "to_prompts_dataset",
    "weighted_linear_cross_entropy",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("balanced-thinking")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])
