"""Completions of a model behind an OpenAI-compatible server, such as `vllm serve` or SGLang.

The server forms its own batches; a batch here is the number of requests at a time. Completions come back as text. The
model's own tokenizer tokenizes them again, so that tokens are counted as in every engine.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from balanced_thinking.config.foreign_json import TooDeepError, parse_json
from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.evaluation.engines.address import check_address
from balanced_thinking.evaluation.engines.chat_answer import (
    STATUS,
    count_tokens,
    describe_refusal,
    find_withheld_item,
    is_about_the_item,
    is_busy,
    is_refusal,
    read_choice,
    shorten_json,
)
from balanced_thinking.evaluation.engines.chat_messages import chat_messages
from balanced_thinking.evaluation.engines.engine import Engine, Listener
from balanced_thinking.evaluation.engines.request_fields import RequestFields
from balanced_thinking.runs.advice import TOO_LONG, TOO_LONG_CURE
from balanced_thinking.scoring.completion import WithheldCompletion
from balanced_thinking.segments import ReasoningFormat
from balanced_thinking.system.fetching import (
    Answer,
    Deadline,
    Limits,
    RequestRefusedError,
    read_retry_after,
    send_request,
)
from balanced_thinking.system.text import list_some

logger = logging.getLogger(__name__)
_TRIES = 4
_REQUESTS = 64  # at a time
_FIRST_PAUSE_SECONDS = 1.0
_SILENT_SECONDS = 5.0  # of a pause
# Of an answer, in all: a completion takes a few bytes a token.
_MOST_BYTES, _MOST_BYTES_PER_TOKEN = 4 << 20, 256
_SHOWN_MODELS, _LONGEST_NAME = 10, 200
_MOST_REFUSED = 3  # items one after the other
_DATE = re.compile(r"[-@:](?:\d{4}-?\d\d-?\d\d|\d{4}|latest)\Z")  # of a version, behind a model's name


class ItemRefusedError(ConnectionError):
    """The server did not answer this item; it may answer others."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class ServerEngine(Engine):
    """A model behind an OpenAI-compatible server. A key is taken from the environment, `OPENAI_API_KEY`.

    Args:
        base_url: of the API with its version, such as `http://localhost:8000/v1`.
        processor: of the model that is served, or its tokenizer.
        served_model: the model's name there; default: the only one that the server lists.
        timeout_seconds: for one answer.
    """

    name = "server"
    can_sample = True

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
        self.base_url, self.timeout_seconds = check_address(base_url), timeout_seconds
        self._key = os.environ.get("OPENAI_API_KEY", "EMPTY")
        self._stop = threading.Event()
        self._open: set[Deadline] = set()  # of the requests that wait for their answers
        self._without_content: list[bool] = []  # for each answer so far
        self._has_answered, self._refused = False, 0  # items since the last batch with an answer
        self._fields = RequestFields()
        self._named: set[str] = set()  # of what is warned of once
        self._naming = threading.Lock()
        self.served_model = served_model or self._only_listed_model()

    def complete(self, examples: Sequence[Example]) -> list[list[int]]:
        self._stop.clear()
        pool = ThreadPoolExecutor(max_workers=min(_REQUESTS, len(examples)))
        try:
            requests = [pool.submit(self._complete_one, example) for example in examples]
            ended, _ = wait(requests, return_when=FIRST_EXCEPTION)  # not after those before it
            if (failed := next((one for one in ended if one.exception()), None)) is not None:
                failed.result()
            completions = [request.result() for request in requests]
            self._end_if_all_are_refused(completions)
        except BaseException:
            self.abort()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        answers = len(self._without_content)
        if answers == len(examples) and all(self._without_content):  # the first ones
            logger.warning(
                "all %d answers so far have no content (null), so they count as empty: check the server's log for a "
                "reasoning or tool parser, or a model that cannot answer",
                answers,
            )
        self._name_withheld(examples, completions)
        return completions

    def stream(self, example: Example, listener: Listener) -> list[int]:
        """`complete` for one example, whose refusal is an error."""
        ids = super().stream(example, listener)
        if isinstance(ids, WithheldCompletion) and is_refusal(ids.reason):
            raise ConnectionError(self._describe_refused(ids))
        return ids

    def _end_if_all_are_refused(self, completions: Sequence[list[int]]) -> None:
        """Raises ConnectionError where the server seems to refuse every item, so that it is not about the items."""
        refused = [one for one in completions if isinstance(one, WithheldCompletion) and is_refusal(one.reason)]
        if len(refused) < len(completions):
            self._has_answered, self._refused = True, 0
            return
        self._refused += len(refused)
        may_be_alone = self._has_answered or refused[0].reason == TOO_LONG  # the longest items come first
        if len(refused) > 1 or self._refused > _MOST_REFUSED or not may_be_alone:
            raise ConnectionError(self._describe_refused(refused[0]))

    def _describe_refused(self, refused: WithheldCompletion) -> str:
        said = refused.said or refused.reason
        if refused.reason != TOO_LONG:
            return said
        what = f"{self._refused} prompts, one after the other," if self._refused > 1 else "the prompt"
        return f"{self.base_url} refused {what} as too long ({said}): {TOO_LONG_CURE}"

    def _name_withheld(self, examples: Sequence[Example], completions: Sequence[list[int]]) -> None:
        """Warns of the first example for each reason. How many there were is said with the results."""
        for example, ids in zip(examples, completions, strict=True):
            if isinstance(ids, WithheldCompletion):
                said = f": {ids.said}" if ids.said else ""
                self._warn_once(
                    ids.reason,
                    f"gave no complete answer to item {example.id} ({ids.reason}{said}); the evaluation goes on, and "
                    "counts such items",
                )

    def _warn_once(self, about: str, text: str) -> None:
        with self._naming:
            known = about in self._named
            self._named.add(about)
        if not known:
            logger.warning("%s %s", self.base_url, text)

    def abort(self) -> None:
        self._stop.set()  # those that wait to ask again give up
        for deadline in list(self._open):  # those that wait for an answer would hold the end of this process
            deadline.abort()

    def _complete_one(self, example: Example) -> list[int]:
        request: dict[str, Any] = {
            "model": self.served_model,
            "messages": chat_messages(example),
            **self.sampling.request_fields(example.id),
            "repetition_penalty": 1.0,  # vLLM and SGLang: else the checkpoint's own applies
            "max_tokens": self.max_new_tokens,
            "stream": False,
            "skip_special_tokens": False,  # vLLM and SGLang: some formats' tags are special tokens
        }
        if stops := self.scorer.unnamed_stops:  # the same two: the checkpoint's settings may lack the template's
            request["stop_token_ids"] = stops
        try:
            answer = self._request("/chat/completions", request)
        except ItemRefusedError as error:
            return WithheldCompletion([], f"{STATUS}{error.status}", str(error))
        try:
            choice = answer["choices"][0]
            message = {**choice["message"]}
        except (KeyError, IndexError, TypeError) as error:
            raise ConnectionError(
                f"{self.base_url} answered without a completion: {shorten_json(answer)}; expected `choices` as in "
                "OpenAI's API: check --server and the server's log"
            ) from error
        self._name_other_model(answer.get("model"))
        found = read_choice(choice, message, self.base_url)
        text, opened = found.text or "", self.scorer.find_opened(example)
        if (tag := opened.strip()) and text.lstrip().startswith(tag):  # some servers repeat what the prompt opened
            text = text.lstrip().removeprefix(tag)
        at_limit = not found.finish_reason and count_tokens(answer, self.tokenizer, text) >= self.max_new_tokens
        finish = found.finish(at_limit=at_limit)
        self._without_content.append(found.text is None and not finish.withheld)
        ids = self.tokenize_completion(text, finish.stopped, opened)
        return WithheldCompletion(ids, finish.withheld, found.said) if finish.withheld else ids

    def _name_other_model(self, answering: Any) -> None:
        """Warns of it once; the same name with a date behind it is what an alias stands for."""
        if (
            not isinstance(answering, str)
            or not answering
            or _DATE.sub("", answering) == _DATE.sub("", self.served_model)
        ):
            return
        name = answering[:_LONGEST_NAME]
        self._warn_once("model", f"was asked for {self.served_model}, but {name} answers; check --served-model")

    def _only_listed_model(self) -> str:
        listed = self._request("/models")
        try:
            # The empty text raises TypeError for an id that is a list, which can be cut like a text.
            names = [model["id"][:_LONGEST_NAME] + "" for model in listed["data"]]
        except (KeyError, TypeError) as error:
            raise ConnectionError(
                f"{self.base_url}/models gave no list of models: {shorten_json(listed)}; is the server "
                "OpenAI-compatible?"
            ) from error
        if len(names) != 1:
            served = list_some(names, _SHOWN_MODELS) or "no model"
            raise ValueError(f"{self.base_url} serves {served}; say which one with --served-model")
        return names[0]

    def _request(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The server's JSON; asks again where it is busy. Raises ConnectionError with what it said."""
        sent = {} if body is None else self._fields.fit(body)
        data = None if body is None else json.dumps(sent).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(self.base_url + path, data, headers)
        for attempt in range(_TRIES):
            last, pause = attempt == _TRIES - 1, _FIRST_PAUSE_SECONDS * 2**attempt
            try:
                answer = self._send_within_limits(request)
            except TimeoutError as error:
                raise ConnectionError(
                    f"{self.base_url} gave no answer in {self.timeout_seconds:.0f} seconds; ask for less at a time "
                    "with --batch-size or --max-new-tokens"
                ) from error
            except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is one
                if last or isinstance(error, ValueError | http.client.InvalidURL | RequestRefusedError):
                    raise self._unreadable(path, error) from error
            else:
                if answer.status == 200:
                    return self._read_json(path, answer)
                if (withheld := find_withheld_item(answer)) is not None:
                    return withheld
                if (learned := self._fields.learn(sent, answer)) is not None:
                    self._warn_once(learned, learned)
                    return self._request(path, body)
                pause = max(pause, read_retry_after(answer.headers))
                if last or not is_busy(answer.status) or pause > self.timeout_seconds:
                    said = f"{self.base_url}{path} answered {answer.status}: {describe_refusal(answer, self.base_url)}"
                    raise ItemRefusedError(answer.status, said) if is_about_the_item(answer) else ConnectionError(said)
            if pause > _SILENT_SECONDS:
                self._warn_once("pause", f"asks to wait {pause:,.0f} seconds before it is asked again")
            if self._stop.wait(pause):
                break
        raise ConnectionError(f"{self.base_url}{path} was not asked again: another request failed")

    def _send_within_limits(self, request: urllib.request.Request) -> Answer:
        limits = Limits(self.timeout_seconds, _MOST_BYTES + _MOST_BYTES_PER_TOKEN * self.max_new_tokens)
        deadline = Deadline()
        self._open.add(deadline)
        try:
            return send_request(request, limits, deadline=deadline)
        finally:
            self._open.discard(deadline)

    def _read_json(self, path: str, answer: Answer) -> Any:
        try:
            return parse_json(answer.body)
        except ValueError as error:  # a page of HTML, a number of 5,000 digits, endless brackets
            streams = answer.headers.get("content-type", "").startswith("text/event-stream")
            fault = ValueError("it streams, although it was asked with stream: false") if streams else error
            raise self._unreadable(path, fault) from error

    def _unreadable(self, path: str, error: Exception) -> ConnectionError:
        reason = "it is nested too deeply" if isinstance(error, TooDeepError) else error
        return ConnectionError(
            f"{self.base_url}{path} cannot be read ({reason}); is the server running, and the address right?"
        )
