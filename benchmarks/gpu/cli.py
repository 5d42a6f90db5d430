"""Runs the parts within a budget of minutes, and ends with one table and one JSON.

    benchmarks/gpu/run.sh [--cpu] [--minutes 8] [--only head,sft] [--out FOLDER]

Exit code 0 if every chosen part came to its end and every check holds, 1 if not, 2 if nothing was started.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib import import_module
from pathlib import Path

MINUTES, CPU_MINUTES = 8.0, 30.0


def parse_options(words: list[str] | None = None) -> argparse.Namespace:
    from gpu.parts import PARTS

    parser = argparse.ArgumentParser(
        prog="run.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", action="store_true", help="the same path with tiny sizes, without a GPU")
    said = f"for everything (default {MINUTES:.0f}; with --cpu {CPU_MINUTES:.0f}, of which it needs one)"
    parser.add_argument("--minutes", type=float, help=said)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts to run (default all: {', '.join(PARTS)})")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as torch chooses; 1 with --cpu)")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder (default gpu-results)")
    options = parser.parse_args(words)
    options.minutes = options.minutes or (CPU_MINUTES if options.cpu else MINUTES)
    options.only = [name.strip() for name in options.only.split(",")]
    if unknown := [name for name in options.only if name not in PARTS]:
        parser.error(f"--only names {', '.join(unknown)}; known parts: {', '.join(PARTS)}")
    return options


def main(words: list[str] | None = None) -> int:
    begun = time.monotonic()
    options = parse_options(words)
    if options.cpu:
        os.environ.setdefault("TRITON_INTERPRET", "1")  # read when the kernel is defined
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    from gpu.parts import PARTS, run_part
    from gpu.record import as_json, describe_machine, table, write_json
    from gpu.rows import Setting

    if not options.cpu and not torch.cuda.is_available():
        print("torch sees no GPU: run it on a machine with one, or with --cpu", file=sys.stderr)
        return 2
    device = "cpu" if options.cpu else "cuda"
    setting = Setting(device, options.threads or (1 if options.cpu else torch.get_num_threads()))
    options.out.mkdir(parents=True, exist_ok=True)
    if options.cpu:  # parts are forked
        for name in options.only:
            import_module(PARTS[name].module)
    machine, outcomes = describe_machine(device, setting.threads), {}
    for name in options.only:
        outcomes[name] = run_part(name, setting, options.out, begun + 60 * options.minutes)
        print(f"{name}: {outcomes[name].status} {outcomes[name].why}".rstrip(), file=sys.stderr, flush=True)
        write_json(options.out / "gpu.json", as_json(outcomes, machine, device, options.minutes))
    (options.out / "gpu.md").write_text(table(outcomes) + "\n")
    print(table(outcomes))
    print(f"\nThe figures are in {options.out / 'gpu.json'}, the table in {options.out / 'gpu.md'}")
    return 0 if all(outcome.holds for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
