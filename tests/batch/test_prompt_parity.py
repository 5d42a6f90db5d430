"""The ids before a completion are those that generation is fed, for every chat template, or the row is refused."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import trl

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.batch.messages import to_prompt_completion
from balanced_thinking.batch.row_check import RowChecker
from balanced_thinking.data.bad_rows import PROBLEMS, RowError
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.segments import parse, render
from tests.conftest import some_now

START = "{% if add_generation_prompt %}<|im_start|>assistant\nOPENS{% endif %}"
HEADS = "{% for m in messages %}{% set c = m.content %}{% if m.role != 'assistant' %}<|im_start|>{{ m.role }}\n{{ c }}"
HEADS += "<|im_end|>\n{% else %}SAYS{% endif %}{% endfor %}"


def chat(says: str = "<|im_start|>assistant\n{{ c }}<|im_end|>\n", opens: str = "") -> str:
    """A template in the manner of ChatML, by what it writes for the assistant and at the end of the prompt."""
    return HEADS.replace("SAYS", says) + START.replace("OPENS", opens)


SPLIT = "{% set parts = c.split('</think>') %}{% set r = parts[0].split('<think>')[-1].strip() %}"
REWRITE = SPLIT + "<|im_start|>assistant\n<think>\n{{ r }}\n</think>\n\n{{ parts[-1].lstrip() }}<|im_end|>\n"
STRIP = "<|im_start|>assistant\n{{ c.split('</think>')[-1] }}<|im_end|>\n"
EMPTY = "<think>\n\n</think>\n\n"
KEYS = "<|im_start|>assistant\n<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{{ c }}<|im_end|>\n"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('No system turn, please') }}{% endif %}"
ALTERNATE = "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
ALTERNATE += "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}"
DEFAULT = "{% if add_generation_prompt %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
THINKS = "<think>it is red .</think><answer>red</answer><|im_end|>\n"

# name: the template, and the completion after the generation prompt (None: the template's problem by name)
OWN: dict[str, tuple[str, str]] = {
    "plain": (chat(), THINKS),
    "opens": (chat(opens="<think>\n"), THINKS.removeprefix("<think>")),
    "opens without a new line": (chat(opens="<think>"), THINKS.removeprefix("<think>")),
    "opens with two new lines": (chat(opens="<think>\n\n"), THINKS.removeprefix("<think>")),
    "opens with words": (chat(opens="<think>\nSo: "), "prompt_mismatch"),
    "empty block": (chat(opens=EMPTY), THINKS),
    "empty block, closed at once": (chat(opens="<think></think>"), THINKS),
    "rewrites": (
        chat(REWRITE),
        "<think>\nit is red .\n</think>\n\n<answer>red</answer><|im_end|>\n",
    ),
    "opens and rewrites": (
        chat(REWRITE, "<think>\n"),
        "it is red .\n</think>\n\n<answer>red</answer><|im_end|>\n",
    ),
    "empty block, and rewrites": (
        chat(REWRITE, EMPTY),
        "<think>\nit is red .\n</think>\n\n<answer>red</answer><|im_end|>\n",
    ),
    "reads the reasoning's key only": (
        chat(KEYS),
        "<think>\nit is red .\n</think>\n\n<answer>red</answer><|im_end|>\n",
    ),
    "opens, and reads the reasoning's key only": (
        chat(KEYS, "<think>\n"),
        "it is red .\n</think>\n\n<answer>red</answer><|im_end|>\n",
    ),
    "strips": (chat(STRIP), "template_changes"),
    "opens and strips": (chat(STRIP, "<think>\n"), "template_changes"),
    "doubles the block": (chat(f"<|im_start|>assistant\n{EMPTY}{{{{ c }}}}<|im_end|>\n"), "template_changes"),
    "doubles the text": (chat("<|im_start|>assistant\n{{ c }}{{ c }}<|im_end|>\n"), "template_changes"),
    "doubles the answer": (
        chat("<|im_start|>assistant\n{{ c }}{{ c.split('</think>')[-1] }}<|im_end|>\n"),
        "template_changes",
    ),
    "cuts": (chat("<|im_start|>assistant\n{{ c[:20] }}<|im_end|>\n"), "template_changes"),
    "cuts the answer's end": (chat("<|im_start|>assistant\n{{ c[:-9] }}<|im_end|>\n"), "template_changes"),
    "in capitals": (chat("<|im_start|>assistant\n{{ c | upper }}<|im_end|>\n"), "template_changes"),
    "other words": (chat("<|im_start|>assistant\n{{ c.replace('it is', 'is it') }}<|im_end|>\n"), "template_changes"),
    "space before the text": (chat("<|im_start|>assistant\n {{ c }}<|im_end|>\n"), " " + THINKS),
    "no new line in the prompt": (
        HEADS.replace("SAYS", "<|im_start|>assistant\n{{ c }}<|im_end|>\n")
        + "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}",
        "\n" + THINKS,
    ),
    "another prompt, and a space before the text": (
        DEFAULT + chat("<|im_start|>assistant\n {{ c }}<|im_end|>\n"),
        " " + THINKS,
    ),
    "more white space in the prompt": (chat(opens="\n "), THINKS),
    "another role in the prompt": (
        HEADS.replace("SAYS", "<|im_start|>model\n{{ c }}<|im_end|>\n") + START.replace("OPENS", ""),
        "prompt_mismatch",
    ),
    "a system text for generation only": (DEFAULT + chat(), THINKS),
    "the user's text trimmed for generation only": (
        chat().replace(
            "{{ c }}<|im_end|>\n{% else", "{{ c | trim if add_generation_prompt else c }}<|im_end|>\n{% else"
        ),
        THINKS,
    ),
    "no system turn": (NO_SYSTEM + chat(), THINKS),
    "roles alternate": (ALTERNATE + chat(), THINKS),
    "no end": (chat("<|im_start|>assistant\n{{ c }}\n"), THINKS.rstrip()),
    "an end in characters": (chat("<|im_start|>assistant\n{{ c }}</turn>\n"), THINKS.rstrip()),
}


def collate(template: str, row: dict[str, Any], format: str = "think-answer", kind: str = "qwen2") -> Any:
    """The collator with this template, and the row's batch; special tokens of the template are tokens."""
    processor = copy.deepcopy(build_tiny(kind)[1])
    tokenizer = getattr(processor, "tokenizer", processor)
    marks = re.findall(
        r"<[|｜][^\s<>'\"{}]*[|｜]?>|<end_of_turn>|<start_of_turn>|<end_of_utterance>|<turn\|>", template
    )
    tokenizer.add_tokens(sorted(set(marks)), special_tokens=True)
    tokenizer.chat_template = processor.chat_template = template
    collator = ScaleCollator(processor, format)
    return collator, collator([row])


def sample(format: str = "think-answer", **changes: Any) -> dict[str, Any]:
    said = [{"role": "assistant", "content": render("it is red .", "red", format)}]
    return {"id": "one", "prompt": [{"role": "user", "content": " which color ? "}], "completion": said, **changes}


def split_ids(batch: Any) -> tuple[list[int], list[int]]:
    supervised = batch["labels"][0] != -100
    return batch["input_ids"][0][~supervised].tolist(), batch["input_ids"][0][supervised].tolist()


@pytest.mark.parametrize("name", OWN)
def test_prompt_ids_of_training_and_generation_are_equal_or_the_row_is_refused(name: str) -> None:
    template, expected = OWN[name]
    if expected in PROBLEMS:
        with pytest.raises(RowError) as refused:
            collate(template, sample())
        assert refused.value.problem == expected
        assert "sample one" in str(refused.value)
        return
    collator, batch = collate(template, sample())
    prompt, completion = split_ids(batch)
    fed = collator.tokenizer.apply_chat_template(
        sample()["prompt"], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert prompt == fed["input_ids"]
    assert prompt == collator.collate_prompts([sample(images=[])])["input_ids"][0].tolist()
    assert collator.tokenizer.decode(completion) == expected
    checked = RowChecker(collator, count_all=True).check_row(sample())
    assert checked == (len(prompt) + len(completion), (), False)


TRL_TEMPLATES = {path.stem: path for path in (Path(trl.__file__).parent / "chat_templates").glob("*.jinja")}
# What the templates of models do that take reasoning apart, drop it, or put it into a channel of their own.
REFUSED = {"deepseek_r1_distill", "deepseekv3", "gptoss", "muse_glimmer", "llama3"}


@pytest.mark.parametrize(
    ("name", "format"),
    some_now(
        lambda name, format: format == "think-answer" or "think" in TRL_TEMPLATES[name].read_text(encoding="utf-8"),
        sorted(name for name in TRL_TEMPLATES if not name.endswith("_training")),
        ["think-answer", "deepseek-r1"],
    ),
)
def test_templates_of_real_models_give_the_prompt_ids_of_generation(name: str, format: str) -> None:
    template = TRL_TEMPLATES[name].read_text(encoding="utf-8")
    kind = "qwen2_5_vl" if "image" in template else "qwen2"
    row = sample(format, prompt=[{"role": "user", "content": "which color ?"}])
    if name in REFUSED:
        with pytest.raises(RowError) as refused:
            collate(template, row, format, kind)
        assert refused.value.problem in ("template_changes", "template_refuses")
        return
    collator, batch = collate(template, row, format, kind)
    prompt, _ = split_ids(batch)
    content = "which color ?" if kind == "qwen2" else [{"type": "text", "text": "which color ?"}]
    talk = [[{"role": "user", "content": content}]]
    fed = collator.processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert prompt == list(fed["input_ids"][0])
    rendered = collator.renderer.render_row(to_prompt_completion(row))
    said = parse(rendered.completion.partition(rendered.end)[0], format, opened=rendered.opened)
    assert (said.think, parse(said.answer, "direct").answer, said.problems) == ("it is red .", "red", ())


@pytest.mark.parametrize(
    ("template", "roles", "words"),
    [
        (NO_SYSTEM + chat(), ("system", "user"), "No system turn, please"),
        (ALTERNATE + chat(), ("user", "user"), "Roles must alternate"),
        (ALTERNATE + chat(), ("system", "user"), "Roles must alternate"),
        ("{{ messages[0].content.nothing.there }}", ("user",), "no attribute 'nothing'"),
    ],
)
def test_a_template_that_raises_is_quoted(template: str, roles: tuple[str, ...], words: str) -> None:
    prompt = [{"role": role, "content": "which color ?"} for role in roles]
    with pytest.raises(RowError, match=words) as refused:
        collate(template, sample(prompt=prompt))
    assert refused.value.problem == "template_refuses"


def test_a_template_without_a_generation_prompt_is_refused() -> None:
    says = HEADS.replace("SAYS", "<|im_start|>assistant\n{{ c }}<|im_end|>\n")
    with pytest.raises(
        RowError, match=r"writes '<\|im_start\|>assistant' before the text, but not at the end of its gen"
    ):
        collate(says, sample())


def test_a_template_that_forgets_the_system_text_is_refused() -> None:
    forgets = chat().replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "which color ?"}]
    with pytest.raises(RowError, match=r"leaves out text of the system \('Be brief.'\)") as refused:
        collate(forgets, sample(prompt=prompt))
    assert refused.value.problem == "template_changes"
    assert collate(chat(), sample(prompt=prompt))


def test_a_template_that_moves_a_picture_is_refused() -> None:
    def parts(*order: str) -> dict[str, Any]:
        content = [{"type": "image"} if one == "image" else {"type": "text", "text": one} for one in order]
        return sample(prompt=[{"role": "user", "content": content}], images=[object()])

    moves = (Path(trl.__file__).parent / "chat_templates" / "llava_next.jinja").read_text(encoding="utf-8")
    for kind, template, order, refused in (
        ("llava_next", moves, ("Is", "image", "red ?"), True),
        ("llava_next", moves, ("image", "Is it red ?"), False),
        ("qwen2_5_vl", TRL_TEMPLATES["qwen2_5_vl"].read_text(encoding="utf-8"), ("Is", "image", "red ?"), False),
    ):
        processor = copy.deepcopy(build_tiny(kind)[1])
        processor.chat_template = template
        collator = ScaleCollator(processor)
        if refused:
            with pytest.raises(RowError, match="moves the picture before"):
                collator.renderer.render_row(parts(*order))
        else:
            assert "<|image_pad|>" in collator.renderer.render_row(parts(*order)).prompt or kind != "qwen2_5_vl"


def test_a_part_of_the_reasoning_that_a_template_loses_is_a_loss() -> None:
    said = [{"role": "assistant", "content": render("The tag </think> ends it, so red.", "red")}]
    with pytest.raises(RowError) as refused:
        collate(chat(REWRITE), sample(completion=said))
    assert refused.value.problem == "template_changes"


@pytest.mark.parametrize(
    ("format", "content", "opens", "problem"),
    [
        ("think-answer", "<answer>red</answer>", "<think>\n", "prompt_mismatch"),  # no reasoning after an open tag
        ("direct", "red", "<think>\n", "prompt_mismatch"),  # never closed
        ("boxed", r"It is red. \boxed{red}", "<think>\n", "prompt_mismatch"),
        ("boxed", r"It is red.</think> \boxed{red}", "<think>\n", None),
        ("direct", "red", EMPTY, None),
        ("kimi", "◁think▷It is red.◁/think▷red", "◁think▷", None),
        ("gthinker", "<reason>It is red.</reason>\n<answer>red</answer>", "<reason>\n", None),
        ("auto", "<think>It is red.</think><answer>red</answer>", "<think>\n", None),
        ("llava-cot", render("It is red.", "red", "llava-cot"), "<REASONING>", None),
        ("glm-box", render("It is red.", "red", "glm-box"), "<think>", None),
        ("gemma-channel", render("It is red.", "red", "gemma-channel"), "<|channel>thought\n", None),
    ],
)
def test_what_the_prompt_opened_counts_in_every_format(format: str, content: str, opens: str, problem: str) -> None:
    row = sample(completion=[{"role": "assistant", "content": content}])
    if problem is not None:
        with pytest.raises(RowError) as refused:
            collate(chat(opens=opens), row, format)
        assert refused.value.problem == problem
        return
    collator, _ = collate(chat(opens=opens), row, format)
    rendered = collator.renderer.render_row(to_prompt_completion(row))
    before, after = parse(content, format), parse(rendered.completion, format, opened=rendered.opened)
    assert (before.think, before.answer, before.problems) == (after.think, after.answer, after.problems)


def test_a_plain_prompt_that_ends_with_the_tag_has_opened_the_thinking() -> None:
    collator = ScaleCollator(build_tiny("qwen2")[1])
    row = {"id": "one", "prompt": "which color ? <think>\n", "completion": "red .</think><answer>red</answer>"}
    rendered = collator.renderer.render_row({**row, "images": []})
    assert rendered.opened == "<think>\n"
    assert parse(rendered.completion, opened=rendered.opened).problems == ()
    assert RowChecker(collator, count_all=True).check_row(row).tokens > 3


def test_a_template_that_prints_the_time_gives_the_prompt_of_now() -> None:
    clock = "<|im_start|>system\n{{ strftime_now('%f') }}<|im_end|>\n"
    collator, batch = collate(clock + chat(), sample())
    _, completion = split_ids(batch)
    assert collator.tokenizer.decode(completion) == THINKS


def test_reasoning_after_an_opened_prompt_is_trimmed_and_keeps_its_answer() -> None:
    long = " ".join(f"sentence number {i} says what is seen ." for i in range(30))
    said = [{"role": "assistant", "content": render(long, "red")}]
    processor = copy.deepcopy(build_tiny("qwen2")[1])
    processor.chat_template = chat(opens="<think>\n")
    collator = ScaleCollator(processor, max_length=90, overflow="trim_think")
    batch = collator([sample(completion=said)])
    assert batch["input_ids"].shape[1] <= 90
    text = collator.tokenizer.decode(split_ids(batch)[1])
    assert text.startswith("sentence number 0")
    assert text.endswith("</think><answer>red</answer><|im_end|>\n")
