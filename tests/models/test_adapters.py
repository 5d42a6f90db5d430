"""The base of an adapter is found from every folder, also after a move; where it is not, the adapter is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.models import base_record
from balanced_thinking.models.adapters import name_base_absolutely, record_base, refuse_served_base
from balanced_thinking.models.base_record import OtherBaseError, compare_base, describe_base
from balanced_thinking.models.find import ModelNotFoundError, adapter_base_name, check_model, find_model_source
from balanced_thinking.models.load import ensure_saved, load_model, load_processor
from balanced_thinking.models.tiny import build_tiny
from balanced_thinking.runs.manifest import find_damage, seal_folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model") / "base"
    model, tokenizer = build_tiny("qwen2")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def write_adapter(folder: Path, base: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    return folder


# Where the adapter is, what it names as its base, and where that is; all below one folder. `@` is that folder itself.
PLACES = [
    ("r/model", "r/base", "r/base"),  # as a run wrote it, started from the folder above
    ("r/model", "base", "r/base"),
    ("r/model", "../base", "r/base"),
    ("r/checkpoints/checkpoint-3", "r/base", "r/base"),
    ("exported", "@/gone/exported/base", "exported/base"),  # a copy that was written beside the adapter
    ("moved/model", "r/base", "moved/base"),  # the run has another name now
    ("moved/model", "@/gone/r/base", "moved/base"),
    ("study/a/seed-1/model", "study/a/seed-1/base", "study/a/seed-1/base"),
    ("runs/grpo/model", "runs/sft/model", "runs/sft/model"),  # trained on a run, by a relative name
    ("runs/grpo/model", "sft", "runs/sft"),
    ("new/runs/grpo/model", "@/old/runs/sft/model", "new/runs/sft/model"),  # both were moved together
    ("adapter", "@/models/mine", "models/mine"),
    ("adapter", "models/mine", "models/mine"),
    ("a/b/c/adapter", "./models/mine", "models/mine"),
    ("adapter", "@/gone/models/mine", "models/mine"),
]


@pytest.mark.parametrize(("adapter", "named", "where"), PLACES)
def test_the_base_is_found_from_another_folder(
    adapter: str, named: str, where: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "all"
    folder = write_adapter(place / adapter, named.replace("@", str(place)))
    (place / where).mkdir(parents=True)
    (place / where / "config.json").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = adapter_base_name(str(folder))
    assert found is not None
    assert Path(found).resolve() == place / where


# Where the adapter is, what it names, folders with a model there, those among them that a run wrote as its base, runs
# with a recipe, and the folder that is right.
NEIGHBOURS = [
    ("runs/lora/model", "@/models/base", ["models/base", "runs/base/model"], [], ["runs/base"], "models/base"),
    ("runs/lora/model", "@/models/base", ["models/base", "runs/base"], [], [], "models/base"),
    ("runs/lora/model", "@/models/base", ["models/base", "runs/base"], ["runs/base"], [], "models/base"),
    ("lora", "@/models/base", ["models/base", "base"], ["base"], [], "models/base"),  # beside an exported adapter
    ("lora", "@/models/base", ["models/base", "lora/base"], [], [], "models/base"),  # nobody says who wrote it
    ("runs/lora/checkpoints/checkpoint-3", "@/models/base", ["models/base", "runs/base"], [], [], "models/base"),
    # A copied run keeps the base that it wrote, whatever is at the first one's place now.
    ("copy/model", "@/r/base", ["r/base", "copy/base"], ["r/base", "copy/base"], ["copy"], "copy/base"),
    ("copy/model", "@/r/base", ["r/base", "copy/base"], [], ["copy"], "copy/base"),  # of an older version
    ("copy/checkpoints/checkpoint-3", "@/r/base", ["r/base", "copy/base"], ["copy/base"], ["copy"], "copy/base"),
]


@pytest.mark.parametrize(("adapter", "named", "models", "written", "runs", "right"), NEIGHBOURS)
def test_another_model_called_base_is_not_taken_for_the_recorded_one(
    adapter: str, named: str, models: list[str], written: list[str], runs: list[str], right: str, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / adapter, named.replace("@", str(tmp_path)))
    for place in models:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "config.json").write_text("{}")
    for place in written:
        seal_folder(tmp_path / place, about={"kind": "base"})
    for place in runs:
        (tmp_path / place / "config.yaml").write_text("stage: sft\n")
    assert adapter_base_name(str(folder)) == str(tmp_path / right)


def write_weights(folder: Path, content: bytes, *, sealed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(content)
    if sealed:
        seal_folder(folder)


def forget_weights(folder: Path, **_: bool) -> None:
    (folder / "model.safetensors").unlink()


WAS, OTHER = b"weights as they were", b"weights of the other"
# What happens to the base of an adapter afterwards, and what the refusal says; "" for none.
CHANGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("nothing", lambda base: None, ""),
    ("the same again", lambda base: write_weights(base, WAS), ""),
    ("another tokenizer", lambda base: (base / "tokenizer.json").write_text("{}") and None, ""),
    ("retrained", lambda base: write_weights(base, OTHER, sealed=True), "model.safetensors has other content than it"),
    ("retrained by others", lambda base: write_weights(base, OTHER), "model.safetensors has other content than it had"),
    ("another size", lambda base: write_weights(base, OTHER[:-1]), "model.safetensors has 19 bytes, expected 20"),
    ("without weights", forget_weights, "model.safetensors is not there"),
    ("more", lambda base: (base / "more.safetensors").write_bytes(WAS) and None, "more.safetensors was not there"),
]


@pytest.mark.parametrize("place", ["sft", "sft/model"])
@pytest.mark.parametrize(("change", "said"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_an_adapter_is_not_used_on_another_base_than_it_was_trained_on(
    change: Callable[[Path], None], said: str, place: str, tmp_path: Path
) -> None:
    base, adapter = tmp_path / place, write_adapter(tmp_path / "lora" / "model", str(tmp_path / place))
    write_weights(base, WAS, sealed=True)
    seal_folder(adapter, about={"kind": "model"} | record_base(adapter))
    (base / "manifest.json").unlink()  # as whoever changes a model is advised
    change(base)
    if not said:
        assert adapter_base_name(str(adapter)) == str(base)
        return
    with pytest.raises(OtherBaseError, match=f"{base}, which is not the model that it was trained on: .* {said}"):
        adapter_base_name(str(adapter))
    (adapter / "manifest.json").unlink()
    assert adapter_base_name(str(adapter)) == str(base)


@pytest.mark.parametrize("was_there", [True, False])
def test_weights_that_nothing_loads_may_come_and_go(was_there: bool, tmp_path: Path) -> None:
    base, adapter = tmp_path / "sft", write_adapter(tmp_path / "lora", str(tmp_path / "sft"))
    write_weights(base, WAS)
    unused = base / "pytorch_model.bin"
    if was_there:
        unused.write_bytes(OTHER)
    seal_folder(adapter, about={"kind": "model"} | record_base(adapter))
    unused.unlink() if was_there else unused.write_bytes(OTHER)
    assert adapter_base_name(str(adapter)) == str(base)
    forget_weights(base)
    with pytest.raises(OtherBaseError, match=r"model.safetensors is not there"):
        adapter_base_name(str(adapter))


def test_of_several_bases_the_one_with_the_recorded_weights_is_taken(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "all" / "runs" / "lora" / "model", str(tmp_path / "old" / "runs" / "sft"))
    write_weights(tmp_path / "old/runs/sft", WAS)
    seal_folder(adapter, about=record_base(adapter))
    write_weights(tmp_path / "old/runs/sft", OTHER)
    write_weights(tmp_path / "all/runs/sft", WAS)
    assert adapter_base_name(str(adapter)) == str(tmp_path / "all/runs/sft")


# Where the base and the adapter are after the folder of both was renamed, and what the adapter named.
MOVED = [
    ("new/sft", "new/lora/model", "old/sft"),
    ("new/ex port", "new/lo ra/model", "old/ex port"),
    ("new/sft/model", "new/lora/model", "old/sft"),  # a run
    ("new/sft", "new/lora/checkpoints/checkpoint-2", "old/sft"),
    ("new/base", "new/adapter", "elsewhere/base"),
]


@pytest.mark.parametrize(("base", "adapter", "named"), MOVED)
def test_a_base_beside_its_adapter_is_found_by_its_name_and_weights(
    base: str, adapter: str, named: str, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / adapter, str(tmp_path / named))
    write_weights(tmp_path / base, WAS)
    with pytest.raises(ModelNotFoundError, match="there is no such folder, nor one beside"):  # not by its name alone
        adapter_base_name(str(folder))
    seal_folder(folder, about={"base": describe_base(tmp_path / base)})
    assert adapter_base_name(str(folder)) == str(tmp_path / base.removesuffix("/model"))
    write_weights(tmp_path / base, OTHER)
    with pytest.raises(ModelNotFoundError, match="there is no such folder, nor one beside"):
        adapter_base_name(str(folder))


def test_a_large_base_is_compared_without_reading_it_completely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_WHOLE_BYTES", 1000), ("_BLOCK_BYTES", 10), ("_BLOCKS", 5)):
        monkeypatch.setattr(base_record, name, value)
    content = bytes(2000)
    write_weights(tmp_path, content)
    record = describe_base(tmp_path)
    for place, noticed in ((0, True), (1999, True), (998, True), (300, False)):  # 300 is between two blocks
        write_weights(tmp_path, content[:place] + b"x" + content[place + 1 :])
        assert (compare_base(record, tmp_path) is not None) == noticed
    write_weights(tmp_path, content, sealed=True)
    record = describe_base(tmp_path)
    write_weights(tmp_path, content[:300] + b"x" + content[301:], sealed=True)
    assert compare_base(record, tmp_path) == "model.safetensors has other content than it had then"  # by its manifest


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"),  # on the hub
        ("/another/python/site-packages/balanced_thinking/models/world-base", "world-base"),
        ("world-base", "world-base"),
        ("/another/python/site-packages/balanced_thinking/models/world-reasoner", "world-reasoner"),
    ],
)
def test_a_base_that_is_in_no_folder_keeps_its_name(named: str, found: str, tmp_path: Path) -> None:
    assert adapter_base_name(str(write_adapter(tmp_path / "r" / "model", named))) == found


@pytest.mark.parametrize("named", ["./r/base", "/nowhere/base", "a/b/c", "r-base", "model"])
def test_an_adapter_without_its_base_is_named(named: str, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "run" / "model", named)
    with pytest.raises(ModelNotFoundError, match=rf"{folder} is an adapter on the base model {named}, and there is no"):
        check_model(str(folder))


@pytest.mark.parametrize("named", ["./sft/model", "./sft", "sft"])
def test_an_adapter_is_not_its_own_base(named: str, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "sft" / "model", named)
    with pytest.raises(ModelNotFoundError, match="is an adapter on the base model"):
        adapter_base_name(str(folder))


def test_a_base_that_the_hub_does_not_give_is_an_error_that_names_the_adapter(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "r", "owner/name-that-nobody-has")
    with pytest.raises(OSError, match=f"{folder} is an adapter on the base model owner/name-that-nobody-has"):
        load_model(str(folder))


def test_a_new_adapter_names_its_base_by_an_absolute_path(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(base, tmp_path / "here" / "mine")
    monkeypatch.chdir(tmp_path / "here")
    loaded = load_model("mine")
    kept = ensure_saved(load_model("tiny:qwen2"), Path("run/base"))
    for name, one in (("on-mine", loaded), ("on-tiny", kept)):
        get_peft_model(one.model, LoraConfig(target_modules=["q_proj"])).save_pretrained(name)
        named = json.loads(Path(name, "adapter_config.json").read_text())["base_model_name_or_path"]
        assert Path(named).is_absolute()
    assert not find_damage(Path("run/base"))  # it is sealed
    monkeypatch.chdir("/")
    for name in ("on-mine", "on-tiny"):
        assert load_model(str(tmp_path / "here" / name)).model is not None
        assert load_processor(str(tmp_path / "here" / name)) is not None


def test_a_relative_base_becomes_absolute_when_it_is_saved(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub name, an absolute path and a folder without an adapter stay as they are."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, tmp_path / "mine")
    for number, (named, expected) in enumerate(
        [("mine", str(tmp_path / "mine")), ("./mine", str(tmp_path / "mine")), ("owner/model", "owner/model")]
    ):
        folder = write_adapter(tmp_path / f"a{number}", named)
        name_base_absolutely(folder)
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == expected
    name_base_absolutely(tmp_path / "mine")
    assert not (tmp_path / "mine" / "adapter_config.json").exists()


def test_plain_peft_finds_the_base_from_any_folder_and_ours_after_a_move(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ensure_saved(load_model("tiny:qwen2"), tmp_path / "run" / "base")
    get_peft_model(kept.model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "run" / "model")
    monkeypatch.chdir("/")
    named = PeftConfig.from_pretrained(tmp_path / "run" / "model").base_model_name_or_path
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(named), tmp_path / "run" / "model")
    assert plain.get_base_model().num_parameters() > 0
    (tmp_path / "run").rename(tmp_path / "moved")
    assert load_model(str(tmp_path / "moved" / "model")).model is not None


# The recipe's model of each run, the model that is evaluated, the one that is served, and whether it is refused.
SERVED = [
    ({"r": "world-base"}, "r/model", "world-base", True),
    ({"r": "world-base"}, "r/checkpoints/checkpoint-2", "world-base", True),
    ({"r": "world-base"}, "link", "world-base", True),
    ({"r": "world-base"}, "r/model", "world-reasoner", False),
    ({"r": "world-base"}, "r/model", "r/model", False),  # served from its folder
    ({"r": "world-base"}, "r/model", "r", False),
    ({"r": "world-base"}, "r/model", "mine", False),  # a name of the server's own
    ({"r": "acme/tiny"}, "r/model", "acme/tiny", True),
    ({"r": "acme/tiny@v1"}, "r/model", "acme/tiny", True),
    ({"r": "./base"}, "r/model", "base", True),
    ({"first": "world-base", "r": "first"}, "r/model", "first/model", True),
    ({"first": "world-base", "r": "first"}, "r/model", "world-base", True),  # through the run before
    ({"first": "r", "r": "first"}, "r/model", "first", True),  # a circle ends
    ({"first": "world-base"}, "other/model", "world-base", False),  # no run says what it started from
]


@pytest.mark.parametrize(("recipes", "model", "served", "refused"), SERVED)
def test_a_server_of_what_a_run_started_from_does_not_answer_for_the_run(
    recipes: dict[str, str], model: str, served: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("r", "first", "other"):
        for folder in ("model", "checkpoints/checkpoint-2"):
            Path(run, folder).mkdir(parents=True)
            Path(run, folder, "config.json").write_text("{}")
    for run, start in recipes.items():
        Path(run, "config.yaml").write_text(f"model: {start}\n")
    Path("link").symlink_to("r/model")
    if not refused:
        refuse_served_base(model, served)
        return
    with pytest.raises(
        RecipeError, match=f"the server's model {served} is the base of {model}, which would not answer"
    ):
        refuse_served_base(model, served)


def test_the_built_in_base_of_an_adapter_is_known_by_its_name(tmp_path: Path) -> None:
    for named in ("world-base", find_model_source("world-base")):
        folder = write_adapter(tmp_path / Path(named).parent.name / "lora", named)
        with pytest.raises(RecipeError, match="world-base is the base of the adapter"):
            refuse_served_base(str(folder), "world-base")
