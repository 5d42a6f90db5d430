"""Everything that a GPU must show, in one call of a few minutes: `run.sh`, explained in `benchmarks/README.md`."""
