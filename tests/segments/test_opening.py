"""What a prompt has opened, and what a text after it means."""

from __future__ import annotations

import pytest

from balanced_thinking.segments import ANSWER, THINK, find_opened, generated_segments, parse, token_segments
from balanced_thinking.segments.formats import get_format
from balanced_thinking.segments.opening import closes_thinking, opens_thinking, split_opening_tag, split_prompt_end

TURN = "<|im_start|>user\nwhich ?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("end", "format", "opened"),
    [
        ("<think>\n", "think-answer", "<think>\n"),  # most reasoning models
        ("<think>", "think-answer", "<think>"),
        ("<think> \n\n", "deepseek-r1", "<think> \n\n"),
        ("", "think-answer", ""),  # nothing
        ("<think>\n\n</think>\n\n", "think-answer", ""),  # opened and closed: a model that shall not think
        ("<think></think>", "deepseek-r1", ""),
        ("</think>\n<think>\n", "think-answer", "<think>\n"),  # opened again
        ("<think>\n", "direct", ""),  # not a tag of this format
        ("<think>\n", "boxed", ""),
        ("<think>\n", "kimi", ""),
        ("◁think▷", "kimi", "◁think▷"),
        ("<reason>", "gthinker", "<reason>"),
        ("<SUMMARY>", "llava-cot", "<SUMMARY>"),  # any stage
        ("<|begin_of_thought|>\n\n", "open-thoughts", "<|begin_of_thought|>\n\n"),
        ("<|channel>thought\n", "gemma-channel", "<|channel>thought\n"),
        ("<|channel>thought\n<channel|>", "gemma-channel", ""),
        ("### Let's think step by step.\n\n", "mulberry", "### Let's think step by step.\n\n"),
        ("<think>\n", "glm-box", "<think>\n"),
        ("◁think▷", "auto", "◁think▷"),  # any built-in format's
        ("<think>\nSo: ", "think-answer", ""),  # words: only where the template is known to have written them
    ],
)
def test_what_the_prompt_opened_is_found_at_its_end(end: str, format: str, opened: str) -> None:
    assert find_opened(TURN + end, format) == opened


def test_words_after_the_tag_belong_to_what_the_template_opened() -> None:
    header = "<|im_end|>\n<|im_start|>assistant\n<think>\nSo: "
    assert find_opened(f"which ?{header}", header=header) == "<think>\nSo: "
    assert find_opened("◁think▷Okay, ", "auto", header="◁think▷Okay, ") == "◁think▷Okay, "
    asked = "Begin with <think>. Which ?<|im_end|>\n<|im_start|>assistant\n"
    assert find_opened(asked, header="<|im_end|>\n<|im_start|>assistant\n") == ""


@pytest.mark.parametrize(
    ("text", "format", "opened", "think", "answer", "problems"),
    [
        ("r</think><answer>B</answer>", "think-answer", "<think>\n", "r", "B", ""),  # well formed
        ("\nr\n</think>\n\n<answer>B</answer>", "think-answer", "<think>", "r", "B", ""),
        ("r</think><answer>B</answer>", "think-answer", "", "r", "B", "missing_open_think"),  # nothing was opened
        ("r", "think-answer", "<think>", "r", None, "unclosed_think no_answer"),  # truncated in thought
        ("", "think-answer", "<think>", None, None, "empty_think unclosed_think no_answer"),
        ("</think><answer>B</answer>", "think-answer", "<think>", None, "B", "empty_think"),
        ("<answer>B</answer>", "think-answer", "<think>",
         "<answer>B</answer>", None, "unclosed_think answer_inside_think no_answer"),  # answers inside the thinking
        ("<think>r</think><answer>B</answer>", "think-answer", "<think>", "<think>r", "B", "nested_tag"),  # twice
        ("r</think>x<answer>B</answer>", "think-answer", "<think>", "r", "B", "text_between"),
        ("r</think><think>s</think><answer>B</answer>", "think-answer", "<think>",
         "r</think><think>s", "B", "multiple_thinks"),
        ("r</think>B", "deepseek-r1", "<think>\n", "r", "B", ""),
        ("r", "deepseek-r1", "<think>\n", "r", None, "unclosed_think no_answer"),
        ("r</think><answer>B</answer>", "auto", "<think>\n", "r", "B", ""),
        ("r</think>B", "auto", "<think>", "r", "B", ""),  # auto sees the tag that was opened
        ("r◁/think▷B", "auto", "◁think▷", "r", "B", ""),
        ("a</SUMMARY><REASONING>r</REASONING><CONCLUSION>B</CONCLUSION>", "llava-cot", "<SUMMARY>", "a\n\nr", "B", ""),
        ("r\n\n### The final answer is: B", "mulberry", "### Rationales:\n", "r", "B", ""),
        ("r<channel|>B", "gemma-channel", "<|channel>thought\n", "r", "B", ""),
        ("r</reason><answer>B</answer>", "gthinker", "<reason>", "r", "B", ""),
        ("B", "direct", "<think>", None, "B", ""),  # a format without the tag is not concerned
        (r"r \boxed{B}", "boxed", "<think>", "r", "B", ""),
    ],
)  # fmt: skip
def test_a_text_is_read_after_what_the_prompt_opened(
    text: str, format: str, opened: str, think: str | None, answer: str | None, problems: str
) -> None:
    found = parse(text, format, opened=opened)
    assert (found.think, found.answer, " ".join(found.problems)) == (think, answer, problems)
    assert (found.text, found.opened) == (text, opened)
    assert "".join(text[span.start : span.end] for span in found.spans) == text


class Letters:
    """A tokenizer with a token for each letter."""

    @staticmethod
    def decode(ids: list[int], **_: object) -> str:
        return "".join(map(chr, ids))


def test_tokens_after_an_opened_prompt_are_thinking_until_it_is_closed() -> None:
    text = "r</think><answer>B</answer>"
    border = text.index("<answer>")
    parsed, segments = generated_segments([*map(ord, text)], Letters(), opened="<think>\n")
    assert segments == [THINK] * border + [ANSWER] * (len(text) - border)
    assert token_segments(parsed, [(i, i + 1) for i in range(len(text))]) == segments
    _, cut = generated_segments([*map(ord, "r <answer>")], Letters(), opened="<think>\n")
    assert set(cut) == {THINK}


def test_a_prompts_end_is_taken_apart() -> None:
    format = get_format("think-answer")
    assert split_prompt_end(f"{TURN}<think>\n", format) == (TURN, "<think>\n", True)
    assert split_prompt_end(f"{TURN}<think>\n\n</think>\n\n", format) == (TURN, "<think>\n\n</think>\n\n", False)
    assert split_prompt_end(TURN, format) == (TURN, "", False)
    assert split_prompt_end("x ◁think▷", format).opened  # another format's
    assert split_opening_tag(" <think>\n\n</think>\n\nB", format) == ("</think>\n\nB", "B")
    assert split_opening_tag("<think>\nr</think>", format) == ("r</think>", None)
    assert split_opening_tag("r", format) is None
    assert closes_thinking("r</think>")
    assert not closes_thinking("<think>")
    assert opens_thinking("</think><think>\n", format)
    assert not opens_thinking("<think></think>", format)
