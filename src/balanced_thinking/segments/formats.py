r"""Declarative reasoning formats, their registry, recognition and rendering.

A new format is one entry of `_BUILT_IN` (or a mapping in a recipe) and one row in the test table. The tags that are
given decide its shape:

- `think_close` and `answer_open`: tagged thinking, tagged answer (`think-answer`);
- only `think_close`: tagged thinking, the rest is the answer (`deepseek-r1`);
- only `answer_open`: free reasoning up to the last answer tag (`boxed`);
- neither: all text is the answer (`direct`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from typing import Any

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.config.names import did_you_mean

_PUNCTUATION = "$.,;:!?)]}*\\`'\"。．，！？"


@dataclass(frozen=True)
class ReasoningFormat:
    """How a text marks its thinking and its answer. Tags are exact, case-sensitive strings; "" means no such tag.

    Raises ValueError for tags that cannot work together.
    """

    name: str
    description: str = ""
    think_open: str = ""
    think_close: str = ""
    answer_open: str = ""
    answer_close: str = ""  # "": the answer runs to the end; "}" after an `answer_open` that ends in "{" counts nesting
    stages: tuple[tuple[str, str], ...] = ()  # more (open, close) tags of thinking; close may be ""
    open_optional: bool = False  # the chat template may have opened the thinking: a single closing tag is well formed
    think_required: bool = True
    prose: bool = False  # free text may surround the answer's tags; it belongs to the answer segment
    tail: str = ""  # characters that may follow the closing answer tag
    wrap: tuple[str, str] = ("", "")  # optional tags around the tagged answer
    markers: tuple[str, ...] = ()  # "auto" chooses this format if the text has any of these; default: all its tags
    think_pad: str = ""  # `render` writes the pads inside the tags and the gap between the segments
    answer_pad: str = ""
    gap: str = "\n"
    example: str = ""

    def __post_init__(self) -> None:
        tags = [tag for tag, _ in self._tags_with_kinds()]
        for tag in tags:
            if tag != tag.strip() or tags.count(tag) > 1:
                raise RecipeError(
                    f"reasoning format {self.name!r}: tag {tag!r} must be unique and have no outer white space"
                )
        if (self.think_open or self.answer_close) and not (self.think_close or self.answer_open):
            raise RecipeError(
                f"reasoning format {self.name!r} has no start of the answer: set think_close or answer_open"
            )

    def __hash__(self) -> int:
        return hash(self.name)  # formats are looked up for every text, and all fields take as long as a scan

    def _tags_with_kinds(self) -> list[tuple[str, str]]:
        pairs = [(self.think_open, "think_open"), (self.think_close, "think_close")]
        for stage_open, stage_close in self.stages:
            pairs += [(stage_open, "think_open"), (stage_close, "think_close")]
        pairs += [(self.answer_open, "answer_open"), (self.answer_close, "answer_close")]
        return [(tag, kind) for tag, kind in pairs if tag]

    @cached_property
    def tag_kinds(self) -> Mapping[str, str]:
        """Tag -> its kind: think_open, think_close, answer_open or answer_close; also braces where they nest."""
        tags = dict(self._tags_with_kinds())
        if self.answer_open.endswith("{") and self.answer_close == "}":
            tags |= {"{": "brace", r"\{": "escaped", r"\}": "escaped"}
        return tags


_BUILT_IN = (
    ReasoningFormat(
        name="gemma-channel",
        description="Gemma 4: a thought channel, then the free answer",
        think_open="<|channel>thought",
        think_close="<channel|>",
        think_pad="\n",
        gap="",
        example="<|channel>thought\nTwo reds, one blue.\n<channel|>Two",
    ),
    ReasoningFormat(
        name="kimi",
        description="Kimi-VL-Thinking: ◁think▷ tags, then the free answer",
        think_open="◁think▷",
        think_close="◁/think▷",
        gap="",
        example="◁think▷Two reds, one blue.◁/think▷Two",
    ),
    ReasoningFormat(
        name="llava-cot",
        description="LLaVA-CoT: summary, caption and reasoning are thinking, the conclusion is the answer",
        think_open="<REASONING>",
        think_close="</REASONING>",
        answer_open="<CONCLUSION>",
        answer_close="</CONCLUSION>",
        stages=(("<SUMMARY>", "</SUMMARY>"), ("<CAPTION>", "</CAPTION>")),
        think_pad=" ",
        answer_pad=" ",
        gap="\n\n",
        example="<SUMMARY> Count. </SUMMARY>\n\n<CAPTION> Dots. </CAPTION>\n\n<REASONING> Two are red. </REASONING>\n\n"
        "<CONCLUSION> Two </CONCLUSION>",
    ),
    ReasoningFormat(
        name="open-thoughts",
        description="OpenThoughts, Sky-T1, Bespoke-Stratos: a thought, then a solution, each between two tags",
        think_open="<|begin_of_thought|>",
        think_close="<|end_of_thought|>",
        answer_open="<|begin_of_solution|>",
        answer_close="<|end_of_solution|>",
        think_pad="\n\n",
        answer_pad="\n\n",
        gap="\n\n",
        example="<|begin_of_thought|>\n\nTwo reds, one blue.\n\n<|end_of_thought|>\n\n"
        "<|begin_of_solution|>\n\nTwo\n\n<|end_of_solution|>",
    ),
    ReasoningFormat(
        name="gthinker",
        description="GThinker: <reason> tags, then answer tags",
        think_open="<reason>",
        think_close="</reason>",
        answer_open="<answer>",
        answer_close="</answer>",
        markers=("<reason>", "</reason>"),
        example="<reason>Two reds, one blue.</reason>\n<answer>Two</answer>",
    ),
    ReasoningFormat(
        name="glm-box",
        description="GLM-4.1V and later: think tags, then a reply (perhaps in answer tags) whose box is the answer",
        think_open="<think>",
        think_close="</think>",
        answer_open="<|begin_of_box|>",
        answer_close="<|end_of_box|>",
        open_optional=True,
        prose=True,
        tail=_PUNCTUATION,
        wrap=("<answer>", "</answer>"),
        markers=("<|begin_of_box|>", "<|end_of_box|>"),
        gap="",
        example="<think>Two reds, one blue.</think><answer><|begin_of_box|>Two<|end_of_box|></answer>",
    ),
    ReasoningFormat(
        name="think-answer",
        description="think tags, then answer tags (Vision-R1, SCALe)",
        think_open="<think>",
        think_close="</think>",
        answer_open="<answer>",
        answer_close="</answer>",
        markers=("<answer>", "</answer>"),
        gap="",
        example="<think>Two reds, one blue.</think><answer>Two</answer>",
    ),
    ReasoningFormat(
        name="deepseek-r1",
        description="DeepSeek-R1, Qwen3: think tags (the template may have opened them), then the free answer",
        think_open="<think>",
        think_close="</think>",
        open_optional=True,
        think_pad="\n",
        gap="\n\n",
        example="<think>\nTwo reds, one blue.\n</think>\n\nTwo",
    ),
    ReasoningFormat(
        name="mulberry",
        description="Mulberry: headed sections of reasoning, then `### The final answer is:`",
        think_open="### Let's think step by step.",
        answer_open="### The final answer is:",
        stages=(("### Image Description:", ""), ("### Rationales:", "")),
        think_pad="\n\n",
        answer_pad=" ",
        gap="\n\n",
        example="### Image Description:\nDots.\n\n### Rationales:\nCount.\n\n### Let's think step by step.\n\n"
        "Two are red.\n\n### The final answer is: Two",
    ),
    ReasoningFormat(
        name="boxed",
        description=r"free reasoning, then \boxed{answer}; the last box counts",
        answer_open=r"\boxed{",
        answer_close="}",
        think_required=False,
        tail=_PUNCTUATION,
        markers=(r"\boxed{",),
        gap="\n\n",
        example="Two reds, one blue.\n\n\\boxed{Two}",
    ),
    ReasoningFormat(
        name="direct", description="no thinking: the complete text is the answer", think_required=False, example="Two"
    ),
)

_DEFAULTS = {field.name: "" if field.default is MISSING else field.default for field in fields(ReasoningFormat)}

FORMATS: dict[str, ReasoningFormat] = {fmt.name: fmt for fmt in _BUILT_IN}
_MARKS = tuple((fmt, tuple(fmt.markers or fmt.tag_kinds)) for fmt in _BUILT_IN)  # what "auto" looks for
FORMATS["auto"] = replace(
    FORMATS["think-answer"],
    name="auto",
    description="the format whose tags the text has, most specific first; think-answer if it has none",
)


def get_format(spec: str | Mapping[str, Any] | ReasoningFormat) -> ReasoningFormat:
    """The format of this name, or a custom one from a mapping of `ReasoningFormat`'s fields.

    Raises RecipeError for an unknown name or key, and suggests the nearest known one.
    """
    if isinstance(spec, ReasoningFormat):
        return spec
    if isinstance(spec, Mapping):
        return _custom_format(spec)
    if isinstance(spec, str) and spec in FORMATS:  # not of a list, which a recipe may hold
        return FORMATS[spec]
    raise RecipeError(_unknown_name_message("reasoning format", str(spec), FORMATS))


def _custom_format(spec: Mapping[str, Any]) -> ReasoningFormat:
    for key in spec:
        if key not in _DEFAULTS:
            raise RecipeError(_unknown_name_message("key of a reasoning format", str(key), _DEFAULTS))
    values = {key: _lists_to_tuples(value) for key, value in spec.items()}
    for key, value in values.items():
        if not _is_valid_value(key, value):
            raise RecipeError(f"reasoning format: {key} must look like {_DEFAULTS[key]!r}, found {value!r}")
    if not (values.get("think_close") or values.get("answer_open")):
        raise RecipeError(f"reasoning format {values!r} has no start of the answer: set think_close or answer_open")
    # Without an opening tag in the format, only the chat template can open the thinking.
    defaults: dict[str, Any] = {"name": "custom", "open_optional": not values.get("think_open")}
    return ReasoningFormat(**(defaults | values))


def _is_valid_value(key: str, value: Any) -> bool:
    if key == "stages":
        return isinstance(value, tuple) and all(_is_tuple_of_strings(pair, 2) for pair in value)
    if key in ("wrap", "markers"):
        return _is_tuple_of_strings(value, 2 if key == "wrap" else None)
    return type(value) is type(_DEFAULTS[key])


def _is_tuple_of_strings(value: Any, length: int | None) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value) and length in (None, len(value))


def _lists_to_tuples(value: Any) -> Any:
    return tuple(_lists_to_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _unknown_name_message(what: str, name: str, known: Iterable[str]) -> str:
    return f"unknown {what} {name!r}{did_you_mean(name, known)}; known: {', '.join(sorted(known))}"


def recognise_format(text: str) -> ReasoningFormat:
    """The first built-in format that has a marker anywhere in the text; the most specific formats are tried first.

    A text without any marker is think-answer. An output that lost its tags is then malformed, not an answer.
    """
    return next((fmt for fmt, marks in _MARKS if any(map(text.__contains__, marks))), FORMATS["think-answer"])


def render(think: str | None, answer: str, format: str | Mapping[str, Any] | ReasoningFormat = "think-answer") -> str:
    """Write reasoning and answer in a format. `parse` gives both back unless they contain tags or outer white space.

    Without `think` there is no thinking block, or an empty one if `parse` needs it to find the answer. `direct` has no
    place for thinking and drops it. Raises ValueError for an unknown format.
    """
    fmt = get_format(format)
    reply = fmt.wrap[0] + _wrap_content(fmt.answer_open, answer, fmt.answer_close, fmt.answer_pad) + fmt.wrap[1]
    needs_block = fmt.open_optional and not fmt.answer_open
    has_place = bool(fmt.think_close or fmt.answer_open)
    if not has_place or not (think or needs_block):
        return reply
    return render_thinking(think or "", fmt) + reply


def render_thinking(think: str, fmt: ReasoningFormat) -> str:
    """What comes before the answer: the thinking in its tags, and the gap after it."""
    return _wrap_content(fmt.think_open, think, fmt.think_close, fmt.think_pad) + fmt.gap


def _wrap_content(opening: str, content: str, closing: str, pad: str) -> str:
    return (opening + pad if opening else "") + content + (pad + closing if closing else "")
