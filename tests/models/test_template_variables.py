"""Variables of a chat template: with their values in it, it writes what it would write if they were given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trl

from balanced_thinking import ScaleSFTConfig
from balanced_thinking.batch.rendering import RowRenderer
from balanced_thinking.cli import main
from balanced_thinking.config.errors import RecipeError
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.models.load import load_processor
from balanced_thinking.models.template_variables import fix_template_variables
from balanced_thinking.models.tiny import build_tiny
from tests.cli.tiny_commands import LEARNING, STEPS, exit_code

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
# Of models that think, or answer at once where `enable_thinking` is false.
HYBRID = ("glm4moe", "nemotron_3_nano", "qwen3", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "qwen3_8")
QUESTION = [{"role": "user", "content": "which color ?"}]
ROW = {"id": "1", "prompt": QUESTION, "completion": [{"role": "assistant", "content": "red"}], "images": []}
GREETS = "{{ '\\n' }}{% for m in messages %}{{ m.content }}{% endfor %}{{ name | default('nobody') }} {{ more }}"


def processor_with(template: str) -> Any:
    tokenizer = build_tiny("qwen2")[1]
    tokenizer.chat_template = template
    return tokenizer


def prompt_of(processor: Any, **given: Any) -> str:
    return str(processor.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True, **given))


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("name", HYBRID)
def test_a_template_writes_what_it_would_write_with_the_variable(name: str, value: bool) -> None:
    processor = processor_with((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"))
    expected = prompt_of(processor, enable_thinking=value)
    fix_template_variables(processor, {"enable_thinking": value})
    assert prompt_of(processor) == expected


@pytest.mark.parametrize("name", HYBRID)
def test_models_that_think_can_be_trained_to_answer_at_once(name: str) -> None:
    text = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    if name != "qwen3_5_nothink":  # it does not think by default
        with pytest.raises(RowError, match=r"chat_template_kwargs: \{enable_thinking: false\}"):
            RowRenderer(processor_with(text), "direct").render_row(ROW)
    fix_template_variables(processor := processor_with(text), {"enable_thinking": False})
    rendered = RowRenderer(processor, "direct").render_row(ROW)
    assert rendered.prompt == prompt_of(processor)
    assert rendered.completion.strip().startswith("red")


@pytest.mark.parametrize(
    "start",
    [
        "",
        "\n",
        "  ",
        "  {% if name %}yes{% endif %}\n",
        "{# first #}\n",
        "{%- set a = 1 %}\n",
        "{% set a = 1 %}\n{% set a = a + 1 %}\n{{ a }}",
    ],
)
def test_values_are_those_of_python_and_the_newest_ones_hold(start: str) -> None:
    processor = processor_with(start + GREETS)
    values = {"name": 'a "quoted" null, 100 %} {{ é😀 \\ \n', "more": [1, 2.5, {"b": True}]}
    expected = prompt_of(processor, **values)
    assert str(values["name"]) in expected
    for again in ({"name": "first"}, values, values, {"more": 2}, {"more": values["more"]}, {"name": values["name"]}):
        fix_template_variables(processor, again)
    assert prompt_of(processor) == expected
    assert processor.chat_template.count("{% set name") == processor.chat_template.count("{% set more") == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nam": "x"}, r"'nam', which is no variable of .* \(did you mean 'name'\?\); it has more, name$"),
        ({"content": "x"}, "is no variable"),
        ({"messages": []}, "is no variable"),
        ({"true": False}, "is no variable"),
        ({1: 2}, "is no variable"),
        ("{}", "expected a mapping"),
        ({"name": None}, "chat_template_kwargs.name is None; expected a text"),
        ({"name": [1, None]}, "expected a text"),
        ({"name": float("nan")}, "expected a text"),
        ({"name": object()}, "expected a text"),
    ],
)
def test_what_cannot_be_a_variable_is_refused(values: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        fix_template_variables(processor_with(GREETS), values)


def test_the_variables_may_be_json() -> None:
    args = ScaleSFTConfig(chat_template_kwargs='{"enable_thinking": false}')
    assert args.chat_template_kwargs == {"enable_thinking": False}


def test_a_run_keeps_the_variables_for_whatever_follows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SFT, and GRPO from the same base."""
    model, tokenizer = build_tiny("qwen2")
    tokenizer.chat_template = (TEMPLATES / "qwen3.jinja").read_text(encoding="utf-8")
    model.save_pretrained(tmp_path / "base"), tokenizer.save_pretrained(tmp_path / "base")
    rows = [{"question": f"which of {n} ?", "answer": "red"} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["sft", "--model", str(tmp_path / "base"), "--data", str(tmp_path / "rows.jsonl")]
    command += [*STEPS, "--reasoning_format", "direct", "--weighting", "uniform"]
    assert exit_code([*command, "--out", str(tmp_path / "refused")]) == 1
    assert "chat_template_kwargs" in capsys.readouterr().err
    assert exit_code([*command, "--chat_template_kwargs.enable_thinkin", "false", "--out", str(tmp_path / "x")]) == 2
    assert "did you mean 'enable_thinking'?" in capsys.readouterr().err
    assert main([*command, "--chat_template_kwargs.enable_thinking", "false", "--out", str(tmp_path / "run")]) == 0
    saved = load_processor(str(tmp_path / "run"))
    assert prompt_of(saved) == prompt_of(tokenizer, enable_thinking=False)
    again = ["grpo", "--model", str(tmp_path / "base"), "--data", str(tmp_path / "rows.jsonl"), *STEPS, *LEARNING]
    again += ["--chat_template_kwargs.enable_thinking", "false", "--out", str(tmp_path / "more")]
    assert main(again) == 0
    assert load_processor(str(tmp_path / "more")).chat_template == saved.chat_template
