"""The questions of the world's families in English. `PARAPHRASES` are used in the split `test_paraphrase` only."""

from __future__ import annotations

WORDINGS: dict[str, tuple[str, ...]] = {
    "attribute": (
        "What is the {attribute} of the tile at the {place}?",
        "Which {attribute} does the tile at the {place} have?",
    ),
    "count": ("How many {group} are there?", "What is the number of {group}?"),
    "compare": ("Are there more {first} than {second}?", "Is the number of {first} larger than that of {second}?"),
    "spatial": (
        "What is the {attribute} of the tile directly {relation} the {anchor}?",
        "Which {attribute} does the tile directly {relation} the {anchor} have?",
    ),
    "arithmetic": (
        "What is the {first} {operation} the {second}?",
        "How much is the {first} {operation} the {second}?",
    ),
    "odd_one_out": (
        "All tiles but one have the same {attribute}. Which {attribute} is the odd one out?",
        "One tile has another {attribute} than all the others. Which {attribute} is it?",
    ),
    "pattern": (
        "Either each row or each column has a single color. Which color does the question mark hide?",
        "The colors follow the rows or the columns. What is the color of the hidden tile?",
    ),
}
WORDINGS["multiple_choice"] = WORDINGS["attribute"]
PARAPHRASES: dict[str, tuple[str, ...]] = {
    "attribute": ("Look at the {place}. Tell me the {attribute} of that tile.",),
    "count": ("Give me the number of {group} on the board.",),
    "compare": ("Do the {first} outnumber the {second}?",),
    "spatial": ("Find the {anchor}. Tell me the {attribute} of the tile directly {relation} it.",),
    "arithmetic": ("Take the {first} {operation} the {second}. Give me the result.",),
    "odd_one_out": ("Only a single tile differs from the rest in its {attribute}. Name that {attribute}.",),
    "pattern": ("Each row, or else each column, is of one color. Name the color of the tile that cannot be seen.",),
}
PARAPHRASES["multiple_choice"] = PARAPHRASES["attribute"]
# What is asked, after "I need to find out".
GOALS = {
    "attribute": "which {attribute} the tile at the {place} has",
    "count": "how many {group} there are",
    "compare": "whether there are more {first} than {second}",
    "spatial": "which {attribute} the tile directly {relation} the {anchor} has",
    "arithmetic": "what the {first} {operation} the {second} is",
    "odd_one_out": "which {attribute} is the odd one out",
    "pattern": "which color the question mark hides",
    "multiple_choice": "which option is the {attribute} of the tile at the {place}",
}
RELATIONS = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
ANSWER_HINTS = {"compare": "Answer with yes or no.", "multiple_choice": "Answer with the letter."}
DEFAULT_HINT = "Answer with one word or number."
AFTER_SWAPS = "After these changes: "
