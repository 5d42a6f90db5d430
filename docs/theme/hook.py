"""What the site needs beside `docs/`: pages from elsewhere in the repository, links that work there and on GitHub.

README, the changelog, the benchmarks and the examples become pages. A relative link that leaves `docs/` goes to such a
page, and to the repository otherwise. The build fails if a page would fetch anything from another host.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# A file of the repository -> its page (or picture) on the site.
BROUGHT_IN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks/results/scaling-cpu.svg": "benchmarks/results/scaling-cpu.svg",
}
EXAMPLES = "examples.md"
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(\))")
# What a browser fetches by itself from another host: not the links that a reader may follow.
_FETCHED = re.compile(r"""<(?:link|script|img|iframe)\b[^>]*(?:href|src)="?(?:https?:)?//""")


def on_files(files: Files, config: Any) -> Files:
    for source, page in BROUGHT_IN.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, EXAMPLES, content=examples()))
    return files


def examples() -> str:
    """All examples on one page, each under the first line of its docstring."""
    page = [
        "# Examples\n\nEach runs in seconds on a CPU and downloads nothing. A test runs all of them. They are in the "
        "folder [examples](../examples/) of the repository.\n"
    ]
    for file in sorted((ROOT / "examples").glob("[0-9]*.py")):
        code = file.read_text(encoding="utf-8")
        title = code.split('"""')[1].partition("\n")[0].strip().rstrip(".")
        page.append(f"## {file.name.partition('_')[0]}: {title}\n\n```python\n{code.rstrip()}\n```\n")
    return "\n".join(page)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    here = _place(page.file)

    def moved(link: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(os.path.dirname(here), link[2]))
        return f"{link[1]}{_address(target, page.file.src_uri, config.extra['repository'])}{link[3] or ''}{link[4]}"

    parts = re.split(r"(```.*?```)", markdown, flags=re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(moved, part) for part in parts)


def _place(file: File) -> str:
    """Where the text of a page is in the repository."""
    brought = {page: source for source, page in BROUGHT_IN.items()}
    return brought.get(file.src_uri, f"docs/{file.src_uri}")


def _address(target: str, page: str, repository: str) -> str:
    """The link to a file of the repository from this page: another page, or the file on GitHub."""
    if target.startswith("docs/"):
        site = target.removeprefix("docs/")
    elif target in BROUGHT_IN:
        site = BROUGHT_IN[target]
    elif (ROOT / target).exists():
        return f"{repository}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}"
    else:
        raise PluginError(f"{page} has a link to {target}, which is not in the repository")
    return os.path.relpath(site, os.path.dirname(page) or ".")


def on_post_page(output: str, page: Any, config: Any) -> str:
    if found := _FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} would fetch from another host: {found[0]}")
    return output
