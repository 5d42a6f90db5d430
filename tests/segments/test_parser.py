"""The parser's case table: every format and every problem, one comment a row."""

from __future__ import annotations

import subprocess
import sys

import pytest

from balanced_thinking.segments import ANSWER, FORMATS, PROBLEMS, THINK, get_format, parse, recognise_format, render

NO_ANSWER = {"no_answer", "empty_answer"}

# format -> rows of text, think, answer, problems
CASES: dict[str, list[tuple[str, str | None, str | None, str]]] = {
    "think-answer": [
        ("<think>r</think><answer>B</answer>", "r", "B", ""),  # the plain form
        ("<think>\n r \n</think>\n\n<answer>\nB\n</answer>\n", "r", "B", ""),  # white space everywhere
        ("<think> r </think><answer> Final Answer:C </answer>", "r", "Final Answer:C", ""),  # Vision-R1
        ("<think>r</think><answer>(A). text</answer>", "r", "(A). text", ""),  # option with its text
        ("<think>r</think>\r\n<answer>B</answer>\r\n", "r", "B", ""),  # CRLF
        ("<think>r</think><answer>B</answer><|im_end|>", "r", "B", ""),  # Qwen's end of turn
        ("<think>r</think><answer>B</answer></s>\n<|endoftext|>", "r", "B", ""),  # two end tokens
        ("<think>a <b>c</b> < d > e</think><answer>x<y</answer>", "a <b>c</b> < d > e", "x<y", ""),  # HTML
        ("<think>思考 🤔</think><answer>四 ✅</answer>", "思考 🤔", "四 ✅", ""),  # CJK and emoji
        ("<think>so <answer>A</answer>? no</think><answer>B</answer>", "so <answer>A</answer>? no", "B", ""),  # draft
        ("<think>use <answer> tags</think><answer>B</answer>", "use <answer> tags", "B", ""),  # a tag named
        ("", None, None, "no_think no_answer"),  # nothing
        (" \n\t", None, None, "no_think no_answer"),  # white space only
        ("B", None, None, "no_think no_answer"),  # lost its tags
        ("<answer>B</answer>", None, "B", "no_think"),  # answer alone
        ("r <answer>B</answer>", None, "B", "no_think"),  # untagged reasoning
        ("<think>r</think>", "r", None, "no_answer"),  # stops after thinking
        ("<think>r</think> B", "r", None, "no_answer"),  # an answer without its tags
        ("<think>r", "r", None, "unclosed_think no_answer"),  # truncated in thought
        ("<think>", None, None, "empty_think unclosed_think no_answer"),  # truncated at once
        ("<think>r</think><answer>B", "r", "B", "unclosed_answer"),  # truncated in the answer
        ("<think>r</think><answer>B<|im_end|>", "r", "B", "unclosed_answer"),  # the end token is not an answer
        ("<think>r</think><answer>B</s></answer>", "r", "B</s>", ""),  # inside its tags it is
        ("<think>r</think><answer>", "r", None, "empty_answer unclosed_answer"),  # truncated at its tag
        ("<think>r</think><answer> </answer>", "r", None, "empty_answer"),  # blank answer
        ("<think> </think><answer>B</answer>", None, "B", "empty_think"),  # blank thinking
        ("<think>r <answer>B</answer></think>",
         "r <answer>B</answer>", None, "answer_inside_think no_answer"),  # only a draft
        ("<think>r <answer>B</answer>",
         "r <answer>B</answer>", None, "unclosed_think answer_inside_think no_answer"),  # unclosed: runs to the end
        ("r</think><answer>B</answer>", "r", "B", "missing_open_think"),  # closing tag only
        ("r <answer>A</answer></think><answer>B</answer>",
         "r <answer>A</answer>", "B", "missing_open_think"),  # with a draft
        ("r <answer>A</answer></think>",
         "r <answer>A</answer>", None, "missing_open_think answer_inside_think no_answer"),  # closing only, draft only
        ("r <answer> tags</think><answer>B</answer>", "r <answer> tags", "B", "missing_open_think"),  # half a draft
        ("Sure! <think>r</think><answer>B</answer>", "r", "B", "text_before_think"),  # chatter first
        ("<think>r</think>So: <answer>B</answer>", "r", "B", "text_between"),  # chatter between
        ("<think>r</think><answer>B</answer> Bye", "r", "B", "text_after_answer"),  # chatter last
        ("<think>r</think><answer>B</answer><|im_end|>x", "r", "B", "text_after_answer"),  # ran past its end
        ("<think>r</think><answer>A</answer><answer>B</answer>", "r", "B", "multiple_answers"),  # the last counts
        ("<think>r</think><answer>A</answer> or <answer>B</answer>", "r", "B", "multiple_answers"),  # with text
        ("<think>r</think><answer>A <answer>B</answer>", "r", "B", "nested_tag text_between"),  # reopened answer
        ("<think>a <think>b</think><answer>B</answer>", "a <think>b", "B", "nested_tag"),  # reopened thinking
        ("<think>a<think>b</think>c</think><answer>B</answer>",
         "a<think>b</think>c", "B", "nested_tag"),  # true nesting
        ("<think>a</think><think>b</think><answer>B</answer>",
         "a</think><think>b", "B", "multiple_thinks"),  # two blocks
        ("<think>a</think><answer>A</answer><think>b</think><answer>B</answer>",
         "a</think><answer>A</answer><think>b", "B", "multiple_thinks multiple_answers"),  # thought again
        ("<think>a</think><answer>B</answer><think>b</think>",
         "a", "B", "multiple_thinks text_after_answer"),  # thought after all
        ("<think>a</think><answer>B</answer><think>b",
         "a", "B", "unclosed_think multiple_thinks text_after_answer"),  # and never stopped
        ("<answer>B</answer><think>r</think>", None, "B", "no_think text_after_answer"),  # wrong order
        ("<think>r</think><answer>B</think></answer>", "r", "B</think>", "nested_tag"),  # stray close in the answer
        ("<think>r</think><answer>B</answer></think>", "r", "B", "nested_tag text_after_answer"),  # stray close behind
        ("<THINK>r</THINK><answer>B</answer>", None, "B", "no_think"),  # tags are case-sensitive
    ],
    "deepseek-r1": [
        ("<think>\nr\n</think>\n\nIt is B.", "r", "It is B.", ""),  # as generated
        ("r\n</think>\n\nIt is B.", "r", "It is B.", ""),  # the template opened the thinking
        ("<think>r</think>It is \\boxed{B}.<｜end▁of▁sentence｜>", "r", "It is \\boxed{B}.", ""),  # a box is content
        ("<think>\n\n</think>\n\nB", None, "B", "empty_think"),  # Qwen3 with thinking off
        ("still thinking", "still thinking", None, "unclosed_think no_answer"),  # opened by the template, cut
        ("<think>r</think>", "r", None, "empty_answer"),  # nothing follows
        ("<think>r</think><|im_end|>", "r", None, "empty_answer"),  # only the end of turn follows
        ("<think>a</think>A<think>b</think>B", "a</think>A<think>b", "B", "multiple_thinks"),  # the last counts
        ("<think>a</think>A<think>b",
         "a</think>A<think>b", None, "unclosed_think multiple_thinks no_answer"),  # cut in a second thought
    ],
    "kimi": [
        ("◁think▷r◁/think▷B", "r", "B", ""),  # as generated
        ("B", None, "B", "no_think"),  # the model opens its thinking itself: this one did not
        ("◁think▷r", "r", None, "unclosed_think no_answer"),  # truncated
        ("r◁/think▷B[EOS]", "r", "B", "missing_open_think"),  # opening tag lost
    ],
    "gemma-channel": [
        ("<|channel>thought\nr\n<channel|>B<turn|>", "r", "B", ""),  # Gemma 4
        ("<|channel>thought\n<channel|>B", None, "B", "empty_think"),  # thinking switched off
    ],
    "llava-cot": [
        ("<SUMMARY> s </SUMMARY>\n\n<CAPTION> c </CAPTION>\n\n<REASONING> r </REASONING>\n\n"
         "<CONCLUSION> B </CONCLUSION>",
         "s\n\nc\n\nr", "B", ""),  # all stages
        ("<REASONING> r </REASONING><CONCLUSION> B </CONCLUSION>", "r", "B", ""),  # one stage
        ("<SUMMARY> s <CAPTION> c </CAPTION><CONCLUSION>B</CONCLUSION>",
         "s\n\nc", "B", "nested_tag"),  # a stage not closed
        ("<SUMMARY></SUMMARY><CAPTION></CAPTION><CONCLUSION>B</CONCLUSION>", None, "B", "empty_think"),  # empty stages
        ("<SUMMARY>s</SUMMARY><CAPTION>c", "s\n\nc", None, "unclosed_think no_answer"),  # truncated
    ],
    "mulberry": [
        ("### Image Description:\nd\n\n### Rationales:\nq\n\n### Let's think step by step.\n\n"
         "### Step 1:\nr\n\n### The final answer is: B",
         "d\n\nq\n\n### Step 1:\nr", "B", ""),  # all sections
        ("r ### The final answer is: A\nno, ### The final answer is: B</s>",
         "r ### The final answer is: A\nno,", "B", ""),  # reflection
        ("Hi ### Rationales: q ### The final answer is: B", "q", "B", "text_before_think"),  # chatter first
        ("### The final answer is: B", None, "B", "no_think"),  # answer alone
        ("### Rationales: q", "q", None, "no_answer"),  # truncated
        ("r ### The final answer is:", "r", None, "empty_answer"),  # truncated at the heading
    ],
    "boxed": [
        ("so $\\boxed{\\frac{1}{2}}$.", "so", "\\frac{1}{2}", ""),  # nested braces, mathematics around
        ("so\n$$\\boxed{B}$$", "so", "B", ""),
        ("so \\[ \\boxed{B} \\]", "so", "B", ""),
        ("so **\\boxed{B}**", "so", "B", ""),
        ("so $x=2$\n\n\\boxed{2}", "so $x=2$", "2", ""),  # mathematics that ends before the box
        ("$$x=2$$\n\n\\boxed{2}", "$$x=2$$", "2", ""),
        ("It costs 5$\n\\boxed{5}", "It costs 5$", "5", ""),
        ("It is **two**\n\\boxed{2}", "It is **two**", "2", ""),
        ("\\boxed{A} no: \\boxed{B}", "\\boxed{A} no:", "B", ""),  # the last counts, the first is a draft
        ("\\boxed{B}", None, "B", ""),  # thinking is not required
        ("r \\boxed{\\{1, 2\\}}", "r", "\\{1, 2\\}", ""),  # escaped braces don't count
        ("r { } } \\boxed{B}", "r { } }", "B", ""),  # stray braces before
        ("r \\boxed{a{b}", "r", "a{b}", "unclosed_answer"),  # never balanced
        ("r \\boxed{}", "r", None, "empty_answer"),  # empty box
        ("r \\boxed{B} is it", "r", "B", "text_after_answer"),  # words after the box
        ("r \\boxed{\\boxed{B}}", "r \\boxed{", "B", "nested_tag"),  # box in a box
        ("r", "r", None, "no_answer"),  # no box
    ],
    "glm-box": [
        ("<think>r</think><answer>It is <|begin_of_box|>B<|end_of_box|>.</answer>", "r", "B", ""),  # GLM-4.1V
        ("<think>r</think>So <|begin_of_box|>B<|end_of_box|><|user|>", "r", "B", ""),  # GLM-4.5V
        ("r</think><|begin_of_box|>B<|end_of_box|>", "r", "B", ""),  # opened by the template
        ("<think>r</think><answer>B</answer>", "r", None, "no_answer"),  # no box
        ("<think>r</think><|begin_of_box|>A<|end_of_box|> <|begin_of_box|>B<|end_of_box|>",
         "r", "B", "multiple_answers"),  # two boxes
        ("<think>r <|begin_of_box|>A<|end_of_box|></think>",
         "r <|begin_of_box|>A<|end_of_box|>", None, "answer_inside_think no_answer"),  # draft only
    ],
    "open-thoughts": [
        ("<|begin_of_thought|>\n\nr\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nB\n\n<|end_of_solution|><|im_end|>",
         "r", "B", ""),  # as published
        ("<|begin_of_thought|>r<|end_of_thought|>So <|begin_of_solution|>B<|end_of_solution|>",
         "r", "B", "text_between"),  # words between the two
        ("<|begin_of_thought|>r<|end_of_thought|>", "r", None, "no_answer"),  # cut off
        ("<|begin_of_solution|>\\boxed{B}<|end_of_solution|>", None, "\\boxed{B}", "no_think"),  # a box is content
    ],
    "gthinker": [
        ("<reason>r <vcues_1>v</vcues_1></reason><answer>B</answer>",
         "r <vcues_1>v</vcues_1>", "B", ""),  # cues are content
        ("<reason>r", "r", None, "unclosed_think no_answer"),  # truncated
    ],
    "direct": [
        (" The cat.<end_of_turn>\n", None, "The cat.", ""),  # all is answer
        ("<think>r</think>B", None, "<think>r</think>B", ""),  # tags mean nothing
        (" <eos>", None, None, "empty_answer"),  # only an end of turn
    ],
}  # fmt: skip


ROWS = [(fmt, *row) for fmt, rows in CASES.items() for row in rows]


@pytest.mark.parametrize(("fmt", "text", "think", "answer", "problems"), ROWS)
def test_case_table(fmt: str, text: str, think: str | None, answer: str | None, problems: str) -> None:
    parsed = parse(text, fmt)
    assert (parsed.think, parsed.answer, parsed.problems) == (think, answer, tuple(problems.split()))
    assert parsed.format == fmt
    assert parsed.well_formed == (problems == "")


def test_case_table_covers_every_format_and_every_problem() -> None:
    assert set(CASES) | {"auto"} == set(FORMATS)
    assert {name for row in ROWS for name in row[4].split()} == set(PROBLEMS)


# text, format; "¦" marks where thinking ends and the answer begins
BORDERS = [
    ("<think>r</think>¦<answer>B</answer>", "think-answer"),  # tags go with what they delimit
    ("<think>r</think>¦ \n<answer>B</answer>\n<|im_end|>", "think-answer"),  # white space follows, the end is answer
    ("Hi <think>r</think>¦<answer>B</answer> bye", "think-answer"),  # text before is thinking, after it is answer
    ("r¦\n<answer>B</answer>", "think-answer"),  # untagged text is thinking
    ("¦ <answer>B</answer>", "think-answer"),  # nothing but the answer
    ("<think>r</think> mm¦<answer>B</answer>", "think-answer"),  # text between is thinking
    ("<think>r</think><answer>A</answer>¦ <answer>B</answer>", "think-answer"),  # only the last answer is answer
    ("<think>r</think> B¦", "think-answer"),  # no answer: all thinking
    ("<think>r</think><answer></answer>¦", "think-answer"),  # an empty answer is none
    ("<think>\nr\n</think>¦\n\nB</s>", "deepseek-r1"),  # free answer
    ("r $¦\\boxed{B}$.", "boxed"),  # what follows the box is answer
    ("<think>r</think>¦<answer>So <|begin_of_box|>B<|end_of_box|>.</answer>", "glm-box"),  # the reply is answer
    ("### Rationales: q¦\n\n### The final answer is: B", "mulberry"),  # the heading delimits the answer
    ("<REASONING> r </REASONING>¦\n\n<CONCLUSION> B </CONCLUSION>", "llava-cot"),  # as tags do
    ("¦B</s>", "direct"),  # all answer
]


@pytest.mark.parametrize(("marked", "fmt"), BORDERS)
def test_segments_meet_at_the_bar(marked: str, fmt: str) -> None:
    think, answer = marked.split("¦")
    parsed = parse(think + answer, fmt)
    pieces = [(parsed.text[span.start : span.end], span.segment) for span in parsed.spans]
    assert pieces == [piece for piece in ((think, THINK), (answer, ANSWER)) if piece[0]]


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("auto", "direct")])
def test_auto_recognises_every_example(name: str) -> None:
    parsed = parse(FORMATS[name].example, "auto")
    assert (parsed.format, parsed.well_formed) == (name, True)
    assert parsed == parse(FORMATS[name].example, name)


# text -> the format that auto must choose
RECOGNISED = [
    ("B", "think-answer"),  # no marker: malformed, never a direct answer
    ("<think>r", "deepseek-r1"),  # cut in thought
    ("<think>so \\boxed{A}", "deepseek-r1"),  # a draft box in unclosed thinking is not a boxed answer
    ("<think>r</think><answer>B", "think-answer"),  # an unclosed answer tag is not a free answer
    ("<think>r <answer>B</answer></think>", "think-answer"),  # nor is a missing one
    ("<think>the ### Rationales: section</think><answer>B</answer>", "think-answer"),  # a heading inside thinking
    ("r \\boxed{B}", "boxed"),  # a box without think tags
    ("<think>r</think><answer><|begin_of_box|>B<|end_of_box|></answer>", "glm-box"),  # the box is the more specific
]


@pytest.mark.parametrize(("text", "name"), RECOGNISED)
def test_auto_chooses_the_most_specific_marker(text: str, name: str) -> None:
    assert recognise_format(text).name == parse(text, "auto").format == name


def test_a_recipe_can_declare_its_own_tags() -> None:
    tags = {"think_open": "<reason>", "think_close": "</reason>", "answer_open": "<final>", "answer_close": "</final>"}
    parsed = parse("<reason>r</reason> <final>B</final>", tags)
    assert (parsed.think, parsed.answer, parsed.problems, parsed.format) == ("r", "B", (), "custom")
    assert parse(render("r", "B", tags), tags).well_formed


def test_a_custom_answer_without_closing_tag_runs_to_the_end() -> None:
    parsed = parse("r\nAnswer: A\nwait\nAnswer: B</s>", {"answer_open": "Answer:"})
    assert (parsed.think, parsed.answer, parsed.problems) == ("r\nAnswer: A\nwait", "B", ())


def test_a_custom_box_after_think_tags_counts_braces() -> None:
    spec = {"think_close": "</think>", "answer_open": "\\boxed{", "answer_close": "}", "prose": True}
    parsed = parse("r \\boxed{A}</think>It is \\boxed{x^{2}}", spec)
    assert (parsed.think, parsed.answer, parsed.problems) == ("r \\boxed{A}", "x^{2}", ())


def test_a_tag_that_begins_like_another_is_distinguished_from_it() -> None:
    spec = {"think_open": "##", "think_close": "###", "answer_open": "A:"}
    parsed = parse("## r ### A: B", spec)
    assert (parsed.think, parsed.answer, parsed.problems) == ("r", "B", ())


def test_stages_from_yaml_lists_work() -> None:
    spec = {"think_open": "<b>", "think_close": "</b>", "answer_open": "Answer:", "stages": [["<a>", "</a>"]]}
    assert parse("<a>1</a><b>2</b>Answer: 3", spec).think == "1\n\n2"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("think-anser", r"'think-anser' \(did you mean 'think-answer'\?\); known: auto, "),  # a slip of the pen
        ("", "unknown reasoning format ''; known: "),  # nothing at all
        ({"think_opn": "<a>", "answer_open": "A:"}, "did you mean 'think_open'"),  # an unknown key
        ({"think_open": "<a>"}, "set think_close or answer_open"),  # the answer has no start
        ({}, "set think_close or answer_open"),  # an empty mapping is not `direct`
        ({"answer_open": 3}, "answer_open must look like"),  # not a string
        ({"answer_open": "A:", "stages": ["<a>"]}, "stages must look like"),  # not pairs
        ({"answer_open": "<a>", "answer_close": "<a>"}, "must be unique"),  # opens as it closes
        ({"answer_open": "A: "}, "no outer white space"),  # would split white space unclearly
    ],
)
def test_a_wrong_format_is_a_value_error_that_names_the_fix(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse("text", spec)  # type: ignore[arg-type]


def test_render_without_thinking_keeps_the_answer_findable() -> None:
    for name in FORMATS:
        for think in (None, ""):
            parsed = parse(render(think, "B", name), name)
            assert (parsed.think, parsed.answer) == (None, "B"), name


def test_every_format_and_problem_is_documented() -> None:
    assert all(get_format(name).description and FORMATS[name].example for name in FORMATS)
    assert all(text and "\n" not in text for text in PROBLEMS.values())


def test_importing_the_parser_imports_no_framework() -> None:
    code = "import sys, balanced_thinking.segments; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
