"""The samples that every model is checked on: pictures and text only, short and long, several scripts."""

from __future__ import annotations

from dataclasses import replace

from balanced_thinking.data.example import Example
from balanced_thinking.data.images import open_image
from balanced_thinking.data.world import load

_TEXTS = (
    (
        "A box holds 17 red and 25 blue beads. How many beads are in it?",
        "Tens first: 10 + 20 = 30. Then ones: 7 + 5 = 12.\n\nSo there are 30 + 12 = 42 beads.",
        "42",
    ),
    (
        "Which is larger, 3/4 or 0.7?\nA. 3/4\nB. 0.7",
        "3/4 is 0.75, and 0.75 > 0.7; therefore the first one. (Check: 0.75 - 0.70 = 0.05.)",
        "A",
    ),
    (
        "Wie heißt die Hauptstadt von Japan auf Japanisch?",
        "Die Hauptstadt ist Tokio — auf Japanisch 東京 (とうきょう). Naïve guesses such as 京都 are older capitals…",
        "東京",
    ),
    (
        "What does this print?\n    for i in range(2):\n        print(i * 'ab')",
        "i is 0, then 1:\n\t0 * 'ab' is '' (an empty line);\n\t1 * 'ab' is 'ab'.\n" + "Each line is printed once. " * 6,
        "an empty line, then ab",
    ),
)

_LARGE = (196, 140)  # pixels


def sample_examples(pictures: bool) -> list[Example]:
    """Eight examples of lengths that differ, so that padding and denominators matter.

    With `pictures` one of them has two, three have one and four have none.
    """
    world = [next(load(n=1, seed=seed, ratio=ratio)) for seed, ratio in enumerate((5, 20, 10, 15))]
    world[1] = replace(world[1], images=(*world[1].images, *world[0].images))
    # Not square, and larger than a window of Qwen2.5-VL's attention.
    world[2] = replace(world[2], images=tuple(open_image(one).resize(_LARGE) for one in world[2].images))
    if not pictures:
        world = [replace(example, images=()) for example in world]
    written = [
        Example(f"text-{number}", question, (), think, answer)
        for number, (question, think, answer) in enumerate(_TEXTS)
    ]
    return [example for pair in zip(world, written, strict=True) for example in pair]
