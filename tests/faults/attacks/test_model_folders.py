"""Folders of models from strangers: each is refused by a sentence that names it, and runs none of its code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from balanced_thinking.models.load import load_model
from balanced_thinking.models.own_code import OwnCodeError, refuse_own_code
from tests.faults.attacks.attack import assert_refused, run_balanced

DEEP = "[" * 100_000
Change = Callable[[Path], object]
ROWS = '{"id": "a", "question": "q ?", "think": "t .", "answer": "red"}\n'


@pytest.fixture(scope="module")
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text-only model's folder."""
    folder, loaded = tmp_path_factory.mktemp("good") / "m", load_model("tiny:qwen2")
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    return folder


def write(name: str, content: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def configure(**values: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


def become_adapter(base: str) -> Change:
    def change(folder: Path) -> None:
        for file in folder.iterdir():
            file.unlink()
        about = {"base_model_name_or_path": base, "peft_type": "LORA"}
        (folder / "adapter_config.json").write_text(json.dumps(about))

    return change


def bring_code(folder: Path) -> None:
    configure(auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}, model_type="evil")(folder)
    (folder / "evil.py").write_text("open('pwned', 'w')\n")


class _Program:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def pickle_program(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Program()))


def index(content: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(content)

    return change


# (what it is, how a good folder becomes it, what is said)
ATTACKS: list[tuple[str, Change, str]] = [
    ("sizes of 10**12", configure(hidden_size=10**12), "cannot be built"),
    ("a vocabulary of 10**12", configure(vocab_size=10**12), "GiB were needed"),
    ("negative sizes", configure(hidden_size=-64), "cannot be built"),
    ("no heads", configure(num_attention_heads=0), "cannot"),
    ("a billion layers", configure(num_hidden_layers=10**9), "config.json"),
    ("a size that is a text", configure(hidden_size="x"), "config.json"),
    ("a size that is infinite", configure(hidden_size=1e308), "config.json"),
    ("an activation that is none", configure(hidden_act="evil"), "KeyError: 'evil'"),
    ("positions that are none", configure(rope_parameters={"rope_type": "evil", "rope_theta": 1.0}), "evil"),
    ("a part that is a text", configure(text_config="x"), "cannot be built"),
    ("padding beyond all tokens", configure(pad_token_id=10**20), "cannot be built"),
    ("watermarks that are none", write("generation_config.json", '{"watermarking_config": {"x": 1}}'), "cannot be"),
    ("deep configuration", write("config.json", DEEP), "config.json is not valid JSON: brackets are nested"),
    ("a number of 5,000 digits", write("config.json", '{"hidden_size":' + "9" * 5_000 + "}"), "4300 digits"),
    ("no UTF-8", write("config.json", b"\xff\xfe"), "config.json is not valid JSON"),
    ("empty", write("config.json", ""), "config.json is not valid JSON"),
    ("another kind of model", configure(model_type="../x"), "../x"),
    ("code of its own", bring_code, "AutoConfig of config.json would run the class C in evil.py of "),
    ("a program in the weights", pickle_program, "would run code"),
    ("deep tokenizer", write("tokenizer.json", DEEP), "no tokenizer that transformers can load"),
    ("torn tokenizer", write("tokenizer.json", '{"version"'), "no tokenizer that transformers can load"),
    ("deep settings", write("tokenizer_config.json", DEEP), "no tokenizer that transformers can load"),
    ("settings that are a list", write("tokenizer_config.json", "[]"), "no tokenizer that transformers can load"),
    ("deep processor", write("processor_config.json", DEEP), "processor_config.json is not valid JSON"),
    ("deep generation", write("generation_config.json", DEEP), "generation_config.json is not valid JSON: brackets"),
    ("generation as a list", write("generation_config.json", "[]"), "generation_config.json is not a JSON object"),
    ("deep adapter", write("adapter_config.json", DEEP), "adapter_config.json is not valid JSON"),
    ("an adapter on a URL", become_adapter("http://127.0.0.1:9/x"), "there is no such folder"),
    ("an adapter on a folder above", become_adapter("../../../etc"), "there is no such folder"),
    ("an adapter on itself", become_adapter("."), "adapter"),
    ("an adapter with a zero", become_adapter("a\0b"), "a\\x00b"),
    ("an adapter with half a character", become_adapter("\ud800"), "\\ud800"),
    ("weights above the folder", index('{"weight_map": {"a": "../../../etc/passwd"}}'), "passwd"),
    ("deep index", index(DEEP), "index.json"),
    ("an index that is a list", index("[]"), "is not an index of weight files"),
    ("a header of 2**64 bytes", write("model.safetensors", b"\xff" * 8 + b"{}"), "header too large"),
    ("a header that is cut", write("model.safetensors", (10**8).to_bytes(8, "little") + b"{"), "invalid header"),
    ("a deep header", write("model.safetensors", (10**5).to_bytes(8, "little") + b"[" * 10**5), "invalid JSON"),
]


@pytest.mark.parametrize(("change", "said"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_a_hostile_folder_is_refused(change: Change, said: str, good_model: Path, tmp_path: Path) -> None:
    shutil.copytree(good_model, tmp_path / "m")
    change(tmp_path / "m")
    (tmp_path / "x.jsonl").write_text(ROWS)
    argv = ["eval", "--model", "m", "--data", "x.jsonl", "--split", "train", "--max-new-tokens", "2", "--out", "o"]
    assert_refused(run_balanced(argv, tmp_path, memory_mib=400), said)
    assert not [*tmp_path.rglob("pwned")]


# (file, its auto_map, what is said)
OWN_CODE = [
    (
        "tokenizer_config.json",
        {"AutoTokenizer": ["evil.T", None]},
        "AutoTokenizer of tokenizer_config.json would run the",
    ),
    ("tokenizer_config.json", {"AutoTokenizer": [None, "who/what--evil.T"]}, "in evil.py of the repository who/what"),
    ("processor_config.json", {"AutoProcessor": "a.b.P"}, "processor_config.json would run the class P in a.b.py of"),
    ("preprocessor_config.json", {"AutoImageProcessor": "x.P"}, "AutoImageProcessor of preprocessor_config.json would"),
    ("config.json", {"AutoConfig": "x" * 10**6}, "AutoConfig of config.json would run"),
    ("config.json", ["x"], "on the hub name in auto_map"),
]


@pytest.mark.parametrize(("name", "mapping", "said"), OWN_CODE)
def test_code_of_each_part_is_named(name: str, mapping: object, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps({"auto_map": mapping}))
    with pytest.raises(OwnCodeError, match="which was not run") as caught:
        refuse_own_code(str(tmp_path), ValueError("pass the argument `trust_remote_code=True`"))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000
    refuse_own_code(str(tmp_path), ValueError("another error"))
