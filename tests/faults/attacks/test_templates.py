"""Chat templates from strangers: each ends with a sentence, in little time and memory, and reaches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from balanced_thinking.models import templates
from balanced_thinking.models.templates import BoundedTemplate, bound_chat_templates
from tests.faults.attacks.attack import watch_attack

bound_chat_templates()
MESSAGES = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "x" * 1_000}]
SPAWN = "cycler.__init__.__globals__.os.popen('touch pwned').read()"
# (what it is, the template)
ATTACKS: list[tuple[str, str]] = [
    # Without an end.
    ("a long range", "{% for i in range(10**9) %}x{% endfor %}"),
    ("loops in loops", "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"),
    ("loops over lists", "{% set l = range(9999)|list %}{% for i in l %}{% for j in l %}{% endfor %}{% endfor %}"),
    ("a loop in itself", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"),
    ("a macro in itself", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
    (
        "a wide one",
        "{% macro m(d) %}{% for _ in range(99 if d else 0) %}{{ m(d - 1) }}{% endfor %}{% endmacro %}{{ m(9) }}",
    ),
    ("a broad loop in itself", "{% for x in range(99) recursive %}{{ loop(range(99)) if loop.depth < 9 }}{% endfor %}"),
    # Texts, lists and numbers of gigabytes.
    (
        "doubling by ~",
        "{% set s = namespace(x='aa') %}{% for i in range(60) %}{% set s.x = s.x ~ s.x %}{% endfor %}{{ s.x }}",
    ),
    (
        "doubling by +",
        "{% set s = namespace(x='aa') %}{% for i in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}{{ s.x }}",
    ),
    ("doubling a list", "{% set s = namespace(x=[1]) %}{% for i in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}"),
    (
        "doubling by a block",
        "{% set s = namespace(x=9) %}{% for i in range(60) %}{% set y %}{{ s.x }}{{ s.x }}{% endset %}"
        "{% set s.x = y %}{% endfor %}",
    ),
    ("a text times a number", "{{ 'a' * 10**11 }}"),
    ("a number times a text", "{{ 10**11 * 'a' }}"),
    ("a list times a number", "{{ ([0] * 10**9)|length }}"),
    ("a power of powers", "{{ 10 ** (10 ** 10) }}"),
    ("a power of a variable", "{% set n = messages|length * 5 %}{{ n ** (n ** (n ** n)) }}"),
    (
        "a product of products",
        "{% set s = namespace(x=9) %}{% for i in range(60) %}{% set s.x = s.x * s.x %}{% endfor %}",
    ),
    ("a width in a format", "{{ '%1000000000d' % 1 }}"),
    ("a width beside a format", "{{ '%*d' % (1000000000, 1) }}"),
    ("a width in str.format", "{{ '{:1000000000}'.format(1) }}"),
    ("the filter format", "{{ '%1000000000d'|format(1) }}"),
    ("center", "{{ 'a'.center(10**10) }}"),
    ("zfill", "{{ 'a'.zfill(10**10) }}"),
    ("the filter center", "{{ 'a'|center(10**10) }}"),
    ("the filter indent", "{{ 'a\n' * 9 | indent(10**10) }}"),
    ("the filter tojson", "{{ [1]|tojson(indent=10**10) }}"),
    ("the filter batch", "{{ [1]|batch(10**10, 0)|list }}"),
    ("the filter join", "{{ range(99999)|join('x' * 99999) }}"),
    ("join", "{{ ('x' * 99999).join(messages[1].content) * 999 }}"),
    ("replace", "{{ ('x' * 99999).replace('x', 'y' * 99999) }}"),
    ("the filter replace", "{{ ('x' * 99999)|replace('x', 'y' * 99999) }}"),
    ("lipsum", "{{ lipsum(n=10**9) }}"),
    ("much of a little", "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}"),
    # What cannot be compiled or rendered.
    ("deep brackets", "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}"),
    ("2 MB", "x" * 2 * 2**20),
    ("no end", "{% for %}"),
    ("a division by zero", "{{ 1 / 0 }}"),
    ("an error of its own", "{{ raise_exception('no') }}"),
    # Out of the sandbox.
    ("classes", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    ("a program", "{{ " + SPAWN + " }}"),
    ("a program by a filter", "{{ (cycler|attr('__init__')|attr('__globals__')).os.popen('touch pwned') }}"),
    ("a program by a format", "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}"),
    ("a file", "{% include '/etc/passwd' %}"),
    ("a module", "{% import 'os' as os %}{{ os }}"),
    ("a list of messages that it changes", "{{ messages.clear() }}"),
    (
        "the counter of steps",
        "{% set count_step = 1 %}{% for i in range(99999) %}{% for j in range(99) %}{% endfor %}{% endfor %}",
    ),
]


@pytest.mark.parametrize("template", [row[1] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_a_hostile_template_is_refused(template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MOST_STEPS", templates.MOST_STEPS // 10)  # the whole takes seconds
    with watch_attack(tmp_path, seconds=10, memory_mib=300), pytest.raises(TemplateError):
        render_jinja_template([list(MESSAGES)], chat_template=template)


# What a usual template does -> the same text as from jinja's own sandbox.
USUAL = [
    "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' + m['content'] }}{% if loop.last %}!{% endif %}{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index0 }}/{{ loop.length }}{{ loop.nextitem }}{% endfor %}",
    "{% macro say(x) %}[{{ x|trim }}]{% endmacro %}{{ say(' a ') }}{{ [1]|join(', ') }}{{ [[1]]|tojson(indent=2) }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n * 2 ** 3 % 5 }}",
    "{{ 'a-b'.replace('-', '+') }}{{ 'x'.join(['a', 'b']) }}{{ '%s' % 1 }}{{ '{:>5}'.format(1) }}{{ '-' * 20 }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content[:3] }}{% break %}{% endfor %}",
    "{%- for m in messages -%}\n  {{- m.role }}\n{% endfor %}{{ 'ab'|indent(2) }}{{ messages|list|length }}",
]


@pytest.mark.parametrize("template", USUAL)
def test_a_usual_template_renders_the_same_text(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from transformers.utils import chat_template_utils

    ours = render_jinja_template([list(MESSAGES)], chat_template=template)
    compiled = chat_template_utils._compile_jinja_template(template)
    assert isinstance(compiled, BoundedTemplate)
    monkeypatch.setattr(chat_template_utils, "ImmutableSandboxedEnvironment", ImmutableSandboxedEnvironment)
    theirs = render_jinja_template([list(MESSAGES)], chat_template=template + "{# #}")  # not from the cache
    assert ours == theirs
