"""Numbers as text, the same on the page, in the Markdown and in the figures."""

from __future__ import annotations

MISSING = "–"
MINUS, THIN = "−", "\u202f"


def format_percent(share: float | None, digits: int = 1) -> str:
    """0.405 -> `40.5 %`"""
    return MISSING if share is None else f"{100 * share:.{digits}f}{THIN}%"


def format_range(shares: tuple[float, float], digits: int = 1) -> str:
    """(0.381, 0.43) -> `38.1 to 43.0 %`"""
    return f"{100 * shares[0]:.{digits}f} to {format_percent(shares[1], digits)}"


def format_points(value: float) -> str:
    """3.21 -> `+3.2`, -0.5 -> `−0.5`"""
    return f"{value:+.1f}".replace("-", MINUS)


def format_count(value: float | None) -> str:
    """12345.6 -> `12,346`"""
    return MISSING if value is None else f"{value:,.0f}"


def format_cost_seconds(value: float | None) -> str:
    """Seconds for a table of costs: 754.31 -> `754`, 7.43 -> `7.4`"""
    return MISSING if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def format_duration(value: float | None) -> str:
    """754 -> `12 min 34 s`, 7260 -> `2 h 1 min`"""
    if value is None:
        return MISSING
    minutes, rest = divmod(round(value), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{value:.3g} s"


def format_ratio(value: float | None) -> str:
    """1.234 -> `1.23 ×`"""
    return MISSING if value is None else f"{value:.2f} ×"


def format_p(p: float) -> str:
    """0.0341 -> `0.034`, 0.00001 -> `< 0.001`"""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_p_phrase(p: float) -> str:
    """0.0341 -> `p = 0.034`, 0.00001 -> `p < 0.001`"""
    return f"p {format_p(p)}" if p < 0.001 else f"p = {format_p(p)}"


def format_seed(seed: int | None) -> str:
    return "seed not stated" if seed is None else f"seed {seed}"


def format_margin(points: float | None) -> str:
    """1.0 -> `1 point`, 2.5 -> `2.5 points`"""
    return MISSING if points is None else f"{points:g} point{'' if points == 1 else 's'}"


def format_detectable(value: float | None) -> str:
    """5.91 -> `5.9`, None -> a dash: no difference is detectable where the arms never disagree."""
    return MISSING if value is None else f"{value:.1f}"


def format_interval(low_high: tuple[float, float]) -> str:
    """(-0.31, 2.4) points -> `−0.3 to +2.4`"""
    return " to ".join(map(format_points, low_high))
