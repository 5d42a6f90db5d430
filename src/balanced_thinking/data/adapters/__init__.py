"""One module for each published data set, as its authors publish it, and `jsonl` for your own files."""
