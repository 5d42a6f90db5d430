"""The token that ends a turn is one that generation stops at, whatever template, tokenizer and model say."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GenerationConfig

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.turn_end import add_stop_token, find_turn_end, stop_token_ids
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.models.tiny import build_tiny

SAYS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}END{% endfor %}"
SAYS += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

SAID = "<think>a b</think><answer>red</answer>"


def tokenizer_with(end: str, *tokens: str, special: bool = True, eos: str | None = "<|im_end|>") -> Any:
    tokenizer = copy.deepcopy(build_tiny("qwen2")[1])
    tokenizer.add_tokens(list(tokens), special_tokens=special)
    tokenizer.chat_template = SAYS.replace("END", end)
    tokenizer.eos_token = eos
    return tokenizer


# what the template writes after a turn, tokens of the tokenizer, its eos_token, those of generation_config
#   -> the end of the completion, the token that ends it, whether it has to be added to the stops
CASES = {
    "all agree": ("<|im_end|>\n", (), "<|im_end|>", ("<|im_end|>",), "<|im_end|>\n", "<|im_end|>", False),
    "qwen's base": ("<|im_end|>\n", (), "<|endoftext|>", ("<|endoftext|>",), "<|im_end|>\n", "<|im_end|>", True),
    "config alone": ("<|im_end|>\n", (), "<|endoftext|>", ("<|im_end|>",), "<|im_end|>\n", "<|im_end|>", False),
    "tokenizer alone": ("<|im_end|>", (), "<|im_end|>", ("<|endoftext|>",), "<|im_end|>", "<|im_end|>", False),
    "no config": ("<|im_end|>", (), "<|im_end|>", (), "<|im_end|>", "<|im_end|>", False),
    "gemma": ("<end_of_turn>\n", ("<end_of_turn>",), "<|endoftext|>", ("<|endoftext|>", "<end_of_turn>"),
              "<end_of_turn>\n", "<end_of_turn>", False),
    "gemma's base": ("<end_of_turn>\n", ("<end_of_turn>",), "<|endoftext|>", ("<|endoftext|>",),
                     "<end_of_turn>\n", "<end_of_turn>", True),
    "two tokens": ("<|end|>\n<|im_end|>", ("<|end|>",), "<|im_end|>", ("<|im_end|>",), "<|end|>\n<|im_end|>",
                   "<|end|>", True),
    "the next turn's start in words": ("<|im_end|>\n<|im_start|>assistant\n", (), "<|im_end|>", ("<|im_end|>",),
                                       "<|im_end|>", "<|im_end|>", False),
    "the next turn's start": ("<|user|>", ("<|user|>",), "<|im_end|>", ("<|im_end|>", "<|user|>"), "<|user|>",
                              "<|user|>", False),
    "none (LLaVA-1.5)": (" ", (), "<|im_end|>", ("<|im_end|>",), "<|im_end|>", "<|im_end|>", False),
    "none, none in the config": ("", (), "<|im_end|>", (), "<|im_end|>", "<|im_end|>", False),
    "characters": ("</turn>\n", (), "<|im_end|>", ("<|im_end|>",), "<|im_end|>", "<|im_end|>", False),
    "ChatML on a tokenizer without it": ("<|done|>\n", (), "<|im_end|>", (), "<|im_end|>", "<|im_end|>", False),
    "characters, then the token": (" .<|im_end|>", (), "<|im_end|>", (), "<|im_end|>", "<|im_end|>", False),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_end_that_is_trained_is_one_that_generation_stops_at(name: str) -> None:
    written, tokens, eos, config, ends, token, added = CASES[name]
    tokenizer = tokenizer_with(written, *tokens, eos=eos)
    ids = tokenizer.convert_tokens_to_ids
    model = SimpleNamespace(generation_config=GenerationConfig(eos_token_id=[ids(one) for one in config] or None))
    completion = [{"role": "assistant", "content": "<think>a b</think><answer>red</answer>"}]
    row = {"id": "one", "prompt": [{"role": "user", "content": "which ?"}], "completion": completion}
    batch = ScaleCollator(tokenizer)([row])
    said = tokenizer.decode(batch["input_ids"][0][batch["labels"][0] != -100])
    assert said.partition("</answer>")[2] == ends
    end = find_turn_end(tokenizer)
    assert end is not None
    assert (end.token, end.id) == (token, ids(token))
    found = add_stop_token(model, tokenizer)
    assert (found is not None) == added
    assert ids(token) in stop_token_ids(model.generation_config, tokenizer)
    assert {ids(one) for one in config} <= {*stop_token_ids(model.generation_config, tokenizer)}
    assert add_stop_token(model, tokenizer) is None  # once is enough


def test_a_control_token_counts_although_it_is_not_marked_as_special() -> None:
    tokenizer = tokenizer_with("<|eot_id|>", "<|eot_id|>", special=False)
    end = find_turn_end(tokenizer)
    assert end is not None
    assert end.token == "<|eot_id|>"
    plain = find_turn_end(tokenizer_with("<pause>", "<pause>", special=False))
    assert plain is not None
    assert (plain.token, plain.appended) == ("<|im_end|>", True)


def test_a_turn_without_any_end_is_refused() -> None:
    tokenizer = tokenizer_with("\n", eos=None)
    completion = [{"role": "assistant", "content": "<think>a b</think><answer>red</answer>"}]
    row = {"id": "one", "prompt": [{"role": "user", "content": "which ?"}], "completion": completion}
    with pytest.raises(RowError, match=r"sample one: .*would not learn to stop") as refused:
        ScaleCollator(tokenizer)([row])
    assert refused.value.problem == "no_end_token"


@pytest.mark.parametrize(
    ("completion", "ends"),
    [
        (SAID, "<|im_end|>"),
        (f"{SAID}<|im_end|>", "<|im_end|>"),
        (f"{SAID}<|im_end|>\n", "<|im_end|>\n"),
        (f"{SAID}<|im_end|> ", "<|im_end|> "),
        (f"{SAID}<|endoftext|>", "<|endoftext|><|im_end|>"),  # another model's end
        (f"{SAID}\n", "\n<|im_end|>"),
        (f"{SAID}<|im_start|>", "<|im_start|><|im_end|>"),  # a special token that ends nothing
    ],
)
def test_a_completion_of_plain_text_ends_once(completion: str, ends: str) -> None:
    collator = ScaleCollator(tokenizer_with(""))
    batch = collator([{"id": "one", "prompt": "which ?", "completion": completion}])
    said = collator.tokenizer.decode(batch["input_ids"][0][batch["labels"][0] != -100])
    assert said == SAID + ends


@pytest.mark.parametrize("completion", [SAID.replace(" b", "<|im_end|>"), f"<|im_end|>{SAID}", f"{SAID}<|im_end|>" * 2])
def test_a_completion_of_plain_text_has_no_end_before_its_end(completion: str) -> None:
    with pytest.raises(RowError, match=r"sample one: the completion's text has the special token '<\|im_end\|>'"):
        ScaleCollator(tokenizer_with(""))([{"id": "one", "prompt": "which ?", "completion": completion}])


def test_a_tokenizer_without_any_token_for_padding_is_refused() -> None:
    tokenizer = tokenizer_with("<|im_end|>\n", eos=None)
    assert ScaleCollator(tokenizer).tokenizer.pad_token == "<|endoftext|>"
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="neither a pad_token nor an eos_token"):
        ScaleCollator(tokenizer)


def test_nothing_is_known_without_a_template_or_for_one_that_refuses() -> None:
    tokenizer = tokenizer_with("")
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert find_turn_end(tokenizer) is None
    tokenizer.chat_template = None
    assert find_turn_end(tokenizer) is None
    assert add_stop_token(SimpleNamespace(), tokenizer) is None
