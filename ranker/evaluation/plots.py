"""Plots of a report: SVG to stand within a page, whose colours it takes.

Lines and markers have the colours of Okabe & Ito ("Color universal design", 2008), which any kind of colour vision
tells apart, and differ in more than colour where lines cross. Text stays text, so that it can be searched, and is
never read as markup or mathematics.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from math import ceil
from typing import Any, Concatenate, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

P = ParamSpec("P")

WIDTH = 7.2  # inches
LONGEST_NAME = 28  # characters; the tables have the whole of it
INK, GRID = "#1f2328", "#d1d5da"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6e7781")
MARKERS = "osD^vPX"
DASHES = ("-", "--", ":", "-.")
# the page has two sets of these, for light and dark; a plot that is taken out of it keeps its own
OF_THE_PAGE = {
    INK: "currentColor",
    GRID: f"var(--line, {GRID})",
    **{colour: f"var(--series-{number}, {colour})" for number, colour in enumerate(SERIES)},
}
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.color": GRID,
    "ytick.labelcolor": INK,
}


def _as_svg(draw: Callable[P, Figure]) -> Callable[Concatenate[str, P], str]:
    """Let a function that draws return SVG; it takes a name before its arguments, which no other plot of a page has."""

    @wraps(draw)
    def drawn(name: str, /, *args: P.args, **kwargs: P.kwargs) -> str:
        written = io.StringIO()
        # ids are made of the salt, and a page has one space of ids for all its plots
        with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
            # whoever reads the page has other fonts than whoever drew it
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            draw(*args, **kwargs).savefig(
                written, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
            )
        return _inline(written.getvalue())

    return drawn


def _inline(svg: str) -> str:
    """The svg element alone, as wide as the page lets it be, with no rules or names of its own for what is around."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>\n?", "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return re.sub(
        r"\b(fill|stroke): (#[0-9a-f]{6})", lambda found: f"{found[1]}: {OF_THE_PAGE.get(found[2], found[2])}", svg
    )


@_as_svg
def intervals(
    rows: Sequence[str], series: Mapping[str, NDArray[np.float64]], axis: str, *, against_zero: bool = False
) -> Figure:
    """Draw a dot and its interval for each row, from the top.

    Args:
        rows: Their names.
        series: Name → (rows, 3) value, low, high; NaN for what is not drawn. Where there are several, they stand below
            each other within a row.
        axis: What the values are, and their unit.
        against_zero: Whether 0 is drawn, as no difference.
    """
    height = 0.75 + len(rows) * max(0.27, 0.16 * len(series) + 0.06) + (0.3 if len(series) > 1 else 0)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    if against_zero:
        axes.axvline(0, color=INK, linewidth=1)
    for number, ((name, values), colour) in enumerate(zip(series.items(), _colours(len(series)), strict=True)):
        places = np.arange(len(rows)) + (number - (len(series) - 1) / 2) * 0.8 / max(len(series), 2)
        axes.hlines(places, values[:, 1], values[:, 2], color=colour, linewidth=1.8)
        axes.plot(values[:, 0], places, MARKERS[number % len(MARKERS)], color=colour, label=_short(name))
    axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis)
    if len(series) > 1:
        _legend(figure, axes)
    return figure


@_as_svg
def curves(means: pd.DataFrame) -> Figure:
    """Draw every metric over the cut-offs, a panel for each.

    Args:
        means: A row for each system, columns ``name@k``.
    """
    parts = [str(column).split("@") for column in means]
    names, cutoffs = list(dict.fromkeys(name for name, _ in parts)), sorted({int(k) for _, k in parts})
    n_rows = ceil(len(names) / 3)
    figure = Figure(figsize=(WIDTH, 1.75 * n_rows + 0.5 + 0.2 * ceil(len(means) / 4)), layout="constrained")
    for number, name in enumerate(names):
        axes = figure.add_subplot(n_rows, min(3, len(names)), number + 1)
        for style, (system, row) in zip(_lines(len(means)), means.iterrows(), strict=True):
            values = [row[f"{name}@{k}"] for k in cutoffs]
            axes.plot(cutoffs, values, label=_short(str(system)), clip_on=False, **style)
        axes.set_xticks(cutoffs)
        axes.set_ylim(bottom=0)
        axes.set_title(f"{name}@k", loc="left")
        axes.set_xlabel("cut-off k, ranks")
        if number % 3 == 0:
            axes.set_ylabel("mean over lists (0 to 1)")
    _legend(figure, figure.axes[0])
    return figure


@_as_svg
def shares(of_users: Mapping[str, NDArray[np.float64]], axis: str) -> Figure:
    """Draw the share of users above every value from 0 to 1: the complement of the distribution function.

    Args:
        of_users: System → (U,) the metric of every user.
        axis: What that is.
    """
    figure = Figure(figsize=(WIDTH, 3.0 + 0.2 * ceil(len(of_users) / 4)), layout="constrained")
    axes = figure.add_subplot()
    for style, (system, values) in zip(_lines(len(of_users)), of_users.items(), strict=True):
        reached, n_users = np.unique(values, return_counts=True)
        above = 1 - n_users.cumsum() / len(values)
        axes.step(
            [0, *reached, 1],
            [(values > 0).mean(), *above, 0],
            color=style["color"],
            linestyle=style["linestyle"],
            label=_short(system),
            where="post",
        )
    highest = max(float((values > 0).mean()) for values in of_users.values())
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.05 * highest or 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(axis)
    axes.set_ylabel("users above it, %")
    _legend(figure, axes)
    return figure


def _colours(n: int) -> Iterable[str]:
    return (SERIES[number % len(SERIES)] for number in range(n))


def _lines(n: int) -> Iterable[dict[str, Any]]:
    """How each of so many lines looks: by colour and marker, and by dashes once all colours are taken."""
    for number, colour in enumerate(_colours(n)):
        turn, place = divmod(number, len(SERIES))
        yield {"color": colour, "marker": MARKERS[place], "linestyle": DASHES[turn % len(DASHES)]}


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
