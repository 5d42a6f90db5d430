"""Models that are asked the same question one after another, each as an evaluation asks it."""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from balanced_thinking.batch.picture_rules import check_picture_size
from balanced_thinking.batch.rendering import RowRenderer
from balanced_thinking.chat.question import Question
from balanced_thinking.chat.turn import CLOSED, END_TOKEN, LIMIT, SERVER, USER, Progress, Turn
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.cpu.attention import fast_matmuls_and_attention
from balanced_thinking.data.bad_rows import PROBLEMS, RowError
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import image_size, picture_name
from balanced_thinking.evaluation.engines.engine import Engine
from balanced_thinking.evaluation.engines.start import EngineOptions, resolve_dtype, start_engine
from balanced_thinking.evaluation.model import locate_model
from balanced_thinking.evaluation.prompt_checks import find_unrenderable_prompts
from balanced_thinking.evaluation.prompts import get_prompt
from balanced_thinking.evaluation.sampling import Sampling
from balanced_thinking.models.processor_parts import takes_pictures
from balanced_thinking.scoring.scorers import get_scorer
from balanced_thinking.segments import ReasoningFormat
from balanced_thinking.system.known_errors import describe_known_error
from balanced_thinking.system.memory import describe_memory_error

_LOOK_SECONDS = 0.1  # how often a wait looks whether it was stopped


@dataclass(frozen=True)
class ChatOptions:
    """How all models are asked. `engine` is each model's, on a server with its own name in `served_models`.

    temperature: of the sampling; 0 is greedy, as in an evaluation. format: the reasoning format of the outputs; None:
    that of the model's run, else think-answer. prompt and scorer are those of `balanced eval`.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    format: str | None = None
    prompt: str = "question"
    scorer: str = "exact"
    engine: EngineOptions = field(default_factory=EngineOptions)
    served_models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _ = self.sampling
        try:
            get_prompt(self.prompt)
            get_scorer(self.scorer)
        except ValueError as error:
            raise RecipeError(str(error)) from None

    @property
    def sampling(self) -> Sampling:
        """Each question is an item with an id of its own, so the same question gets other answers."""
        return Sampling(self.temperature)


@dataclass(frozen=True)
class ChatModel:
    """A model that is ready to answer. `dtype` is empty where a server has it."""

    name: str
    engine: Engine
    dtype: str = ""

    @property
    def format(self) -> ReasoningFormat:
        return self.engine.scorer.format

    def reason_for_refusal(self, example: Example) -> str | None:
        """Why it cannot be asked this; None where it can."""
        processor = self.engine.scorer.processor
        if example.images and not takes_pictures(processor):
            return "this model takes text only: ask without pictures"
        if getattr(processor, "chat_template", None) is not None:
            for bad in find_unrenderable_prompts([example], RowRenderer(processor, self.format)).values():
                return f"{', '.join(PROBLEMS[name] for name in bad.problems)}: {bad.text}"
        try:
            for image in example.images:
                check_picture_size(processor, *image_size(image), name=picture_name(image))
        except RowError as error:
            return str(error)
        return None


def load_models(names: Sequence[str], options: ChatOptions) -> list[ChatModel]:
    """Load the models, or reach their server. Raises RecipeError for a name that is given twice or names that do not
    fit, and what loading raises."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"the model {twice[0]} is named twice; expected different models")
    served = options.served_models
    if served and options.engine.server is None:
        raise RecipeError("--served-model is a name on a server: give the server's address with --server")
    if served and len(served) != len(names):
        raise RecipeError(
            f"there are {len(names)} models and {len(served)} times --served-model; expected one for each"
        )
    own_names: list[str | None] = list(served) or ([None] if len(names) == 1 else list(names))
    return [load_chat_model(name, options, own) for name, own in zip(names, own_names, strict=True)]


def load_chat_model(name: str, options: ChatOptions, served_model: str | None = None) -> ChatModel:
    located = locate_model(name)
    chosen = replace(options.engine, served_model=served_model) if options.engine.server else options.engine
    chosen = resolve_dtype(chosen, located.folder)
    engine = start_engine(chosen, located.folder)
    engine.configure(options.format or located.format or "think-answer", options.max_new_tokens)
    engine.sampling = options.sampling
    return ChatModel(name, engine, "" if chosen.server else chosen.dtype)


class Session:
    """Asks models. Another thread, or a handler of a signal, may `stop` what is being generated.

    Args:
        models: in the order in which they answer. options: those that they were loaded with.
    """

    def __init__(self, models: Sequence[ChatModel], options: ChatOptions) -> None:
        self.models, self.options = tuple(models), options
        self._id, self._asked = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}", 0
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the reply that is being generated, and ask no further model."""
        self._stop.set()

    def ask(self, question: Question) -> Iterator[Progress | Turn]:
        """The replies: for each model its progress, then its turn. After `stop` the turn holds what there was."""
        self._stop.clear()
        self._asked += 1
        for model in self.models:
            if self._stop.is_set():
                return
            example = question.to_example(f"{self._id}-{self._asked:03d}", self.options.prompt, model.format)
            if (reason := model.reason_for_refusal(example)) is not None:
                yield Turn(model.name, question, example, model.format, refusal=reason)
            else:
                yield from self._generate(model, question, example)

    def score(self, turn: Turn, answer: str) -> Turn:
        """The turn, scored against a right answer that became known after it."""
        scorer = next(model.engine.scorer for model in self.models if model.name == turn.model)
        known = replace(turn.example, answer=answer)
        return turn.with_answer(answer, scorer.score_completion(known, turn.ids, self.options.scorer))

    def _generate(self, model: ChatModel, question: Question, example: Example) -> Iterator[Progress | Turn]:
        engine, scorer = model.engine, model.engine.scorer
        opened, began = scorer.find_opened(example), time.monotonic()
        generation = _Generation(engine, example, self._stop)
        ids: list[int] = []
        with closing(generation.follow()) as news:
            for ids in news:
                seconds = time.monotonic() - began
                yield Progress(model.name, _decode(ids, engine), model.format, opened, len(ids), seconds)
        seconds = time.monotonic() - began
        if generation.failure is not None:
            yield Turn(model.name, question, example, model.format, refusal=_describe_failure(generation.failure))
            return
        ids = ids if generation.ids is None else generation.ids
        prediction = scorer.score_completion(example, ids, self.options.scorer)
        if ids and ids[-1] in scorer.stops:
            stopped_by = END_TOKEN
        elif prediction.withheld:
            stopped_by = SERVER
        elif not prediction.truncated:
            stopped_by = CLOSED
        else:
            stopped_by = USER if self._stop.is_set() else LIMIT
        yield Turn(model.name, question, example, model.format, ids, prediction, seconds, stopped_by)


def _decode(ids: Sequence[int], engine: Engine) -> str:
    """The text so far, without the end token."""
    kept = ids[:-1] if ids and ids[-1] in engine.scorer.stops else ids
    return engine.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _describe_failure(error: BaseException) -> str:
    """One sentence for what a user can act on. Raises the error where it is none of those."""
    found = describe_memory_error(error) or (describe_known_error(error) if isinstance(error, Exception) else None)
    if found is None:
        raise error
    return found


class _Generation:
    """One reply, generated in a thread of its own. `ids` is complete once `follow` has ended; None where it was stopped
    and the engine gave nothing. `failure` is the error that ended it."""

    def __init__(self, engine: Engine, example: Example, stop: threading.Event) -> None:
        self.ids: list[int] | None = None
        self.failure: BaseException | None = None
        self._engine, self._example, self._stop = engine, example, stop
        self._news: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()
        self._left, self._was_aborted = threading.Event(), False

    def follow(self) -> Generator[list[int], None, None]:
        """The ids so far, whenever there are more; only the newest where the reader is slower than the model.

        A reader that leaves early ends the generation, too: the next one needs the model for itself.
        """
        thread = threading.Thread(target=self._run, name="generation", daemon=True)
        thread.start()
        try:
            yield from self._follow_news()
        finally:
            self._left.set()
            if thread.is_alive():
                self._engine.abort()
            thread.join()
        if self._was_aborted and self.failure is not None:
            self.failure = None

    def _follow_news(self) -> Iterator[list[int]]:
        ended = False
        while not ended:
            found = None
            try:
                found = self._news.get(timeout=_LOOK_SECONDS)
                while found is not None and not self._news.empty():
                    newer = self._news.get()
                    ended, found = newer is None, newer or found
                ended = ended or found is None
            except queue.Empty:
                if self._stop.is_set() and not self._was_aborted:
                    self._was_aborted = True
                    self._engine.abort()
            if found is not None:
                yield found

    def _run(self) -> None:
        try:
            with fast_matmuls_and_attention():
                self.ids = self._engine.stream(self._example, self._listen)
        except BaseException as error:  # shown, or raised again, by the thread that follows
            self.failure = error
        finally:
            self._news.put(None)

    def _listen(self, ids: list[int]) -> bool:
        self._news.put(ids)
        return not (self._stop.is_set() or self._left.is_set())
