"""How long what a study lacks will take, from what parts of the same kind took; nothing is guessed from other kinds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from balanced_thinking.data.load import result_folder_name
from balanced_thinking.runs.records import LedgerEntry
from balanced_thinking.study.plan import Node, chain

_FIRST = (
    "no estimate yet, because no part of this kind has finished: run the study with one seed first (seeds: [0]), "
    "then with all of them in the same folder"
)


def time_to_go(
    nodes: Sequence[Node], parts: Mapping[str, Sequence[str]], rows: Iterable[LedgerEntry], jobs: int
) -> str:
    """One line about `parts`, what each run lacks by its name. `rows` are the ledger's."""
    kinds = _Kinds(nodes)
    took: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.run in kinds.nodes and row.wall_seconds is not None:  # a seed may have been taken out of the plan
            kind, steps = kinds.of(row.run, row.part)
            took[kind].append(row.wall_seconds / steps)
    wanted = [kinds.of(run, part) for run, lacking in parts.items() for part in lacking]
    known = [steps * median(took[kind]) for kind, steps in wanted if kind in took]
    if not known:
        return _FIRST
    minutes = sum(known) / jobs / 60
    told = f"about {minutes:.0f} minutes to go" if minutes >= 10 else f"about {minutes:.1f} minutes to go"
    unknown = len(wanted) - len(known)
    return f"at least {told}, {unknown} {'part' if unknown == 1 else 'parts'} of unknown length" if unknown else told


class _Kinds:
    """Which parts of a study's runs take equally long, a training for each of its steps."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}

    def of(self, run: str, part: str) -> tuple[str, int]:
        """A part's kind, which all seeds share, and by how many steps its time is divided: 1 where it does not train
        a given number."""
        node = self.nodes[run]
        steps = _steps(node) if part == "train" else 0
        asked = [
            one for one in node.benchmarks if part in [result_folder_name(one.data, split) for split in one.splits]
        ]
        *before, own = chain(list(self.nodes.values()), run)
        recipes = [*(_recipe(one, any_steps=False) for one in before), _recipe(own, any_steps=steps > 0)]
        return repr((part, steps > 0, recipes, asked)), steps or 1


def _steps(node: Node) -> int:
    """The optimizer steps that the recipe gives, 0 where it gives none."""
    steps = node.recipe.training.get("max_steps")
    return max(0, steps) if isinstance(steps, int) else 0


def _recipe(node: Node, *, any_steps: bool) -> dict[str, Any]:
    """The recipe without its seeds; with `any_steps` also without its steps, and the number of samples they are taken
    from."""
    recipe = asdict(node.recipe)
    left_out = (("training", "max_steps"), ("data_options", "n")) if any_steps else ()
    for section, key in (("training", "seed"), ("data_options", "seed"), *left_out):
        recipe[section].pop(key, None)
    return recipe
