"""Evaluate a loaded model on examples of your own."""

from balanced_thinking import Benchmark, Example, evaluate, load_data, load_model

base = load_model("world-base")
# Boards of the embedded world; the base answers them at once, without reasoning.
boards = load_data("world", split="test", options={"n": 12, "style": "direct"}).examples
mine = [
    Example(id=f"mine-{k}", question=board.question, images=board.images, think=None, answer=board.answer)
    for k, board in enumerate(boards)
]

summary = evaluate(base, Benchmark(mine, format="direct", max_new_tokens=16))
print(f"{summary.correct} of {summary.n} right, {summary.accuracy:.0%}")
print(f"95 % interval {summary.wilson_low:.0%} to {summary.wilson_high:.0%}")
print(f"{summary.malformed} malformed, {summary.truncated} truncated, scorer {summary.scorer}")
