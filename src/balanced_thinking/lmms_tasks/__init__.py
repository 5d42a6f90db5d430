"""Tasks with which lmms-eval (0.7) evaluates a reasoning checkpoint. See docs/lmms-eval.md.

`balanced_scienceqa_img`, `balanced_chartqa`, `balanced_iconqa`, and `balanced_jsonl` for a `test.jsonl` of your own.
"""
