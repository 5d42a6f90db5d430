"""Compare two models on the same items: a paired test, an interval, and what n items can show."""

import random

from balanced_thinking.statistics.bootstrap import paired_bootstrap
from balanced_thinking.statistics.intervals import (
    holm_adjusted,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_counts,
    paired_difference_interval,
    tost_paired,
)

# Item -> right or wrong, as `predictions.jsonl` of two runs has it. Here model b is right a little more often.
draw = random.Random(0)
items = [f"item-{k}" for k in range(600)]
a = {item: draw.random() < 0.40 for item in items}
b = {item: right or draw.random() < 0.06 for item, right in a.items()}

both, only_a, only_b, neither = counts = paired_counts(a, b)
low, high = paired_difference_interval(*counts)
print(f"a {sum(a.values()) / 6:.1f} %, b {sum(b.values()) / 6:.1f} %")
print(f"a - b: {100 * (only_a - only_b) / 600:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})")
print(f"exact McNemar p = {mcnemar_exact(only_a, only_b):.2g}")

# A missing difference is not equality: that is a test of its own, with a margin that is set before.
print(f"a as good as b within 2 points: {tost_paired(*counts, margin=0.02).non_inferior}")
effect = minimum_detectable_effect(600, discordant=(only_a + only_b) / 600)
print(f"600 items show a true difference of {100 * effect:.1f} points four times in five")

# Several contrasts: adjust their p-values. Several training seeds: resample seeds and items.
print("Holm:", holm_adjusted([0.01, 0.04, 0.03]))
seeds = {seed: {item: draw.random() < 0.40 for item in items} for seed in range(3)}
others = {seed: {item: draw.random() < 0.45 for item in items} for seed in range(3)}
found = paired_bootstrap(seeds, others, resamples=1000).widened_for_seeds()
print(f"three seeds: {100 * found.difference:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})")
