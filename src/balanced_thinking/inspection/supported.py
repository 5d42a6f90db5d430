"""Which setting our results support for which kind of data: the only place that says it.

To update it when a study's results are in: set `setting` to the arm that the study shows to be at least as good as
plain SFT on such data, and `section` to the heading of `docs/results.md` that has the figures. Nothing else changes.
"""

from __future__ import annotations

from typing import NamedTuple

RESULTS = "docs/results.md"
RESULTS_URL = f"https://github.com/balanced-thinking/balanced-thinking/blob/main/{RESULTS}"
STUDY_HELP = "docs/studies.md"


class Supported(NamedTuple):
    """A kind of data (`kind.py` has the words), the supported setting, and where it was measured; "": not measured."""

    conclusion: str
    steps: str
    setting: str = ""
    section: str = ""

    @property
    def measured(self) -> bool:
        """Whether results of ours decide."""
        return bool(self.setting)


_GRID = "The grid: two bases, four kinds of data"
_NO_LOSS = "two weights, the default, which did not differ significantly from plain SFT"
_GAIN = "two weights, the default, which were significantly better than plain SFT on a model that reasons already"
# conclusion, steps, setting, heading of docs/results.md
SUPPORTED = (
    Supported("stated", "agreeing", _NO_LOSS, _GRID),
    Supported("stated", "conflicting", _NO_LOSS, _GRID),
    Supported("mixed", "agreeing"),  # measured: no
    Supported("mixed", "conflicting"),  # measured: no
    Supported("unstated", "agreeing", _GAIN, _GRID),
    Supported("unstated", "conflicting", _GAIN, _GRID),
)


def find_supported(conclusion: str, steps: str) -> Supported | None:
    """The line of a kind; None for a kind that was not determined."""
    return next((one for one in SUPPORTED if (one.conclusion, one.steps) == (conclusion, steps)), None)


def describe_supported(conclusion: str, steps: str) -> str:
    """One sentence: the setting that our results support for this kind of data, or how to find it."""
    found = find_supported(conclusion, steps)
    if found is not None and found.measured:
        return f"for such data our results support {found.setting} ({RESULTS}, {found.section})"
    if found is not None:
        why = "our results do not decide yet which setting such data need"
    else:
        why = "which setting our results support depends on what was not measured here"
    return f"{why} ({RESULTS}): compare plain SFT and SCALe on a part of it with `balanced study` ({STUDY_HELP})"
