"""Token segments on real tokenizations (byte-level BPE, SentencePiece style, WordPiece), all trained here, offline."""

from __future__ import annotations

import random
from functools import cache

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from balanced_thinking.segments import ANSWER, FORMATS, THINK, Parsed, generated_segments, parse, render, token_segments

WORDS = (
    "the",
    "row",
    "has",
    "two",
    "12",
    "B",
    "x=3",
    "Größe",
    "思考",
    "答案是四",
    "🤔",
    "👩‍🚀",
    "é",
    "(A).",
    "“yes”",
    "½",
)
GAPS = (" ", " ", " ", "  ", "\n", "\r\n", "\n\n", "\t")
NAMES = [name for name in FORMATS if name != "direct"]
# Joined tags make the trainers learn tokens that straddle the border.
CORPUS = [word + gap + word for word in WORDS for gap in GAPS] + [fmt.example for fmt in FORMATS.values()] * 3
CORPUS += ["</think><answer>", "</think>\n<answer>"] * 9


@cache
def tokenizer(kind: str) -> Tokenizer:
    """A tiny tokenizer; `kind` is bpe, bpe-trimmed, bpe-tags, bpe-eos, unigram or wordpiece."""
    if kind.startswith("bpe"):
        return byte_level(kind)
    alphabet = sorted(set("".join(CORPUS) + "<>|/◁▷\\{}#:.") - set(" \n\r\t"))
    if kind == "unigram":
        tok = Tokenizer(models.Unigram())
        tok.pre_tokenizer, tok.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, unk_token="<unk>", special_tokens=["<unk>"], initial_alphabet=[*alphabet, *"\n\r\t"]
        )
    else:
        tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tok.pre_tokenizer, tok.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False)
        trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=["[UNK]"], show_progress=False)
    tok.train_from_iterator([*CORPUS, *(f"{char} x{char}" for char in alphabet)], trainer)
    return tok


def byte_level(kind: str) -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=["<eos>"],
    )
    tok.train_from_iterator(CORPUS, trainer)
    if kind == "bpe-trimmed":
        tok.post_processor = processors.ByteLevel(trim_offsets=True)
    if kind == "bpe-tags":
        tok.add_tokens([AddedToken(tag, normalized=False) for tag in ("<think>", "</think>", "<answer>", "</answer>")])
    if kind == "bpe-eos":
        tok.post_processor = processors.TemplateProcessing(single="<eos> $A <eos>", special_tokens=[("<eos>", 0)])
    return tok


KINDS = ("bpe", "bpe-trimmed", "bpe-tags", "bpe-eos", "unigram", "wordpiece")


def random_text(rng: random.Random, length: int) -> str:
    words = rng.choices(WORDS, k=length)
    return words[0] + "".join(rng.choice(GAPS) + word for word in words[1:])


def random_cases(count: int, seed: int = 0) -> list[tuple[str, str, str, str]]:
    """(format, thinking, answer, text), some with an end-of-turn token written out."""
    rng = random.Random(seed)
    cases = []
    for index in range(count):
        name = NAMES[index % len(NAMES)]
        think, answer = random_text(rng, rng.randrange(1, 12)), random_text(rng, rng.randrange(1, 4))
        cases.append((name, think, answer, render(think, answer, name) + rng.choice(("", "<|im_end|>", "</s>\n"))))
    return cases


def by_definition(parsed: Parsed, offsets: list[tuple[int, int]]) -> list[int | None]:
    """The slow reference: look up the first non-space character of each token; None for a token of zero width."""
    owner = [span.segment for span in parsed.spans for _ in range(span.start, span.end)]
    found: list[int | None] = []
    for start, end in offsets:
        visible = [at for at in range(start, end) if not parsed.text[at].isspace()]
        found.append(None if start == end else owner[visible[0] if visible else start])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_belongs_to_the_segment_of_its_first_visible_character(kind: str) -> None:
    for name, _, _, text in random_cases(200):
        encoding = tokenizer(kind).encode(text)
        segments = token_segments(parse(text, name), encoding.offsets)
        expected = by_definition(parse(text, name), encoding.offsets)
        assert [got if want else None for got, want in zip(segments, expected, strict=True)] == expected, (name, text)
        assert set(segments) <= {THINK, ANSWER}
        assert segments == sorted(segments)  # thinking first, and no way back


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_tokens_of_one_plain_tokenization_decode_to_the_answer(kind: str) -> None:
    tok = tokenizer(kind)
    for name, think, answer, text in random_cases(200, seed=1):
        ids = tok.encode(text).ids
        segments = token_segments(parse(text, name), tok.encode(text).offsets)
        parts = [[i for i, segment in zip(ids, segments, strict=True) if segment == which] for which in (THINK, ANSWER)]
        assert parts[0] + parts[1] == ids
        decoded = [tok.decode(part, skip_special_tokens=False) for part in parts]
        assert squeezed(answer) in squeezed(decoded[1]), (name, text)
        assert squeezed(think) in squeezed(decoded[0]), (name, text)
        assert squeezed(think) not in squeezed(decoded[1]) or squeezed(think) in squeezed(answer), (name, text)


def squeezed(text: str) -> str:
    """Without white space, which WordPiece drops and SentencePiece shifts."""
    return "".join(text.split())


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_token_across_the_border_belongs_to_thinking(kind: str) -> None:
    text = "<think>the row</think><answer>B</answer>"
    encoding = tokenizer(kind).encode(text)
    border = text.index("<answer>")
    straddling = [at for at, (start, end) in enumerate(encoding.offsets) if start < border < end]
    assert len(straddling) == 1
    segments = token_segments(parse(text), encoding.offsets)
    assert segments[straddling[0]] == THINK
    assert segments[straddling[0] + 1] == ANSWER
    # Tokenized in pieces, as static weights per piece do it, the ids would not be those of inference.
    pieces = tokenizer(kind).encode(text[:border]).ids + tokenizer(kind).encode(text[border:]).ids
    assert pieces != encoding.ids


def test_tags_are_several_tokens_in_one_vocabulary_and_one_in_the_other() -> None:
    text = "<think>the row</think>\n<answer>B</answer>"
    several, single = (tokenizer(kind).encode(text) for kind in ("bpe", "bpe-tags"))
    assert len(several.ids) > len(single.ids)
    for encoding in (several, single):
        answer = [
            i for i, s in zip(encoding.ids, token_segments(parse(text), encoding.offsets), strict=True) if s == ANSWER
        ]
        kind = "bpe" if encoding is several else "bpe-tags"
        assert tokenizer(kind).decode(answer) == "\n<answer>B</answer>"


def test_the_bytes_of_one_character_stay_together() -> None:
    text = "<think>🦖</think><answer>🦖🦕</answer>"
    encoding = tokenizer("bpe").encode(text)
    assert len(encoding.offsets) > len(set(encoding.offsets))  # several tokens share a character's offsets
    by_offset: dict[tuple[int, int], set[int]] = {}
    for offset, segment in zip(encoding.offsets, token_segments(parse(text), encoding.offsets), strict=True):
        by_offset.setdefault(offset, set()).add(segment)
    assert all(len(segments) == 1 for segments in by_offset.values())


def byte_fallback() -> Tokenizer:
    """In the manner of SentencePiece: characters, a leading space, and bytes for unknown characters."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + sorted(set("".join(CORPUS) + "\\{}▁") - set("🤔👩🚀🦖 "))
    tok = Tokenizer(models.BPE({piece: k for k, piece in enumerate(pieces)}, [], byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    unspaced = decoders.Strip(content=" ", left=1, right=0)
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), unspaced])
    return tok


@pytest.mark.parametrize("kind", ["bpe", "byte_fallback"])
@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("it is 🦖\n\n\\boxed{🦖}", "boxed"),  # several bytes just before the border
        ("<think>🦖</think>🦖<answer>r🦖</answer>", "think-answer"),
        ("<think>\nit 🦖\n</think>\n\n🦖", "deepseek-r1"),
    ],
)
def test_generated_tokens_get_the_segments_of_their_text(text: str, format: str, kind: str) -> None:
    own = byte_fallback() if kind == "byte_fallback" else tokenizer(kind)
    encoding = own.encode(text, add_special_tokens=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=own)
    parsed, segments = generated_segments(encoding.ids, fast, format)
    assert parsed.text == text
    assert segments == token_segments(parsed, encoding.offsets)


# text, format, offsets, segments
SPECIALS = [
    (
        "<think>r</think><answer>B</answer>",
        "think-answer",
        [(0, 0), (0, 16), (16, 34), (0, 0)],
        [1, 1, 2, 2],
    ),  # BOS, EOS
    ("<answer>B</answer>", "think-answer", [(0, 0), (0, 18), (0, 0)], [2, 2, 2]),  # BOS before an answer
    ("<think>r</think> B", "deepseek-r1", [(0, 16), (7, 7), (16, 18)], [1, 1, 2]),  # zero width in the middle
    ("<think>r</think> B", "deepseek-r1", [(0, 16), (16, 17), (17, 18)], [1, 2, 2]),  # a white token: what follows
    ("<think>r</think> B", "deepseek-r1", [(0, 16), (17, 18)], [1, 2]),  # white space dropped
    ("<think>r</think>", "think-answer", [(0, 7), (7, 16), (0, 0)], [1, 1, 1]),  # no answer: all thinking
    ("B", "direct", [(0, 0), (0, 1), (1, 1)], [2, 2, 2]),  # all answer
    ("", "think-answer", [(0, 0)], [1]),  # nothing but an EOS
    ("B", "direct", [], []),  # no tokens
]


@pytest.mark.parametrize(("text", "name", "offsets", "segments"), SPECIALS)
def test_tokens_of_zero_width_and_white_space(
    text: str, name: str, offsets: list[tuple[int, int]], segments: list[int]
) -> None:
    assert token_segments(parse(text, name), offsets) == segments


def test_offsets_of_another_text_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reach 9.*has 1 characters.*without the prompt"):
        token_segments(parse("B", "direct"), [(8, 9)])
