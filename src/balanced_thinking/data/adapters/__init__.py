"""One module for each data set as its authors publish it, and `jsonl` for one's own."""
