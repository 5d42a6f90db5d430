"""Verdicts and their evidence in words, the same on the page and in the Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from balanced_thinking.report.compare.contrasts import (
    ALPHA,
    DETECTABLE_POINTS,
    FEW_SEEDS,
    FEW_UNUSUAL_ITEMS,
    MIN_SIGNIFICANT_SEEDS,
    Contrast,
    SeedContrast,
)
from balanced_thinking.report.compare.formatting import (
    MISSING,
    THIN,
    format_count,
    format_interval,
    format_margin,
    format_p,
    format_p_phrase,
    format_percent,
    format_points,
)
from balanced_thinking.report.compare.rows import ArmRow
from balanced_thinking.report.compare.tables import Leader, Tables


def verdict_headline(contrast: Contrast) -> str:
    """The verdict on one contrast, in one or two sentences."""
    if contrast.is_significant_over_seeds and not contrast.is_significant:
        return _almost_significant_headline(contrast)
    if not contrast.is_significant:
        return f"There is no significant difference between {contrast.arm} and {contrast.base}."
    verdict = f"{contrast.arm} is {'better' if contrast.points > 0 else 'worse'} than {contrast.base}"
    scope = "With the one seed that was run, " if len(contrast.seeds) == 1 else ""
    return f"{scope}{verdict} by {abs(contrast.points):.1f} points."


def _almost_significant_headline(contrast: Contrast) -> str:
    leads = "leads" if contrast.points > 0 else "trails"
    few = f"Only {contrast.significant_seed_count}" if contrast.significant_seed_count else "None"
    return (
        f"{contrast.arm} {leads} {contrast.base} by {abs(contrast.points):.1f} points, but this does not count as "
        f"significant. {few} of the {len(contrast.seeds)} seeds differs significantly on its own; with fewer than "
        f"{FEW_SEEDS} seeds, at least {MIN_SIGNIFICANT_SEEDS} must."
    )


def verdict_evidence(contrast: Contrast) -> str:
    """What the verdict is based on: the accuracies, their difference, its uncertainty and the test."""
    arm, base = format_percent(contrast.arm_accuracy), format_percent(contrast.baseline_accuracy)
    counts = dict.fromkeys(map(format_count, (contrast.fewest_items, contrast.most_items)))
    items = f"{' to '.join(counts)} items of {contrast.split}"
    accuracies = f"{contrast.arm} answers {arm} of {items} correctly and {contrast.base} {base}."
    one = len(contrast.seeds) == 1
    return f"{accuracies} {_evidence_of_one_seed(contrast, contrast.seeds[0]) if one else _evidence_of_seeds(contrast)}"


def _evidence_of_one_seed(contrast: Contrast, seed: SeedContrast) -> str:
    low, high = map(format_points, seed.interval)
    return (
        f"The difference is {format_points(seed.points)} points (95{THIN}% interval {low} to {high}). "
        f"Only {contrast.arm} is right on {format_count(seed.only_arm)} items, only {contrast.base} on "
        f"{format_count(seed.only_base)} (exact McNemar test, {format_p_phrase(seed.p)}). "
        "One seed does not show how much training runs differ."
    )


def _evidence_of_seeds(contrast: Contrast) -> str:
    low, high = map(format_points, contrast.interval)
    by_seed = ", ".join(f"{format_points(seed.points)} ({format_p_phrase(seed.p)})" for seed in contrast.seeds)
    return (
        f"The mean difference over {len(contrast.seeds)} seeds is {format_points(contrast.points)} points "
        f"(95{THIN}% interval {low} to {high}, adjusted {format_p_phrase(contrast.p_holm)}). "
        f"By seed, with exact McNemar tests: {by_seed}."
    )


def margin_sentence(contrast: Contrast) -> str:
    """Whether the arm is non-inferior and equivalent, within the margin fixed beforehand; empty without a margin."""
    if contrast.tost is None:
        return ""
    size, tost = format_margin(contrast.margin_points), contrast.tost
    return (
        f"{contrast.arm} is less than {size} worse than {contrast.base} (non-inferior): "
        f"{_shown_or_not(tost.non_inferior)} ({format_p_phrase(tost.p_non_inferior)}). "
        f"They differ by less than {size} (equivalent): {_shown_or_not(tost.equivalent)} ({format_p_phrase(tost.p)})."
    )


def non_inferiority_cell(contrast: Contrast) -> str:
    """`shown (p = 0.041)` for a table, a dash without a margin."""
    if contrast.tost is None:
        return MISSING
    return f"{_shown_or_not(contrast.tost.non_inferior)} ({format_p_phrase(contrast.tost.p_non_inferior)})"


def equivalence_cell(contrast: Contrast) -> str:
    """`not shown (p = 0.756)` for a table, a dash without a margin."""
    if contrast.tost is None:
        return MISSING
    return f"{_shown_or_not(contrast.tost.equivalent)} ({format_p_phrase(contrast.tost.p)})"


def significant_or_not(contrast: Contrast) -> str:
    """Whether the difference is significant, for a table."""
    return "significant" if contrast.is_significant else "not significant"


def output_test_cell(contrast: Contrast) -> str:
    """`0.012: fewer` for a table of malformed or truncated outputs, `0.412` where the difference is not significant."""
    direction = ": more" if contrast.points > 0 else ": fewer"
    return f"{format_p(contrast.p_holm)}{direction if contrast.is_significant else ''}"


def complete_share_cell(contrast: Contrast) -> str:
    """`92.1 %`: of all items, those where the outputs of both arms are complete."""
    complete = contrast.outputs.complete if contrast.outputs else None
    counted = sum(seed.item_count for seed in complete.seeds) if complete else 0
    return format_percent(counted / sum(seed.item_count for seed in contrast.seeds))


def explain_outputs() -> str:
    """How to read the table of outputs."""
    return (
        "Points of malformed and truncated outputs are the first arm minus the second: below 0, it has fewer of them. "
        "Items, seeds, tests and adjustment are those of the accuracies; more and fewer are significant. A malformed "
        "output holds no answer that can be read, and a truncated one reached the limit of new tokens. Neither counts "
        "as right, so a part of a difference in accuracy can come from answers that one arm does not give at all. The "
        "last columns are about the items where the outputs of both arms are complete. They have no test, because "
        "the arms themselves decide which items these are."
    )


def _shown_or_not(yes: bool) -> str:
    return "shown" if yes else "not shown"


def _describe_disagreement(contrast: Contrast) -> str:
    differing = sum(seed.only_arm + seed.only_base for seed in contrast.seeds)
    items = format_count(sum(seed.item_count for seed in contrast.seeds))
    seeds = f" (all {len(contrast.seeds)} seeds together)" if len(contrast.seeds) > 1 else ""
    names = f"{contrast.arm} and {contrast.base}"
    return f"Only one of {names} is right on {format_count(differing)} of {items} items{seeds}."


def power_sentence(contrast: Contrast) -> str:
    """How small a difference this comparison can detect."""
    smallest = contrast.detectable_points
    if smallest is None:
        return f"{_describe_disagreement(contrast)} That is too few for any test to find a difference."
    not_equal = "" if contrast.is_significant else " No significant difference does not mean that the arms are equal."
    return (
        f"With this many items and seeds, and arms that disagree this often, a true difference of {smallest:.1f} "
        f"points is found four times in five. Smaller differences are found less often.{not_equal}"
    )


def low_power_warning(contrasts: Sequence[Contrast]) -> str:
    """The first sentence of a verdict whose study has too little power; empty where it has enough.

    The main contrast, which is the first, decides.
    """
    if not contrasts:
        return ""
    main = contrasts[0]
    smallest = main.detectable_points
    if smallest is None:
        return f"This study has too little power. {_describe_disagreement(main)}"
    limits = [DETECTABLE_POINTS, *filter(None, [main.margin_points])]
    missed = max((limit for limit in limits if smallest > limit), default=None)
    if missed is None:
        return ""
    return (
        f"This study has too little power: between {main.arm} and {main.base} it would often miss a true difference of "
        f"{format_margin(missed)}. Only a difference of {smallest:.1f} points or more is found four times in five."
    )


def low_power_settings_warning(named: Sequence[tuple[str, Sequence[Contrast]]]) -> str:
    """`low_power_warning` for several settings: (name, contrasts) of each."""
    weak = [name for name, contrasts in named if low_power_warning(contrasts)]
    if not weak:
        return ""
    margins = {format_margin(c.margin_points) for _, contrasts in named for c in contrasts[:1] if c.margin_points}
    sizes = " or ".join(dict.fromkeys([format_margin(DETECTABLE_POINTS), *sorted(margins)]))
    return (
        f"This study has too little power in {len(weak)} of {len(named)} settings ({', '.join(weak)}). There, the "
        f"first contrast would often miss a true difference of {sizes}. "
        "The last column below gives the difference that each comparison finds four times in five."
    )


def leader_sentence(leader: Leader) -> str:
    """Whether an arm is the best, and by how much it leads."""
    lead = leader.runner_up
    if round(lead.points, 9) == 0:  # a mean over seeds is 0 only to rounding
        return f"No arm leads: {lead.arm} and {lead.base} have the same accuracy."
    if lead.points < 0:
        return (
            f"No arm leads: {lead.arm} has the highest accuracy over all that it answered, but on the seeds and items "
            f"that {lead.base} has, too, it is {abs(lead.points):.1f} points behind."
        )
    subject, others = (lead.arm, "every other arm") if leader.best else ("No arm", "all others")
    return (
        f"{subject} is significantly better than {others}: {lead.arm} leads {lead.base} by "
        f"{format_points(lead.points)} points ({format_interval(lead.interval)}, "
        f"adjusted {format_p_phrase(lead.p_holm)})."
    )


def explain_verdict_rule(contrasts: Sequence[Contrast]) -> str:
    """How the verdicts above were reached."""
    level, several = contrasts[0].alpha, len(contrasts) > 1
    share = f", which is {ALPHA} divided by {len(contrasts)} contrasts" if several else ""
    holm = f", adjusted by Holm over {len(contrasts)} contrasts," if several else ""
    return (
        f"A difference is significant when its p{holm} is below {ALPHA}. With several seeds, p and the interval come "
        "from a paired bootstrap over seeds and items (10,000 resamples). S seeds show on average only (S - 1) / S of "
        "the variance between seeds, so the bootstrap's spread is multiplied by the square root of S / (S - 1). Where "
        f"in every seed fewer than {FEW_UNUSUAL_ITEMS} items differ from the rest, a bootstrap is too sure. Then the "
        "wider interval and the larger p of the bootstrap and of Tango's score count. With one seed, p comes from the "
        "exact McNemar test, and the interval is Tango's. "
        f"2 to {FEW_SEEDS - 1} seeds estimate their variance too poorly for p alone to decide. Then all seeds must "
        f"also point the same way, and at least {MIN_SIGNIFICANT_SEEDS} must be significant on their own (exact "
        f"McNemar p below {level:.3g}{share}). Non-inferiority within the margin is a one-sided test at {ALPHA}; "
        "equivalence is two such tests (TOST). Neither is adjusted. Points are percentage points of accuracy. All "
        "tests are paired, item by item."
    )


def protocol_sentence(rows: Sequence[ArmRow]) -> str:
    """With which prompts and scorers a split was evaluated, and the mean scores where a scorer gives partial credit."""
    protocols = {row.asked for row in rows if row.asked}
    named = [row.asked if len(protocols) == 1 else f"{row.arm}: {row.asked}" for row in rows if row.asked]
    sentences = [f"Evaluated with {'; '.join(dict.fromkeys(named))}."] if named else []
    graded = [row for row in rows if row.score is not None and abs(row.score - row.accuracy) > 1e-6]
    if graded:
        means = ", ".join(f"{row.arm} {row.score:.3f}" for row in rows if row.score is not None)
        sentences.append(f"Accuracy counts full scores only. Mean scores: {means}.")
    return " ".join(sentences)


def describe_limits(tables: Tables) -> list[str]:
    """What the numbers of this report cannot show."""
    rows = [row for split in tables.splits.values() for row in split]
    if not rows:
        return ["Nothing has been evaluated yet."]
    seeds = sorted({row.seeds for row in rows if row.seeds})
    sizes = ", ".join(
        f"{format_count(max(row.n for row in split))} of {name}" for name, split in tables.splits.items() if split
    )
    lines = [f"Items: {sizes}." + (f" Seeds per arm: {' or '.join(map(str, seeds))}." if seeds else "")]
    fewest = min(seeds, default=FEW_SEEDS)
    if fewest < 3:
        lines.append("With fewer than three seeds, the spread between training runs is hardly known.")
    if 1 < fewest < FEW_SEEDS:
        chance = 2 ** (1 - fewest)
        lines += [
            f"By chance alone, {fewest} seeds all point the same way in {format_percent(chance, 0)} of studies, "
            "however clear each seed is.",
            "Suppose that trainings of one arm scatter with a standard deviation of 2 points. Then a difference that "
            "does not exist is called significant in about 5 % of studies with 2,000 items. With 3 points, it is 7 to "
            "12 %.",
            "Where seeds differ much, intervals and margins are also too narrow. With 3 seeds, about 81 % of the 95 % "
            "intervals contain the truth; with 5 seeds, 87 %.",
        ]
    return [
        *lines,
        "The tests are about these items and these runs. All seeds of an arm answer the same items.",
        "On splits other than the first, contrasts are adjusted one split at a time. Treat them as hints.",
        "Training time is what each run recorded on the device given below: processor seconds on a CPU, wall-clock "
        "seconds elsewhere. It includes the runs that a run started from, but not the base model that all arms share.",
    ]
