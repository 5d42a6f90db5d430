"""Pictures, system texts and earlier turns of rows in the ids that training and generation get."""

from __future__ import annotations

import copy

import pytest
from PIL import Image
from trl.data_utils import prepare_multimodal_messages

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.data.bad_rows import RowError
from balanced_thinking.data.images import open_image
from balanced_thinking.data.rows import prompt_messages, to_dataset, to_prompts_dataset
from balanced_thinking.models.tiny import build_tiny
from tests.data.test_places import examples

ANSWERED = "<think>It is red.</think><answer>red</answer>"


@pytest.fixture(scope="module")
def collator() -> ScaleCollator:
    return ScaleCollator(build_tiny("qwen2_5_vl")[1])


def shown(ids: list[int], collator: ScaleCollator) -> str:
    """The ids as text, with one sign for each picture."""
    text = collator.tokenizer.decode(ids).replace("<|vision_start|>", "{").replace("<|vision_end|>", "}")
    return text.replace("<|image_pad|>", "").replace("<|endoftext|>", "")


EXPECTED = {
    "two": ["Is {} like {}?<|im_end|>"],
    "end": ["Which? {}<|im_end|>"],
    "plain": ["user\n{}Which?<|im_end|>"],
    "system": ["system\nBe brief.<|im_end|>", "user\n{}Which?<|im_end|>"],
    "talk": ["user\n{}Hello?<|im_end|>", "assistant\nHello.<|im_end|>", "user\nWhich?<|im_end|>"],
    "both": [
        "system\nS<|im_end|>",
        "user\nSee {} here<|im_end|>",
        "assistant\nYes.<|im_end|>",
        "user\n{}Which?<|im_end|>",
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_training_and_generation_see_pictures_and_turns_where_they_are(name: str, collator: ScaleCollator) -> None:
    rows = [row for row in to_dataset(examples()) if row["id"] == name]
    (example,) = (example for example in examples() if example.id == name)
    trained = collator(rows)
    prompt = {"id": name, "prompt": prompt_messages(example), "images": list(example.images)}
    generated = collator.collate_prompts([prompt])["input_ids"][0].tolist()
    assert trained["input_ids"][0].tolist()[: len(generated)] == generated
    text = shown(generated, collator)
    places = [text.find(part) for part in EXPECTED[name]]
    assert places == sorted(places)
    assert min(places) >= 0, text


@pytest.mark.parametrize(("name", "told"), [("two", "before text"), ("both", "before text"), ("end", "after text")])
def test_a_template_that_moves_pictures_is_refused_in_training_and_in_generation(name: str, told: str) -> None:
    moving = ScaleCollator(build_tiny("llava_next")[1])  # all pictures first
    rows = {row["id"]: row for row in to_dataset(examples())}
    for run in (moving, moving.collate_prompts):
        run([rows["plain"], rows["talk"]])
        with pytest.raises(RowError, match=f"sample {name}: the chat template moves the picture {told}"):
            run([rows[name]])


PARTS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}"
PARTS += "{% elif IS %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
PARTS += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PRINTED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    ("template", "name", "problem", "words"),
    [
        (PARTS.replace("IS", "true"), "both", "", ""),
        (PARTS.replace("IS", "m is sameas messages[0]"), "plain", "", ""),
        (PARTS.replace("IS", "false"), "plain", "template_changes", r"has 0 <\|image_pad\|> for the 1 pictures"),
        (PARTS.replace("IS", "loop.first"), "two", "template_changes", r"has 0 <\|image_pad\|> for the 2 pictures"),
        (
            PARTS.replace("IS", "m is sameas messages[-1]"),
            "both",
            "template_changes",
            r"has 1 <\|image_pad\|> for the 2 pictures",
        ),
        (PRINTED.replace("CONTENT", "m.content"), "plain", "template_changes", "prints the list of parts instead of"),
        (PRINTED.replace("CONTENT", "m.content"), "system", "template_changes", "prints .* text of the system"),
        (PRINTED.replace("CONTENT", "m.content | tojson"), "talk", "template_changes", "prints the list of parts"),
    ],
)
def test_a_template_that_loses_a_picture_or_prints_parts_is_refused_in_training_and_in_generation(
    template: str, name: str, problem: str, words: str
) -> None:
    processor = copy.deepcopy(build_tiny("qwen2_5_vl")[1])
    processor.chat_template = template
    (row,) = (row for row in to_dataset(examples()) if row["id"] == name)
    own = ScaleCollator(processor)
    for run in (own, own.collate_prompts):
        if not problem:
            assert run([row])
            continue
        with pytest.raises(RowError, match=f"sample {name}: the chat template {words}") as refused:
            run([row])
        assert refused.value.problem == problem


@pytest.mark.parametrize("said", ['Reply as {"text": "red"}.', '[{"type": "text", "text": "red"}]'])
def test_a_row_may_speak_of_parts(said: str, collator: ScaleCollator) -> None:
    prompt = [{"role": "system", "content": said}, {"role": "user", "content": "red"}]
    assert collator.collate_prompts([{"id": "one", "prompt": prompt, "images": []}])


@pytest.mark.parametrize(("text", "pictures"), [("which ?", 1), ("<|image_pad|> which ?", 0), ("<|image_pad|>", 2)])
def test_a_prompt_of_plain_text_has_a_place_for_each_picture(text: str, pictures: int, collator: ScaleCollator) -> None:
    row = {"id": "one", "prompt": text, "images": [Image.new("RGB", (56, 56))] * pictures}
    for run in (collator.collate_prompts, lambda rows: collator([{**rows[0], "completion": ANSWERED}])):
        with pytest.raises(RowError, match=rf"sample one: the text has .* for the {pictures} pictures of the row"):
            run([row])
    assert collator.collate_prompts([{**row, "prompt": "<|image_pad|>" * pictures}])


@pytest.mark.parametrize("name", ["two", "both", "plain"])
def test_trl_fills_the_pictures_in_at_their_places(name: str) -> None:
    (row,) = (row for row in to_prompts_dataset(examples()) if row["id"] == name)
    images = [open_image(image) for image in row["images"]]
    filled = prepare_multimodal_messages(prepare_multimodal_messages(row["prompt"], images=images))
    parts = [part for message in filled for part in message["content"]]
    assert [part["image"] for part in parts if part["type"] == "image"] == images
    written = "".join(part["type"][0] for part in parts)
    assert written == {"two": "titit", "both": "ttittit", "plain": "it"}[name]
