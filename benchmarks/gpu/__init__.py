"""Everything that a GPU must show, in one call of a few minutes; `run.sh` starts it, README.md in `benchmarks/` explains it."""
