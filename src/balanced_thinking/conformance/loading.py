"""Does the checkpoint load, and does a picture reach its model?"""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.info import BATCH_INFO
from balanced_thinking.conformance.subject import Subject
from balanced_thinking.conformance.table import PropertyError
from balanced_thinking.models.load import load_model
from balanced_thinking.training.example_check import has_chat_template

_WEIGHTS = ("*.safetensors", "*.bin")
_SIDE = 112  # pixels of the picture that is put in
NOT_INPUTS = (BATCH_INFO, "segment_ids", "labels")


def check_loading(subject: Subject) -> str:
    """The model builds; its files hold every tensor of the architecture in its shape and no other; the vocabulary fits.

    Without real weights only the names and shapes in the files are read, and only where files are there.
    """
    model = subject.load().model
    count = f"{type(model).__name__}, {_in_millions(model)} parameters"
    if subject.real_weights:
        return count
    folder = Path(subject.source)
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        return f"{count} in the copy; there are no weights beside the configuration, so their names were not compared"
    full = load_model(subject.source, device_map="meta").model
    return f"{count} in the copy, {_in_millions(full)} in the checkpoint, whose {len(full.state_dict())} tensors fit"


def check_pictures(subject: Subject) -> str:
    """The chat template renders, a picture goes in, and its tokens are as many as the model's features."""
    if not has_chat_template(subject.processor):
        raise PropertyError("the processor has no chat template; expected one in chat_template.jinja")
    if not subject.sees:
        return "takes text only; the chat template renders a prompt"
    collator = ScaleCollator(subject.processor, subject.format)
    model = load_model(subject.full_pictures_folder).model.eval()
    ones = [Image.new("RGB", (_SIDE, _SIDE), color) for color in ("black", "white")]
    ones[1].paste((200, 30, 30), (0, 0, _SIDE // 2, _SIDE // 2))
    batches = [collator.collate_prompts([_picture_prompt(image)]) for image in ones]
    tokens = int((batches[0]["input_ids"] == image_token_id(model.config)).sum())
    if not tokens:
        raise PropertyError("a prompt with a picture has no image token: the chat template left the picture out")
    features = _count_features(model, batches[0])
    if features is not None and features != tokens:
        raise PropertyError(f"a picture takes {tokens} image tokens, but the model makes {features} features of it")
    with torch.no_grad():
        first, second = (model(**batch).logits[0, -1].double() for batch in batches)
    if first.shape == second.shape and torch.equal(first, second):
        raise PropertyError("two different pictures give the same output: the model does not see them")
    return f"a picture of {_SIDE} x {_SIDE} pixels takes {tokens} image tokens, as many as the model makes features"


def _picture_prompt(image: Image.Image) -> dict[str, Any]:
    return {"id": "picture", "prompt": [{"role": "user", "content": "What is this?"}], "images": [image]}


def image_token_id(config: Any) -> int:
    """The id of the token that stands for a piece of a picture, under the name that each family gives it."""
    names = ("image_token_id", "image_token_index", "media_placeholder_token_id")
    found = next((getattr(config, name) for name in names if getattr(config, name, None) is not None), None)
    if found is None:
        raise PropertyError(f"the configuration names no image token; expected one of {', '.join(names)}")
    return int(found)


@torch.no_grad()
def _count_features(model: Any, batch: dict[str, Any]) -> int | None:
    """How many vectors the vision part makes of the pictures of a batch; None where it does not say."""
    part = next((one for one in (model.base_model, model) if hasattr(one, "get_image_features")), None)
    if part is None:
        return None
    taken = signature(part.get_image_features).parameters
    output = part.get_image_features(**{name: value for name, value in batch.items() if name in taken})
    features = getattr(output, "pooler_output", output)
    features = features if isinstance(features, (list, tuple)) else [features]
    return sum(one.numel() // one.shape[-1] for one in features)


def _in_millions(model: Any) -> str:
    count = sum(value.numel() for value in model.parameters())
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.2f} million"
