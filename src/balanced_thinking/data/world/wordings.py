"""The wordings of the question families. `PARAPHRASES` are used in the split `test_paraphrase` only."""

from __future__ import annotations

WORDINGS: dict[str, tuple[str, ...]] = {
    "attribute": ("what is the {attribute} of the tile at {place} ?", "which {attribute} has the tile at {place} ?"),
    "count": ("how many {group} are there ?", "what is the number of {group} ?"),
    "compare": ("are there more {first} than {second} ?", "is the number of {first} more than of {second} ?"),
    "spatial": (
        "what is the {attribute} of the tile {relation} the {anchor} ?",
        "which {attribute} has the tile {relation} the {anchor} ?",
    ),
    "arithmetic": (
        "what is the {first} {operation} the {second} ?",
        "the {first} {operation} the {second} makes what ?",
    ),
    "odd_one_out": (
        "all tiles but one have the same {attribute} , which is the odd one ?",
        "which {attribute} is the odd one ?",
    ),
    "pattern": ("which color has the question mark ?", "what is the color of the hidden tile ?"),
    "multiple_choice": (
        "what is the {attribute} of the tile at {place} ? {options}",
        "which {attribute} has the tile at {place} ? {options}",
    ),
}


PARAPHRASES: dict[str, tuple[str, ...]] = {
    "attribute": ("look at {place} : which {attribute} is there ?", "at {place} there is a tile of what {attribute} ?"),
    "count": ("the number of {group} is what ?", "there are how many {group} ?"),
    "compare": ("more {first} than {second} , yes or no ?", "are {first} more in number than {second} ?"),
    "spatial": (
        "{relation} the {anchor} there is a tile of what {attribute} ?",
        "look {relation} the {anchor} : which {attribute} is there ?",
    ),
    "arithmetic": ("{first} {operation} {second} is what ?", "look at the digits : {first} {operation} {second} ?"),
    "odd_one_out": ("one tile is the odd one , what is the {attribute} ?", "the odd one has which {attribute} ?"),
    "pattern": ("the hidden tile has which color ?", "look at the question mark : what is the color ?"),
    "multiple_choice": (
        "look at {place} : which {attribute} is there ? {options}",
        "at {place} there is a tile of what {attribute} ? {options}",
    ),
}
