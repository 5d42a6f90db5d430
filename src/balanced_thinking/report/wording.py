"""Numbers and verdicts in words, the same on the page and in the Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from balanced_thinking.report.tables import ALPHA, Contrast, SeedContrast, Tables

MISSING = "–"
MINUS, THIN = "−", "\u202f"


def percent(share: float | None, digits: int = 1) -> str:
    """0.405 -> `40.5 %`"""
    return MISSING if share is None else f"{100 * share:.{digits}f}{THIN}%"


def span(shares: tuple[float, float], digits: int = 1) -> str:
    """(0.381, 0.43) -> `38.1 to 43.0 %`"""
    return f"{100 * shares[0]:.{digits}f} to {percent(shares[1], digits)}"


def points(value: float) -> str:
    """3.21 -> `+3.2`, -0.5 -> `−0.5`"""
    return f"{value:+.1f}".replace("-", MINUS)


def count(value: float | None) -> str:
    """12345.6 -> `12,346`"""
    return MISSING if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """754 -> `12 min 34 s`, 7260 -> `2 h 1 min`"""
    if value is None:
        return MISSING
    minutes, rest = divmod(round(value), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{value:.3g} s"


def times(value: float | None) -> str:
    """1.234 -> `1.23 ×`"""
    return MISSING if value is None else f"{value:.2f} ×"


def p_value(p: float) -> str:
    """0.0341 -> `0.034`, 0.00001 -> `< 0.001`"""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _p(p: float) -> str:
    """0.0341 -> `p = 0.034`, 0.00001 -> `p < 0.001`"""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def seed_name(seed: int | None) -> str:
    return "seed not stated" if seed is None else f"seed {seed}"


def headline(contrast: Contrast) -> str:
    """The verdict on one contrast, in one sentence."""
    if not contrast.shown:
        return f"No difference between {contrast.arm} and {contrast.base} could be shown."
    verdict = f"{contrast.arm} is {'better' if contrast.points > 0 else 'worse'} than {contrast.base}"
    scope = "In the one seed that was run, " if len(contrast.seeds) == 1 else ""
    return f"{scope}{verdict} by {abs(contrast.points):.1f} points."


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
        f"exact McNemar {_p(seed.p)}. "
        "One seed cannot tell what another training run would give."
    )


def _seeds(contrast: Contrast) -> str:
    each = ", ".join(f"{points(seed.points)} ({_p(seed.p)})" for seed in contrast.seeds)
    return (
        f", over {len(contrast.seeds)} seeds: {points(contrast.points)} points on average, seed by seed {each}, "
        "by exact McNemar tests."
    )


def power(contrast: Contrast) -> str:
    """How small a difference these items could have shown."""
    smallest = contrast.detectable_points
    if smallest is None:
        share = percent(contrast.discordant)
        return f"The arms differ on only {share} of the items: too few disagreements for any test to tell them apart."
    return (
        f"With so many items, and arms that disagree as often as these, one comparison finds a true difference of "
        f"{smallest:.1f} points four times in five, and smaller ones less often"
        + ("." if contrast.shown else ": not shown does not mean equal.")
    )


def rule(contrasts: Sequence[Contrast]) -> str:
    """How the verdicts above were reached."""
    level = contrasts[0].alpha
    share = f" ({ALPHA} shared among {len(contrasts)} contrasts)" if len(contrasts) > 1 else ""
    return (
        f"A difference counts as shown when all seeds point the same way and more than half of them do so with "
        f"p below {level:.3g}{share}. Points are percentage points of accuracy; the tests are paired, item by item."
    )


def limits(tables: Tables) -> list[str]:
    """What the numbers of this report cannot tell."""
    rows = [row for split in tables.splits.values() for row in split]
    if not rows:
        return ["Nothing has been evaluated yet."]
    seeds = sorted({row.seeds for row in rows})
    sizes = ", ".join(f"{count(max(row.n for row in split))} of {name}" for name, split in tables.splits.items())
    lines = [f"Items: {sizes}. Seeds per arm: {' or '.join(str(seed) for seed in seeds)}."]
    if min(seeds) < 3:
        lines.append("With fewer than three seeds the spread between training runs is hardly known.")
    lines.append("The tests speak of these items and these runs; all seeds of an arm answer the same items.")
    lines.append("Training time is the wall clock that each run recorded, on the device given below.")
    return lines
