"""Examples that cannot be put to a model: special tokens in their texts, roles that its chat template refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from balanced_thinking.batch.rendering import RowRenderer
from balanced_thinking.data.bad_rows import BadRow, BadRowsError, RowError
from balanced_thinking.data.example import Example
from balanced_thinking.data.load import LoadedData
from balanced_thinking.data.rows import prompt_messages
from balanced_thinking.models.processor_parts import takes_pictures
from balanced_thinking.segments import ReasoningFormat


def drop_unrenderable_prompts(
    name: str, loaded: LoadedData, processor: Any, format: ReasoningFormat, on_bad_row: str
) -> LoadedData:
    """The data without the examples that the model's chat template or tokenizer would not read as they are.

    Raises BadRowsError with all of them unless `on_bad_row` is `drop`.
    """
    if getattr(processor, "chat_template", None) is None:
        return loaded
    found = find_unrenderable_prompts(loaded.examples, RowRenderer(processor, format))
    if not found:
        return loaded
    bad_rows = tuple(found.values())
    if on_bad_row != "drop":
        raise BadRowsError(name, bad_rows)
    examples = [example for position, example in enumerate(loaded.examples) if position not in found]
    return LoadedData(examples, (*loaded.bad_rows, *bad_rows))


def find_unrenderable_prompts(examples: Sequence[Example], renderer: RowRenderer) -> dict[int, BadRow]:
    """Position -> the row that cannot be asked. Pictures for a text-only model are the engine's to refuse."""
    found, sees = {}, takes_pictures(renderer.processor)
    for position, example in enumerate(examples):
        if example.images and not sees:
            continue
        row = {"id": example.id, "prompt": prompt_messages(example), "images": example.images}
        try:
            renderer.render_prompt(row)
        except RowError as error:
            place = example.meta.get("row", position + 1)
            found[position] = BadRow(place, (error.problem,), error.shown, example.id)
    return found
