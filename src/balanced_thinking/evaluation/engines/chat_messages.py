"""The prompt of an example as OpenAI's chat API takes it."""

from __future__ import annotations

import io
from typing import Any

from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.html import data_uri


def chat_messages(example: Example) -> list[dict[str, Any]]:
    """The prompt as the API takes it: pictures as data, at their places, or before the first question's text."""
    pictures = iter([{"type": "image_url", "image_url": {"url": _png_data_uri(image)}} for image in example.images])
    found = []
    for message in prompt_messages(example):
        content = message["content"]
        if isinstance(content, list):
            content = [next(pictures) if part["type"] == "image" else part for part in content]
        elif message["role"] == "user" and (first := list(pictures)):
            content = [*first, {"type": "text", "text": content}]
        found.append({**message, "content": content})
    return found


def _png_data_uri(image: Any) -> str:
    buffer = io.BytesIO()
    open_image(image).save(buffer, format="PNG", compress_level=1)
    return data_uri(buffer.getvalue())
