"""Matplotlib's drawings as SVG that takes its colours from the page, so that one drawing serves dark and light.

Matplotlib draws in two placeholder colours; `render` turns INK into `currentColor` and drops ARM and fonts, so that the
page's rules for `.arm-0`, `.arm-1` ... paint the lines. It also turns style attributes into plain SVG ones, because the
page's content security policy forbids style attributes.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, ARM = "#010203", "#040506"
SVG = "http://www.w3.org/2000/svg"
DASHES = ("solid", (0, (6, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
COLORS = 8  # page.css has as many
LABEL_LENGTH = 44  # characters of a name in a drawing

RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "balanced-thinking",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure: trusted SVG markup and what it shows in words."""

    title: str
    unit: str
    svg: str
    alternative: str


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of so many inches in our style."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def render(figure: Figure, key: str, alternative: str) -> str:
    """The figure as SVG made fit for a page; `key` must differ between the page's drawings."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _restyle(buffer.getvalue(), re.sub(r"\W", "-", key), alternative)


def arm_class(arm: int) -> str:
    return f"arm-{arm % COLORS}"


def name_of(text: str) -> str:
    """A name fit for a drawing: on one line, without control characters (XML has none), of bounded length."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= LABEL_LENGTH else f"{plain[: LABEL_LENGTH - 1]}…"


def dot(axes: Axes, x: float, y: float, size: float, arm: int, **options: Any) -> None:
    """A disc of this diameter in points: a line of no length with round ends, which needs no marker definitions."""
    axes.plot([x, x], [y, y], color=ARM, linewidth=size, solid_capstyle="round", gid=arm_class(arm), **options)


def _restyle(svg: bytes, key: str, alternative: str) -> str:
    """Matplotlib's SVG made fit for a page: no style attributes, no clashing ids, our colours, and a description."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(svg)
    # Marks of the ticks have no size, so their definitions and uses only cost bytes.
    _drop(root, {f"{{{SVG}}}{tag}" for tag in ("metadata", "style", "use")})
    for element in root.iter():
        _restyle_element(element, key)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", alternative)
    return ET.tostring(root, encoding="unicode")


def _drop(parent: ET.Element, tags: set[str]) -> None:
    for child in list(parent):
        if child.tag in tags:
            parent.remove(child)
        else:
            _drop(child, tags)


def _restyle_element(element: ET.Element, key: str) -> None:
    name = element.attrib.pop("id", "")
    if name.startswith("arm-"):
        element.set("class", name)
    elif element.tag == f"{{{SVG}}}clipPath":
        element.set("id", f"{key}-{name}")
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{key}-"))
    if "d" in element.attrib:
        element.set("d", _rounded(element.attrib["d"]))
    for declaration in element.attrib.pop("style", "").split(";"):
        attribute, _, value = declaration.partition(":")
        _set(element, attribute.strip(), value.strip())


def _set(element: ET.Element, attribute: str, value: str) -> None:
    if attribute in ("", "font") or value == ARM:
        return
    element.set(attribute, value.replace(INK, "currentColor"))


def _rounded(path: str) -> str:
    """Coordinates to a tenth of a point, on one line."""
    return " ".join(re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}", path).split())
