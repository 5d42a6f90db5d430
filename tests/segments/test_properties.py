"""What holds for every text: `parse` is total, spans partition the text, time is linear, `render` is the inverse."""

from __future__ import annotations

import itertools
import random
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balanced_thinking.segments import ANSWER, FORMATS, PROBLEMS, THINK, Parsed, parse, render
from balanced_thinking.segments.scan import END_OF_TURN

NAMES = tuple(FORMATS)
TAGS = tuple(dict.fromkeys(tag for fmt in FORMATS.values() for tag in (*fmt.tag_kinds, *fmt.wrap) if tag))
FILLERS = (
    "",
    " ",
    "\n\n",
    "\r\n",
    "B",
    "Final Answer:C",
    "x < y",
    "思考",
    "🤔👩‍🚀",
    "\u3000",
    "\x00",
    "\ud800",
    "\\",
    "$",
    "<",
    "|>",
    "###",
)
PIECES = (*TAGS, *END_OF_TURN, *FILLERS)  # fmt: skip


def check(parsed: Parsed) -> None:
    """Every promise of `Parsed` that holds for any text."""
    text, fmt = parsed.text, FORMATS[parsed.format]
    assert "".join(text[span.start : span.end] for span in parsed.spans) == text
    assert all(span.start < span.end and span.segment in (THINK, ANSWER) for span in parsed.spans)
    assert [span.segment for span in parsed.spans] in ([], [THINK], [ANSWER], [THINK, ANSWER])
    assert list(parsed.problems) == [name for name in PROBLEMS if name in parsed.problems]
    assert parsed.well_formed == (not parsed.problems)
    check_answer(parsed)
    assert (parsed.think is None) == (parsed.think_span is None)
    if parsed.think is None:
        assert not fmt.think_required or {"no_think", "empty_think"} & set(parsed.problems)
    else:
        inner = text[slice(*parsed.think_span or ())]
        assert parsed.think == parsed.think.strip() != ""
        assert inner == inner.strip()
        assert parsed.think == inner or fmt.stages
        assert not {"no_think", "empty_think"} & set(parsed.problems)


def check_answer(parsed: Parsed) -> None:
    missing = {"no_answer", "empty_answer"} & set(parsed.problems)
    assert (parsed.answer is None) == (parsed.answer_span is None) == bool(missing)
    border = next((span.start for span in parsed.spans if span.segment == ANSWER), None)
    assert (border is None) == (parsed.answer is None)
    if parsed.answer_span is not None and border is not None:
        start, end = parsed.answer_span
        assert parsed.answer == parsed.text[start:end] == parsed.text[start:end].strip() != ""
        assert border <= start
        # White space before the answer's segment belongs to it, and thinking ends before it.
        assert parsed.text[:border] == parsed.text[:border].rstrip()
        assert parsed.think_span is None or parsed.think_span[1] <= border


def mutated(rng: random.Random) -> str:
    """A well-formed text of some format, some of its pieces deleted, doubled, swapped or joined by foreign ones."""
    fmt = FORMATS[rng.choice(NAMES)]
    think, answer = ("".join(rng.choices((*FILLERS, "word "), k=rng.randrange(4))) for _ in range(2))
    text = rng.choice((fmt.example, render(think, answer, fmt)))
    for tag in TAGS:
        text = text.replace(tag, f"\1{tag}\1")
    pieces = [piece for piece in text.split("\1") if piece]
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(pieces) + 1)
        change = rng.randrange(5)
        if change == 0:
            del pieces[at : at + 1]
        elif change == 1:
            pieces[at:at] = pieces[at : at + 2]
        elif change == 2:
            pieces[at : at + 2] = reversed(pieces[at : at + 2])
        elif change == 3:
            pieces.insert(at, rng.choice(PIECES))
        else:
            pieces.insert(at, chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))))
    text = "".join(pieces)
    return text[: rng.randrange(len(text) + 1)] if rng.random() < 0.2 else text


def fuzz(count: int, seed: int) -> None:
    rng = random.Random(seed)
    for index in range(count):
        text = "".join(rng.choices(PIECES, k=rng.randrange(12))) if index % 4 == 0 else mutated(rng)
        for name in ("auto", NAMES[index % len(NAMES)]):
            try:
                check(parse(text, name))
            except Exception as error:
                raise AssertionError(f"seed {seed}, text {index}, format {name}: {text!r}") from error


def test_five_thousand_mutated_texts_keep_every_promise() -> None:
    fuzz(5_000, seed=0)


@pytest.mark.slow
def test_a_hundred_thousand_mutated_texts_keep_every_promise() -> None:
    fuzz(100_000, seed=1)


@settings(max_examples=200, deadline=None)
@given(st.text(), st.sampled_from(NAMES))
@example("\x1c<think>\x85r</think>\u2028<answer>B</answer>", "think-answer")
def test_any_text_keeps_every_promise(text: str, name: str) -> None:
    parsed = parse(text, name)
    assert parsed.text == text
    check(parsed)


def test_every_sequence_of_four_tags_keeps_every_promise() -> None:
    tags = ("<think>", "</think>", "<answer>", "</answer>", " x ")
    for length in range(6):
        for pieces in itertools.product(tags, repeat=length):
            for name in ("think-answer", "deepseek-r1"):
                check(parse("".join(pieces), name))


def test_think_answer_is_well_formed_exactly_where_a_backtracking_expression_matches() -> None:
    """The slow reference: one think block without think tags (drafts may be in it), then one answer without tags."""
    reference = re.compile(r"<think>(?:(?!</?think>).)+</think><answer>x+</answer>")
    tags = ("<think>", "</think>", "<answer>", "</answer>", "x")
    rng = random.Random(0)
    texts = ["".join(pieces) for length in range(7) for pieces in itertools.product(tags, repeat=length)]
    texts += [
        "<think>" + "".join(rng.choices(tags, k=rng.randrange(5))) + "</think><answer>x</answer>" for _ in range(500)
    ]
    matches = [bool(reference.fullmatch(text)) for text in texts]
    assert [parse(text).well_formed for text in texts] == matches
    assert 100 < sum(matches) < len(texts) - 100


def plain_texts() -> st.SearchStrategy[str]:
    """Non-empty texts without outer white space, tags, or characters that tags are made of."""
    letters = st.characters(exclude_characters="<>|◁▷#{}\\[]", exclude_categories=("Cs",))
    texts = st.text(letters, min_size=1, max_size=40) | st.sampled_from(
        ("Final Answer:C", "(A). text", "x = 1\r\ny = 2", "🤔 思考")
    )
    return texts.map(str.strip).filter(bool)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(plain_texts(), plain_texts(), st.sampled_from([name for name in NAMES if name != "direct"]))
def test_parse_gives_back_what_render_was_given(think: str, answer: str, name: str) -> None:
    parsed = parse(render(think, answer, name), name)
    assert (parsed.think, parsed.answer, parsed.problems) == (think, answer, ())


@settings(max_examples=100, deadline=None)
@given(plain_texts(), plain_texts(), st.sampled_from([name for name in NAMES if name != "direct"]))
def test_a_rendered_text_survives_its_end_of_turn_and_auto(think: str, answer: str, name: str) -> None:
    text = render(think, answer, name) + "<|im_end|>\n"
    assert parse(text, name).answer == parse(text, "auto").answer == answer
    assert parse(text, "auto").format == ("think-answer" if name == "auto" else name)


ADVERSARIES = (
    *("<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "{", "}", "\\boxed{}", "<think><answer>", "\\{"),
    *("<", " ", "\n", "<|im_end|>", " </s>", "<|channel>", "<SUMMARY>", "### ", "### Rationales:", "<answer></answer>"),
    *("<think></think>", "</think><answer>", "<answer>B</answer></think>", "### The final answer is: x ", "◁"),
    *("<|begin_of_box|>", "<|begin_of_box|><|end_of_box|>", "<SUMMARY></SUMMARY>", "\u3000", "$.,"),
)


def seconds(text: str, name: str) -> float:
    start = time.process_time()
    parse(text, name)
    return time.process_time() - start


@pytest.mark.parametrize("name", NAMES)
def test_parsing_time_is_linear(name: str) -> None:
    for piece in ADVERSARIES:
        for prefix in ("", "<think>r</think>", "<think>r</think><answer>B</answer>"):
            # A floor of 1 ms, a factor far from both 4 and 16, and three attempts make it robust on a busy machine.
            short, long = (prefix + piece * count for count in (1_000, 4_000))
            attempts = (seconds(long, name) < 10 * max(seconds(short, name), 1e-3) for _ in range(3))
            assert any(attempts), (name, prefix, piece)


@pytest.mark.parametrize("piece", ["<think>", "<answer>", "{", "\\boxed{", "</think>"])
def test_a_hundred_thousand_tags_parse_at_once(piece: str) -> None:
    for name in ("auto", "think-answer", "boxed"):
        assert seconds(piece * 100_000, name) < 2.0  # a quadratic parser takes minutes
