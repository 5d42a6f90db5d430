"""What a model is trained to write, and after which prompt: segments, prompt parity, the end token."""

from __future__ import annotations

from typing import Any, NamedTuple

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.turn_end import stop_token_ids
from balanced_thinking.conformance.subject import Subject
from balanced_thinking.conformance.table import PropertyError
from balanced_thinking.evaluation.engines.local import LocalEngine
from balanced_thinking.segments import ANSWER, IGNORE, THINK, find_opened, parse

_SHOWN = 60  # characters of a text in a message


class _Trained(NamedTuple):
    """A sample as the collator makes it: the prompt's ids, the trained ones, and their segments.

    `opened` is the thinking that the prompt has opened, read from its ids.
    """

    prompt: list[int]
    completion: list[int]
    segments: list[int]
    opened: str


def _collate_row(subject: Subject, row: dict[str, Any]) -> _Trained:
    batch = ScaleCollator(subject.processor, subject.format)([row])
    ids, segments = batch["input_ids"][0].tolist(), batch["segment_ids"][0].tolist()
    start = next(i for i, segment in enumerate(segments) if segment != IGNORE)
    return _Trained(
        ids[:start], ids[start:], segments[start:], find_opened(_decode(subject, ids[:start]), subject.format)
    )


def check_segments(subject: Subject) -> str:
    """Every trained token has a segment, and the segments say what the row says."""
    for example, row in zip(subject.examples, subject.sample_rows(), strict=True):
        trained = _collate_row(subject, row)
        text, thinking = (_decode(subject, ids) for ids in (trained.completion, _think_ids(trained)))
        if (
            trained.segments != sorted(trained.segments, key=(THINK, ANSWER, IGNORE).index)
            or IGNORE in trained.segments
        ):
            raise PropertyError(f"the segments of sample {example.id} alternate, or tokens between them have none")
        parsed = parse(text, subject.format, opened=trained.opened)
        spoken = parse(row["completion"][-1]["content"], subject.format)
        for name, found, expected in (
            ("reasoning", parsed.think, spoken.think),
            ("answer", _without_ends(subject, parsed.answer), spoken.answer),
        ):
            if found != expected:
                raise PropertyError(
                    f"the {name} of sample {example.id} does not survive tokenization: {_shorten(expected)!r} became "
                    f"{_shorten(found)!r}"
                )
        border = next(span.start for span in parsed.spans if span.segment == ANSWER)
        if thinking.strip() != text[:border].strip():
            raise PropertyError(f"the think segment of sample {example.id} ends in {thinking[-_SHOWN:]!r}")
    return f"tokens of each tag: {_tag_lengths(subject)}"


def _think_ids(trained: _Trained) -> list[int]:
    return [token for token, segment in zip(trained.completion, trained.segments, strict=True) if segment == THINK]


def _tag_lengths(subject: Subject) -> str:
    lengths = {
        tag: len(subject.tokenizer(tag, add_special_tokens=False)["input_ids"])
        for tag, kind in subject.format.tag_kinds.items()
        if kind not in ("brace", "escaped")
    }
    return ", ".join(f"{tag} {length}" for tag, length in lengths.items()) or "the format has no tags"


def check_prompt(subject: Subject) -> str:
    """Training puts the ids before a completion that generation feeds, and that transformers alone would make."""
    collator, lengths = ScaleCollator(subject.processor, subject.format), []
    for example, row, prompt in zip(subject.examples, subject.sample_rows(), subject.prompt_rows(), strict=True):
        trained = _collate_row(subject, row).prompt
        fed = collator.collate_prompts([prompt])["input_ids"][0].tolist()
        own = _prompt_of_transformers(subject, row["prompt"], prompt["images"])
        for name, other in (("generation feeds", fed), ("the chat template alone gives", own)):
            if trained != other:
                raise PropertyError(f"sample {example.id}: {_first_difference(subject, trained, other, name)}")
        lengths.append(len(fed))
    return f"{len(lengths)} prompts of {min(lengths)} to {max(lengths)} ids are the same in training and generation"


def _prompt_of_transformers(subject: Subject, messages: list[dict[str, Any]], pictures: list[Any]) -> list[int]:
    """The prompt's ids by the processor's own `apply_chat_template`, without any code of ours."""
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    if not subject.sees:
        return subject.tokenizer.apply_chat_template(messages, **options)["input_ids"][0].tolist()
    *before, last = messages
    parts = [{"type": "image", "image": picture} for picture in pictures]
    parts += [{"type": "text", "text": last["content"]}] if isinstance(last["content"], str) else last["content"]
    conversation = [*before, {"role": last["role"], "content": parts}]
    return subject.processor.apply_chat_template(conversation, **options)["input_ids"][0].tolist()


def _first_difference(subject: Subject, ours: list[int], theirs: list[int], name: str) -> str:
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    found, expected = (_decode(subject, ids[place : place + 4]) for ids in (ours, theirs))
    return f"token {place} of the prompt differs: training has {found or 'no more'!r}, {name} {expected or 'no more'!r}"


def check_stop_token(subject: Subject) -> str:
    """What ends a trained completion is what generation stops at, and nothing before it is."""
    loaded = subject.load()
    stops = LocalEngine(loaded.model, subject.processor, subject.format).scorer.stops
    names = ", ".join(f"{subject.tokenizer.convert_ids_to_tokens(stop)!r}" for stop in stops)
    found = set()
    for example, row in zip(subject.examples, subject.sample_rows(), strict=True):
        trained = _collate_row(subject, row)
        completion = trained.completion
        place = next((i for i, token in enumerate(completion) if token in stops), None)
        if place is None:
            tail = _decode(subject, completion[-3:])
            raise PropertyError(f"a trained completion ends in {tail!r}, but generation stops only at {names}")
        before = parse(_decode(subject, completion[:place]), subject.format, opened=trained.opened)
        spoken = parse(row["completion"][-1]["content"], subject.format)
        if before.answer != spoken.answer:
            raise PropertyError(f"sample {example.id}: generation would stop before the answer is complete, at {names}")
        if len(completion) - place > 2:
            rest = _decode(subject, completion[place:])
            raise PropertyError(f"sample {example.id}: training goes on after the end token: {rest!r}")
        found.add(completion[place])
    ends = ", ".join(f"{subject.tokenizer.convert_ids_to_tokens(token)!r}" for token in sorted(found))
    named = stop_token_ids(loaded.model.generation_config, subject.tokenizer)
    added = "" if found <= {*named} else "; the checkpoint does not name it, so a run adds it to generation_config.json"
    return f"trained completions end with {ends}; generation stops at {names}{added}"


def _decode(subject: Subject, ids: list[int]) -> str:
    return subject.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _without_ends(subject: Subject, answer: str | None) -> str | None:
    """An untagged answer without the end token, which the parser does not know."""
    for token in sorted(subject.tokenizer.added_tokens_decoder.values(), key=str, reverse=True):
        if answer is not None and token.special:
            answer = answer.strip().removesuffix(token.content).strip()
    return answer


def _shorten(text: str | None) -> str | None:
    return text if text is None or len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
