"""What is in a server's answer: its text, reasoning that a parser took out of it, and why it ended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from balanced_thinking.config.foreign_json import parse_json
from balanced_thinking.evaluation.engines.request_fields import refusal_text
from balanced_thinking.runs.advice import TOO_LONG
from balanced_thinking.system.fetching import Answer, read_retry_after
from balanced_thinking.system.text import replace_surrogates

# Vendors' values of `finish_reason`, in small letters. Anthropic's and Gemini's arrive through gateways.
_ENDED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence")
_CUT_OFF = ("length", "max_tokens", "model_length")
# Where servers put reasoning that they took out of the text: in the message, and as parts of the content.
_REASONING_KEYS = (
    *("reasoning", "reasoning_content", "reasoning_text", "reasoning_details"),
    *("thinking", "thinking_blocks", "thought", "thoughts"),
)
_INNER = ("provider_specific_fields",)  # objects of a message that may have these keys, too
_REASONING_PARTS = ("reasoning", "redacted_thinking", "thinking")
_FILTERED = "content_filter"  # also the code of a refused prompt, in an answer 400
_REFUSAL, _TOOL_CALLS = "refusal", "tool_calls"
_LONGEST_REASON = 40
_BUSY = (408, 425, 429)
_REFUSED = (400, 413, 422)
STATUS = "status_"  # a reason of what was withheld, with the number behind it
# As vLLM, SGLang, llama.cpp, TGI and OpenAI say it of a prompt.
_TOO_LONG = re.compile(
    r"(?:context|model)['’\s_]*(?:length|window|size|limit)|max_model_len|context_length_exceeded"
    r"|(?:prompt|input|inputs)\b.{0,40}\btoo (?:long|large)|longer than the (?:model|maximum)",
    re.IGNORECASE | re.DOTALL,
)
_VERSION = re.compile(r"/v\d")


class Finish(NamedTuple):
    """How a completion ended. `stopped`: by itself, so that nothing was cut off. `withheld` names why the server ended
    it otherwise than at the limit of tokens, such as `content_filter`."""

    stopped: bool
    withheld: str = ""


def read_finish(reason: Any, *, at_limit: bool) -> Finish:
    """What a `finish_reason` means. Some servers give none: then `at_limit` decides, whether all tokens were used."""
    name = reason.strip().lower() if isinstance(reason, str) else "" if reason is None else type(reason).__name__
    if not name:
        return Finish(stopped=not at_limit)
    if name in _ENDED or name in _CUT_OFF:
        return Finish(stopped=name in _ENDED)
    return Finish(stopped=False, withheld=re.sub(r"[^\w.:-]", "_", name[:_LONGEST_REASON]))


class ChatAnswer(NamedTuple):
    """One choice of a server's answer. `text` is None where it has no content (null). `said` is what the server wrote
    about an answer that it withheld."""

    text: str | None
    finish_reason: Any
    refusal: str
    calls_tools: bool
    said: str

    def finish(self, *, at_limit: bool) -> Finish:
        """How it ended. Without any text, a refusal and a call of tools are the reason, too."""
        finish = read_finish(self.finish_reason, at_limit=at_limit)
        if finish.withheld or self.text:
            return finish
        if self.refusal:
            return Finish(stopped=False, withheld=_REFUSAL)
        return Finish(stopped=False, withheld=_TOOL_CALLS) if self.calls_tools else finish


def read_choice(choice: Mapping[str, Any], message: Mapping[str, Any], address: str) -> ChatAnswer:
    """Raises ConnectionError for a content that is no text, and ValueError where the reasoning was taken out of it."""
    content = message.get("content")
    text = join_parts(content)
    refusal = message.get("refusal") or _find_refusal_part(content)
    _refuse_reasoning_parser(choice, message, bool(refusal), text, address)
    said = refusal or choice.get("error") or ""
    return ChatAnswer(text, choice.get("finish_reason"), str(refusal), bool(message.get("tool_calls")), _one_line(said))


def join_parts(content: Any) -> str | None:
    """The text of a completion that comes as a text or as parts; None where no part has a text, or for null.

    Half of a character (a lone surrogate) becomes the sign for an unreadable one: no tokenizer takes it. Raises
    ConnectionError for anything else.
    """
    if content is None or isinstance(content, str):
        return content if content is None else replace_surrogates(content)
    try:
        if not isinstance(content, list):
            raise TypeError
        texts = [part if isinstance(part, str) else part.get("text") for part in content]
        joined = "".join(text or "" for text in texts)
    except (TypeError, AttributeError) as error:
        raise ConnectionError(
            f"the server answered with the content {shorten_json(content)}; expected a text, or parts with texts"
        ) from error
    return None if all(text is None for text in texts) else replace_surrogates(joined)


def find_withheld_item(answer: Answer) -> dict[str, Any] | None:
    """What stands for the answer to a prompt that a filter refused (code `content_filter`, as Azure sends it), or that
    is too long for the server; None for any other answer. One item of an evaluation must not end it."""
    if answer.status not in _REFUSED:
        return None
    text = refusal_text(answer)
    try:
        error = parse_json(answer.body)["error"]
        said, filtered = error.get("message"), error.get("code") == _FILTERED
    except (ValueError, LookupError, TypeError, AttributeError):
        said, filtered = text, False
    if not filtered and not _TOO_LONG.search(text):
        return None
    reason = _FILTERED if filtered else TOO_LONG
    return {"choices": [{"message": {"content": None}, "finish_reason": reason, "error": said}]}


def is_about_the_item(answer: Answer) -> bool:
    """Whether an answer without a completion may be about this item alone."""
    return answer.status in _REFUSED or answer.status == HTTPStatus.INTERNAL_SERVER_ERROR


def is_refusal(reason: str) -> bool:
    """Whether a completion was withheld because the server refused the request, not its content."""
    return reason == TOO_LONG or reason.startswith(STATUS)


def count_tokens(answer: Mapping[str, Any], tokenizer: Any, text: str) -> int:
    """The generated tokens, as the server counted them; where it does not say, those of the text."""
    usage = answer.get("usage")
    stated = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return stated if type(stated) is int else len(tokenizer(text, add_special_tokens=False)["input_ids"])


def is_busy(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in _BUSY or (500 <= status < 600 and status != 501)


def describe_refusal(answer: Answer, base_url: str) -> str:
    """What a server said that did not answer, in at most 500 characters, and what may help."""
    if 300 <= answer.status < 400:
        place = answer.headers.get("location", "an unknown address")[:300]
        return f"a redirect to {place}, which is not followed: give that address with --server if you trust it"
    said = answer.body[:500].decode(errors="replace")
    if answer.status == 429:
        pause = read_retry_after(answer.headers)
        wait = f", and continue in {pause:,.0f} seconds" if pause else ""
        return f"{said}; ask for less at a time with --batch-size{wait}"
    if answer.status in _REFUSED and "temperature" in refusal_text(answer):
        return f"{said}; answers are greedy (temperature 0) unless --temperature is given"
    if answer.status == 404 and not _VERSION.search(base_url):
        return f"{said}; the address has no version of the API: expected one such as {base_url}/v1"
    return said


def shorten_json(value: Any) -> str:
    """The start of a value, for a message. It may be of any size, and nested so deeply that it cannot be written."""
    try:
        return str(value)[:300]
    except RecursionError:
        return f"a nested {type(value).__name__}"


def _refuse_reasoning_parser(
    choice: Mapping[str, Any], message: Mapping[str, Any], is_refusal: bool, text: str | None, address: str
) -> None:
    """Raises ValueError if the server took reasoning out of the completion: its key is there, perhaps empty, or a part
    of the content is reasoning."""
    other = is_refusal or message.get("tool_calls")  # why there is no content
    missing = text is None and not other
    places = [message, choice, *(message[name] for name in _INNER if isinstance(message.get(name), Mapping))]
    found = [name for name in _REASONING_KEYS if any(place.get(name) for place in places)]
    found += [name for name in _REASONING_KEYS if name in message and missing]
    found += [name for name in _REASONING_KEYS if message.get(name) == "" and not (text or other)]
    content = message.get("content")
    parts = [part.get("type") for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    found += [f"content of type {kind}" for kind in parts if kind in _REASONING_PARTS]
    if found:
        raise ValueError(
            f"{address} took the reasoning out of the answer (`{found[0]}`), which the parser must see: start it "
            "without a reasoning parser"
        )


def _find_refusal_part(content: Any) -> str:
    """The text of a part of type `refusal`; "" for none."""
    parts = content if isinstance(content, list) else []
    found = (part.get("refusal") for part in parts if isinstance(part, Mapping) and part.get("type") == _REFUSAL)
    return next((text for text in found if isinstance(text, str)), "")


def _one_line(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = shorten_json(value)
    return replace_surrogates(" ".join(text[:1000].split()))[:300]
