"""How a plot is drawn: its style, in the colours of the page it stands in or as a picture."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from evaluation.analysis import Analysis
from evaluation.models import NOISY, Model

# Colours that stand for the page's own, which differ by day and by night.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = [f"#0404{number:02x}" for number in range(8)]
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES)
}
# The same in a picture outside a page: the page's colours by day.
PRINTED = {
    INK: "#1b1d21", MUTED: "#5d636d", GRID: "#d8dbe0",
    SERIES[0]: "#5d636d", SERIES[1]: "#0b62a8", SERIES[2]: "#b4470f", SERIES[3]: "#0f7b5f",
    SERIES[4]: "#8a3ba0", SERIES[5]: "#8a6d00", SERIES[6]: "#b3265f", SERIES[7]: "#3b7a1f",
}  # fmt: skip
STYLE: Any = {  # matplotlib types it by a list of all the names there are
    "svg.fonttype": "none",
    # Identifiers are hashes of what they stand for: the same in every run, and two that are the
    # same on one page stand for the same.
    "svg.hashsalt": "plots",
    "font.family": ["sans-serif"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    # Names are text, whatever signs they are made of.
    "text.parse_math": False,
}
_MARKERS = "osD^vPX*"
_LONGEST_NAME = 40
_METADATA = ("Date", "Creator", "Format", "Type")  # of which a page's plot needs none


def colour_of(analysis: Analysis, model: Model) -> int:
    """The number of a model's colour, the same in all plots and in the player.

    0, a grey, is that of the noisy recordings alone.
    """
    if model.name == NOISY:
        return 0
    return 1 + analysis.enhancing.index(model) % (len(SERIES) - 1)


def style_of(analysis: Analysis, model: Model) -> dict[str, Any]:
    number = colour_of(analysis, model)
    return {"color": SERIES[number], "marker": _MARKERS[number], "markersize": 5}


def shown_name(name: str) -> str:
    """A name as a plot can show it: of valid text, on one line, not of a page's length."""
    text = name.encode("utf-8", "backslashreplace").decode()
    text = "".join(character if character.isprintable() else " " for character in text)
    text = text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
    return f" {text}" if text.startswith("_") else text  # matplotlib lists no "_name"


def _legend(figure: Figure) -> None:
    """One for all panels, below them: inside, it would cover points."""
    named: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))  # seeds of one model have one name
    if named:
        columns = max(1, 90 // (8 + max(map(len, named))))
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns)


@contextmanager
def drawn(
    size: tuple[float, float], draw: Callable[..., None], panels: int, style: Any
) -> Iterator[Figure]:
    """Draw a figure, to be written inside the context, where its style holds."""
    # What a name is written in may be missing in the font that the widths are taken from.
    with warnings.catch_warnings(), mpl.rc_context(style):
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(size, layout="constrained")
        draw(*figure.subplots(1, panels, squeeze=False)[0])
        _legend(figure)
        yield figure


def svg(size: tuple[float, float], draw: Callable[..., None], panels: int = 1) -> str:
    """An SVG element for a page: its colours are the page's variables, its text is text."""
    with drawn(size, draw, panels, STYLE) as figure:
        figure.patch.set_visible(False)
        for axis in figure.axes:
            axis.patch.set_visible(False)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata=dict.fromkeys(_METADATA))
    svg = text.getvalue()
    # Without its style, which would be that of the whole page (the page has it for its plots).
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # names that every plot would have
    for colour, variable in _VARIABLES.items():
        svg = re.sub(rf"(fill|stroke): {colour}", rf"\1: var({variable})", svg)
    return svg
