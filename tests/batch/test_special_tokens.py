"""Special tokens that are written in a row's texts are found, and nothing else is."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.row_check import RowChecker
from balanced_thinking.batch.special_tokens import SpecialTokens
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.segments import get_format

ANSWERED = "<think>It is red.</think><answer>red</answer>"


@pytest.mark.parametrize(
    ("architecture", "text", "token"),
    [
        ("qwen2_5_vl", "What is <|image_pad|>?", "<|image_pad|>"),
        ("qwen2_5_vl", "<|video_pad|>", "<|video_pad|>"),
        ("qwen2_5_vl", "a<|vision_start|>b<|vision_end|>", "<|vision_start|>"),
        ("qwen2_5_vl", "ends here.<|im_end|>\n<|im_start|>user", "<|im_end|>"),
        ("qwen2_5_vl", "<|endoftext|>", "<|endoftext|>"),
        ("qwen2_5_vl", "Is the box of <image> larger?", None),  # not a token of this model
        ("qwen2_5_vl", "<|IM_END|> and <| im_end |>", None),
        ("qwen2_5_vl", "a < b > c <tag>", None),
        ("qwen2_5_vl", ANSWERED, None),
        ("llava_next", "Is the box of <image> larger?", "<image>"),
        ("llava_next", "one</s>two", "</s>"),
        ("llava_next", "<s>", "<s>"),
        ("llava_next", "<pad>", "<pad>"),
        ("gemma3", "<start_of_image>", "<start_of_image>"),
        ("gemma3", "<image_soft_token>", "<image_soft_token>"),
        ("gemma3", "ends<end_of_turn>", "<end_of_turn>"),
        ("gemma3", "<bos>", "<bos>"),
        ("gemma3", "<|im_end|>", None),
        ("qwen2", "<|im_start|>", "<|im_start|>"),
        ("qwen2", "<|image_pad|>", None),  # a text-only model has none
    ],
)
def test_each_model_has_special_tokens_of_its_own(architecture: str, text: str, token: str | None) -> None:
    found = SpecialTokens(build_tiny(architecture)[1]).find_first(text)
    assert (found and found.token) == token
    assert found is None or text[found.start :].startswith(found.token)


def test_placeholders_of_the_processor_and_control_tokens_count_too() -> None:
    processor = copy.deepcopy(build_tiny("qwen2_5_vl")[1])
    processor.fake_image_token, processor.global_image_tag = "<fake_token_around_image>", "<global-img>"
    processor.tokenizer.add_tokens(["<|fim_prefix|>", "<td>", "<|eot_id|>"])  # not marked as special
    texts = ["<fake_token_around_image>", "<global-img>", "<|fim_prefix|>", "<|eot_id|>", "<td>"]
    found = map(SpecialTokens(processor).find_first, texts)
    assert [one and one.token for one in found] == [*texts[:-1], None]


def test_the_longest_token_is_named_and_all_are_found_in_order() -> None:
    tokenizer = copy.deepcopy(build_tiny("qwen2")[1])
    tokenizer.add_tokens(["[X]", "[X][Y]"], special_tokens=True)
    found = SpecialTokens(tokenizer).find_all("a[X][Y]b[X]<|im_end|>")
    assert [(one.token, one.start) for one in found] == [("[X][Y]", 1), ("[X]", 8), ("<|im_end|>", 11)]


@pytest.mark.parametrize(
    ("tags", "format", "text", "token"),
    [
        (["<think>", "</think>"], "think-answer", ANSWERED, None),  # models whose tags are tokens
        (["<think>", "</think>"], "direct", ANSWERED, "<think>"),  # of another format they are not
        (["<|begin_of_box|>", "<|end_of_box|>"], "glm-box", "<think>a</think><|begin_of_box|>B<|end_of_box|>", None),
        (["<|begin_of_box|>"], "think-answer", "<|begin_of_box|>B", "<|begin_of_box|>"),
        (["◁think▷", "◁/think▷"], "kimi", "◁think▷a◁/think▷B", None),
        (["<|channel>", "<channel|>"], "gemma-channel", "<|channel>thought\na\n<channel|>B", None),  # part of a tag
        (["<|channel>"], "gemma-channel", "<|channel>final\nB", "<|channel>"),
        (["<think>", "◁think▷"], "auto", "<think>◁think▷", None),
    ],
)
def test_the_tags_of_the_format_may_be_special_tokens(
    tags: list[str], format: str, text: str, token: str | None
) -> None:
    tokenizer = copy.deepcopy(build_tiny("qwen2")[1])
    tokenizer.add_tokens(tags, special_tokens=True)
    found = SpecialTokens(tokenizer, get_format(format)).find_first(text)
    assert (found and found.token) == token


def row(**changes: Any) -> dict[str, Any]:
    said = [{"role": "assistant", "content": ANSWERED}]
    return {"id": "one", "prompt": [{"role": "user", "content": "which ?"}], "completion": said, **changes}


@pytest.mark.parametrize(
    ("where", "messages"),
    [
        ("user", {"prompt": [{"role": "user", "content": "What is <|im_end|>?"}]}),
        ("system", {"prompt": [{"role": "system", "content": "<|im_end|>"}, {"role": "user", "content": "which ?"}]}),
        (
            "assistant",
            {
                "prompt": [
                    {"role": "user", "content": "which ?"},
                    {"role": "assistant", "content": "red<|im_end|>"},
                    {"role": "user", "content": "sure ?"},
                ]
            },
        ),
        ("user", {"prompt": [{"role": "user", "content": [{"type": "text", "text": "a <|im_end|>"}]}]}),
        ("assistant", {"completion": [{"role": "assistant", "content": ANSWERED.replace("red.", "<|im_end|>.")}]}),
        ("assistant", {"completion": [{"role": "assistant", "content": ANSWERED.replace(">red<", "><|im_end|><")}]}),
    ],
)
@pytest.mark.parametrize("architecture", ["qwen2", "qwen2_5_vl"])
def test_a_row_with_one_is_refused_wherever_it_is(architecture: str, where: str, messages: Any) -> None:
    collator = ScaleCollator(build_tiny(architecture)[1])
    with pytest.raises(RowError, match=rf"sample one: the {where}'s text has the special token '<\|im_end\|>'") as no:
        collator([row(**messages)])
    assert no.value.problem == "special_token"
    (problem,) = RowChecker(collator).check_row(row(**messages)).problems
    assert problem.name == "special_token"
    assert problem.text.startswith(f"<|im_end|> in the {where}'s text")
    if where != "assistant" or "prompt" in messages:  # generation reads no completion
        with pytest.raises(RowError, match="special token"):
            collator.collate_prompts([row(**messages, images=[])])


def test_many_texts_take_microseconds_each() -> None:
    tokenizer = copy.deepcopy(build_tiny("qwen2")[1])
    tokenizer.add_tokens([f"<unused{i}>" for i in range(2000)], special_tokens=True)
    text = "<think>" + "The shape in the middle is red < 3. " * 12 + "</think><answer>red</answer>"
    tokens, start = SpecialTokens(tokenizer, get_format("think-answer")), time.process_time()
    assert not any(tokens.find_first(text) for _ in range(2000))
    assert time.process_time() - start < 1.0  # 0.03 s
