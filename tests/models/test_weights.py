"""Weights that do not fit the model, cannot be read or are not finite are refused by name: no silent random tensors."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from balanced_thinking.cli import main
from balanced_thinking.models.load import load_model, load_processor
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.models.vocabulary import VocabularyError
from balanced_thinking.models.weights import WeightsError
from balanced_thinking.runs.manifest import DamagedFilesError, seal_folder
from balanced_thinking.training.loading import load_full_weights
from tests.tiny_training import config, trainer

Tensors = dict[str, torch.Tensor]
NORM, DOWN = "model.norm.weight", "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A text model with a tied head, the same untied, one with pictures, and an adapter; each with its processor."""
    place = tmp_path_factory.mktemp("checkpoints")
    for name, architecture in (("tied", "qwen2"), ("vision", "qwen2_5_vl")):
        model, processor = build_tiny(architecture)
        model.save_pretrained(place / name)
        processor.save_pretrained(place / name)
    shutil.copytree(place / "tied", place / "untied")
    tensors = load_file(place / "tied" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2
    save_file(tensors, place / "untied" / "model.safetensors", {"format": "pt"})
    change_config(place / "untied", tie_word_embeddings=False)
    base = load_model(str(place / "tied"))
    torch.manual_seed(1)
    adapted = get_peft_model(base.model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(place / "adapter")
    return {folder.name: folder for folder in place.iterdir()}


def change_config(folder: Path, **values: Any) -> None:
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(found | values))


def change_tensors(file: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, file, {"format": "pt"})


def copied(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place / folder.name))


def put(name: str, value: torch.Tensor) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: value})


def drop(part: str) -> Callable[[Tensors], object]:
    return lambda tensors: [tensors.pop(name) for name in list(tensors) if part in name]


# Folder, what happens to its tensors, what the message says.
UNFIT = [
    ("tied", drop("model.norm"), r"1 tensor of Qwen2ForCausalLM not in the files \(model.norm.weight\)"),
    ("tied", drop("layers.1."), r"12 tensors .* not in the files \(.*layers.1.* and 8 more\)"),
    ("tied", put(NORM, torch.ones(32)), r"of another shape \(model.norm.weight is \[32\], expected \[64\]\)"),
    ("tied", put("model.embed_tokens.weight", torch.ones(8, 64)), r"embed_tokens.weight is \[8, 64\], expected"),
    ("tied", put("score.weight", torch.ones(2, 64)), r"1 tensor in the files that .* does not use \(score.weight\)"),
    ("tied", put("model.layers.7.mlp.up_proj.weight", torch.ones(2)), r"does not use \(model.layers.7.mlp"),
    ("untied", drop("lm_head"), r"not in the files \(lm_head.weight\).*--allow-missing lm_head.weight"),
    ("untied", drop("embed_tokens"), r"not in the files \(model.embed_tokens.weight\)"),
    ("vision", drop("visual.merger"), r"tensors of Qwen2_5_VLForConditionalGeneration not in the files \(.*merger"),
    ("vision", put("visual.blocks.9.norm1.weight", torch.ones(64)), r"does not use \(.*visual.blocks.9"),
]


@pytest.mark.parametrize(("name", "change", "said"), UNFIT)
def test_tensors_that_do_not_fit_are_named(
    name: str, change: Callable[[Tensors], object], said: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    place = copied(folders[name], tmp_path)
    change_tensors(place / "model.safetensors", change)
    with pytest.raises(WeightsError, match=said):
        load_model(str(place))


@pytest.mark.parametrize("name", ["tied", "untied", "vision"])
def test_complete_weights_load_as_they_were_saved(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    load_model(str(folders[name])).model.save_pretrained(tmp_path)  # under the names that the files have
    saved, again = load_file(folders[name] / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert again.keys() == saved.keys()
    for tensor in saved:
        assert torch.equal(again[tensor], saved[tensor]), tensor


def test_an_adapter_loads_as_its_base_with_the_product_of_its_matrices(folders: dict[str, Path]) -> None:
    expected = load_file(folders["tied"] / "model.safetensors")
    lora = load_file(folders["adapter"] / "adapter_model.safetensors")
    places = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in lora}
    assert places == {f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}
    for place in places:
        low, high = (lora[f"base_model.model.{place}.lora_{part}.weight"] for part in "AB")
        expected[f"{place}.weight"] += high @ low  # r and lora_alpha are the same, so the factor is 1
    found = load_model(str(folders["adapter"])).model.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)


@pytest.mark.parametrize("name", ["tied", "adapter"])
@pytest.mark.parametrize("read", [load_model, load_processor], ids=["model", "processor"])
def test_a_sealed_model_of_which_a_file_was_altered_is_refused(
    name: str, read: Callable[[str], Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    place = copied(folders[name], tmp_path)
    (place / "optimizer.pt").write_bytes(b"of a checkpoint")
    seal_folder(place)
    assert read(str(place)) is not None
    (place / "optimizer.pt").write_bytes(b"of another one.")  # which is not read here
    assert read(str(place)) is not None
    (weights,) = place.glob("*model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedFilesError, match=rf"{weights.name} was altered.*delete .*manifest\.json"):
        read(str(place))
    (place / "manifest.json").unlink()  # the change is meant
    assert read(str(place)) is not None


@pytest.mark.parametrize("allowed", ["lm_head", "lm_head.weight", "lm_*", "*.weight"])
def test_a_head_that_is_meant_to_be_new_is_allowed_by_name(
    allowed: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    place = copied(folders["untied"], tmp_path)
    change_tensors(place / "model.safetensors", drop("lm_head"))
    first, second, other = (load_model(str(place), allow_missing=[allowed], seed=seed) for seed in (1, 1, 2))
    heads = [one.model.lm_head.weight for one in (first, second, other)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert first.source is None  # no folder holds these weights: an adapter on them needs them saved
    with pytest.raises(WeightsError, match="lm_head"):
        load_model(str(place), allow_missing=["head", "lm_hea", "model.norm"])


BROKEN_VALUES = [
    ("tied", NORM, float("nan"), torch.float32),
    ("tied", NORM, float("inf"), torch.float32),
    ("tied", DOWN, -math.inf, torch.float32),
    ("tied", DOWN, float("nan"), torch.bfloat16),
    ("tied", DOWN, float("inf"), torch.float16),
    ("untied", "lm_head.weight", float("nan"), torch.float32),
    ("vision", "visual.blocks.0.norm1.weight", float("nan"), torch.float32),
    ("adapter", "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight", float("nan"), torch.float32),
]


@pytest.mark.parametrize(("name", "tensor", "value", "dtype"), BROKEN_VALUES)
def test_values_that_are_not_finite_are_refused_by_name(
    name: str, tensor: str, value: float, dtype: torch.dtype, folders: dict[str, Path], tmp_path: Path
) -> None:
    place = copied(folders[name], tmp_path)

    def spoil(tensors: Tensors) -> None:
        tensors[tensor] = tensors[tensor].to(dtype)
        tensors[tensor].view(-1)[-1] = value

    change_tensors(next(place.glob("*model.safetensors")), spoil)
    with pytest.raises(WeightsError, match=rf"1 tensor in .*{tensor.partition('.')[2].replace('.', chr(92) + '.')}"):
        load_model(str(place), dtype=torch.float32)


class Runs:
    """What a pickle may do besides holding tensors."""

    def __reduce__(self) -> Any:
        return print, ("code of the file ran",)


def shard(place: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(place)
    (place / "model.safetensors").unlink()
    model.save_pretrained(place, max_shard_size="100KB")


def cut_off(place: Path) -> None:
    file = place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def remove_shard(place: Path) -> None:
    shard(place)
    min(place.glob("model-00002*")).unlink()


def cut_shard(place: Path) -> None:
    shard(place)
    file = min(place.glob("model-00002*"))
    file.write_bytes(file.read_bytes()[:-8])


def spoil_index(place: Path) -> None:
    shard(place)
    (place / "model.safetensors.index.json").write_text("[]")


def write_pointer(place: Path) -> None:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 900000\n"
    (place / "model.safetensors").write_text(text)


def to_pickle(place: Path) -> Path:
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    return place / "pytorch_model.bin"


def write_code(place: Path) -> None:
    to_pickle(place).write_bytes(pickle.dumps({"model.norm.weight": Runs()}))


def cut_pickle(place: Path) -> None:
    file = to_pickle(place)
    file.write_bytes(file.read_bytes()[:-5000])


UNREADABLE: list[tuple[Callable[[Path], object], str]] = [
    (cut_off, r"model.safetensors \([\d,]+ bytes\) cannot be read"),
    (lambda place: (place / "model.safetensors").write_bytes(b""), r"model.safetensors \(0 bytes\) cannot be read"),
    (lambda place: (place / "model.safetensors").write_text("<html>404</html>"), "model.safetensors .*cannot be read"),
    (remove_shard, r"lacks model-00002-of-\d+.safetensors, of the \d+ weight files"),
    (cut_shard, "model-00002-of.* cannot be read"),
    (spoil_index, "model.safetensors.index.json is not an index of weight files"),
    (write_pointer, "pointer of Git LFS, not the weights; run `git lfs pull`"),
    (write_code, r"pytorch_model.bin .*holds more than tensors, and would run code"),
    (cut_pickle, "pytorch_model.bin .*cannot be read"),
]


@pytest.mark.parametrize(("spoil", "said"), UNREADABLE)
def test_files_that_cannot_be_read_are_named(
    spoil: Callable[[Path], object],
    said: str,
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = copied(folders["tied"], tmp_path)
    spoil(place)
    with pytest.raises(WeightsError, match=said):
        load_model(str(place))
    assert "code of the file ran" not in capsys.readouterr().out


@pytest.mark.parametrize("change", [shard, to_pickle])
def test_shards_and_pickles_of_tensors_load(
    change: Callable[[Path], object], folders: dict[str, Path], tmp_path: Path
) -> None:
    place = copied(folders["tied"], tmp_path)
    before = load_model(str(place)).model.state_dict()
    change(place)
    after = load_model(str(place)).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_pickle_may_not_run_code_even_if_asked(folders: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match="weights_only is false"):
        load_model(str(folders["tied"]), weights_only=False)


ADAPTERS: list[tuple[Callable[[Tensors], object], str]] = [
    (drop("layers.1."), r"2 tensors of the adapter not in the files \(.*layers.1.self_attn.q_proj.lora_A"),
    (put("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", torch.ones(8, 64)), "that the adapter does not"),
    (put("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", torch.ones(4, 64)), "does not fit its base"),
    (put("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", torch.ones(8, 32)), "does not fit its base"),
]


@pytest.mark.parametrize(("change", "said"), ADAPTERS)
def test_an_adapter_that_does_not_fit_is_named(
    change: Callable[[Tensors], object], said: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    place = copied(folders["adapter"], tmp_path)
    change_tensors(place / "adapter_model.safetensors", change)
    with pytest.raises(WeightsError, match=said):
        load_model(str(place))


def test_a_checkpoint_that_lacks_a_tensor_is_refused_when_a_run_is_resumed(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    place = copied(folders["vision"], tmp_path)
    model = build_tiny("qwen2_5_vl", seed=2)[0]
    change_tensors(place / "model.safetensors", drop("merger.ln_q"))
    with pytest.raises(WeightsError, match=r"merger\.ln_q\.weight"):
        load_full_weights(str(place), model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("layers.1."), "not in the files .*layers.1"),
        (put("base_model.model.model.extra.lora_A.weight", torch.ones(2)), "does not use"),
    ],
)
def test_a_torn_adapter_is_refused_when_a_run_is_resumed(
    change: Callable[[Tensors], object], said: str, world_rows: Dataset, tmp_path: Path
) -> None:
    lora = LoraConfig(r=2, target_modules=["q_proj"])
    args = config(tmp_path, think_weight_end=0.5, save_strategy="steps", save_steps=1, per_device_train_batch_size=2)
    rows = world_rows.remove_columns("images").select(range(2))
    trainer("qwen2", rows, args, peft_config=lora).train()
    checkpoint = tmp_path / "checkpoint-1"
    change_tensors(checkpoint / "adapter_model.safetensors", change)
    (checkpoint / "manifest.json").unlink()  # as of an earlier version: its manifest would say it first
    args.max_steps = 2
    with pytest.raises(WeightsError, match=said):
        trainer("qwen2", rows, args, peft_config=lora).train(resume_from_checkpoint=str(checkpoint))


def test_a_tokenizer_longer_than_the_embedding_is_refused_with_both_numbers(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    place = copied(folders["tied"], tmp_path)
    loaded = load_model(str(place))
    rows, tokenizer = loaded.model.get_input_embeddings().weight.shape[0], loaded.processor
    first = [f"<spare{number}>" for number in range(rows - len(tokenizer))]
    tokenizer.add_tokens(first)
    tokenizer.save_pretrained(place)
    load_model(str(place))  # the last row has its token now
    tokenizer.add_tokens(["<reason>", "</reason>"])
    tokenizer.save_pretrained(place)
    said = rf"has {rows + 2} tokens, but the model's embedding has {rows} rows; none for '<reason>' \({rows}\)"
    with pytest.raises(VocabularyError, match=said):
        load_model(str(place))


@pytest.mark.parametrize(
    ("name", "token", "special", "refused"),
    [
        ("tied", "<reason>", False, True),
        ("tied", "<reason>", True, True),
        ("tied", "<image>", False, True),  # any text may hold it
        ("tied", "<image_soft_token>", True, False),  # a model of text alone never gets it
        ("tied", "<|audio|>", True, False),
        ("vision", "<|new_image|>", True, True),
        ("vision", "</reason>", False, True),
    ],
)
def test_a_token_beyond_the_embedding(
    name: str, token: str, special: bool, refused: bool, folders: dict[str, Path], tmp_path: Path
) -> None:
    place = copied(folders[name], tmp_path)
    loaded = load_model(str(place))
    tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
    tokenizer.add_tokens([f"<spare{n}>" for n in range(loaded.model.get_input_embeddings().weight.shape[0])])
    loaded.model.resize_token_embeddings(len(tokenizer))
    tokenizer.add_tokens([token], special_tokens=special)
    loaded.model.save_pretrained(place)
    loaded.processor.save_pretrained(place)
    if refused:
        with pytest.raises(VocabularyError, match="resize_token_embeddings"):
            load_model(str(place))
    else:
        load_model(str(place))


def test_a_picture_token_beyond_the_embedding_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    place = copied(folders["vision"], tmp_path)
    change_config(place, image_token_id=9999)
    with pytest.raises(VocabularyError, match=r"image_token_id in config\.json is 9,999"):
        load_model(str(place))


def test_eval_names_what_is_missing_and_takes_what_is_allowed(
    folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = copied(folders["untied"], tmp_path)
    change_tensors(place / "model.safetensors", drop("lm_head"))
    data = tmp_path / "test.jsonl"
    data.write_text(json.dumps({"question": "How many?", "answer": "4"}))
    command = [
        "eval",
        "--model",
        str(place),
        "--data",
        str(data),
        "--max-new-tokens",
        "1",
        "--out",
        str(tmp_path / "e"),
    ]
    assert exit_code(command) == 2
    said = capfd.readouterr().err
    assert "not in the files (lm_head.weight)" in said
    assert "LOAD REPORT" not in said  # once is enough
    assert exit_code([*command, "--allow-missing", "lm_head"]) == 0


def exit_code(command: list[str]) -> int | str | None:
    """A refused command ends in argparse."""
    try:
        return main(command)
    except SystemExit as stop:
        return stop.code
