"""Collects the wheels that a CUDA image with Python 3.12, torch and transformers lacks: `make gpu-bundle`.

    python benchmarks/gpu/bundle.py [--out benchmarks/gpu/wheels] [--limit-mb 60]

The versions are those of `constraints.txt`. Peers come last and only as far as the limit allows; the file
`bundle.json` beside the wheels says what is in it and what was left out, and why.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MB = 60.0
PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)] + ["manylinux2014_x86_64"]
# What we and TRL import. torch, Triton, transformers, and what transformers needs are the image's.
OURS = (
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "ijson",
    "webdataset",
    "braceexpand",
    "shtab",
    "rich",
    "markdown-it-py",
)
OURS += ("mdurl", "pygments", "psutil", "multiprocess", "dill", "xxhash", "jinja2", "markupsafe", "pillow")
# The benchmarks' peers, as pyproject.toml pins them; then what an image may lack and what TRL can use, if they fit.
PEERS = ("liger-kernel==0.8.5", "cut-cross-entropy==25.1.1")
LARGE = ("pyarrow", "bitsandbytes")
NOT_OFFERED = {"flash-attn": "the package index has its source only, and it takes long to compile"}


class Bundle(NamedTuple):
    """Sizes in MB (10^6 bytes) by file name, and reasons by package."""

    wheels: dict[str, float]
    left_out: dict[str, str]


def pinned(package: str) -> str:
    """The package with the version of `constraints.txt`, if that file names it."""
    if "==" in package:
        return package
    found = re.search(rf"^{re.escape(package)}==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE | re.I)
    return found[0] if found else package


def download(package: str, folder: Path) -> Path:
    """One wheel for the image's Python, without what it needs. Raises CalledProcessError where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", PYTHON]
    words += ["--implementation", "cp", "--dest", str(folder), pinned(package)]
    for platform in PLATFORMS:
        words += ["--platform", platform]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def build_own(folder: Path) -> Path:
    words = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def collect(out: Path, limit_mb: float) -> Bundle:
    """Fill the folder anew. Raises CalledProcessError where a package that we need has no wheel."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.whl"):
        old.unlink()
    bundle, total = Bundle({}, dict(NOT_OFFERED)), 0.0
    for package in (None, *OURS, *PEERS, *LARGE):
        part = out / "part"
        try:
            wheel = build_own(part) if package is None else download(package, part)
        except subprocess.CalledProcessError as error:
            if package is None or package in OURS:
                print(error.stderr, file=sys.stderr)
                raise
            bundle.left_out[package] = "no wheel for this Python and platform"
            continue
        size = wheel.stat().st_size / 1e6
        if package is not None and total + size > limit_mb:
            wheel.unlink()
            bundle.left_out[package] = f"{size:.1f} MB; {limit_mb - total:.1f} MB were left"
            continue
        total += size
        bundle.wheels[wheel.rename(out / wheel.name).name] = round(size, 3)
    (out / "part").rmdir()
    return bundle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "wheels", help="folder (default %(default)s)"
    )
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB, help=f"of all wheels (default {LIMIT_MB:.0f})")
    options = parser.parse_args()
    bundle = collect(options.out, options.limit_mb)
    record = {"python": PYTHON, "limit_mb": options.limit_mb, "mb": round(sum(bundle.wheels.values()), 1)}
    (options.out / "bundle.json").write_text(json.dumps(record | bundle._asdict(), indent=2) + "\n")
    print(f"{len(bundle.wheels)} wheels, {record['mb']} MB of {options.limit_mb:.0f}, in {options.out}")
    for package, reason in bundle.left_out.items():
        print(f"left out: {package} ({reason})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
