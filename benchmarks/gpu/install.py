"""Installs from a bundle what this Python lacks: `python install.py WHEELS SITE`. No network, no compiler.

A package of `EXACT` is taken from the bundle even if another version is here, because we are tested with that one. All
others are taken only where there is none, so that an image keeps what fits its torch.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

EXACT = ("balanced-thinking", "trl", "peft", "accelerate", "datasets", "liger-kernel", "cut-cross-entropy")


def choose(wheels: list[Path]) -> list[Path]:
    """The wheels to install, by what is installed."""
    chosen = []
    for wheel in wheels:
        name, offered = wheel.name.split("-")[:2]
        name = name.replace("_", "-").lower()
        try:
            found = version(name)
        except PackageNotFoundError:
            found = None
        if found is None or (name in EXACT and found != offered):
            chosen.append(wheel)
    return chosen


def main() -> int:
    bundle, site = map(Path, sys.argv[1:3])
    wheels = choose(sorted(bundle.glob("*.whl")))
    print("from the bundle:", ", ".join("-".join(w.name.split("-")[:2]) for w in wheels) or "nothing", file=sys.stderr)
    if not wheels:
        return 0
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(site)]
    # A warning about a newer pip would ask the network.
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words, *map(str, wheels)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
