"""Keeps every turn as a JSON line where `balanced report` looks: OUT/<model>/eval/chat/predictions.jsonl.

A line is a `Prediction` and how it came about. A turn without a known answer has no verdict, so a report does not count
it. Lines are appended; a turn that is scored later is written again under its id, and a report takes the last one.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from balanced_thinking.chat.session import ChatModel, ChatOptions, Session
from balanced_thinking.chat.turn import Turn
from balanced_thinking.data.images import open_image
from balanced_thinking.evaluation.results import summarize
from balanced_thinking.evaluation.task import item_digest
from balanced_thinking.runs.files import read_json_lines
from balanced_thinking.runs.paths import EvaluationFiles, RunFiles
from balanced_thinking.runs.records import Prediction, read_record, record_values
from balanced_thinking.system.files import expand_home, write_atomically

LABEL = "chat"  # the split, as a report calls it
_VERDICT = ("correct", "score")
_SIDE = 336  # pixels of a picture that is kept, as in an evaluation


class Keeper:
    """Writes turns below a folder, which is made with the first one.

    Args:
        out: the folder. session: whose models they are of.
    """

    def __init__(self, out: Path, session: Session) -> None:
        self.out, self._session = out, session
        self._files: dict[str, EvaluationFiles] = {}

    def keep(self, turn: Turn) -> None:
        """Append a turn to its model's file. A model that could not be asked has said nothing to keep."""
        if turn.prediction is None:
            return
        files = self._files_of(turn.model)
        files.folder.mkdir(parents=True, exist_ok=True)
        with files.predictions.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self._line(turn, files), ensure_ascii=False) + "\n")
        if turn.is_scored:
            self._write_summary(turn.model, files)

    def _line(self, turn: Turn, files: EvaluationFiles) -> dict[str, Any]:
        assert turn.prediction is not None
        images = [_keep_picture(image, files, f"{turn.example.id}-{k}") for k, image in enumerate(turn.question.images)]
        values = record_values(turn.prediction) | {"images": images, "digest": item_digest(turn.example)}
        if not turn.is_scored:
            values = {name: value for name, value in values.items() if name not in _VERDICT}
        options = self._session.options
        return values | {
            "model": turn.model,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seconds": round(turn.seconds, 3),
            "tokens": turn.tokens,
            "stopped_by": turn.stopped_by,
            "temperature": options.temperature,
            "max_new_tokens": options.max_new_tokens,
            "prompt": options.prompt,
            "format": turn.format.name,
            "dtype": self._model(turn.model).dtype,
            "engine": self._model(turn.model).engine.name,
        }

    def _write_summary(self, name: str, files: EvaluationFiles) -> None:
        """Of the scored turns, those of earlier sessions included."""
        model, options = self._model(name), self._session.options
        rows = (row for row in read_json_lines(files.predictions, []) if "correct" in row)
        read = (read_record(Prediction, row, str(files.predictions)) for row in rows)
        found = {prediction.id: prediction for prediction in read}
        summary = summarize(list(found.values()), **_about(model, options))
        write_atomically(files.summary, json.dumps(record_values(summary), indent=2) + "\n")

    def _model(self, name: str) -> ChatModel:
        return next(model for model in self._session.models if model.name == name)

    def _files_of(self, name: str) -> EvaluationFiles:
        """Named after the model; with a number where another model of that name was kept."""
        if name not in self._files:
            plain = _folder_name(name)
            candidates = [plain, *(f"{plain}-{number}" for number in range(2, 1000))]
            every = (RunFiles(self.out / one).evaluation(LABEL) for one in candidates)
            self._files[name] = next(
                files for files in every if files not in self._files.values() and _kept_model(files) in (None, name)
            )
        return self._files[name]


def _about(model: ChatModel, options: ChatOptions) -> dict[str, Any]:
    """What a summary says beside its counts."""
    return {
        "data": LABEL,
        "split": LABEL,
        "model": model.name,
        "scorer": options.scorer,
        "format": model.format.name,
        "prompt": options.prompt,
        "dtype": model.dtype,
        "engine": model.engine.name,
        "max_new_tokens": options.max_new_tokens,
    }


def _folder_name(name: str) -> str:
    """The last part of a path or a hub name; a seed's with its arm's before it."""
    place = expand_home(name)
    parts = [part for part in (place.resolve() if place.is_dir() else Path(name)).parts if part not in ("/", "..")]
    generic = r"seed-\d+|model|checkpoint-\d+|checkpoints"
    count = next((n for n, part in enumerate(reversed(parts), 1) if not re.fullmatch(generic, part)), 1)
    return re.sub(r"[^\w.+=-]+", "-", "-".join(parts[-count:])).strip(".") or "model"


def _kept_model(files: EvaluationFiles) -> str | None:
    """The model whose turns a folder holds; None where it holds none."""
    row = next(iter(read_json_lines(files.predictions, [], required=False)), None)
    return None if row is None else str(row.get("model"))


def _keep_picture(image: Path, files: EvaluationFiles, name: str) -> str:
    """Write a small copy of a picture, and return its path beside the predictions. The user chose the picture."""
    copy = files.images / f"{name}.png"
    if not copy.exists():
        picture = open_image(image)
        picture.thumbnail((_SIDE, _SIDE))
        files.images.mkdir(exist_ok=True)
        picture.save(copy)
    return copy.relative_to(files.folder).as_posix()
