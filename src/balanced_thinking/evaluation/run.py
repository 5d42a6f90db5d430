"""Evaluate one model on one split of one data set, or of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from balanced_thinking.data import data_format, label, load_data, resolve
from balanced_thinking.evaluation.generate import Generator
from balanced_thinking.evaluation.judge import Engine
from balanced_thinking.evaluation.prompts import asked, get_prompt
from balanced_thinking.evaluation.results import Summary, evaluate_examples
from balanced_thinking.evaluation.resume import ranks
from balanced_thinking.evaluation.scorers import get_scorer
from balanced_thinking.evaluation.server import Server
from balanced_thinking.models.load import is_run, load_model, load_processor
from balanced_thinking.products import fast_products
from balanced_thinking.segments import ReasoningFormat, get_format
from balanced_thinking.training.recipe import read_yaml


def evaluate_on_each(model: str, data: Sequence[str], *, out: Path | None = None, **options: Any) -> list[Path]:
    """`evaluate` on each data set, the model loaded once; the results' folders, which `out` holds where there are
    several."""
    folder, run = _model_folder(model)
    format = options.pop("format", None) or _trained_format(run) or "think-answer"
    server, most = options.pop("server", None), options.pop("max_new_tokens", 512)
    split = options.get("split", "test")
    parent = (run or Path("runs")) / "eval" if out is None else out
    places = [out] if out is not None and len(data) == 1 else [parent / label(one, split) for one in data]
    if len({str(place) for place in places}) < len(places):
        names = ", ".join(sorted(label(one, split) for one in data))
        raise ValueError(
            f"two data sets would share a folder of results ({names}): evaluate them apart, each with --out"
        )
    # Whatever is wrong with what was asked is said before the model is loaded.
    get_scorer(options.get("scorer", "exact"))
    get_prompt(options.get("prompt", "question"))
    for one, place in zip(data, places, strict=True):
        _free(place, options.get("overwrite", False))
        resolve(one)
    judge = _judge(folder, server, options.get("served"), get_format(format), most)
    shared = {"format": format, "server": server, "max_new_tokens": most, "judge": judge, **options}
    for one, place in zip(data, places, strict=True):
        evaluate(model, one, out=place, **shared)
    return places


def evaluate(
    model: str,
    data: str,
    *,
    split: str = "test",
    out: Path | None = None,
    format: str | Mapping[str, Any] | None = None,
    prompt: str = "question",
    scorer: str = "exact",
    batch_size: int = 64,
    max_new_tokens: int = 512,
    limit: int | None = None,
    on_bad_row: str = "error",
    options: dict[str, Any] | None = None,
    overwrite: bool = False,
    server: str | None = None,
    served: str | None = None,
    judge: Engine | None = None,
) -> Summary:
    """Answer one split, score the answers, and write every sample and the summary to a folder.

    Args:
        model: a run directory, a checkpoint's folder, `world-base`, or a hub name. data, split: as `load_data` takes
            them.
        out: the folder; default: `eval/<label>` inside the run directory that `model` names, else inside `runs`.
        server: address of an OpenAI-compatible server that serves `model`, of which only the tokenizer is loaded then.
        served: the model's name on the server, where it serves several.
        prompt, scorer: names of `prompts.PROMPTS` and `scorers.SCORERS`: how it is asked and judged.
        judge: the model, where it is loaded already.
        format: of the outputs; default: what the run was trained with, else think-answer.

    Raises:
        FileExistsError: the folder already holds results. ValueError: an unknown name, or nothing to evaluate.
    """
    get_scorer(scorer)
    get_prompt(prompt)
    folder, run = _model_folder(model)
    format = format or _trained_format(run) or "think-answer"
    reasoning = get_format(format)
    out = _free(out or (run or Path("runs")) / "eval" / label(data, split), overwrite)
    loaded_data = load_data(
        data,
        split=split,
        format=data_format(format),
        limit=limit,
        on_bad_row=on_bad_row,
        verify_images=True,
        options=options,
    )
    if n := loaded_data.dropped:
        ranks().print(f"{n} bad {'row was' if n == 1 else 'rows were'} left out")
    examples = [asked(example, prompt, reasoning) for example in loaded_data.examples]
    with fast_products():
        summary = evaluate_examples(
            judge or _judge(folder, server, served, reasoning, max_new_tokens),
            examples,
            out,
            data=data,
            split=split,
            model_name=model,
            batch_size=batch_size,
            prompt=prompt,
            scorer=scorer,
            dropped=loaded_data.dropped,
            weights=f"{server} {served} {_stamp(folder)}",
            fresh=overwrite,
            progress=lambda predictions: _progress(predictions, split, len(examples)),
        )
    ranks().print(f"{data}, {describe(summary)}")
    return summary


def _judge(model: str, server: str | None, served: str | None, format: ReasoningFormat, max_new_tokens: int) -> Engine:
    if server is not None:
        processor = load_processor(model)
        return Server(server, getattr(processor, "tokenizer", processor), format, max_new_tokens, served=served)
    loaded = load_model(model)
    return Generator(loaded.model.to(ranks().device), loaded.processor, format, max_new_tokens)


def _stamp(folder: str) -> str:
    """Tells a local model's weights and processor from those that lay in its folder before."""
    place = Path(folder)
    patterns = ("*.safetensors", "*.bin", "*config.json") if place.is_dir() else ()
    files = sorted(file for pattern in patterns for file in place.glob(pattern))
    return " ".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)


def _free(out: Path, overwrite: bool) -> Path:
    if (out / "summary.json").exists() and not overwrite:
        raise FileExistsError(f"{out} already holds results; add --overwrite to replace them, or choose another --out")
    return out


def _progress(predictions: Iterable[Any], split: str, total: int) -> Iterable[Any]:
    state = ranks()
    share = -(-total // state.num_processes)
    return track(predictions, description=f"{split:>20}", total=share, disable=not state.is_main_process)


def describe(summary: Summary) -> str:
    """The result in one line."""
    n = summary.n
    graded = f", {summary.scorer} {summary.score:.3f}" if abs(summary.score - summary.accuracy) > 1e-9 else ""
    return (
        f"{summary.split}: accuracy {summary.accuracy:.1%} (95 % interval {summary.wilson_low:.1%} to "
        f"{summary.wilson_high:.1%}, n = {n}){graded}, malformed {summary.malformed / n:.1%}, truncated "
        f"{summary.truncated / n:.1%}, {summary.think_tokens_mean:.0f} think tokens"
    )


def _model_folder(model: str) -> tuple[str, Path | None]:
    """(what to load, the run directory it lies in if it does)."""
    run = Path(model)
    return (str(run / "model"), run) if is_run(run) else (model, None)


def _trained_format(run: Path | None) -> str | dict[str, Any] | None:
    """The reasoning format that a run's `config.yaml` gives; None where it gives none."""
    if run is None or not (run / "config.yaml").is_file():
        return None
    config = read_yaml((run / "config.yaml").read_text(), str(run / "config.yaml"))
    training = config.get("training") if isinstance(config, dict) else None
    return training.get("reasoning_format") if isinstance(training, dict) else None
