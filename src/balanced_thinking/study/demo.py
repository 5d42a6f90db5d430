"""The embedded study: its plan, a recipe like any other, at another size where the command line says so."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from balanced_thinking.config.layers import merge_mappings
from balanced_thinking.study.load import load_study, make_study
from balanced_thinking.study.plan import Study


def demo_study(
    *,
    seeds: Sequence[int] | None = None,
    ratio: float | None = None,
    steps: int | None = None,
    grpo_steps: int | None = None,
    samples: int | None = None,
) -> Study:
    """The study of `make demo`; what is given replaces its seeds, ratio, optimizer steps and samples a split."""
    path = files("balanced_thinking") / "recipes" / "world" / "demo.yaml"
    study = load_study(str(path))
    changes = {
        "stages": {
            "sft": {
                "data_options": {} if ratio is None else {"ratio": ratio},
                "training": {} if steps is None else {"max_steps": steps},
            },
            "grpo": {"training": {} if grpo_steps is None else {"max_steps": grpo_steps}},
        },
        "evaluate": {"world": {"options": {} if samples is None else {"n": samples}}},
        **({} if seeds is None else {"seeds": list(seeds)}),
    }
    return make_study(merge_mappings({name: getattr(study, name) for name in study.__dataclass_fields__}, changes))
