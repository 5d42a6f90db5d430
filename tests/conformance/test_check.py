"""The table of `balanced check`: complete for several models, and each row fails for a model that is broken there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from balanced_thinking.batch.collator import ScaleCollator
from balanced_thinking.conformance import generation, training
from balanced_thinking.conformance.rows import UserData
from balanced_thinking.conformance.run import check_model_conformance, list_properties, prepare_subject, report_property
from balanced_thinking.conformance.shrink import SmallSizes
from balanced_thinking.conformance.subject import Subject
from balanced_thinking.conformance.table import FAILED, PASSED, SKIPPED, CheckedProperty
from balanced_thinking.evaluation.completion_scorer import CompletionScorer
from balanced_thinking.inspection.facts import inspect_data
from balanced_thinking.models.load import load_model
from balanced_thinking.segments import get_format
from balanced_thinking.training import head, loading, safety
from balanced_thinking.training.sft import ScaleSFTTrainer
from tests.cli.tiny_commands import exit_code
from tests.conftest import some_now
from tests.models.hub_folders import FAMILIES, write_hub_folder

NAMES = [
    *("loads", "processor and template", "segments", "prompt", "stop token", "loss and gradient", "accumulation"),
    *("packing", "generation", "resume", "saved folder", "your data"),
]
WITHOUT_TRAINING = ["loads", "processor and template", "segments", "prompt", "stop token", "generation"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with the tiny model of an architecture, for any number of tests to copy."""
    root, made = tmp_path_factory.mktemp("models"), {}

    def folder_of(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = root / architecture
            loaded = load_model(f"tiny:{architecture}")
            loaded.model.save_pretrained(made[architecture])
            loaded.processor.save_pretrained(made[architecture])
        return made[architecture]

    return folder_of


@pytest.fixture
def broken(folders: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of such a folder, to be changed."""
    return lambda architecture: Path(shutil.copytree(folders(architecture), tmp_path / architecture))


def subject_of(folder: Path | str, work: Path, **options: Any) -> Subject:
    subject = prepare_subject(str(folder), work, get_format("think-answer"), SmallSizes())
    return replace(subject, **options)


def row_of(subject: Subject, name: str, data: UserData | None = None) -> CheckedProperty:
    prop = next(one for one in list_properties(subject, data) if one.name == name)
    return report_property(prop, lambda line: None)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_vision_model_passes_every_row() -> None:
    lines: list[str] = []
    found = check_model_conformance("tiny:llava_next", data=UserData("world", limit=3), announce=lines.append)
    assert [(row.name, row.status) for row in found.rows] == [(name, PASSED) for name in NAMES]
    assert lines == [f"passed: {name}" for name in NAMES]
    assert found.table().startswith("tiny:llava_next: LlavaNextForConditionalGeneration, a shrunken copy")
    assert "balanced sft --model tiny:llava_next" in found.conclusion()
    assert max(map(len, found.table().splitlines())) <= 120


@pytest.mark.slow
def test_a_model_of_text_by_its_real_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command: an adapter is trained, saved and resumed, and the table is written as JSON."""
    words = ["check", "tiny:qwen2", "--real-weights", "--json", str(tmp_path / "table.json")]
    assert exit_code(words) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    statuses = {row["name"]: row["status"] for row in table["rows"]}
    assert statuses == dict.fromkeys(NAMES, PASSED) | {"saved folder": SKIPPED, "your data": SKIPPED}
    assert "its own weights" in capsys.readouterr().out


@pytest.mark.parametrize("family", some_now(("qwen2_5_vl", "internvl").__contains__, FAMILIES))
def test_rows_without_training_pass_for_each_family(family: str, tmp_path: Path) -> None:
    """From the files that the hub has."""
    subject = subject_of(write_hub_folder(family, tmp_path / family), tmp_path)
    rows = [row_of(subject, name) for name in WITHOUT_TRAINING]
    assert [row for row in rows if row.status != PASSED] == []


# The rows about the checkpoint's files: what is broken in them, which row says so, and a word of it.


def lose_a_tensor(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop("model.layers.0.mlp.up_proj.weight"))


def shorten_a_tensor(folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    change_weights(folder, lambda weights: weights.update({name: weights[name][:1].clone()}))


def add_a_tensor(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update({"model.layers.9.left.weight": torch.zeros(3)}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def lengthen_the_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"new word {number}" for number in range(20)])
    tokenizer.save_pretrained(folder)


def lose_the_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def change_the_template(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "chat_template.jinja"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return change


def drop_an_image_token(folder: Path) -> None:
    edit_json(folder / "processor_config.json", image_seq_length=3)


def stop_at_another_token(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    edit_json(folder / "generation_config.json", eos_token_id=0)


FILES = [
    ("qwen2", lose_a_tensor, "loads", "not in the files (model.layers.0.mlp.up_proj.weight)"),
    ("qwen2", shorten_a_tensor, "loads", "of another shape"),
    ("qwen2", add_a_tensor, "loads", "does not use (model.layers.9.left.weight)"),
    ("qwen2", lengthen_the_tokenizer, "loads", "embedding"),
    ("qwen2", lose_the_template, "processor and template", "no chat template"),
    ("gemma3", drop_an_image_token, "processor and template", "image"),
    ("gemma3", change_the_template("<start_of_image>", ""), "processor and template", "image"),
]


@pytest.mark.parametrize(("architecture", "spoil", "name", "word"), FILES)
def test_a_broken_checkpoint_fails_where_it_is_broken(
    architecture: str,
    spoil: Callable[[Path], None],
    name: str,
    word: str,
    broken: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folder = broken(architecture)
    spoil(folder)
    row = row_of(subject_of(folder, tmp_path / "work"), name)
    assert row.status == FAILED, row
    assert word in row.figure


def test_without_a_chat_template_nothing_is_said_of_what_needs_one(broken: Callable[[str], Path]) -> None:
    folder = broken("qwen2")
    lose_the_template(folder)
    found = check_model_conformance(str(folder))
    assert [row.name for row in found.failed] == ["processor and template"]
    assert {row.status for row in found.rows[2:]} == {SKIPPED}


# What a chat template writes for the assistant's text, what it opens at the turn's start, and the row that fails.
TEMPLATES = [
    ("m.content", "", None),
    ("m.content", "<think>\n", None),  # opens the thinking
    ("m.content", "<think>", None),
    ("m.content | trim", "", None),
    ("m.content.split('</think>')[-1]", "", "segments"),  # drops the reasoning
    ("m.content | replace(' is ', ' was ')", "", "segments"),  # rewrites it
    ("m.content[:-12]", "", "segments"),  # cuts the answer off
    ("m.content | upper", "", "segments"),
]


@pytest.mark.parametrize(("said", "start", "name"), TEMPLATES)
def test_a_chat_template_is_followed_or_refused(
    said: str, start: str, name: str | None, broken: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = broken("qwen2")
    content = f"{{{{ ({said}) if m.role == 'assistant' else m.content }}}}"
    turns = f"{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{content}<|im_end|>\n{{% endfor %}}"
    opening = f"{{% if add_generation_prompt %}}<|im_start|>assistant\n{start}{{% endif %}}"
    (folder / "chat_template.jinja").write_text(turns + opening)
    subject = subject_of(folder, tmp_path / "work")
    rows = [row_of(subject, one) for one in ("segments", "prompt", "stop token")]
    assert next((row.name for row in rows if row.status == FAILED), None) == name, rows


def test_weights_that_are_not_finite_fail(broken: Callable[[str], Path], tmp_path: Path) -> None:
    folder = broken("qwen2")
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, lambda weights: weights[name][0].fill_(float("nan")))
    row = row_of(subject_of(folder, tmp_path / "work", real_weights=True), "loads")
    assert row.status == FAILED
    assert "not finite" in row.figure


# The rows about code: a fault in it, by what a test replaces, and the row that must say so.


def scale_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the head, as a kernel with a wrong factor would."""
    original = head.weighted_linear_cross_entropy

    def wrong(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return original(hidden * 1.01 - hidden.detach() * 0.01, *args, **kwargs)

    monkeypatch.setattr(head, "weighted_linear_cross_entropy", wrong)


def forget_the_other_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Denominators of the first micro-batch alone."""
    original = ScaleSFTTrainer._get_num_items_in_batch
    monkeypatch.setattr(
        ScaleSFTTrainer, "_get_num_items_in_batch", lambda self, batches, device: original(self, batches[:1], device)
    )


def let_samples_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from balanced_thinking.packing.attention import use_packed_rows
    from balanced_thinking.training import sft

    monkeypatch.setattr(sft, "use_packed_rows", lambda rows: use_packed_rows(rows and [[sum(row)] for row in rows]))


def ignore_the_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generation sees the filler on the left."""
    original = ScaleCollator.collate_prompts

    def without_mask(self: ScaleCollator, rows: Any) -> dict[str, torch.Tensor]:
        batch = original(self, rows)
        return batch | {"attention_mask": torch.ones_like(batch["attention_mask"])}

    monkeypatch.setattr(generation.ScaleCollator, "collate_prompts", without_mask)


def resume_without_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_full_weights", lambda checkpoint, model: True)


def save_no_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedTokenizerBase

    original = PreTrainedTokenizerBase.save_pretrained

    def forget(self: Any, folder: Any, *args: Any, **kwargs: Any) -> Any:
        return None if Path(folder).name == ".saving-model" else original(self, folder, *args, **kwargs)

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", forget)


def give_the_answer_to_thinking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The border one token late."""
    from balanced_thinking.batch import completions
    from balanced_thinking.segments import ANSWER, THINK

    original = completions.token_segments

    def late(*args: Any) -> list[int]:
        segments = original(*args)
        segments[segments.index(ANSWER)] = THINK
        return segments

    monkeypatch.setattr(completions, "token_segments", late)


def feed_another_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generation opens the thinking, training does not."""
    original = ScaleCollator.collate_prompts

    def opened(self: ScaleCollator, rows: Any) -> dict[str, torch.Tensor]:
        batch = original(self, rows)
        tag = self.tokenizer("<think>", add_special_tokens=False, return_tensors="pt")["input_ids"]
        return batch | {"input_ids": torch.cat([batch["input_ids"], tag], 1)}

    monkeypatch.setattr(ScaleCollator, "collate_prompts", opened)


def forget_the_end_of_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generation stops at another token than the trained one."""
    original = CompletionScorer.__init__

    def forget(self: CompletionScorer, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.stops = [0]

    monkeypatch.setattr(CompletionScorer, "__init__", forget)


CODE = [
    (give_the_answer_to_thinking, "segments", "think segment"),
    (forget_the_end_of_the_turn, "stop token", "stops only at"),
    (feed_another_prompt, "prompt", "training has 'no more', generation feeds '<think>'"),
    (scale_the_gradient, "loss and gradient", "gradient by 9e-03"),
    (forget_the_other_micro_batches, "accumulation", "compared with 1 x 8"),
    (let_samples_see_each_other, "packing", "padded rows"),
    (ignore_the_padding, "generation", "batch 8"),
    (resume_without_loading, "resume", "tensors differ"),
    (save_no_processor, "saved folder", ""),
]


@pytest.mark.parametrize(("spoil", "name", "word"), CODE)
def test_a_fault_in_the_code_fails_where_it_is(
    spoil: Callable[[pytest.MonkeyPatch], None],
    name: str,
    word: str,
    folders: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(monkeypatch)
    row = row_of(subject_of(folders("qwen2"), tmp_path), name)
    assert row.status == FAILED, row
    assert word in row.figure


def test_a_checkpoint_that_stops_elsewhere_is_completed(
    broken: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = broken("qwen2")
    stop_at_another_token(folder)
    row = row_of(subject_of(folder, tmp_path / "work"), "stop token")
    assert row.status == PASSED
    assert "the checkpoint does not name it" in row.figure
    monkeypatch.setattr(safety, "add_stop_token", lambda *_: None)
    row = row_of(subject_of(folder, tmp_path / "other"), "saved folder")
    assert row.status == FAILED
    assert "not at the trained end '<|im_end|>'" in row.figure


def test_every_row_has_a_fault_that_it_finds() -> None:
    assert {name for *_, name, _ in [*FILES, *CODE]} | {"your data"} == set(NAMES)


def write_rows(file: Path, lines: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


GOOD = {"question": "How many?", "think": "Count them.", "answer": "2"}
REFUSED = [
    (GOOD | {"question": ""}, "no_question"),  # found by reading
    (GOOD | {"think": ""}, "no_think"),
    (GOOD | {"think": "It ends </think> here."}, "tag_in_text"),
    (GOOD | {"question": "<|im_end|> what?"}, "special_token"),  # found by the model's tokenizer
    (GOOD | {"question": "Which? " * 9000}, "too_long"),  # beyond the default of max_length
    (GOOD | {"image": "none.png"}, "missing_image"),
    (GOOD | {"image": "small.png"}, "text_only_model"),
]


@pytest.mark.parametrize(("line", "problem"), REFUSED, ids=[problem for _, problem in REFUSED])
def test_rows_of_the_user_are_refused_by_name(
    line: dict[str, Any], problem: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """As `balanced inspect --model` and a training name them."""
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    data = write_rows(tmp_path / "rows.jsonl", [GOOD, line])
    subject = subject_of(folders("qwen2"), tmp_path)
    row = row_of(subject, "your data", UserData(data))
    assert row.status == FAILED
    assert row.figure.startswith(f"1 of the first 2 rows are refused: 1 {problem} (")
    inspected = inspect_data(data, processor=subject.processor)
    assert [bad.problems[0] for bad in inspected.bad_rows] == [problem]


def test_good_rows_of_the_user_have_lengths(folders: Callable[[str], Path], tmp_path: Path) -> None:
    subject = subject_of(folders("qwen2"), tmp_path)
    data = write_rows(tmp_path / "rows.jsonl", [GOOD, GOOD | {"question": "How many then?"}])
    row = row_of(subject, "your data", UserData(data))
    assert row.status == PASSED
    assert re.fullmatch(r"2 rows of (\d+) to (\d+) tokens, median \d+", row.figure)


def test_a_format_of_the_users_own_is_checked(folders: Callable[[str], Path], tmp_path: Path) -> None:
    own = get_format({"think_open": "[why]", "think_close": "[/why]", "answer_open": "[so]", "answer_close": "[/so]"})
    subject = subject_of(folders("qwen2"), tmp_path, format=own)
    rows = [row_of(subject, name) for name in ("segments", "stop token", "resume")]
    assert [row.status for row in rows] == [PASSED] * 3, rows
    assert rows[0].figure.startswith("tokens of each tag: [why] ")


def test_a_processor_of_our_own_is_read_by_us_only(folders: Callable[[str], Path], tmp_path: Path) -> None:
    row = row_of(subject_of(folders("qwen2_5_vl"), tmp_path), "saved folder")
    assert row.status == SKIPPED
    assert "a class of this package" in row.figure


def test_a_configuration_alone_is_enough(tmp_path: Path) -> None:
    """In full size: what a download without the weights has."""
    folder = write_hub_folder("qwen2_5_vl", tmp_path / "model")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    config = json.loads((folder / "config.json").read_text())
    wide = {"hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80, "num_attention_heads": 64}
    for part in (config, config.get("text_config", {})):
        part.update({name: value for name, value in wide.items() if name in part})
    config["vision_config"]["out_hidden_size"] = 8192
    edit_json(folder / "config.json", **config)
    subject = subject_of(folder, tmp_path / "work")
    rows = [row_of(subject, name) for name in ("loads", "processor and template")]
    assert [row.status for row in rows] == [PASSED, PASSED], rows
    assert "there are no weights beside the configuration" in rows[0].figure


def test_a_model_that_cannot_pack_skips_the_row(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balanced_thinking.training.sft.choose_packing", lambda *_: None)
    subject = subject_of(folders("qwen2"), tmp_path)
    assert row_of(subject, "packing").status == SKIPPED


USAGE = [
    ["check", "runs/nope"],
    ["check", "tiny:qwen9"],
    ["check", "world-base", "--data", "wrld"],
    ["check", "world-base", "--format", "think-anser"],
    ["check", "world-base", "--data_options.n", "3"],
    ["check", "world-base", "--real-weights", "--layers", "2"],
    ["check", "world-base", "--layers", "0"],
    ["check", "world-base", "--lares", "2"],
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_wrong_usage_starts_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(words) == 2
    assert "passed" not in capsys.readouterr().out


def test_a_failure_ends_with_1_and_says_what_it_means(
    broken: Callable[[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = broken("qwen2")
    lose_a_tensor(folder)
    few = ("loads", "segments")
    monkeypatch.setattr(
        "balanced_thinking.conformance.run.list_properties",
        lambda *args: [one for one in list_properties(*args) if one.name in few],
    )
    assert exit_code(["check", str(folder)]) == 1
    shown = capsys.readouterr()
    assert "failed   loads" in shown.out
    assert "loads: Part of the model would be missing or random" in shown.out
    assert "1 of 2 properties failed (loads)" in shown.err


def test_an_error_of_the_models_own_code_becomes_its_row(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Iterator[None]:
        raise IndexError("list index\nout of range")

    monkeypatch.setattr(training, "take_step", fail)
    row = row_of(subject_of(folders("qwen2"), tmp_path), "loss and gradient")
    assert (row.status, row.figure) == (FAILED, "IndexError: list index out of range")
