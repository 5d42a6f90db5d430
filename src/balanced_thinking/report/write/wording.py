"""Numbers and verdicts in words, the same on the page and in the Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from balanced_thinking.report.compare.contrasts import (
    ALONE,
    ALPHA,
    DETECTABLE_POINTS,
    FEW_SEEDS,
    Contrast,
    SeedContrast,
)
from balanced_thinking.report.compare.formatting import (
    MISSING,
    THIN,
    count,
    interval,
    margin,
    p_phrase,
    percent,
    points,
)
from balanced_thinking.report.compare.rows import ArmRow
from balanced_thinking.report.compare.tables import Leader, Tables


def headline(contrast: Contrast) -> str:
    """The verdict on one contrast, in one sentence."""
    if contrast.likely and not contrast.shown:
        return _almost(contrast)
    if not contrast.shown:
        return f"No difference between {contrast.arm} and {contrast.base} could be shown."
    verdict = f"{contrast.arm} is {'better' if contrast.points > 0 else 'worse'} than {contrast.base}"
    scope = "In the one seed that was run, " if len(contrast.seeds) == 1 else ""
    return f"{scope}{verdict} by {abs(contrast.points):.1f} points."


def _almost(contrast: Contrast) -> str:
    leads, seeds = "leads" if contrast.points > 0 else "is behind", len(contrast.seeds)
    return (
        f"{contrast.arm} {leads} {contrast.base} by {abs(contrast.points):.1f} points, but this is not shown: "
        f"{contrast.significant_seeds} of {seeds} seeds {'tells' if contrast.significant_seeds == 1 else 'tell'} them "
        f"apart by {'itself' if contrast.significant_seeds == 1 else 'themselves'}, and {seeds} are too few to rest on "
        "their average."
    )


def evidence(contrast: Contrast) -> str:
    """What the verdict rests on: the accuracies, their difference, its uncertainty and the test."""
    ours, theirs = percent(contrast.arm_accuracy), percent(contrast.base_accuracy)
    items = f"{count(contrast.n)} items of {contrast.split}"
    rates = f"{contrast.arm} is right on {ours} and {contrast.base} on {theirs} of {items}"
    return rates + (_one_seed(contrast, contrast.seeds[0]) if len(contrast.seeds) == 1 else _seeds(contrast))


def _one_seed(contrast: Contrast, seed: SeedContrast) -> str:
    low, high = map(points, seed.interval)
    return (
        f": {points(seed.points)} points (95{THIN}% interval {low} to {high}). "
        f"{count(seed.only_arm)} items only {contrast.arm} got right, {count(seed.only_base)} only {contrast.base}, "
        f"exact McNemar {p_phrase(seed.p)}. "
        "One seed cannot tell what another training run would give."
    )


def _seeds(contrast: Contrast) -> str:
    low, high = map(points, contrast.interval)
    each = ", ".join(f"{points(seed.points)} ({p_phrase(seed.p)})" for seed in contrast.seeds)
    return (
        f", over {len(contrast.seeds)} seeds: {points(contrast.points)} points on average (95{THIN}% interval {low} to "
        f"{high}, adjusted {p_phrase(contrast.p_holm)}); seed by seed {each}, by exact McNemar tests."
    )


def within_margin(contrast: Contrast) -> str:
    """Whether the arm is as good as the other, within the margin that was fixed beforehand; empty without a margin."""
    if contrast.tost is None:
        return ""
    size = margin(contrast.margin_points)
    as_good, equal = (_shown(x) for x in (contrast.tost.non_inferior, contrast.tost.equivalent))
    return (
        f"{contrast.arm} is as good as {contrast.base} within {size}: {as_good} "
        f"({p_phrase(contrast.tost.p_non_inferior)}); equal within {size}: {equal} ({p_phrase(contrast.tost.p)})."
    )


def as_good(contrast: Contrast) -> str:
    """The same in a table's cell."""
    return (
        MISSING
        if contrast.tost is None
        else f"{_shown(contrast.tost.non_inferior)} ({p_phrase(contrast.tost.p_non_inferior)})"
    )


def equal(contrast: Contrast) -> str:
    return MISSING if contrast.tost is None else f"{_shown(contrast.tost.equivalent)} ({p_phrase(contrast.tost.p)})"


def _shown(yes: bool) -> str:
    return "shown" if yes else "not shown"


def power(contrast: Contrast) -> str:
    """How small a difference these items could have shown."""
    smallest = contrast.detectable_points
    if smallest is None:
        share = percent(contrast.discordant)
        return f"The arms differ on only {share} of the items: too few disagreements for any test to tell them apart."
    return (
        f"With so many items and seeds, and arms that disagree as often as these, a comparison finds a true difference "
        f"of {smallest:.1f} points four times in five, and smaller ones less often"
        + ("." if contrast.shown else ": not shown does not mean equal.")
    )


def weakness(contrasts: Sequence[Contrast]) -> str:
    """The first sentence of a verdict whose study has too little power; empty where it has enough.

    The main contrast, the first, sets it.
    """
    if not contrasts:
        return ""
    main = contrasts[0]
    smallest = main.detectable_points
    if smallest is None:
        return f"This study has too little power: {main.arm} and {main.base} hardly ever disagree."
    limits = [DETECTABLE_POINTS, *filter(None, [main.margin_points])]
    missed = max((limit for limit in limits if smallest > limit), default=None)
    if missed is None:
        return ""
    return (
        f"This study has too little power: between {main.arm} and {main.base} only a true difference of "
        f"{smallest:.1f} points or more would be found four times in five; one of {margin(missed)} would often be "
        "missed."
    )


def weak_settings(named: Sequence[tuple[str, Sequence[Contrast]]]) -> str:
    """The same over several settings: (name, contrasts) of each."""
    weak = [name for name, contrasts in named if weakness(contrasts)]
    if not weak:
        return ""
    margins = {margin(c.margin_points) for _, contrasts in named for c in contrasts[:1] if c.margin_points}
    sizes = " or ".join(dict.fromkeys([margin(DETECTABLE_POINTS), *sorted(margins)]))
    return (
        f"This study has too little power in {len(weak)} of {len(named)} settings ({', '.join(weak)}): there the first "
        f"contrast would often miss a true difference of {sizes}. "
        "The last column below says from how many points on each comparison finds it four times in five."
    )


def leading(leader: Leader) -> str:
    """Whether an arm is the best, and by how much it leads."""
    second = leader.second
    told = (
        f"{second.arm} leads {second.base} by {points(second.points)} points ({interval(second.interval)}, "
        f"adjusted {p_phrase(second.p_holm)})"
    )
    verdict = (
        f"{second.arm} is shown to be better than every other arm" if leader.best else "No arm is shown to be best"
    )
    return f"{verdict}: {told}."


def rule(contrasts: Sequence[Contrast]) -> str:
    """How the verdicts above were reached."""
    level, many = contrasts[0].alpha, len(contrasts) > 1
    share = f" ({ALPHA} shared among {len(contrasts)} contrasts)" if many else ""
    holm = f", adjusted by Holm over {len(contrasts)} contrasts," if many else ""
    return (
        f"A difference counts as shown when its p{holm} is below {ALPHA}. That p and the interval come from a paired "
        f"bootstrap over seeds and items (10,000 resamples, spread by the root of S / (S - 1), because S seeds show "
        f"that much too little of the variance between seeds); with one seed, from its exact McNemar test and Tango's "
        f"interval. 2 to {FEW_SEEDS - 1} seeds tell too little of their variance for that to be enough: all of them "
        f"must also point the same way, and at least {ALONE} show the difference by themselves, with an exact McNemar "
        f"p below {level:.3g}{share}. As good within the margin is a one-sided test at {ALPHA}, equal both of two "
        "(TOST); neither is adjusted. Points are percentage points of accuracy; all tests are paired, item by item."
    )


def pairs(rows: Sequence[ArmRow]) -> str:
    """How a split was asked and judged, and the mean score where a scorer gives parts of a point."""
    asked = {row.asked for row in rows if row.asked}
    told = [row.asked if len(asked) == 1 else f"{row.arm}: {row.asked}" for row in rows if row.asked]
    lines = [f"Asked and judged with {'; '.join(dict.fromkeys(told))}."] if told else []
    graded = [row for row in rows if row.score is not None and abs(row.score - row.accuracy) > 1e-6]
    if graded:
        means = ", ".join(f"{row.arm} {row.score:.3f}" for row in rows if row.score is not None)
        lines.append(f"Accuracy counts full scores; mean scores: {means}.")
    return " ".join(lines)


def limits(tables: Tables) -> list[str]:
    """What the numbers of this report cannot tell."""
    rows = [row for split in tables.splits.values() for row in split]
    if not rows:
        return ["Nothing has been evaluated yet."]
    seeds = sorted({row.seeds for row in rows if row.seeds})
    sizes = ", ".join(
        f"{count(max(row.n for row in split))} of {name}" for name, split in tables.splits.items() if split
    )
    told = f" Seeds per arm: {' or '.join(map(str, seeds))}." if seeds else ""
    lines = [f"Items: {sizes}.{told}"]
    fewest = min(seeds, default=FEW_SEEDS)
    if fewest < 3:
        lines.append("With fewer than three seeds the spread between training runs is hardly known.")
    if 1 < fewest < FEW_SEEDS:
        chance = 2 ** (1 - fewest)
        lines.append(
            f"{fewest} seeds all point the same way by chance alone in {percent(chance, 0)} of studies, however "
            "clear each of them is. Where trainings of one arm scatter by a standard deviation of 2 points, a "
            "difference that does not exist is shown in about 5 % of studies with 2,000 items, at 3 points in 7 to "
            "12 %. Where seeds differ much, intervals and margins are too narrow, too: of 95 % intervals about 81 % "
            "hold the truth with 3 seeds, 87 % with 5."
        )
    lines.append("The tests speak of these items and these runs; all seeds of an arm answer the same items.")
    lines.append("Contrasts on other splits than the first are looked at one split at a time: take them as hints.")
    lines.append(
        "Training time is what each run recorded on the device given below (on a CPU the processor's seconds, "
        "elsewhere the wall clock's), together with the runs that it started from, but without the base model that all "
        "arms share."
    )
    return lines
