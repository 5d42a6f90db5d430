"""Matplotlib's drawings as SVG that takes its colours from the page, so that one drawing serves dark and light.

Matplotlib draws in two placeholder colours. `figure_to_svg` turns INK into `currentColor` and drops ARM and fonts. So
the page's rules for `.arm-0`, `.arm-1` ... paint the lines. It also turns style attributes into plain SVG attributes,
because the page's content security policy forbids style attributes.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balanced_thinking.html import read_asset

INK, ARM = "#010203", "#040506"
SVG = "http://www.w3.org/2000/svg"
DASHES = ("solid", (0, (6, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
COLORS = 8  # as many as in page.css
INCHES_WIDE = 8.4  # of a figure as wide as the page
LABEL_LENGTH = 44  # characters of a name in a drawing

DRAWING_CSS = read_asset("balanced_thinking.report.draw", "drawing.css")
_CLASSES = ("arm-", "grid-")  # an id that begins so becomes a class of DRAWING_CSS

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
    """A finished figure: its SVG, which the page trusts, and the same in words."""

    title: str
    unit: str
    svg: str
    alternative: str


@contextmanager
def new_canvas(width: float, height: float, *, arrange: bool = True) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this size in inches, in our style. `arrange`: margins by Matplotlib, which doubles the time."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height), layout="constrained" if arrange else None)
        yield figure, figure.add_subplot()


def figure_to_svg(figure: Figure, key: str, alternative: str) -> str:
    """The figure as SVG for a page. `key` must be unique among the page's drawings."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The SVG holds text, for which the reader's browser has a font. Matplotlib only measures with its own.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _restyle_svg(buffer.getvalue(), re.sub(r"\W", "-", key), alternative)


def to_standalone_svg(drawing: Drawing) -> str:
    """The drawing as a file of its own: with its colours for light and dark, on a background of its own."""
    root = ET.fromstring(drawing.svg)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib |= {"width": width, "height": height}
    style = ET.Element(f"{{{SVG}}}style")
    style.text = f"{DRAWING_CSS}svg {{ color: var(--ink); font: 11px var(--sans); stroke-linejoin: round; }}\n"
    style.text += ".paper { fill: var(--paper); }\n"
    title = ET.Element(f"{{{SVG}}}title")
    title.text = f"{drawing.title}, {drawing.unit}"
    root[:0] = [title, style, ET.Element(f"{{{SVG}}}rect", {"class": "paper", "width": width, "height": height})]
    return ET.tostring(root, encoding="unicode") + "\n"


def arm_css_class(arm: int) -> str:
    return f"arm-{arm % COLORS}"


def shorten_label(text: str, length: int = LABEL_LENGTH) -> str:
    """A name for a drawing: one line, limited length, without control characters, which XML does not allow."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"


def draw_dot(axes: Axes, x: float, y: float, size: float, arm: int, **options: Any) -> None:
    """A disc of this diameter in points: a line of length 0 with round ends, which needs no marker definitions."""
    axes.plot([x, x], [y, y], color=ARM, linewidth=size, solid_capstyle="round", gid=arm_css_class(arm), **options)


def _restyle_svg(svg: bytes, key: str, alternative: str) -> str:
    """Matplotlib's SVG without style attributes, with unique ids, our colours and a description."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(svg)
    # Tick marks have no size, so their definitions and uses only cost bytes.
    _drop_tags(root, {f"{{{SVG}}}{tag}" for tag in ("metadata", "style", "use")})
    for element in root.iter():
        _restyle_element(element, key)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", alternative)
    return ET.tostring(root, encoding="unicode")


def _drop_tags(parent: ET.Element, tags: set[str]) -> None:
    for child in list(parent):
        if child.tag in tags:
            parent.remove(child)
        else:
            _drop_tags(child, tags)


def _restyle_element(element: ET.Element, key: str) -> None:
    name = element.attrib.pop("id", "")
    if name.startswith(_CLASSES):
        element.set("class", name)
    elif element.tag == f"{{{SVG}}}clipPath":
        element.set("id", f"{key}-{name}")
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{key}-"))
    if "d" in element.attrib:
        element.set("d", _round_coordinates(element.attrib["d"]))
    for declaration in element.attrib.pop("style", "").split(";"):
        attribute, _, value = declaration.partition(":")
        _set_attribute(element, attribute.strip(), value.strip())


def _set_attribute(element: ET.Element, attribute: str, value: str) -> None:
    if attribute in ("", "font") or value == ARM:
        return
    element.set(attribute, value.replace(INK, "currentColor"))


def _round_coordinates(path: str) -> str:
    """The path with coordinates rounded to a tenth of a point, on one line."""
    return " ".join(re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}", path).split())
