"""Tasks that plug a reasoning checkpoint into lmms-eval (0.7): `balanced_scienceqa_img`, `balanced_chartqa`, and
`balanced_jsonl` for a `test.jsonl` of one's own. See docs/lmms-eval.md."""
