"""Rewards: one table of completions, then what holds for all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balanced_thinking.data.example import Example
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.models.tokenizer import make_tokenizer
from balanced_thinking.segments import THINK, parse
from balanced_thinking.training.rewards import REWARDS, Rollout, check_rewards, make_rewards

# completion, gold, choices -> accuracy, format
CASES = [
    ("<think>two reds</think><answer>B</answer>", "B", (), 1.0, 1.0),  # right and well formed
    ("<think>two reds</think><answer>C</answer>", "B", (), 0.0, 1.0),  # wrong, but well formed
    ("<think>two reds</think><answer>(b)</answer>", "B", (), 1.0, 1.0),  # the letter in brackets
    ("<think>x</think><answer>dog</answer>", "B", ("cat", "dog"), 1.0, 1.0),  # a choice's text for its letter
    ("<think>x</think><answer>cat</answer>", "B", ("cat", "dog"), 0.0, 1.0),  # another choice's text
    ("<think>x</think><answer>0.5</answer>", "1/2", (), 1.0, 1.0),  # numbers by value
    (r"<think>x</think><answer>\frac{3}{4}</answer>", "75%", (), 1.0, 1.0),  # LaTeX and percent
    (r"<think>x</think><answer>-\frac{1}{2}</answer>", "-0.5", (), 1.0, 1.0),  # a sign before it
    (r"<think>x</think><answer>1\frac{1}{2}</answer>", "5.5", (), 0.0, 1.0),  # a mixed number is not 11/2
    (r"<think>x</think><answer>\frac{1}{2}5</answer>", "0.04", (), 0.0, 1.0),  # nor is this 1/25
    ("<think>x</think><answer>12</answer>", "12.0", (), 1.0, 1.0),  # decimals
    ("<think>x</think><answer>13</answer>", "12", (), 0.0, 1.0),  # near is not equal
    ("<think>x</think><answer>__import__('os')</answer>", "1", (), 0.0, 1.0),  # text is never run
    ("<think>x</think><answer>6*7</answer>", "42", (), 0.0, 1.0),  # nor computed
    ("<think>x <answer>B</answer>", "B", (), 0.0, 0.0),  # a draft inside thinking is not an answer
    ("<think>x <answer>A</answer></think><answer>B</answer>", "B", (), 1.0, 1.0),  # the answer outside counts
    ("<answer>B</answer>", "B", (), 1.0, 0.0),  # right without thinking
    ("<think>x</think>B", "B", (), 0.0, 0.0),  # no answer tags
    ("<think>x</think><answer></answer>", "B", (), 0.0, 0.0),  # an empty answer
    ("<think>x</think><answer>A</answer><answer>B</answer>", "B", (), 1.0, 0.0),  # two answers, the last counts
    ("<think>x</think><answer>B</answer> and more", "B", (), 1.0, 0.0),  # text after the answer
    ("", "B", (), 0.0, 0.0),  # nothing
    ("<think>x</think><answer>1", "1", (), 0.0, 0.0),  # cut off: it may have become 12
    ("<think>x</think><answer>B ", "B", (), 0.0, 0.0),  # a space does not end an answer
    ("<think>x</think><answer>B<|im_end|>", "B", (), 1.0, 0.0),  # the turn has ended, so the answer is complete
]


def rollout(text: str, answer: str, choices: tuple[str, ...] = (), think_tokens: int = 10) -> Rollout:
    return Rollout(parse(text), think_tokens, answer, choices, think_budget=20)


@pytest.mark.parametrize(("text", "answer", "choices", "accuracy", "form"), CASES)
def test_rewards_of_the_table(text: str, answer: str, choices: tuple[str, ...], accuracy: float, form: float) -> None:
    case = rollout(text, answer, choices)
    assert (REWARDS["accuracy"](case), REWARDS["format"](case)) == (accuracy, form)
    assert REWARDS["conciseness"](case) == accuracy  # short enough: worth as much as being right


@pytest.mark.parametrize(("tokens", "earned"), [(0, 1.0), (20, 1.0), (25, 0.75), (30, 0.5), (40, 0.0), (400, 0.0)])
def test_conciseness_falls_from_the_budget_to_twice_the_budget(tokens: int, earned: float) -> None:
    right = rollout("<think>x</think><answer>B</answer>", "B", think_tokens=tokens)
    assert REWARDS["conciseness"](right) == pytest.approx(earned)
    assert REWARDS["conciseness"](replace(right, answer="C")) == 0.0


def test_rewards_read_generated_ids_even_where_tags_are_special_tokens() -> None:
    tokenizer = make_tokenizer(["◁think▷", "◁/think▷"], eos_token="<eos>")
    ids = tokenizer("◁think▷counting red tiles◁/think▷4<eos>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "counting red tiles4"
    accuracy, form = make_rewards(["accuracy", "format"], tokenizer, "kimi")
    columns = {"answer": ["4", "5"], "choices": [[], None]}
    assert accuracy(completion_ids=[ids, ids], **columns) == [1.0, 0.0]
    assert form(completion_ids=[ids, ids], **columns) == [1.0, 1.0]
    assert accuracy.__name__ == "accuracy"


def test_a_cut_off_answer_earns_what_evaluation_gives_it() -> None:
    tokenizer = make_tokenizer(eos_token="<eos>")
    rewards = make_rewards(["accuracy", "conciseness"], tokenizer)
    for reward in rewards:
        reward.stops.add(tokenizer.convert_tokens_to_ids("B"))  # a stop of the model's that the tokenizer does not name
    for end, earned in {"": 0.0, "<eos>": 1.0, "B": 1.0, "</answer>": 1.0, "2": 0.0}.items():
        ids = tokenizer(f"<think>x</think><answer>1{end}", add_special_tokens=False)["input_ids"]
        scorer = CompletionScorer(tokenizer, rewards[0].stops)
        assert scorer.score_completion(Example("0", "", (), None, "1"), ids).score == earned, end
        assert [reward(completion_ids=[ids], answer=["1"]) for reward in rewards] == [[earned]] * 2, end


@pytest.mark.parametrize(
    ("answer", "alternatives", "choices", "score"),
    [
        ("7", ["seven", "7.0"], [], 1.0),  # the answer itself
        ("seven", ["7"], [], 1.0),  # an alternative
        ("eight", ["nine", "ten", "7"], [], 1.0),  # the last of several
        ("eight", ["nine"], [], 0.0),  # none of them
        ("eight", [], [], 0.0),
        ("eight", None, [], 0.0),  # a row without the column's value
        ("6", ["14/2"], [], 1.0),  # by the scorer's rule
        ("cat", ["B"], ["6", "7"], 1.0),  # a letter for a choice's text
    ],
)
def test_alternatives_are_as_right_as_the_answer(
    answer: str, alternatives: list[str] | None, choices: list[str], score: float
) -> None:
    """In rewards and in evaluation."""
    tokenizer = make_tokenizer(eos_token="<eos>")
    ids = tokenizer("<think>x</think><answer>7</answer><eos>", add_special_tokens=False)["input_ids"]
    (reward,) = make_rewards(["accuracy"], tokenizer)
    columns = {"answer": [answer], "alternatives": [alternatives], "choices": [choices]}
    assert reward(completion_ids=[ids], **columns) == [score]
    example = Example("0", "", (), None, answer, tuple(choices), alternatives=tuple(alternatives or ()))
    assert CompletionScorer(tokenizer).score_completion(example, ids, "numeric").score == score


def test_think_tokens_are_those_that_were_generated() -> None:
    """A model may spell a word letter by letter; its budget counts the letters."""
    tokenizer = make_tokenizer(eos_token="<eos>")
    spelt = [i for character in "counting" for i in tokenizer(character, add_special_tokens=False)["input_ids"]]
    tags = {tag: tokenizer.convert_tokens_to_ids(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")}
    answer = tokenizer("4", add_special_tokens=False)["input_ids"]
    ids = [tags["<think>"], *spelt, tags["</think>"], tags["<answer>"], *answer, tags["</answer>"]]
    from balanced_thinking.segments import generated_segments

    parsed, segments = generated_segments(ids, tokenizer)
    assert parsed.answer == "4"
    assert segments.count(THINK) == len(spelt) + 2
    assert len(segments) == len(ids)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "empty"),
        ({"accuray": 1.0}, "did you mean 'accuracy'"),
        ({"format": "much"}, "rewards.format"),
        ({"accuracy": 0, "format": 0.0}, r"every weight in rewards is 0 \(accuracy, format\)"),
    ],
)
def test_wrong_rewards_are_refused_by_name(weights: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_rewards(weights)


def test_answers_of_a_script_are_texts_or_numbers() -> None:
    (accuracy,) = make_rewards(["accuracy"], make_tokenizer(eos_token="<eos>"))
    ids = accuracy.encode("<think>x</think><answer>4</answer>")
    assert accuracy(completion_ids=[ids] * 4, answer=[4, 4.0, "4", 5]) == [1.0, 1.0, 1.0, 0.0]
    for answer, written in ((None, "None"), (["4"], r"\['4'\]")):
        with pytest.raises(ValueError, match=f"row r: answer is {written}; expected a text or a number"):
            accuracy(completion_ids=[[1]], answer=[answer], id=["r"])  # also where the completion has no answer


def test_rows_without_an_answer_are_refused() -> None:
    (accuracy,) = make_rewards(["accuracy"], make_tokenizer(eos_token="<eos>"))
    with pytest.raises(ValueError, match="needs a column `answer`"):
        accuracy(completion_ids=[[1]])


@pytest.mark.parametrize(
    ("text", "earned"),
    [
        ("<think>r</think><answer>3</answer>\n<answer>2</answer>", 0.0),
        ("<think>r</think><answer>2</answer>\n<answer>3</answer>", 1.0),
        ("<think>r</think><answer>2</answer> or <think>x</think><answer>5", 1.0),
        ("<think>a</answer> b</think><answer>2</answer>", 1.0),  # a tag in the thinking ends nothing
        ("<think>r</think>text<answer>3</answer><answer>2</answer>", 1.0),  # the first one is not well formed
    ],
)
def test_an_answer_after_the_first_well_formed_one_earns_nothing(text: str, earned: float) -> None:
    """An evaluation stops there, so a policy must not be paid for what follows."""
    tokenizer = make_tokenizer(["<|im_end|>"], eos_token="<|im_end|>", pad_token="<|im_end|>")
    (reward,) = make_rewards(["accuracy"], tokenizer)
    assert reward(completion_ids=[tokenizer(text).input_ids], answer=["2"]) == [earned]


def test_a_draft_in_a_box_earns_nothing_where_the_reasoning_was_cut_off() -> None:
    tokenizer = make_tokenizer(["<|im_end|>"], eos_token="<|im_end|>", pad_token="<|im_end|>")
    (reward,) = make_rewards(["accuracy"], tokenizer, "boxed")
    draft, example = r"Maybe \boxed{2}. But wait, the number of", Example("x", "q", (), None, "2")
    for text, right in ((draft, 0.0), (draft + "<|im_end|>", 1.0), (r"So \boxed{2}.", 1.0), (r"So \boxed{2", 0.0)):
        ids = tokenizer(text).input_ids
        assert reward(completion_ids=[ids], answer=["2"]) == [right]
        assert CompletionScorer(tokenizer, (), "boxed").score_completion(example, ids).correct == bool(right)
