"""Pictures as inline SVG that take their ink from the page, so that they suit a light and a dark one.

Colours of the drawing stand in for what the page decides; text is text, drawn in the page's font.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MAX_NAME_CHARACTERS = 24
RIGHT, WRONG = "#1f5fa8", "#c2560a"
"""Blue and orange: they differ for the colour-blind and in print. For areas, laid over the page with an opacity."""
PAGE_COLOURS = {
    "#010203": "currentColor",
    "#040506": "var(--page)",
    "#070809": "var(--muted)",
    "#0a0b0c": "var(--card)",
    "#0d0e0f": "var(--line)",
    "#101112": "var(--right)",
    "#131415": "var(--wrong)",
}
INK, PAGE, MUTED, CARD, LINE, GOOD, BAD = PAGE_COLOURS
FONT = "DejaVu Sans"
"""Comes with matplotlib, which measures with it; what is drawn has the page's own font."""
_NUMBERED = re.compile(r' id="[A-Za-z0-9]+_\d+"')
_PATH = re.compile(r' d="[^"]*"')
_DECIMALS = re.compile(r"(\.\d\d)\d+")


@dataclass(frozen=True)
class Picture:
    """An SVG element without addresses of any kind, and the width in CSS pixels at which its text is legible."""

    svg: Markup
    width: int


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many CSS pixels."""
    return Figure(figsize=(width / 72, height / 72), dpi=72)


def panel(
    figure: Figure, box: tuple[float, float, float, float], x: tuple[float, float], y: tuple[float, float]
) -> Axes:
    """Axes without a frame at (left, top, width, height) in pixels from the upper left corner, with these limits."""
    left, top, width, height = box
    across, down = (float(side) * 72 for side in figure.get_size_inches())
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_axis_off()
    axes.set(xlim=x, ylim=y, autoscale_on=False)
    return axes


def write(axes: Axes, x: float, y: float, text: str, offset: tuple[float, float] = (0, 0), **style: Any) -> None:
    """Text at a place in data coordinates, moved right and up by pixels; never read as TeX."""
    axes.annotate(
        text,
        (x, y),
        xytext=offset,
        textcoords="offset points",
        parse_math=False,
        family=FONT,
        annotation_clip=False,
        **style,
    )


def to_svg(figure: Figure, label: str) -> Markup:
    """The figure as one SVG element for a page: no XML prologue, no metadata, no addresses, the page's font."""
    file = io.StringIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "glint", "text.usetex": False}),
        warnings.catch_warnings(),
    ):
        # Measuring misses what FONT lacks, such as Chinese; the page's fonts have it.
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font", UserWarning)
        figure.savefig(file, format="svg", transparent=True)
    svg = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    root, _, rest = svg[svg.index("<svg") :].partition(">")
    view = re.search(r'viewBox="[^"]*"', root)
    assert view, "matplotlib's SVG says no viewBox"
    rest = rest.replace(f"font-family: '{FONT}'; ", "").replace(f"; font-family: '{FONT}'", "")
    rest = _PATH.sub(lambda path: _DECIMALS.sub(r"\1", path[0]), _NUMBERED.sub("", rest))
    for stand_in, colour in PAGE_COLOURS.items():
        rest = rest.replace(stand_in, colour)
    return Markup(f'<svg {view[0]} role="img" aria-label="{label}">{rest}')


def shortened(name: str) -> str:
    """A name that fits beside a picture, on one line and without control characters."""
    line = "".join(character if character.isprintable() else " " for character in name)
    return line if len(line) <= MAX_NAME_CHARACTERS else line[: MAX_NAME_CHARACTERS - 1] + "…"


def ems(text: str) -> float:
    """A generous guess of the width of a text in the unknown font of a page, in multiples of the font size."""
    return sum(1.05 if unicodedata.east_asian_width(character) in "WF" else 0.6 for character in text)
