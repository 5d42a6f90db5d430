"""Completions of a model that vLLM runs in this process (the extra `[vllm]`, a GPU). vLLM batches and schedules by
itself, so that large evaluations take a fraction of the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.evaluation.engines.chat_answer import read_finish
from balanced_thinking.evaluation.engines.chat_messages import chat_messages
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.models.find import find_model_source
from balanced_thinking.models.revisions import split_revision
from balanced_thinking.scoring.completion import WithheldCompletion
from balanced_thinking.segments import ReasoningFormat


class VllmEngine(Engine):
    """A model that vLLM runs; its text is tokenized again, as a server's is.

    Args:
        model: folder or name of a complete model. processor: its own, or its tokenizer.
        dtype: of the weights; auto: as vLLM decides.
        image_options: of the image processor, such as `max_pixels`.

    Raises ValueError where vLLM is not installed, and for an adapter.
    """

    name = "vllm"
    can_sample = True

    def __init__(
        self,
        model: str,
        processor: Any,
        reasoning_format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
        max_new_tokens: int = 512,
        *,
        dtype: str = "auto",
        image_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(CompletionScorer(processor, (), reasoning_format), max_new_tokens)
        if (Path(model) / "adapter_config.json").is_file():
            raise RecipeError(
                f"{model} is an adapter, but vLLM in this process needs a complete model: merge the adapter into its "
                "base. Or start a vLLM server of the base with --enable-lora, and give its address with --server"
            )
        try:
            from vllm import LLM
        except ImportError as error:
            raise RecipeError("vLLM is not installed: pip install 'balanced-thinking[vllm]'") from error
        source = split_revision(find_model_source(model))
        options: dict[str, Any] = {"mm_processor_kwargs": dict(image_options)} if image_options else {}
        if source.revision is not None:
            options |= {"revision": source.revision, "tokenizer_revision": source.revision}
        self._llm = LLM(model=source.name, dtype=dtype, **options)

    def complete(self, examples: Sequence[Example]) -> list[list[int]]:
        from vllm import SamplingParams

        options: dict[str, Any] = {"max_tokens": self.max_new_tokens, "skip_special_tokens": False}
        if stops := self.scorer.unnamed_stops:
            options["stop_token_ids"] = stops
        drawing = [SamplingParams(**self.sampling.request_fields(example.id), **options) for example in examples]
        found = self._llm.chat([chat_messages(example) for example in examples], drawing, use_tqdm=False)
        outputs = zip(examples, (request.outputs[0] for request in found), strict=True)
        return [self._read_output(example, output) for example, output in outputs]

    def _read_output(self, example: Example, output: Any) -> list[int]:
        at_limit = len(getattr(output, "token_ids", ())) >= self.max_new_tokens
        finish = read_finish(output.finish_reason, at_limit=at_limit)
        ids = self.tokenize_completion(output.text, finish.stopped, self.scorer.find_opened(example))
        return WithheldCompletion(ids, finish.withheld) if finish.withheld else ids
