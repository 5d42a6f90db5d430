"""The page `docs/served.md` is run to the letter: every command, in order, and every output beside what it says.

    python -m tests.servers.page            # raises where a command fails or an output has changed
    python -m tests.servers.page --write    # puts the outputs of this run into the page

A block of commands is `bash`, the block `text` after it is what it prints. Comments of the page that no reader sees
say what is not run (`<!-- not run -->`) and what goes on in the background (`<!-- background: ADDRESS -->`). The hub's
name of the model is replaced by a folder. Numbers and white space may differ between machines; words may not, except
what a model says (`<!-- a model's words -->`), of which the number of lines counts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.servers.models import make_page_model
from tests.servers.vllm_server import stop_group, wait_until_ready

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "served.md"
HUB_NAME = "Qwen/Qwen2.5-VL-3B-Instruct"
_BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^\n]*) -->\n)?```bash\n(?P<commands>.*?)```\n(?:\n```text\n(?P<output>.*?)```\n)?", re.DOTALL
)
_VARIES = re.compile(r"\d[\d.,:]*|\s+|[─━—-]{3,}")


class PageError(AssertionError):
    """A command of the page failed, or printed something else than the page says."""


@dataclass(frozen=True)
class Block:
    """Commands with what the page says that they print; None where it says nothing."""

    commands: str
    output: str | None
    note: str = ""

    def alike(self, other: Block) -> bool:
        """Whether two outputs differ in no more than what differs between machines."""
        old, new = self.output or "", other.output or ""
        if self.note == "a model's words":
            return old.count("\n") == new.count("\n")
        return _VARIES.sub(" ", old) == _VARIES.sub(" ", new)

    @property
    def address(self) -> str | None:
        """Where the program of a block in the background answers once it is ready."""
        return self.note.partition("background: ")[2] or None


def read_blocks(page: str) -> list[Block]:
    return [Block(found["commands"], found["output"], found["note"] or "") for found in _BLOCK.finditer(page)]


def run_page(page: str, model: Path, folder: Path) -> str:
    """The page with the outputs of this run. Raises PageError where a command fails."""
    with ExitStack() as running:
        for block in read_blocks(page):
            if block.note.startswith("not run"):
                continue
            commands = block.commands.replace(HUB_NAME, str(model))
            print(commands, end="", flush=True)
            if block.address:
                start_in_background(commands, block.address, folder, running)
                continue
            output = run_commands(commands, folder).replace(str(model), HUB_NAME).replace(f"{folder}/", "")
            if block.output is not None:
                page = page.replace(
                    f"{block.commands}```\n\n```text\n{block.output}", f"{block.commands}```\n\n```text\n{output}"
                )
    return page


def replace_output(page: str, block: Block, output: str) -> str:
    before = f"{block.commands}```\n\n```text\n"
    return page.replace(f"{before}{block.output}", f"{before}{output}")


def run_commands(commands: str, folder: Path) -> str:
    """What they print on standard output."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=folder, env=environment(), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise PageError(f"{commands}\nended with code {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def start_in_background(commands: str, address: str, folder: Path, running: ExitStack) -> None:
    log = folder / "background.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {commands}"],
            cwd=folder,
            env=environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    running.callback(stop_group, process)
    wait_until_ready(process, address, log)


def environment() -> dict[str, str]:
    """That of this process, whose Python's commands come first, 100 columns wide, without a hub."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "NO_COLOR": "1"}
    return {**os.environ, **quiet, "PATH": path, "COLUMNS": "100"}


def differing_outputs(page: str, made: str) -> list[tuple[str, str]]:
    """Pairs of outputs, as the page has them and as they were made, that differ in more than numbers."""
    pairs = zip(read_blocks(page), read_blocks(made), strict=True)
    return [(old.output or "", new.output or "") for old, new in pairs if not old.alike(new)]


def main() -> None:
    page = PAGE.read_text()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "work"
        folder.mkdir()
        made = run_page(page, make_page_model(Path(scratch) / "model"), folder)
    if "--write" in sys.argv:
        PAGE.write_text(made)
    elif found := differing_outputs(page, made):
        raise PageError("\n".join(f"the page says:\n{old}\nit printed:\n{new}" for old, new in found))


if __name__ == "__main__":
    main()
