"""The command `export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from balanced_thinking.cli.parser import Parser, integer_between, token_count

sample_count = integer_between(0, 100_000)


def add_export_options(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="RUN",
        help="a run directory or its model folder, a checkpoint's or an adapter's folder",
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write, which must not exist")
    parser.add_argument(
        "--dtype",
        choices=("keep", "float32", "bfloat16", "float16"),
        default="keep",
        help="number type of the weights; keep: the checkpoint's own, of an adapter that of its base",
    )
    parser.add_argument(
        "--adapter", action="store_true", help="leave the adapter beside its base instead of merging it"
    )
    parser.add_argument(
        "--samples",
        type=sample_count,
        default=20,
        help="samples that plain transformers must answer as the run's own model does; 0: none",
    )
    parser.add_argument("--data", help="data set of the samples: a name or a path  [the run's, else world]")
    parser.add_argument("--split", help="split of the samples  [that of the run's training, else train]")
    parser.add_argument("--max-new-tokens", type=token_count, default=128, help="longest answer to a sample in tokens")
    parser.add_argument(
        "--allow-differences", action="store_true", help="exit with 0, and upload, even if answers differ"
    )
    parser.add_argument("--push", metavar="OWNER/NAME", help="also upload it to this new repository of the hub")
    parser.add_argument("--private", action="store_true", help="with --push: only the owner sees the repository")
    parser.add_argument("--license", help="identifier of the model's licence for the card, such as apache-2.0")


def run_export(arguments: argparse.Namespace) -> Path | str:
    from balanced_thinking.models.find import check_model

    check_model(arguments.model)  # before torch is imported, which takes seconds
    from balanced_thinking.export.run import ExportOptions, export_model
    from balanced_thinking.export.samples import SampleOptions

    samples = SampleOptions(arguments.samples, arguments.data, arguments.split, arguments.max_new_tokens)
    options = ExportOptions(
        dtype=arguments.dtype,
        adapter=arguments.adapter,
        samples=samples,
        allow_differences=arguments.allow_differences,
        push=arguments.push,
        private=arguments.private,
        licence=arguments.license,
    )
    exported = export_model(arguments.model, arguments.out, options)
    return exported.address or exported.folder
