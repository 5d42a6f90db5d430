"""Rows in any of TRL's forms -> the texts of prompt and completion, by the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from trl.data_utils import apply_chat_template, is_conversational, prepare_multimodal_messages

from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.segments import Parsed

_TAIL = 40  # characters at the end of a completion among which its stop token is


def to_prompt_completion(row: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's columns, in any of its forms, as `prompt`, `completion`, `images` and `id`.

    The last of `messages`, the assistant's, is the completion: only that is trained on.
    """
    # Concatenated data sets hold null in columns that one of them lacks.
    images = list(row.get("images") or []) or [image for image in (row.get("image"),) if image is not None]
    if row.get("messages") is not None:
        prompt, completion = row["messages"][:-1], row["messages"][-1:]
        if not prompt or completion[0]["role"] != "assistant":
            raise RowError(
                f"row {row.get('id', '?')}: `messages` must end with the assistant's message, after at least one other"
            )
    elif row.get("prompt") is not None and row.get("completion") is not None:
        prompt, completion = row["prompt"], row["completion"]
    else:
        raise RowError(f"a row has the columns {sorted(row)}; expected `prompt` and `completion`, or `messages`")
    return {"id": str(row.get("id", "?")), "prompt": prompt, "completion": completion, "images": images}


def render_row(row: Mapping[str, Any], processor: Any) -> dict[str, str]:
    """`prompt`, and `completion` if the row has one, as text; messages are rendered by the chat template."""
    parts = {name: row[name] for name in ("prompt", "completion") if name in row}
    if not is_conversational(parts):
        eos = getattr(processor, "tokenizer", processor).eos_token
        if "completion" in parts and not parts["completion"].endswith(eos):
            parts["completion"] += eos
        return parts
    if hasattr(processor, "image_processor"):
        images = {"prompt": row["images"], "completion": []}
        parts = {name: prepare_multimodal_messages(value, images=images[name]) for name, value in parts.items()}
    rendered = apply_chat_template(parts, processor)
    if "completion" in rendered:
        tokenizer, spoken = getattr(processor, "tokenizer", processor), assistant_text(row["completion"]) or ""
        rendered["completion"] = _ensure_stop_token(rendered["completion"], spoken, tokenizer)
    return rendered


def _ensure_stop_token(text: str, spoken: str, tokenizer: Any) -> str:
    """The completion with a stop token after the assistant's text.

    Some chat templates leave it out (LLaVA-1.5's does), and a model that never sees one does not learn to stop.
    """
    end = text.rfind(spoken.strip())
    tail = text[end + len(spoken.strip()) :] if end >= 0 else text[-_TAIL:]
    if tokenizer.eos_token is None or not _special_token_ids(tokenizer).isdisjoint(
        tokenizer(tail, add_special_tokens=False)["input_ids"]
    ):
        return text
    return text.rstrip() + tokenizer.eos_token


@lru_cache(maxsize=8)
def _special_token_ids(tokenizer: Any) -> frozenset[int]:
    """All special ids, also unnamed ones: Gemma's end of a turn is special, but the tokenizer has no name for it."""
    added = (number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
    return frozenset([*tokenizer.all_special_ids, *added])


def assistant_text(completion: Any) -> str | None:
    """The assistant's text in a completion of messages, before the chat template; None for plain text."""
    if isinstance(completion, str):
        return None
    content = completion[-1].get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def template_drops_content(raw: Parsed, rendered: Parsed) -> bool:
    """Whether the rendered text lost the thinking or the answer of the raw one."""
    if raw.think and not rendered.think:
        return True
    # `in` instead of `==`: a template may add end-of-turn tokens that the parser does not know.
    return raw.answer is not None and raw.answer not in (rendered.answer or "")
