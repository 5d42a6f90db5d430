"""Where an evaluated model is found, what format it answers in, and where its results go."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from balanced_thinking.evaluation.model import locate_model
from balanced_thinking.runs.manifest import MANIFEST, seal_folder
from balanced_thinking.runs.staging import write_folder

RECIPE = "training: {reasoning_format: boxed}\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with its model and a checkpoint; the working folder is the one above it."""
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "checkpoints/checkpoint-2"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        (tmp_path / "mine" / folder / "config.json").write_text("{}")
    (tmp_path / "mine" / "config.yaml").write_text(RECIPE)
    return Path("mine")


@pytest.mark.parametrize("name", ["mine", "mine/", "mine/model", "mine/model/"])
def test_a_run_and_its_model_are_one_and_the_same(name: str, run: Path) -> None:
    found = locate_model(name)
    assert (found.name, found.folder, found.format) == ("mine", "mine/model", "boxed")
    assert found.results_folder() == run / "eval"


def test_a_model_is_its_runs_seen_from_inside(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run.absolute()
    monkeypatch.chdir(whole / "model")
    assert (locate_model(".").format, locate_model(".").results_folder()) == ("boxed", whole / "eval")
    monkeypatch.chdir(whole)
    assert (locate_model("model").name, locate_model("model").folder) == (str(whole), str(whole / "model"))


def test_a_checkpoint_answers_in_its_runs_format_and_its_results_are_its_own(run: Path) -> None:
    found = locate_model("mine/checkpoints/checkpoint-2")
    assert (found.folder, found.run, found.format) == ("mine/checkpoints/checkpoint-2", None, "boxed")
    assert run / "eval" != found.results_folder()


def test_a_folder_called_model_that_no_run_made_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other/model").mkdir(parents=True)
    (tmp_path / "other/model/config.json").write_text("{}")
    found = locate_model("other/model")
    assert (found.folder, found.run, found.format) == ("other/model", None, None)


def test_an_exported_model_answers_in_the_format_that_its_folder_names(tmp_path: Path) -> None:
    with write_folder(tmp_path / "out", about={"kind": "export", "reasoning_format": "boxed"}) as staged:
        (staged / "config.json").write_text("{}")
    assert locate_model(str(tmp_path / "out")).format == "boxed"
    (tmp_path / "out" / MANIFEST).write_text("{")
    assert locate_model(str(tmp_path / "out")).format is None


def test_a_model_that_was_copied_or_linked_answers_in_its_runs_format(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("model", "checkpoints/checkpoint-2"):
        seal_folder(run / folder, about={"reasoning_format": "boxed"})
        shutil.copytree(run / folder, f"copy-of-{Path(folder).name}")
        Path(f"link-to-{Path(folder).name}").symlink_to(run.absolute() / folder)
    for name in ("copy-of-model", "copy-of-checkpoint-2", "link-to-model", "link-to-checkpoint-2"):
        assert locate_model(name).format == "boxed", name
    (run / "model" / MANIFEST).unlink()  # as older versions left it
    (run / "checkpoints/checkpoint-2" / MANIFEST).unlink()
    assert locate_model("link-to-model").format == "boxed"
    assert locate_model("link-to-model").results_folder() == run.absolute() / "eval"  # it is the run's
    assert locate_model("link-to-checkpoint-2").format == "boxed"
    assert locate_model("link-to-checkpoint-2").results_folder() == Path("runs/mine-checkpoint-2/eval")
    monkeypatch.chdir(run / "checkpoints")
    assert locate_model("checkpoint-2").format == "boxed"
    monkeypatch.chdir("..")
    assert locate_model("model").format == "boxed"
    assert locate_model("model").results_folder().absolute() == Path("eval").absolute()


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("world-base", "runs/world-base/eval"),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "runs/Qwen2.5-VL-3B-Instruct/eval"),
        ("tiny:qwen2", "runs/tiny-qwen2/eval"),
        ("some/folder/final", "runs/final/eval"),
        ("mine/checkpoints/checkpoint-2", "runs/mine-checkpoint-2/eval"),
        (".", "runs/{here}/eval"),
        ("..", "runs/{above}/eval"),
    ],
)
def test_results_of_models_that_no_run_made_lie_apart_beside_the_runs(model: str, folder: str, run: Path) -> None:
    (run.absolute().parent / "some/folder/final").mkdir(parents=True)
    here = run.absolute().parent
    assert locate_model(model).results_folder() == Path(folder.format(here=here.name, above=here.parent.name))


def test_results_of_a_base_never_go_into_a_run_of_the_same_name(run: Path) -> None:
    (run.absolute().parent / "runs/world-base").mkdir(parents=True)
    (run.absolute().parent / "runs/world-base/config.yaml").write_text(RECIPE)
    with pytest.raises(
        FileExistsError, match="runs/world-base, which is a run of another model; choose another folder"
    ):
        locate_model("world-base").results_folder()


def test_checkpoints_of_two_arms_do_not_share_a_folder(run: Path) -> None:
    for arm in ("sft", "scale-sft"):
        folder = run.absolute().parent / "study" / arm / "seed-0"
        (folder / "checkpoints/checkpoint-2").mkdir(parents=True)
        (folder / "config.yaml").write_text(RECIPE)
        found = locate_model(f"study/{arm}/seed-0/checkpoints/checkpoint-2")
        assert found.results_folder() == Path(f"runs/{arm}-seed-0-checkpoint-2/eval")


def test_results_of_two_models_of_one_name_are_not_mixed(run: Path) -> None:
    place = run.absolute().parent / "runs/final/eval/world-test"
    place.mkdir(parents=True)
    (place / "summary.json").write_text('{"model": "some/final", "n": 1, "correct": 0}')
    for name in ("some/final", f"{run.absolute().parent}/some/final"):
        assert locate_model(name).results_folder() == Path("runs/final/eval")
    with pytest.raises(FileExistsError, match="runs/final, which has those of some/final; choose another folder"):
        locate_model("other/final").results_folder()
