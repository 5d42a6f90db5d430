"""An exported folder is complete, answers as its run does, and says of it what the run recorded."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoModelForImageTextToText, GenerationConfig

from balanced_thinking.evaluation.model import locate_model
from balanced_thinking.export import plain_answers, run, verify, write
from balanced_thinking.export.card import CardModel, write_card
from balanced_thinking.export.facts import collect_facts, shorten_place
from balanced_thinking.export.samples import OwnAnswer
from balanced_thinking.export.verify import PlainLoadError, find_difference
from balanced_thinking.export.write import complete_processor, generation_settings, left_out_settings
from balanced_thinking.models.load import load_model, load_processor
from balanced_thinking.runs.manifest import find_damage, read_manifest
from balanced_thinking.statistics.intervals import wilson_interval
from tests.cli.tiny_commands import exit_code
from tests.export.runs import FEW, run_in_this_process, write_quantized_run, write_results, write_run


@pytest.fixture(autouse=True)
def _no_new_interpreter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make test-export` starts one for every family, which takes seconds each."""
    if "real_process" not in request.fixturenames:
        monkeypatch.setattr(verify.subprocess, "run", run_in_this_process)


@pytest.fixture
def real_process() -> None:
    """For a program that imports nothing large."""


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "pictures", "llava_next", lora=True)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "text", "qwen2", lora=True)


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """The metadata and the text."""
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_run_is_exported_without_its_adapter_and_verified(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its card's lines load it, after the run is gone, from another folder."""
    copied = shutil.copytree(pictures, tmp_path / "runs" / "mine")
    write_results(copied)
    out = tmp_path / "out" / "exported"
    assert exit_code(["export", str(copied), "--out", str(out), *FEW]) == 0
    assert capsys.readouterr().out.strip().endswith(str(out))
    expected, located_format = load_model(str(copied)).model.state_dict(), locate_model(str(copied)).format
    assert located_format
    shutil.rmtree(copied)
    metadata, body = card_of(out)
    assert "2 of 2 answers of plain transformers are the run's own, token for token" in body
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert not (out / "adapter_config.json").exists()
    assert not find_damage(out)
    assert "README.md" not in read_manifest(out).files  # its reader completes it
    assert locate_model(str(out)).format == located_format
    Image.new("RGB", (56, 56), "red").save(tmp_path / "out" / "picture.png")
    monkeypatch.chdir(tmp_path / "out")
    exec(re.findall(r"(?ms)^```python\n(.*?)^```", body)[0].replace("=512", "=4"), {})
    low, high = wilson_interval(30, 40)
    assert f"| world | test | 40 | 75.0 ({100 * low:.1f} to {100 * high:.1f}) | 7.5 | 5.0 |" in body
    result = metadata["model-index"][0]["results"][0]
    assert result["metrics"][0]["value"] == 0.75
    assert f"{low:.3f} to {high:.3f}, n = 40" in result["metrics"][0]["name"]
    assert result["dataset"] == {"name": "world", "type": "world", "split": "test"}
    assert (metadata["pipeline_tag"], metadata["library_name"]) == ("image-text-to-text", "transformers")


def test_the_card_says_what_the_run_recorded(text: Path, tmp_path: Path) -> None:
    assert exit_code(["export", str(text), "--out", str(tmp_path / "x"), "--samples", "0", "--quiet"]) == 0
    metadata, body = card_of(tmp_path / "x")
    for said in (
        "SCALe-SFT (scheduled weights for thinking and answer)",
        "At step 1 thinking had the weight 0.900 in the loss and the answer 0.100; at step 2, 0.500 and 0.500.",
        "3 samples to train on; 1 bad rows left out.",
        "| world-text | train | Apache-2.0 |",
        "| learning_rate | 0.001 |",
        "| licence | to be filled in",
        "Nothing was measured: there are no evaluations of this model.",
        "answers were not compared with the run's",
        "- torch 2.13.0",
    ):
        assert said in body
    assert {"scale-sft", "balanced-thinking"} <= set(metadata["tags"])
    assert "base_model" not in metadata  # it is on no hub
    files = [file for file in (tmp_path / "x").rglob("*") if file.suffix in (".md", ".json", ".jinja")]
    assert len(files) > 4
    places = (str(tmp_path), str(text.parent))
    assert [file for file in files if any(place in file.read_text(encoding="utf-8") for place in places)] == []


def test_weights_that_do_not_fit_on_the_disk_are_refused_before_any_answer(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(write, "free_bytes", lambda place: 1000)
    assert exit_code(["export", str(text), "--out", str(tmp_path / "a" / "x"), "--quiet"]) == 2
    assert "GiB free; choose another --out" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("real_process")
def test_the_program_runs_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, sys\n"
        "request = json.load(open(sys.argv[1]))\n"
        "print('what it said', file=sys.stderr)\n"
        "if request['folder'] == 'bad': sys.exit(3)\n"
        "json.dump([request, os.getcwd(), sys.path[0]], open(sys.argv[2], 'w'))\n"
    )
    monkeypatch.setattr(verify, "_PROGRAM", program)
    (tmp_path / "other").mkdir()
    request, place, first = verify._run_plain({"folder": "good"}, tmp_path)
    assert (request, place) == ({"folder": "good"}, str(tmp_path))
    assert first != str(tmp_path)  # no module beside the program is imported by chance
    with pytest.raises(PlainLoadError, match=r"(?s)cannot use bad \(exit code 3\): what it said"):
        verify._run_plain({"folder": "bad"}, tmp_path / "other")


def test_an_adapter_is_exported_beside_its_base(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain PEFT loads it; a copy of the base in the run is a part of it."""
    copied = shutil.copytree(text, tmp_path / "mine")
    out = tmp_path / "adapter"
    assert exit_code(["export", str(copied), "--adapter", "--out", str(out), *FEW]) == 0
    assert "2 of 2 answers" in card_of(out)[1]
    expected = load_model(str(copied)).model.state_dict()
    shutil.rmtree(copied)
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(out / "base")
    moved = out.rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    found = load_model(str(moved)).model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_a_qlora_run_is_exported_dense_or_beside_its_quantized_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 16 bits, too, where every weight but no frequency of the positions is rounded."""
    mine = write_quantized_run(tmp_path / "mine", "qwen2")
    for name, options in (("dense", []), ("small", ["--dtype", "bfloat16"]), ("beside", ["--adapter"])):
        assert exit_code(["export", str(mine), "--out", str(tmp_path / name), *options, *FEW]) == 0
        body = card_of(tmp_path / name)[1]
        assert "2 of 2 answers of plain transformers" in body
        assert ("of 2 answers of the dense weights are those of the nf4 base that was trained" in body) == (
            name != "beside"
        )
    assert "quantization_config" not in (tmp_path / "dense" / "config.json").read_text()
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"(?ms)^```python\n(.*?)^```", card_of(tmp_path / "beside")[1])[0].replace("=512", "=4"), {})


def test_a_run_with_a_relative_base_is_exported(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As older versions wrote it. Without a manifest, which they did not write either."""
    old = shutil.copytree(text, tmp_path / "r" / "old")
    config = old / "model" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "r/old/base"}))
    (old / "model" / "manifest.json").unlink()
    monkeypatch.chdir("/")
    assert exit_code(["export", str(old), "--out", str(tmp_path / "x"), *FEW]) == 0
    assert "2 of 2 answers" in card_of(tmp_path / "x")[1]


def test_answers_that_differ_are_an_error_unless_they_are_allowed(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all = run.write_complete

    def write_other_weights(loaded: Any, folder: Path) -> None:
        with torch.no_grad():
            weight = loaded.model.get_input_embeddings().weight  # the head's, too: other tokens come out
            weight.copy_(weight.roll(7, 0))
        write_all(loaded, folder)

    monkeypatch.setattr(run, "write_complete", write_other_weights)
    command = ["export", str(text), *FEW]
    assert exit_code([*command, "--out", str(tmp_path / "a")]) == 1
    said = capsys.readouterr().err
    assert "2 of 2 answers differ from the run's own" in said
    assert "the answer differs first at token 0" in said
    assert "no near tie" in said
    assert "0 of 2 answers" in card_of(tmp_path / "a")[1]
    assert exit_code([*command, "--out", str(tmp_path / "b"), "--allow-differences"]) == 0


def test_a_folder_that_plain_transformers_cannot_load_is_an_error(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all = run.write_complete

    def write_without_configuration(loaded: Any, folder: Path) -> None:
        write_all(loaded, folder)
        (folder / "config.json").unlink()

    monkeypatch.setattr(run, "write_complete", write_without_configuration)
    assert exit_code(["export", str(text), "--out", str(tmp_path / "x"), *FEW]) == 1
    assert "plain transformers cannot use" in capsys.readouterr().err
    assert "plain transformers cannot use" in card_of(tmp_path / "x")[1]


# Wrong usage, with what is said; nothing is written.
WRONG = [
    (["--out", "{run}"], "exists already"),
    (["--out", "{run}/model/x"], "which is exported"),
    (["--out", "{tmp}/x", "--dtype", "float8"], "invalid choice"),
    (["--out", "{tmp}/x", "--private"], "name the repository with --push"),
    (["--out", "{tmp}/x", "--adapter", "--dtype", "bfloat16"], "leave --dtype out"),
    (["--out", "{tmp}/x", "--adapter", "--push", "me/mine"], "leave --adapter out"),
    (["--out", "{tmp}/x", "--push", "mine"], "names no owner"),
    (["--out", "{tmp}/x", "--data", "wrld", "--quiet"], "wrld"),
    (["--out", "{tmp}/x", "--samples", "-1"], "expected an integer"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_wrong_usage_is_explained(
    words: list[str], said: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(run=text, tmp=tmp_path) for word in words]
    assert exit_code(["export", str(text), *words]) == 2
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_the_data_of_a_run_that_are_gone_are_named(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = shutil.copytree(text, tmp_path / "mine")
    config = yaml.safe_load((copied / "config.yaml").read_text()) | {"data": "gone.jsonl", "data_options": {}}
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    assert exit_code(["export", str(copied), "--out", str(tmp_path / "x"), *FEW]) == 2
    assert "Name them with --data, or leave the comparison out with --samples 0" in capsys.readouterr().err


def test_the_data_of_a_run_are_found_from_another_folder(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was started beside them, with a relative path."""
    copied = shutil.copytree(text, tmp_path / "runs" / "mine")
    rows = [{"question": f"What is {n} ?", "think": "so .", "answer": str(n)} for n in range(3)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = yaml.safe_load((copied / "config.yaml").read_text()) | {"data": "mine.jsonl", "data_options": {}}
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    about = json.loads((copied / "provenance.json").read_text()) | {"working_folder": "../.."}
    (copied / "provenance.json").write_text(json.dumps(about))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert exit_code(["export", str(copied), "--out", str(tmp_path / "x"), *FEW]) == 0


def test_generation_is_greedy_and_stops_where_our_evaluation_does() -> None:
    """Gemma's turn ends with another token than its texts; Qwen's penalty would change greedy answers."""
    loaded = load_model("tiny:gemma3")
    loaded.model.generation_config = GenerationConfig(eos_token_id=1, do_sample=True, repetition_penalty=1.05)
    assert left_out_settings(loaded) == {"do_sample": True, "repetition_penalty": 1.05}
    settings = generation_settings(loaded)
    ids = loaded.processor.tokenizer.convert_tokens_to_ids
    assert {ids("<eos>"), ids("<end_of_turn>")} <= set(settings.eos_token_id)
    assert (settings.do_sample, settings.repetition_penalty) == (False, None)


def test_a_base_with_a_narrow_processor_is_copied_complete(tmp_path: Path) -> None:
    """The copy differs from the run's in its processor, so it cannot keep the manifest of that."""
    mine, out = write_run(tmp_path / "mine", "qwen2_5_vl", lora=True), tmp_path / "out"
    assert exit_code(["export", str(mine), "--adapter", "--out", str(out), "--samples", "0", "--quiet"]) == 0
    shutil.rmtree(mine)
    for folder in (out, out / "base"):
        assert json.loads((folder / "processor_config.json").read_text())["processor_class"] == "Qwen2_5_VLProcessor"
    again = tmp_path / "again"  # from the exported adapter, whose base is inside it
    assert exit_code(["export", str(out), "--adapter", "--out", str(again), "--samples", "0", "--quiet"]) == 0
    assert (again / "base" / "model.safetensors").is_file()


def test_a_processor_without_its_video_half_is_completed(tmp_path: Path) -> None:
    processor = load_processor("tiny:qwen2_5_vl")
    processor.save_pretrained(tmp_path)
    complete_processor(tmp_path)
    load_model("tiny:qwen2_5_vl").model.config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["processor_class"] == "Qwen2_5_VLProcessor"
    assert saved["video_processor"]["patch_size"] == saved["image_processor"]["patch_size"]
    again, message = load_processor(str(tmp_path)), {"role": "user", "content": "Hello"}
    assert again.apply_chat_template([message], tokenize=False) == processor.apply_chat_template(
        [message], tokenize=False
    )
    images = [Image.new("RGB", (84, 56))]
    found, expected = (one(text="<|image_pad|>", images=images)["input_ids"] for one in (again, processor))
    assert found == expected


def own_answer(ids: list[int], *, cut: bool = False) -> OwnAnswer:
    return OwnAnswer("s", [], [], {"input_ids": torch.tensor([[1, 2]])}, ids, cut)


# The own answer, whether it was cut at its closing tag, the plain answer, and the place and nearness of a difference.
COMPARED = [
    ([5, 6, 9], False, [5, 6, 9], None),
    ([5, 6], True, [5, 6, 7, 9], None),  # after the closing tag our evaluation has stopped
    ([5, 6], False, [5, 6, 7, 9], (2, False)),
    ([5, 6, 9], False, [5, 7, 9], (1, True)),
    ([5, 8, 9], False, [5, 7, 9], (1, False)),  # not among the best ones
    ([4, 6, 9], False, [5, 6, 9], (0, False)),  # the best token is far ahead
    ([5, 6], True, [5], (1, False)),
]


@pytest.mark.parametrize(("ids", "cut", "plain", "expected"), COMPARED)
def test_the_first_difference_is_found(ids: list[int], cut: bool, plain: list[int], expected: Any) -> None:
    best = [[[5, 4], [3.0, 1.0]], [[7, 6], [2.0, 1.999]], [[9, 7], [3.0, 1.0]], [[9, 7], [3.0, 1.0]]]
    found = find_difference(own_answer(ids, cut=cut), {"prompt": [1, 2], "answer": plain, "best": best}, 0.01)
    assert (found and (found.place, found.near)) == expected


def test_another_prompt_is_a_difference() -> None:
    found = find_difference(own_answer([5]), {"prompt": [1, 3], "answer": [5], "best": []}, 0.01)
    assert str(found) == "s: the prompt differs first at token 1 (2 -> 3)"


def test_plain_answers_imports_nothing_of_this_package() -> None:
    tree = ast.parse(Path(plain_answers.__file__).read_text(encoding="utf-8"))
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert {str(name).partition(".")[0] for name in names} == {
        *("__future__", "json", "sys", "pathlib", "typing", "torch", "PIL", "transformers", "peft")
    }


def test_an_export_that_is_exported_again_keeps_the_format(text: Path, tmp_path: Path) -> None:
    run = shutil.copytree(text, tmp_path / "run")
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    recipe["training"]["reasoning_format"] = "deepseek-r1"
    (run / "config.yaml").write_text(yaml.safe_dump(recipe))
    source = run
    for name in ("once", "twice"):
        assert exit_code(["export", str(source), "--out", str(tmp_path / name), "--samples", "0", "--quiet"]) == 0
        source = tmp_path / name
        assert locate_model(str(source)).format == "deepseek-r1"
        assert collect_facts(locate_model(str(source))).format == "deepseek-r1"


def test_a_card_names_the_base_and_every_stage_of_a_chain(text: Path, tmp_path: Path) -> None:
    """GRPO that started from a run, its model or a checkpoint of it, which are still there."""
    for place in (text, text / "model", text / "checkpoints" / "checkpoint-2"):
        mine = tmp_path / f"grpo-{place.name}"
        mine.mkdir()
        recipe = {"stage": "grpo", "model": str(place), "data": "/home/me/rows.jsonl", "training": {}}
        (mine / "config.yaml").write_text(yaml.safe_dump(recipe))
        (mine / "model").mkdir()
        (mine / "model" / "config.json").write_text("{}")
        facts = collect_facts(locate_model(str(mine)))
        assert (facts.arms, facts.base, facts.base_hub) == (("scale-sft", "grpo"), "tiny:qwen2", None)
        assert [(row.name, row.licence) for row in facts.data] == [("rows.jsonl", "to be filled in")]


@pytest.mark.parametrize(
    ("training", "arm", "follows"),
    [
        ({"weighting": "scale"}, "scale-sft", True),
        ({"max_steps": 2}, "scale-sft", True),  # older than plain SFT as the default
        ({"weighting": "uniform"}, "sft", False),
        ({"weighting": "example-mean"}, "example-mean", False),
    ],
)
def test_a_card_says_that_a_model_follows_scale_where_it_does(
    training: dict[str, Any], arm: str, follows: bool, text: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(text, tmp_path / "mine")
    (mine / "config.yaml").write_text(yaml.safe_dump({"model": "tiny:qwen2", "data": "world", "training": training}))
    facts = collect_facts(locate_model(str(mine)))
    assert (facts.arms, facts.follows_scale) == ((arm,), follows)


@pytest.mark.parametrize(
    ("adapter", "served"),
    [
        ({"rank": 32}, "vllm serve owner/base --max-model-len 8192 --enable-lora --max-lora-rank 32"),
        ({"sees": True}, "vllm serve owner/base --max-model-len 8192 --enable-tower-connector-lora --enable-lora"),
        ({"unserved": ["use_dora (vLLM refuses it)"]}, "vLLM does not serve this adapter as it was trained: use_dora"),
    ],
)
def test_a_card_serves_an_adapter_as_vllm_can(adapter: dict[str, Any], served: str, text: Path) -> None:
    common: dict[str, Any] = {
        "name": "mine",
        "dtype": "float32",
        "parameters": 1,
        "pictures": False,
        "stops": (),
        "left_out": {},
    }
    card = write_card(
        CardModel(**common, adapter_base="owner/base", **adapter), collect_facts(locate_model(str(text))), ""
    )
    assert served in card
    assert ("vllm serve" in card) != ("unserved" in adapter)


def test_a_base_on_the_hub_is_in_the_metadata(text: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(text, tmp_path / "mine")
    changed = {"model": "Qwen/Qwen2.5-0.5B-Instruct", "data": ["owner/rows", "world-text"], "data_options": {}}
    (mine / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load((mine / "config.yaml").read_text()) | changed))
    assert exit_code(["export", str(mine), "--out", str(tmp_path / "x"), "--samples", "0", "--license", "mit"]) == 0
    metadata, body = card_of(tmp_path / "x")
    assert metadata["base_model"] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert (metadata["datasets"], metadata["license"]) == (["owner/rows"], "mit")
    assert "| owner/rows | train | to be filled in |" in body


def test_no_secret_and_no_place_of_this_machine_is_on_a_card(text: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(text, tmp_path / "mine")
    config = yaml.safe_load((mine / "config.yaml").read_text()) | {"model": "runs/first", "data": "data/my.jsonl"}
    config["training"] |= {"hub_token": "hf_1", "run_name": "mine", "model_init_kwargs": {"token": "hf_2", "a": 1}}
    config["model_options"] = {"token": "hf_3", "dtype": "float32"}
    (mine / "config.yaml").write_text(yaml.safe_dump(config))
    facts = collect_facts(locate_model(str(mine)))
    settings = dict(facts.settings)
    assert "hf_" not in str(settings)
    assert settings["model_init_kwargs"] == "{'a': 1}"
    assert settings["model_options.dtype"] == "float32"
    assert "run_name" not in settings
    assert (facts.base_hub, [row.hub for row in facts.data]) == (None, [None])  # not there any more, but files


# A name in a recipe, and how a card that others read shows it.
SHOWN = [
    ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"),
    ("/home/me/secret/model-a", "model-a"),
    ("../data/rows.jsonl", "rows.jsonl"),
    ("runs/mine/model", "mine/model"),
    ("world", "world"),
    ("tiny:qwen2", "tiny:qwen2"),
]


@pytest.mark.parametrize(("name", "shown"), SHOWN)
def test_a_card_shows_no_path_of_this_machine(name: str, shown: str) -> None:
    assert shorten_place(name) == shown
