"""The model card: `README.md` with the hub's metadata, from a run's facts and what the verification found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from shlex import quote
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from balanced_thinking.export.facts import TO_FILL_IN, Facts, Result
from balanced_thinking.models.quantization import QUANTIZATION_FILE
from balanced_thinking.models.revisions import split_revision
from balanced_thinking.segments import get_format, render

_VERSIONED = ("balanced-thinking", "torch", "transformers", "peft")
_ARMS = {
    "sft": "plain SFT",
    "scale-sft": "SCALe-SFT (scheduled weights for thinking and answer)",
    "example-mean": "SFT with a mean over each example",
    "sftkey": "SFT, then on the answer alone",
    "grpo": "GRPO",
}
_IMAGE_TASK, _TEXT_TASK = "image-text-to-text", "text-generation"
# What a table or a heading of Markdown would take for its own, and what a page would take for a tag.
_MARKUP = str.maketrans({"|": "\\|", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "})


@dataclass(frozen=True)
class CardModel:
    """The exported folder, as its card describes it.

    Attributes:
        name: of the model on the hub, or of the folder.
        dtype: of the weights. parameters: their number.
        pictures: whether it takes pictures.
        stops: the tokens at which it stops. left_out: what the base's own generation configuration had in addition.
        adapter_base: what the adapter names as its base; None for complete weights. rank: the least that vLLM's
            --max-lora-rank can be.
        quantized: whether that base was quantized in training. sees: whether the adapter is on the vision tower, too.
        unserved: why vLLM does not serve the adapter.
    """

    name: str
    dtype: str
    parameters: int
    pictures: bool
    stops: Sequence[str]
    left_out: dict[str, Any]
    adapter_base: str | None = None
    quantized: bool = False
    rank: int = 16
    sees: bool = False
    unserved: Sequence[str] = ()
    licence: str | None = None


def write_card(model: CardModel, facts: Facts, verification: str, *, of_checkpoint: bool = False) -> str:
    """The text of the card. `of_checkpoint`: the weights are a checkpoint's, of which the run's results are not."""
    shape = get_format(facts.format)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # it is no HTML
    environment.filters["plain"] = escape_markup
    template = environment.from_string(files(__package__).joinpath("card.md.j2").read_text("utf-8"))
    reason = "these are the weights of a checkpoint" if of_checkpoint else "there are no evaluations of this model"
    return template.render(
        model=model,
        facts=facts,
        metadata=_make_metadata(model, facts),
        adapter=model.adapter_base is not None,
        arms=", then ".join(_ARMS.get(arm, arm) for arm in facts.arms),
        base=facts.base or "a model that nothing names",
        licence=model.licence or f"{TO_FILL_IN}; see those of the base and of the data",
        verification=verification,
        format_name=shape.name,
        format_example=render("the reasoning, step by step", "the answer", shape),
        stops=", ".join(f"`{token}`" for token in model.stops),
        left_out=", ".join(f"{name} {value}" for name, value in model.left_out.items()),
        snippet=_write_snippet(model),
        serve=_write_serve_command(model),
        query=_write_query(model),
        nothing_measured=reason,
        versions=_list_versions(facts),
    )


def escape_markup(text: object) -> str:
    """A text of the user's for a heading or a cell of a table: what Markdown or HTML would read is shown as it is."""
    return str(text).translate(_MARKUP)


def _make_metadata(model: CardModel, facts: Facts) -> str:
    """The YAML that the hub reads."""
    adapter = model.adapter_base is not None
    task = _IMAGE_TASK if model.pictures else _TEXT_TASK
    data = ModelCardData(
        base_model=facts.base_hub,
        base_model_relation=None if facts.base_hub is None else "adapter" if adapter else "finetune",
        datasets=[row.hub for row in facts.data if row.hub is not None] or None,
        eval_results=[_make_eval_result(one, task) for one in facts.results if one.is_held_out] or None,
        library_name="peft" if adapter else "transformers",
        license=model.licence,
        model_name=model.name,
        pipeline_tag=task,
        tags=["balanced-thinking", "reasoning", "trl", *dict.fromkeys(facts.arms), *(["lora"] if adapter else [])],
    )
    return data.to_yaml().strip()


def _make_eval_result(one: Result, task: str) -> EvalResult:
    return EvalResult(
        task_type=task,
        dataset_type=one.data,
        dataset_name=one.data,
        dataset_split=one.split or None,
        metric_type="accuracy",
        metric_value=round(one.accuracy, 4),
        metric_name=f"accuracy, 95 % interval {one.low:.3f} to {one.high:.3f}, n = {one.n}",
    )


def _write_snippet(model: CardModel) -> str:
    auto, reader, variable = (
        ("AutoModelForImageTextToText", "AutoProcessor", "processor")
        if model.pictures
        else ("AutoModelForCausalLM", "AutoTokenizer", "tokenizer")
    )
    adapter = model.adapter_base is not None
    names = [auto, reader, *(["GenerationConfig"] if adapter else [])]
    names += ["BitsAndBytesConfig"] if model.quantized else []
    lines = ["import json", "from pathlib import Path", ""] if model.quantized else []
    lines += ["from peft import PeftConfig, PeftModel"] if adapter else []
    lines += ["from PIL import Image"] if model.pictures else []
    lines += [f"from transformers import {', '.join(sorted(names))}", ""]
    lines.append(f"place = {json.dumps(model.name)}  # this folder, or its name on the hub")
    if adapter:
        lines.append("base = PeftConfig.from_pretrained(place).base_model_name_or_path")
        if model.quantized:
            lines.append(f'stored = json.loads(Path(place, "{QUANTIZATION_FILE}").read_text())')
            lines.append('how = {"dtype": stored.pop("base_dtype")}')
            lines.append('how["quantization_config"] = BitsAndBytesConfig.from_dict(stored)')
            how = ", **how"
        else:
            how = f', dtype="{model.dtype}"'  # as it was verified
        if (revision := split_revision(model.adapter_base or "").revision) is not None:
            how = f'{how}, revision="{revision}"'
        lines.append(f"base = {auto}.from_pretrained(base{how})")
        lines.append("model = PeftModel.from_pretrained(base, place)")
        lines.append("model.generation_config = GenerationConfig.from_pretrained(place)")
    else:
        lines.append(f"model = {auto}.from_pretrained(place)")
    lines.append(f"{variable} = {reader}.from_pretrained(place)")
    if model.pictures:
        lines.append('picture = {"type": "image", "image": Image.open("picture.png")}')
    text = '{"type": "text", "text": "What is in the picture?"}'
    content = f"[picture, {text}]" if model.pictures else '"What is 17 + 25?"'
    lines += [
        f'messages = [{{"role": "user", "content": {content}}}]',
        f"inputs = {variable}.apply_chat_template(",
        '    messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
        ").to(model.device" + (", model.dtype)" if model.pictures else ")"),
        "output = model.generate(**inputs, max_new_tokens=512)",
        f'print({variable}.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    return "\n".join(lines)


def _write_serve_command(model: CardModel) -> str:
    if model.adapter_base is None:
        return f"vllm serve {quote(model.name)} --max-model-len 8192"
    base = split_revision(model.adapter_base)
    further = f"--revision {quote(base.revision)} " if base.revision else ""
    further += "--quantization bitsandbytes " if model.quantized else ""
    further += "--enable-tower-connector-lora " if model.sees else ""
    return (
        f"vllm serve {quote(base.name)} --max-model-len 8192 {further}--enable-lora "
        f"--max-lora-rank {model.rank} --lora-modules {quote(f'{model.name}={model.name}')}"
    )


def _write_query(model: CardModel) -> str:
    url = {"url": "https://example.org/picture.png"}
    parts = [{"type": "image_url", "image_url": url}, {"type": "text", "text": "What is in the picture?"}]
    content = parts if model.pictures else "What is 17 + 25?"
    body = {"model": model.name, "temperature": 0, "max_tokens": 512}
    body |= {"messages": [{"role": "user", "content": content}]}
    return (
        "curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d "
        f"{quote(json.dumps(body, indent=1))}"
    )


def _list_versions(facts: Facts) -> list[tuple[str, str]]:
    """Of the training; of the export where the run recorded none."""
    return list(facts.versions) or [(name, metadata.version(name)) for name in _VERSIONED]
