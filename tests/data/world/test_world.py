"""The embedded world: an independent reader agrees with every answer and sentence, and no split leaks into another."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from PIL import Image

from balanced_thinking.data.example import Example
from balanced_thinking.data.world import DIRECT_HINT, MIXTURES, SPLITS, STYLES, hash_bucket, load
from balanced_thinking.data.world.questions import FAMILIES
from balanced_thinking.data.world.scene import HELD_OUT_PAIRS, PLACES, Scene, Tile
from balanced_thinking.data.world.wordings import PARAPHRASES, WORDINGS
from balanced_thinking.models.tokenizer import make_tokenizer
from tests.data.world import solver

EACH = 40  # examples of a family in a split
PER_SPLIT = EACH * len(FAMILIES)
TEXT_STYLES = {"reasoning": "think", "describe": "answer", "remark": "answer"}
BOARD = "large red circle|small red square|-|small blue circle|green 7|-|-|-|large blue triangle"
ODD = "large red circle|small red cross|small blue cross|-|-|-|-|-|-"
PATTERN = "large red circle|question mark|small red cross|large blue circle|small blue square|large blue cross|-|-|-"


@pytest.fixture(scope="module")
def reasoned() -> dict[str, list[Example]]:
    return {split: list(load(split=split, n=PER_SPLIT, ratio=20)) for split in SPLITS}


@pytest.fixture(scope="module")
def direct() -> dict[str, list[Example]]:
    return {split: list(load(split=split, n=PER_SPLIT, seed=1, style="direct")) for split in SPLITS}


def _image(example: Example) -> Image.Image:
    (image,) = example.images
    assert isinstance(image, Image.Image)
    return image


def _scene(key: str) -> Scene:
    return Scene(tuple(_tile(name) for name in key.split("|")))


def _tile(name: str) -> Tile | None:
    if name == "-":
        return None
    if name == "question mark":
        return Tile()
    *size, color, what = name.split()
    return Tile(color, what, size[0]) if size else Tile(color, digit=int(what))


# The picture


@pytest.mark.parametrize("split", SPLITS)
def test_every_tile_is_read_back_from_the_picture(split: str, reasoned: dict[str, list[Example]]) -> None:
    for example in reasoned[split]:
        board = solver.read(_image(example))
        assert "|".join(board[p].name if p in board else "-" for p in PLACES) == example.meta["scene"]


def test_pictures_are_rgb_of_84_pixels_on_each_side() -> None:
    image = _scene(BOARD).render_picture()
    assert (image.mode, image.size) == ("RGB", (84, 84))


# Answers


@pytest.mark.parametrize("style", ["reasoned", "direct"])
@pytest.mark.parametrize("split", SPLITS)
def test_the_solver_agrees_with_every_answer(split: str, style: str, request: pytest.FixtureRequest) -> None:
    solved = Counter[str]()
    for example in request.getfixturevalue(style)[split]:
        assert solver.solve(_image(example), example.question) == example.answer, (example.question, example.meta)
        solved[example.meta["family"]] += 1
    assert solved.keys() == FAMILIES.keys()
    assert min(solved.values()) >= EACH


@pytest.mark.parametrize("split", SPLITS)
def test_choices_are_the_options_that_the_question_lists(split: str) -> None:
    for example in load(split=split, n=100, families=["multiple_choice"], style="direct"):
        options = re.findall(r"\b([A-D]) (\w+)", example.question)
        assert tuple(text for _, text in options) == example.choices
        assert [letter for letter, _ in options] == list("ABCD")
        assert len(set(example.choices)) == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_no_answer_is_right_too_often(family: str) -> None:
    answers = Counter(example.answer for example in load(n=400, families=[family], style="direct"))
    assert max(answers.values()) <= 400 * (0.65 if family == "compare" else 0.40), answers


# Truthfulness


@pytest.mark.parametrize("style", TEXT_STYLES)
@pytest.mark.parametrize("split", SPLITS)
def test_every_sentence_is_true_of_the_picture(split: str, style: str, reasoned: dict[str, list[Example]]) -> None:
    examples = reasoned[split] if style == "reasoning" else load(split=split, n=80, style=style)
    for example in examples:
        text = getattr(example, TEXT_STYLES[style])
        assert not solver.falsehoods(_image(example), text, example.question), (text, example.question, example.meta)


def test_every_skill_is_shown_truthfully() -> None:
    shown = Counter[str]()
    for example in load(n=700, style="skill"):
        board = solver.read(_image(example))
        kind, expected = _expected_skill(board, example.question)
        true = example.answer == expected if expected else not solver.falsehoods(_image(example), example.answer)
        assert true, (example.question, example.answer, example.meta)
        shown[kind] += 1
    assert shown.keys() == {"aside", "sum", "more", "each", "what", "where", "counting"}
    assert min(shown.values()) > 50


@pytest.mark.parametrize("split", SPLITS)
def test_an_account_is_true_sentence_by_sentence(split: str) -> None:
    """Sums, comparisons of numbers and lists need no sentence before them here, so they are judged by themselves."""
    for example in load(split=split, n=80, style="account"):
        board = solver.read(_image(example))
        sentences = example.answer.removesuffix(" .").split(" . ")
        assert len(sentences) > len(PLACES)
        facts = [sentence for sentence in sentences if not _true_by_itself(board, sentence)]
        assert not solver.falsehoods(_image(example), " . ".join(facts) + " ."), example.answer


def _true_by_itself(board: solver.Board, sentence: str) -> bool:
    if sum_ := re.fullmatch(r"(\d) (plus|minus) (\d) is (\d+)", sentence):
        return int(sum_[4]) == int(sum_[1]) + int(sum_[3]) * (1 if sum_[2] == "plus" else -1)
    if more := re.fullmatch(r"(\d) is (not )?more than (\d)", sentence):
        return (more[1] > more[3]) != bool(more[2])
    listed = re.fullmatch(r"\w+ is [a-z]+(?: , \w+ is [a-z]+)*", sentence)
    said = [part.split(" is ") for part in sentence.split(" , ")] if listed else []
    return bool(said) and all(value in (board[place].color, board[place].shape) for place, value in said)


def test_a_quote_repeats_its_words_after_what_is_true() -> None:
    """The words come last; cells that come before them are true."""
    named = 0
    for example in load(n=80, style="quote"):
        words = example.question.removesuffix(" once more ?").removesuffix(" what is there and")
        assert example.answer.endswith(words)
        cells = example.answer.removesuffix(words).strip()
        assert not cells or not solver.falsehoods(_image(example), cells)
        named += bool(cells)
    assert 5 < named < 30


def _expected_skill(board: solver.Board, question: str) -> tuple[str, str]:
    """The kind of a request, and the sentence that meets it where the solver cannot judge it by itself."""
    if aside := re.fullmatch(r"what is (left of|right of|above|below) (\w+) \?", question):
        place = solver._next_to(aside[1], aside[2])
        assert place is not None
        return "aside", f"{aside[1]} it is {place} : {solver._name(board, place)} ."
    if sum_ := re.fullmatch(r"what is (\d) (plus|minus) (\d) \?", question):
        a, b = int(sum_[1]), int(sum_[3])
        return "sum", f"{a} {sum_[2]} {b} is {a + b if sum_[2] == 'plus' else a - b} ."
    if more := re.fullmatch(r"is (\d) more than (\d) \?", question):
        return "more", f"{more[1]} is {'' if more[1] > more[2] else 'not '}more than {more[2]} ."
    if each := re.fullmatch(r"what (color|shape) has each tile \?", question):
        values = ((place, getattr(board[place], each[1])) for place in PLACES if place in board and board[place].shape)
        return "each", " , ".join(f"{place} is {value}" for place, value in values) + " ."
    return question.split()[0], ""


@pytest.mark.parametrize("split", SPLITS)
def test_the_last_sentence_gives_the_answer(split: str, reasoned: dict[str, list[Example]]) -> None:
    for example in reasoned[split]:
        assert example.think is not None
        assert _conclusion(example.think.removesuffix(" .").split(" . ")[-1]) == example.answer, example


def _conclusion(sentence: str) -> str:
    """The answer that the last sentence of a trace states."""
    if more := re.fullmatch(r"\d is (not )?more than \d", sentence):
        return "no" if more[1] else "yes"
    if option := re.fullmatch(r"option ([A-D]) is \w+", sentence):
        return option[1]
    final = re.fullmatch(r"(?:its|so|all|\d+ (?:plus|minus) \d+) .*?(\w+)", sentence)
    return final[1] if final else f"no conclusion: {sentence}"


def test_a_description_names_every_cell_once() -> None:
    for example in load(n=50, style="describe"):
        assert sorted(re.findall(r"(\w+) :", example.answer)) == sorted(PLACES)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (BOARD, "north : small red circle ."),  # the wrong shape
        (BOARD, "north : empty ."),  # not empty
        (BOARD, "north : small red square"),  # no full stop
        (BOARD, "the small red square at north is left of the large red circle at northwest ."),  # the wrong way round
        (BOARD, "the small red circle at north is right of the large red circle at northwest ."),  # no such tile there
        (BOARD, "there is no blue triangle ."),  # there is
        (BOARD, "counting red tiles : northwest makes 1 ."),  # one left out
        (BOARD, "counting circles : northwest makes 1 , north makes 2 ."),  # one wrong, one left out
        (BOARD, "counting circles : northwest makes 1 , west makes 3 ."),  # miscounted
        (BOARD, "there are no small tiles , that makes 0 ."),  # there are
        (BOARD, "there are 2 red tiles , not more than 1 green tiles ."),  # they are more
        (BOARD, "there are 3 circles , more than 1 green tiles ."),  # there are two
        (BOARD, "counting circles : northwest makes 1 , west makes 2 . so there are 3 ."),  # the sum is 2
        (BOARD, "so there are 2 ."),  # nothing was counted
        (BOARD, "counting squares : north makes 1 . there are no crosses , that makes 0 . 1 is not more than 0 ."),
        (BOARD, "north : small red square . its size is large ."),  # small
        (BOARD, "its color is red ."),  # whose
        (BOARD, "the red square is at north . right of it is west : small blue circle ."),  # not its neighbour
        (BOARD, "the green digit is 1 at center ."),  # 7
        (BOARD, "the green digit is 7 at center . the green digit is 7 at center . 7 plus 7 is 15 ."),  # 14
        (BOARD, "northwest : large red circle . its shape is circle . option B is circle ."),  # option A
        (BOARD, "it is a fine board ."),  # no known form
        (ODD, "northwest is red , north is red ."),  # one left out
        (ODD, "northwest is red , north is red , northeast is blue . all are blue but one is red ."),  # swapped
        (PATTERN, "the question mark is at west ."),  # north
        (PATTERN, "each column has one color ."),  # red over blue
        (PATTERN, "so the hidden color is blue ."),  # red
    ],
)
def test_the_solver_notices_a_false_sentence(key: str, text: str) -> None:
    wrong = solver.falsehoods(
        _scene(key).render_picture(), text, "which shape has the tile at northwest ? A circle B cross"
    )
    assert wrong[-1:] == [text.removesuffix(" .").split(" . ")[-1]]


# Splits


def test_no_scene_and_no_picture_of_a_split_occurs_in_another(
    reasoned: dict[str, list[Example]], direct: dict[str, list[Example]]
) -> None:
    examples = {split: reasoned[split] + direct[split] for split in SPLITS}
    keys = {split: {example.meta["scene"] for example in examples[split]} for split in SPLITS}
    pixels = {split: {_digest(example) for example in examples[split]} for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not keys[one] & keys[other], (one, other)
        assert not pixels[one] & pixels[other], (one, other)


def test_no_hash_of_a_scene_is_shared_by_two_splits(reasoned: dict[str, list[Example]]) -> None:
    """Scenes rarely repeat, so a leak of complete ranges of hashes would hardly show as equal scenes."""
    hashed = ("train", "validation", "test", "test_paraphrase")
    buckets = {split: {hash_bucket(_scene(example.meta["scene"])) for example in reasoned[split]} for split in hashed}
    for one, other in combinations(hashed, 2):
        assert not buckets[one] & buckets[other], (one, other)


def _digest(example: Example) -> bytes:
    return hashlib.blake2b(_image(example).tobytes()).digest()


@pytest.mark.parametrize("split", SPLITS)
def test_held_out_pairs_are_seen_in_the_compositional_split_only(
    split: str, reasoned: dict[str, list[Example]]
) -> None:
    for example in reasoned[split]:
        pairs = {(tile.color, tile.shape) for tile in solver.read(_image(example)).values()}
        assert bool(pairs & HELD_OUT_PAIRS) == (split == "test_compositional"), example.meta


@pytest.mark.parametrize("family", ["attribute", "multiple_choice"])
def test_most_questions_of_the_compositional_split_ask_about_a_held_out_pair(family: str) -> None:
    asked = 0
    for example in load(split="test_compositional", n=400, families=[family], style="direct"):
        (place,) = set(PLACES) & set(example.question.split())
        tile = solver.read(_image(example))[place]
        asked += (tile.color, tile.shape) in HELD_OUT_PAIRS
    assert 0.60 < asked / 400 < 0.90


def test_longer_scenes_have_more_objects_than_any_of_training(reasoned: dict[str, list[Example]]) -> None:
    objects: dict[tuple[str, bool], set[int]] = {}
    for split in ("train", "test_longer"):
        for example in reasoned[split]:
            kind = (split, example.meta["family"] == "pattern")
            objects.setdefault(kind, set()).add(sum(cell != "-" for cell in example.meta["scene"].split("|")))
    for is_pattern in (False, True):
        assert min(objects["test_longer", is_pattern]) > max(objects["train", is_pattern])


def test_paraphrases_are_never_read_in_training(reasoned: dict[str, list[Example]]) -> None:
    for split, known, unknown in (("train", WORDINGS, PARAPHRASES), ("test_paraphrase", PARAPHRASES, WORDINGS)):
        for example in reasoned[split]:
            family = example.meta["family"]
            assert any(_fits(wording, example.question) for wording in known[family]), example.question
            assert not any(_fits(wording, example.question) for wording in unknown[family]), example.question


def _fits(wording: str, question: str) -> bool:
    return re.fullmatch(re.sub(r"\\\{\w+\\\}", ".+", re.escape(wording)), question) is not None


@pytest.mark.parametrize("split", ["train", "test_paraphrase"])
def test_every_wording_of_a_split_occurs(split: str, reasoned: dict[str, list[Example]]) -> None:
    wordings = PARAPHRASES if split == "test_paraphrase" else WORDINGS
    for wording in (wording for family in FAMILIES for wording in wordings[family]):
        assert any(_fits(wording, example.question) for example in reasoned[split]), wording


# Knobs


@pytest.mark.parametrize("style", STYLES)
def test_the_same_arguments_give_the_same_examples_and_another_seed_others(style: str) -> None:
    first, again, other = (list(map(_plain, load(n=24, seed=seed, style=style))) for seed in (7, 7, 8))
    assert first == again
    assert not any(one[1:] == two[1:] for one, two in zip(first, other, strict=True))


def _plain(example: Example) -> tuple[Any, ...]:
    return example.id, example.question, example.think, example.answer, example.choices, _image(example).tobytes()


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    assert list(map(_plain, load(n=8))) == list(map(_plain, load(n=24)))[:8]


def test_direct_questions_have_the_hint_and_no_thoughts() -> None:
    for example in load(n=24, style="direct"):
        assert example.question.endswith(f" {DIRECT_HINT}")
        assert example.think is None


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_base_mixture_has_all_its_styles(mixture: str) -> None:
    questions = [example.question for example in load(n=400, style=mixture)]
    hints = {
        "direct": DIRECT_HINT,
        "describe": "describe the picture .",
        "remark": "what more is there ?",
        "account": "what is there ?",
    }
    shares = {style: sum(q.endswith(hint) for q in questions) / 400 for style, hint in hints.items()}
    shares["quote"] = sum(q.endswith("once more ?") for q in questions) / 400
    shares["skill"] = 1 - sum(shares.values())
    assert shares == pytest.approx(dict.fromkeys(shares, 0.0) | MIXTURES[mixture], abs=0.08)


@pytest.mark.parametrize("ratio", [10, 40, 150])
def test_the_ratio_knob_sets_think_tokens_per_answer_token(ratio: int) -> None:
    tokenizer = make_tokenizer(eos_token="<eos>")

    def lengths(texts: Iterator[str]) -> np.ndarray:
        return np.array([len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]])

    examples = list(load(n=320, ratio=ratio))
    think = lengths(f"<think>{example.think}</think>" for example in examples)
    answer = lengths(f"<answer>{example.answer}</answer>" for example in examples) + 1  # the end of the turn
    assert np.mean(think / answer) == pytest.approx(ratio, rel=0.08)


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        ({"split": "dev"}, SPLITS),
        ({"style": "verbose"}, STYLES),
        ({"families": ["count", "colour"]}, FAMILIES),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(arguments: dict[str, Any], known: list[str]) -> None:
    with pytest.raises(ValueError, match=", ".join(known)):
        list(load(n=1, **arguments))


@pytest.mark.parametrize("split", ["train", "test_compositional"])
def test_one_core_makes_a_thousand_images_a_second(split: str) -> None:
    assert max(_images_per_second(n=400, split=split) for _ in range(3)) >= 1000


def _images_per_second(n: int, split: str) -> float:
    start = time.process_time()  # the time of others on a busy machine does not count
    made = sum(len(example.images) for example in load(n=n, split=split))
    return made / (time.process_time() - start)
