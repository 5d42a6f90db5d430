"""Answers by plain transformers, as a program of its own: it imports nothing of this package.

    python -P plain_answers.py REQUEST.json ANSWERS.json

REQUEST holds `folder`, `base` (of an adapter, else null), `dtype`, `device`, `pictures` (whether the model takes them),
`max_new_tokens`, `inputs` (a file of prepared inputs) and `samples`: for each its messages, whose pictures are paths.
ANSWERS gets `processor` (null, or why it could not be loaded here) and of each sample the ids of `prompt` and
`answer`, and for each token of the answer the best tokens with their logits (`best`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)

CANDIDATES = 8


def load_model(request: dict[str, Any]) -> Any:
    auto: Any = AutoModelForImageTextToText if request["pictures"] else AutoModelForCausalLM
    if request["base"] is None:
        model = auto.from_pretrained(request["folder"])
    else:
        from peft import PeftModel

        how = {"dtype": getattr(torch, request["dtype"]), "revision": request["revision"] or "main"}
        base = auto.from_pretrained(request["base"], **how, **quantized(request))
        model = PeftModel.from_pretrained(base, request["folder"])
        model.generation_config = GenerationConfig.from_pretrained(request["folder"])
    # bitsandbytes places quantized weights itself.
    return model.eval() if getattr(model, "is_quantized", False) else model.to(request["device"]).eval()


def quantized(request: dict[str, Any]) -> dict[str, Any]:
    """How the base of a QLoRA adapter was quantized, as arguments of `from_pretrained`."""
    file = Path(request["folder"]) / "base_quantization.json"
    if not file.is_file():
        return {}
    values = json.loads(file.read_text(encoding="utf-8"))
    del values["base_dtype"]
    return {"quantization_config": BitsAndBytesConfig.from_dict(values)}


def load_processor(request: dict[str, Any]) -> tuple[Any, str | None]:
    """The processor, or the tokenizer of a text-only model; or why there is none: torchvision is not installed."""
    auto: Any = AutoProcessor if request["pictures"] else AutoTokenizer
    try:
        return auto.from_pretrained(request["folder"]), None
    except ImportError as error:
        if "torchvision" not in str(error).lower():
            raise
        return None, "transformers loads this processor with torchvision only, which is not installed here"


def with_pictures(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with opened pictures in the place of their paths, as most programs pass them."""
    for part in (part for one in messages if isinstance(one["content"], list) for part in one["content"]):
        if (path := part.pop("path", None)) is not None:
            part["image"] = Image.open(path)
    return messages


def answer(model: Any, inputs: dict[str, Any], max_new_tokens: int) -> dict[str, Any]:
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    inputs = {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    found = model.generate(
        **inputs, do_sample=False, max_new_tokens=max_new_tokens, output_logits=True, return_dict_in_generate=True
    )
    prompt = inputs["input_ids"][0].tolist()
    best = []
    for logits in found.logits:
        values, tokens = logits[0].float().topk(CANDIDATES)
        best.append([tokens.tolist(), values.tolist()])
    return {"prompt": prompt, "answer": found.sequences[0, len(prompt) :].tolist(), "best": best}


@torch.inference_mode()
def main(request_file: str, answers_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    model, (processor, problem) = load_model(request), load_processor(request)
    prepared = torch.load(request["inputs"], weights_only=True)
    answers = []
    for sample, own in zip(request["samples"], prepared, strict=True):
        if processor is not None:
            own = processor.apply_chat_template(
                with_pictures(sample), tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
        answers.append(answer(model, dict(own), request["max_new_tokens"]))
    result = {"processor": problem, "answers": answers}
    Path(answers_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
