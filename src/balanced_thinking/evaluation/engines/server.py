"""Completions of a model behind an OpenAI-compatible server, such as `vllm serve` or SGLang.

The server forms its own batches; a batch here is the number of requests at a time. Completions come back as text. The
model's own tokenizer tokenizes them again, so that tokens are counted as in every engine.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.html import data_uri
from balanced_thinking.segments import ReasoningFormat

logger = logging.getLogger(__name__)
_TRIES = 4
_REQUESTS = 64  # at a time
_FIRST_PAUSE_SECONDS = 1.0
_BUSY = (429, 500, 502, 503, 504)


class ServerEngine(Engine):
    """A model behind an OpenAI-compatible server.

    Args:
        base_url: of the API with its version, such as `http://localhost:8000/v1`.
        processor: of the model that is served, or its tokenizer.
        served_model: the model's name there; default: the only one that the server lists.
        timeout_seconds: for one answer.

    A key is taken from the environment, `OPENAI_API_KEY`.
    """

    name = "server"

    def __init__(
        self,
        base_url: str,
        processor: Any,
        reasoning_format: str | Mapping[str, Any] | ReasoningFormat = "think-answer",
        max_new_tokens: int = 512,
        *,
        served_model: str | None = None,
        timeout_seconds: float = 600.0,
    ) -> None:
        super().__init__(CompletionScorer(processor, (), reasoning_format), max_new_tokens)
        if not base_url.startswith(("http://", "https://")):
            raise RecipeError(f"the server is {base_url!r}; expected an address such as http://localhost:8000/v1")
        self.base_url, self.timeout_seconds = base_url.rstrip("/"), timeout_seconds
        self._key = os.environ.get("OPENAI_API_KEY", "EMPTY")
        self._stop = threading.Event()
        self._without_content: list[bool] = []  # for each answer so far
        self.served_model = served_model or self._only_listed_model()

    def complete(self, examples: Sequence[Example]) -> list[list[int]]:
        self._stop.clear()
        pool = ThreadPoolExecutor(max_workers=min(_REQUESTS, len(examples)))
        try:
            completions = list(pool.map(self._complete_one, examples))
        except BaseException:
            self._stop.set()  # those that wait to ask again give up
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        answers = len(self._without_content)
        if answers == len(examples) and all(self._without_content):  # the first ones
            logger.warning(
                "all %d answers so far have no content (null), so they count as empty: check the server's log for a "
                "reasoning or tool parser, refusals, or a model that cannot answer",
                answers,
            )
        return completions

    def _complete_one(self, example: Example) -> list[int]:
        request: dict[str, Any] = {
            "model": self.served_model,
            "messages": chat_messages(example),
            "temperature": 0.0,
            "repetition_penalty": 1.0,  # vLLM and SGLang: else the checkpoint's own applies
            "max_tokens": self.max_new_tokens,
            "skip_special_tokens": False,  # vLLM and SGLang: some formats' tags are special tokens
        }
        if stops := self.scorer.unnamed_stops:  # the same two: the checkpoint's settings may lack the template's
            request["stop_token_ids"] = stops
        answer = self._request("/chat/completions", request)
        try:
            choice = answer["choices"][0]
            message = {**choice["message"]}
        except (KeyError, IndexError, TypeError) as error:
            raise ConnectionError(
                f"{self.base_url} answered without a completion: {str(answer)[:300]}; expected `choices` as in "
                "OpenAI's API: check --server and the server's log"
            ) from error
        self._refuse_reasoning_parser(message)
        text = _join_parts(message.get("content"))
        self._without_content.append(message.get("content") is None)
        opened = self.scorer.find_opened(example)
        if (tag := opened.strip()) and text.lstrip().startswith(tag):  # some servers repeat what the prompt opened
            text = text.lstrip().removeprefix(tag)
        return self.tokenize_completion(text, choice.get("finish_reason") == "stop", opened)

    def _refuse_reasoning_parser(self, message: Mapping[str, Any]) -> None:
        """Raises ValueError if the server took reasoning out of the completion: its key is there, perhaps empty."""
        other = message.get("refusal") or message.get("tool_calls")  # why there is no content
        missing = message.get("content") is None and not other
        for name in ("reasoning", "reasoning_content"):
            if message.get(name) or (missing and name in message):
                raise ValueError(
                    f"{self.base_url} took the reasoning out of the answer (`{name}`), which the parser must see: "
                    "start it without a reasoning parser"
                )

    def _only_listed_model(self) -> str:
        listed = self._request("/models")
        try:
            names = [model["id"] for model in listed["data"]]
        except (KeyError, TypeError) as error:
            raise ConnectionError(
                f"{self.base_url}/models gave no list of models: {str(listed)[:300]}; is the server OpenAI-compatible?"
            ) from error
        if len(names) != 1:
            raise ValueError(
                f"{self.base_url} serves {', '.join(names) or 'no model'}; say which one with --served-model"
            )
        return names[0]

    def _request(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The server's JSON; asks again where it is busy. Raises ConnectionError with what it said."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(self.base_url + path, data, headers)
        for attempt in range(_TRIES):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                said = error.read()[:500].decode(errors="replace")
                if error.code not in _BUSY or attempt == _TRIES - 1:
                    raise ConnectionError(f"{self.base_url}{path} answered {error.code}: {said}") from error
            except TimeoutError as error:
                raise ConnectionError(
                    f"{self.base_url} gave no answer in {self.timeout_seconds:.0f} seconds; ask for less at a time "
                    "with --batch-size or --max-new-tokens"
                ) from error
            except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is one; no JSON is another
                if attempt == _TRIES - 1 or isinstance(error, ValueError | http.client.InvalidURL):
                    raise ConnectionError(
                        f"{self.base_url}{path} cannot be read ({error}); is the server running, and the address right?"
                    ) from error
            if self._stop.wait(_FIRST_PAUSE_SECONDS * 2**attempt):
                break
        raise ConnectionError(f"{self.base_url}{path} was not asked again: another request failed")


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


def _join_parts(content: Any) -> str:
    """The text of a completion that comes as a text, as parts, or not at all. Raises ConnectionError for others."""
    if content is None or isinstance(content, str):
        return content or ""
    try:
        return "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)
    except (TypeError, AttributeError) as error:
        raise ConnectionError(
            f"the server answered with the content {str(content)[:300]}; expected a text, or parts with texts"
        ) from error


def _png_data_uri(image: Any) -> str:
    buffer = io.BytesIO()
    open_image(image).save(buffer, format="PNG", compress_level=1)
    return data_uri(buffer.getvalue())
