"""A study's results for a repository: plan, ledger, and every run without its weights in one compressed file.

`tar -xf runs.tar.xz` restores a folder that `balanced report` reads and that `balanced study` continues.
"""

from __future__ import annotations

import io
import logging
import lzma
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from balanced_thinking.config.errors import RecipeError
from balanced_thinking.report.compare.plan import load_plan
from balanced_thinking.runs.find import find_runs, find_settings
from balanced_thinking.runs.paths import CONFIG, EVALUATIONS, METRICS, PREDICTIONS, PROVENANCE, SUMMARY, StudyFiles
from balanced_thinking.system.files import partial_path, write_atomically
from balanced_thinking.system.progress import track_progress

ARCHIVE = "runs.tar.xz"
logger = logging.getLogger(__name__)
_RUN_FILES = (CONFIG, PROVENANCE, METRICS, f"{EVALUATIONS}/*/{SUMMARY}", f"{EVALUATIONS}/*/{PREDICTIONS}")
_TIME = 1_600_000_000  # of every file, so that the same results make the same archive
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/-])/(?:[\w.+-]+/)+[\w.+-]+")


def archive_runs(root: Path, folder: Path) -> Path:
    """Write `runs.tar.xz`, `study.yaml` and `ledger.jsonl` into `folder`. Returns the path of the first.

    The archive has the recipe, provenance, metrics, summaries and all predictions of every run. It lacks models,
    checkpoints, pictures and logs. The absolute path of the folder that holds `root` is written as `runs`; other
    absolute paths are a warning, because they lead nowhere on another machine. Raises RecipeError for the folder of the
    study itself, whose plan and ledger would be replaced.
    """
    if folder.resolve() == root.resolve():
        raise RecipeError(f"--archive {folder} is the folder of the study itself; choose another one")
    folder.mkdir(parents=True, exist_ok=True)
    files = StudyFiles(root)
    beside = [path for path in (files.plan, files.ledger) if path.is_file()]
    for path in beside:
        write_atomically(folder / path.name, _read_portable(path, root).decode(errors="replace"))
    if absolute := _pack([*beside, *_files_of_runs(root)], root, folder / ARCHIVE):
        logger.warning(
            "the archive names absolute paths of this machine, such as %s; write paths in the study relative to the "
            "folder where it is started",
            ", ".join(sorted(absolute)[:3]),
        )
    return folder / ARCHIVE


def _read_portable(path: Path, root: Path) -> bytes:
    """The file, with `runs` for the folder that holds `root`. Predictions are a model's texts and stay as they are.

    A damaged file is kept with its damage, as the report skips it.
    """
    if path.name == PREDICTIONS:
        return path.read_bytes()
    text = path.read_bytes().decode(errors="surrogateescape")
    for above in {root.resolve().parent, root.absolute().parent} - {Path("/")}:
        text = re.sub(rf"(?<![\w.:/-]){re.escape(str(above))}/", "runs/", text)
    return text.encode(errors="surrogateescape")


def _pack(paths: Sequence[Path], root: Path, target: Path) -> set[str]:
    """Write files of `root` to a compressed archive. Returns the absolute paths that they name, predictions aside."""
    name, absolute = root.resolve().name, set[str]()
    partial = partial_path(target)
    try:
        with (
            lzma.open(partial, "wb", preset=9 | lzma.PRESET_EXTREME) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in track_progress(paths, "packing"):
                data = _read_portable(path, root)
                if path.name != PREDICTIONS:
                    absolute.update(_ABSOLUTE_PATH.findall(data.decode(errors="replace")))
                entry = tarfile.TarInfo(f"{name}/{path.relative_to(root).as_posix()}")
                entry.size, entry.mtime = len(data), _TIME
                archive.addfile(entry, io.BytesIO(data))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return absolute


def _files_of_runs(root: Path) -> Iterator[Path]:
    """What an archive keeps of every run, in a fixed order. Files that are links are left out."""
    for _, setting in find_settings(root, load_plan(root).settings):
        for run, _ in find_runs(setting):
            for pattern in _RUN_FILES:
                yield from (path for path in sorted(run.glob(pattern)) if path.is_file() and not path.is_symlink())
