#!/usr/bin/env bash
# Everything that a GPU must show, in one call of 8 minutes and without a network; `--help` lists the options.
#
#   benchmarks/gpu/run.sh                  one GPU of 80 GB
#   benchmarks/gpu/run.sh --cpu            the same path with tiny sizes
#   PYTHON=.venv/bin/python benchmarks/gpu/run.sh
#
# It uses the Python that it finds (PYTHON, else python3) with its torch and transformers. Beside this file, or where
# GPU_BUNDLE says, may be the folder `wheels` that `make gpu-bundle` collects; what that Python lacks is taken from it,
# into a temporary folder. Triton needs a C compiler and Python's headers; without them the head in plain torch runs.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
python="${PYTHON:-python3}"
bundle="${GPU_BUNDLE:-$here/wheels}"
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
if [ -d "$bundle" ]; then
  "$python" "$here/install.py" "$bundle" "$site"
fi
# The code of this checkout comes before what is installed.
export PYTHONPATH="$root/src:$root/benchmarks:$site${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
"$python" -m gpu.cli "$@"
