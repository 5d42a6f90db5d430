"""Rows -> tensors: the ids of inference, the segments, the overflow policies, what the pictures may be."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from balanced_thinking.batch.collator import Packing, ScaleCollator
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.checks import check_examples
from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.rows import image_cell
from balanced_thinking.data.world import load
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.packing.positions import RopeIndex
from balanced_thinking.segments import ANSWER, THINK, ReasoningFormat, get_format, parse, render
from balanced_thinking.segments.trim import split_longest_think, trim_think
from tests.conftest import ARCHITECTURES
from tests.tiny_training import model_inputs

LONG = " ".join(f"sentence number {i} says what is seen ." for i in range(40))


def row(think: str, answer: str = "red", identity: str = "one", images: Any = ()) -> dict[str, Any]:
    return {
        "id": identity,
        "prompt": [{"role": "user", "content": "which color ?"}],
        "completion": [{"role": "assistant", "content": f"<think>{think}</think><answer>{answer}</answer>"}],
        "images": list(images),
    }


ASKED, REPLY = {"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>a</think><answer>b</answer>"}
HEARD = {"role": "user", "content": [{"type": "audio", "audio": "x.wav"}, {"type": "text", "text": "q"}]}
# Rows that would be trained on wrongly, and what is said.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"prompt": [ASKED], "completion": [REPLY, ASKED, REPLY]}, "the turns assistant, user, assistant; expected one"),
    ({"prompt": [ASKED], "completion": [ASKED, REPLY]}, "put earlier turns into `prompt`"),
    ({"prompt": [ASKED], "completion": []}, "the turns none"),
    ({"prompt": [HEARD], "completion": [REPLY]}, "a part of type audio; only text and pictures are read"),
    ({"prompt": [ASKED], "completion": [REPLY], "tools": [{"type": "function"}]}, "has tools"),
    ({"prompt": [ASKED], "completion": [REPLY | {"tool_calls": [{"id": "1"}]}]}, "has tools"),
    ({"messages": [ASKED, REPLY, ASKED, REPLY | {"weight": 0}]}, "marked weight: 0, so it is not to be trained on"),
]


@pytest.mark.parametrize(("row", "said"), REFUSED)
@pytest.mark.parametrize("architecture", ["qwen2", "qwen2_5_vl"])
def test_a_row_of_messages_that_cannot_be_trained_on_is_refused(
    architecture: str, row: dict[str, Any], said: str
) -> None:
    with pytest.raises(RowError, match=re.escape(said)):
        ScaleCollator(build_tiny(architecture)[1])([row])
    assert ScaleCollator(build_tiny("qwen2")[1])([{"messages": [ASKED, REPLY], "tools": "[]"}])  # none


@pytest.fixture(scope="module")
def picture() -> Any:
    return next(load(n=1)).images[0]


def decoded(collator: ScaleCollator, batch: dict[str, torch.Tensor], index: int, segment: int) -> str:
    return collator.tokenizer.decode(batch["input_ids"][index][batch["segment_ids"][index] == segment])


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "qwen2"])
def test_prompt_ids_are_those_of_inference_and_the_completion_is_one_tokenization(
    architecture: str, picture: Any
) -> None:
    _, processor = build_tiny(architecture)
    collator = ScaleCollator(processor)
    images = [] if architecture == "qwen2" else [picture]
    one = row("it looks red .", images=images)
    batch, prompt = collator([one]), collator.collate_prompts([one])
    size = prompt["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][0, :size], prompt["input_ids"][0])
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}] * len(images) + [{"type": "text", "text": "which color ?"}]}]
        if images
        else one["prompt"],
        add_generation_prompt=True,
        tokenize=False,
    )
    direct = (
        processor(text=[text], images=images, add_special_tokens=False)
        if images
        else processor([text], add_special_tokens=False)
    )
    assert prompt["input_ids"][0].tolist() == list(direct["input_ids"][0])
    completion = batch["input_ids"][0, size:].tolist()
    completion_text = collator.tokenizer.decode(completion)
    assert completion == collator.tokenizer(completion_text, add_special_tokens=False)["input_ids"]
    assert "it looks red ." in decoded(collator, batch, 0, THINK)
    assert "<answer>red</answer>" in decoded(collator, batch, 0, ANSWER)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_supervised_token_has_a_segment_and_the_stop_belongs_to_the_answer(
    architecture: str, world_rows: Dataset
) -> None:
    collator = ScaleCollator(build_tiny(architecture)[1])
    batch = collator(list(world_rows))
    supervised = batch["labels"] != -100
    assert torch.equal(supervised, batch["segment_ids"] > 0)
    assert not supervised[batch["attention_mask"] == 0].any()
    tokenizer: PreTrainedTokenizerBase = collator.tokenizer
    stop = "<end_of_turn>" if architecture == "gemma3" else tokenizer.eos_token
    for i in range(len(world_rows)):
        answer = decoded(collator, batch, i, ANSWER).strip()
        assert answer.startswith("<answer>")
        assert answer.endswith(f"</answer>{stop}")


def test_too_long_a_sample_is_named_with_its_length(picture: Any) -> None:
    collator = ScaleCollator(build_tiny("qwen2_5_vl")[1], max_length=64)
    with pytest.raises(RowError, match=r"sample long has \d+ tokens .* max_length is 64.*overflow=trim_think"):
        collator([row("short ."), row(LONG, identity="long", images=[picture])])


def test_dropped_samples_are_counted_and_their_pictures_leave_with_them(picture: Any) -> None:
    collator = ScaleCollator(build_tiny("qwen2_5_vl")[1], max_length=64, overflow="drop")
    batch = collator([row("short ."), row(LONG, images=[picture]), row("brief .", images=[picture])])
    assert batch["batch_info"].dropped == 1
    assert batch["input_ids"].shape[0] == 2
    assert batch["image_grid_thw"].shape[0] == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("packing", [False, True])
def test_models_in_shards_always_get_a_picture(architecture: str, packing: bool, picture: Any) -> None:
    model, processor = build_tiny(architecture)
    packs = Packing(rope_index=RopeIndex.from_model(model)) if packing else None
    plain, sharded = (ScaleCollator(processor, packing=packs, always_image=wanted) for wanted in (False, True))
    rows = [row("short ."), row("brief .")]
    batch = sharded(rows)
    assert "pixel_values" in batch
    assert "pixel_values" not in plain(rows)
    assert (batch["labels"] != -100).sum() == (plain(rows)["labels"] != -100).sum()  # the blank one teaches nothing
    assert batch["batch_info"].kept == (0, 1)
    rows = [row("short ."), row("brief .", images=[picture])]
    assert sharded(rows)["input_ids"].tolist() == plain(rows)["input_ids"].tolist()


def test_a_batch_with_nothing_left_is_short_though_what_was_dropped_was_not(picture: Any) -> None:
    collator = ScaleCollator(build_tiny("qwen2_5_vl")[1], max_length=64, overflow="drop")
    batch = collator([row(LONG, images=[picture])])
    assert batch["input_ids"].shape[1] < 64
    assert "pixel_values" not in batch
    assert (batch["batch_info"].kept, batch["batch_info"].dropped) == ((), 1)
    assert not (batch["labels"] != -100).any()


TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'][-1]['text'] }} [/INST]"
    "{% else %}{{ message['content'][-1]['text'] }}END{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("written", "ends"),
    [
        ("</s> ", "</answer></s> "),  # as TRL's copy of LLaVA's has it
        (" ", "</answer></s>"),  # LLaVA-1.5 and vicuna: no stop
        ("", "</answer></s>"),
        ("<\\s> ", "</answer><\\s></s>"),  # a slip of the pen in LLaVA-Mistral's: characters, no token
    ],
)
def test_the_model_is_shown_where_to_stop_whatever_its_template_writes(written: str, ends: str) -> None:
    processor = build_tiny("llava_next")[1]
    eos = processor.tokenizer.eos_token
    processor.chat_template = TEMPLATE.replace("END", written.replace("</s>", eos))
    collator = ScaleCollator(processor)
    batch = collator([row("short .")])
    said = collator.tokenizer.decode(batch["input_ids"][0][batch["labels"][0] != -100])
    assert said.endswith(ends.replace("</s>", eos))
    assert batch["segment_ids"][0, -1] == ANSWER


def test_batch_with_nothing_left_is_unsupervised_and_its_loss_a_differentiable_zero(tmp_path: Path) -> None:
    from tests.tiny_training import config, losses, trainer

    rows = Dataset.from_list([{**row(LONG), "images": None}] * 4).remove_columns("images")
    run = trainer("qwen2", rows, config(tmp_path, max_length=64, overflow="drop", per_device_train_batch_size=4))
    with pytest.raises(ValueError, match="no sample was used for training"):  # at the end
        run.train()
    assert losses(run) == [0.0]
    assert run.state.log_history[0]["dropped"] == 4


@pytest.mark.parametrize("room", [70, 100, 150])
def test_answer_survives_trimming_at_sentences(room: int, picture: Any) -> None:
    collator = ScaleCollator(build_tiny("qwen2_5_vl")[1], max_length=room, overflow="trim_think")
    batch = collator([row(LONG, images=[picture])])
    assert batch["input_ids"].shape[1] <= room
    assert "<answer>red</answer>" in decoded(collator, batch, 0, ANSWER)
    kept = decoded(collator, batch, 0, THINK).removeprefix("<think>").removesuffix("</think>")
    assert kept.startswith("sentence number 0 ")
    sentences = [s.strip() for s in kept.split(".") if s.strip()]
    assert all(f"{s} ." in LONG for s in sentences)
    assert room < 100 or sentences[-1] == "sentence number 39 says what is seen"


def test_one_endless_sentence_is_trimmed_by_words() -> None:
    collator = ScaleCollator(build_tiny("qwen2")[1], max_length=80, overflow="trim_think")
    batch = collator([row(" ".join(["red"] * 300))])
    assert 70 <= batch["input_ids"].shape[1] <= 80
    assert "<answer>red</answer>" in decoded(collator, batch, 0, ANSWER)


STAGED = {
    "llava-cot": "<SUMMARY> Count . </SUMMARY>\n\n<CAPTION> Dots , many .\nSome red . </CAPTION>\n\n"
    f"<REASONING> {LONG} </REASONING>\n\n<CONCLUSION> red </CONCLUSION>",
    "mulberry": f"### Image Description:\nDots .\n\n### Rationales:\n{LONG}\n\n### Let's think step by step.\n\n"
    "Two are red . One is not .\n\n### The final answer is: red",
    "think-answer": f"<think>one . two .</think><think>{LONG}</think><answer>red</answer>",  # not well formed
    "auto": f"<SUMMARY> {LONG} </SUMMARY><CAPTION></CAPTION><REASONING>So .</REASONING><CONCLUSION>red</CONCLUSION>",
}


@pytest.mark.parametrize("name", STAGED)
def test_trimming_keeps_every_tag_the_answer_and_the_problems(name: str) -> None:
    parsed = parse(STAGED[name], name)
    fmt = get_format(parsed.format)
    for pattern in (r"(?<=\.)\s+", r"\s+"):
        units = split_longest_think(parsed, re.compile(pattern), fmt)
        assert len(units) >= 40
        for keep in range(1, len(units)):
            text = trim_think(parsed, keep, units)
            trimmed = parse(text, name)
            assert _tags(text, fmt) == _tags(parsed.text, fmt)
            assert (trimmed.answer, trimmed.problems) == (parsed.answer, parsed.problems)
            assert len(trimmed.think or "") < len(parsed.think or "")


def _tags(text: str, fmt: ReasoningFormat) -> list[str]:
    return re.findall("|".join(map(re.escape, fmt.tag_kinds)), text)


@pytest.mark.parametrize("name", STAGED)
def test_the_collator_trims_between_the_tags(name: str) -> None:
    collator = ScaleCollator(build_tiny("qwen2")[1], reasoning_format=name, max_length=300, overflow="trim_think")
    one = row("") | {"completion": [{"role": "assistant", "content": STAGED[name]}]}
    batch = collator([one])
    text = decoded(collator, batch, 0, THINK) + decoded(collator, batch, 0, ANSWER)
    assert 150 < batch["input_ids"].shape[1] <= 300
    fmt = get_format(parse(text, name).format)
    assert _tags(text, fmt) == _tags(STAGED[name], fmt)


def test_trimming_fails_by_name_where_prompt_and_answer_alone_do_not_fit() -> None:
    collator = ScaleCollator(build_tiny("qwen2")[1], max_length=20, overflow="trim_think")
    with pytest.raises(RowError, match=r"sample one .*overflow=drop"):
        collator([row(LONG)])


def test_row_without_an_answer_is_refused() -> None:
    collator = ScaleCollator(build_tiny("qwen2")[1])
    bad = row("x") | {"completion": [{"role": "assistant", "content": "<think>only thoughts</think>"}]}
    with pytest.raises(RowError, match=r"sample one: no answer .*no_answer"):
        collator([bad])


TURNS = "{% for message in messages %}<|im_start|>{{ message.role }}\nTEXT<|im_end|>\n{% endfor %}"
TURNS += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
# DeepSeek-R1's way; one that forgets what it is given; one that tidies white space; one that only adds its own stop.
STRIPS = TURNS.replace("TEXT", "{{ message.content.split('</think>')[-1] }}")
FORGETS = TURNS.replace("TEXT", "{{ message.content if message.role == 'user' else 'blue' }}")
TIDIES = TURNS.replace("TEXT", "{{ message.content | trim | replace('</think>', '</think>\n') }}<odd-stop>")
KEEPS = TURNS.replace("TEXT", "{{ message.content }}<odd-stop>")


@pytest.mark.parametrize("format", ["think-answer", "deepseek-r1", "auto"])
@pytest.mark.parametrize("template", [STRIPS, FORGETS])
def test_a_chat_template_that_drops_the_reasoning_is_refused(template: str, format: str) -> None:
    collator = _collator(template, format)
    text = render("it is red .", "red", format)
    message = r"sample one: the chat template dropped the reasoning.*keeps them.*plain text"
    with pytest.raises(RowError, match=message):
        collator([row("") | {"completion": [{"role": "assistant", "content": text}]}])
    plain = {"id": "one", "prompt": "which color ?", "completion": text}
    assert "it is red ." in decoded(collator, collator([plain]), 0, THINK)


@pytest.mark.parametrize(("template", "format"), [(KEEPS, "think-answer"), (KEEPS, "direct"), (TIDIES, "think-answer")])
def test_a_chat_template_that_keeps_the_reasoning_passes(template: str, format: str) -> None:
    batch = _collator(template, format)([row("it is red .\n")])
    assert (batch["segment_ids"] == ANSWER).any()


def _collator(template: str, format: str) -> ScaleCollator:
    processor = copy.deepcopy(build_tiny("qwen2")[1])
    processor.chat_template = template
    return ScaleCollator(processor, format)


def test_messages_train_the_last_turn_only(picture: Any) -> None:
    collator = ScaleCollator(build_tiny("qwen2_5_vl")[1])
    one = row("it is red .", images=[picture])
    messages = {"id": "one", "messages": one["prompt"] + one["completion"], "images": one["images"]}
    for name, value in model_inputs(collator([one])).items():
        assert torch.equal(collator([messages])[name], value), name


def test_null_and_empty_columns_are_as_good_as_absent_ones(picture: Any) -> None:
    collator = ScaleCollator(build_tiny("qwen2_5_vl")[1])
    one = row("it is red .", images=[picture])
    messages = {"id": "one", "messages": one["prompt"] + one["completion"]}
    plain = {"id": "one", "prompt": one["prompt"], "completion": one["completion"], "messages": None}
    for nothing in (None, []):
        for joined in (plain, messages | {"prompt": None, "completion": None}):
            batch = collator([joined | {"images": nothing, "image": picture}])
            assert all(torch.equal(batch[name], value) for name, value in model_inputs(collator([one])).items())


def test_pictures_may_be_files_bytes_or_objects(picture: Any, tmp_path: Path) -> None:
    collator = ScaleCollator(build_tiny("llava_next")[1])
    picture.save(tmp_path / "one.png")
    forms = [picture, str(tmp_path / "one.png"), image_cell(tmp_path / "one.png"), image_cell(picture)]
    pixels = [collator([row("x .", images=[form])])["pixel_values"] for form in forms]
    assert all(torch.equal(pixels[0], other) for other in pixels[1:])
    with pytest.raises(RowError, match="expected a local file"):
        collator([row("x .", images=["https://example.org/one.png"])])


UNREADABLE = {
    "gone.png": (None, "there is no file"),  # missing
    "cut.png": (slice(300), "truncated"),  # the download stopped
    "cut.jpg": (slice(-200), "truncated"),  # likewise, of a kind without checksums
    "text.png": (b"not a picture", "not a PNG, JPEG"),  # foreign
    "empty.png": (b"", "an empty file"),  # nothing in it
    "a\0.png": (None, "there is no file"),  # a name that no file can have
    "bomb.png": (slice(None), "decompression bomb"),  # more pixels than Pillow dares to decode
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_picture_is_named_with_its_sample_and_its_fix(
    name: str, picture: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, reason = UNREADABLE[name]
    path = tmp_path / name
    if isinstance(content, slice):
        picture.resize((400, 400), 0).save(path)
        path.write_bytes(path.read_bytes()[content])
    elif content is not None:
        path.write_bytes(content)
    if name == "bomb.png":
        monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    collator, bad = ScaleCollator(build_tiny("qwen2_5_vl")[1]), row("x .", identity="seven", images=[str(path)])
    for batch in (collator, collator.collate_prompts):
        message = rf"sample seven: the image .*{reason}.*expected .*--on-bad-row drop"
        with pytest.raises(RowError, match=message) as caught:
            batch([bad])
        assert str(path) in str(caught.value)
    found = check_examples([Example("1", "Q", (path,), None, "x")], verify_images=True)
    assert [problem for bad_row in found for problem in bad_row.problems] in (["broken_image"], ["missing_image"])


@pytest.mark.parametrize("image", [None, 3, {"bytes": None, "path": None}, {}])
def test_what_refers_to_no_picture_is_refused(image: Any) -> None:
    with pytest.raises(RowError, match="expected a path, a PIL image"):
        open_image(image)


def test_workers_give_the_same_batches(world_rows: Dataset) -> None:
    collator = ScaleCollator(build_tiny("gemma3")[1])
    pickle.loads(pickle.dumps(collator))
    here = list(DataLoader(world_rows, batch_size=4, collate_fn=collator))
    there = list(DataLoader(world_rows, batch_size=4, collate_fn=collator, num_workers=2))
    for a, b in zip(here, there, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in model_inputs(a))
        assert a["batch_info"].kept == b["batch_info"].kept == (0, 1, 2, 3)


@pytest.mark.parametrize("packing", [False, True])
def test_a_first_token_is_predicted_by_nothing(packing: bool) -> None:
    """A completion without a prompt trains on all its tokens but the first, also behind another sample."""
    _, tokenizer = build_tiny("qwen2")
    text = "<think>a b</think><answer>c</answer>"
    rows = [{"id": str(i), "prompt": "", "completion": text} for i in range(2)]
    batch = ScaleCollator(tokenizer, packing=Packing(999) if packing else None)(rows)
    length = len(tokenizer(text + tokenizer.eos_token)["input_ids"])
    assert (batch["labels"] == -100).sum() == 2
    assert (batch["segment_ids"] > 0).sum() == 2 * (length - 1)
