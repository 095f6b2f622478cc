"""Plots of figures with intervals, and of how figures grow."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def dots(means: Mapping[str, tuple[float, float, float]], label: str, path: Path) -> None:
    """Means with intervals, one line a system, the largest at the top.

    Args:
        means: System → mean, lower and upper end of its interval.
        label: Of the axis.
        path: The file to write, by its suffix.
    """
    from matplotlib.figure import Figure

    ordered = sorted(means.items(), key=lambda entry: entry[1][0])
    figure = Figure(figsize=(8, 0.8 + 0.28 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    for at, (_, (mean, low, high)) in enumerate(ordered):
        axes.errorbar(mean, at, xerr=[[mean - low], [high - mean]], fmt="o", capsize=3, color="tab:blue")
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    axes.set_xlabel(label)
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150, metadata={"Date": None})


def growths(curves: Mapping[str, Sequence[tuple[float, float]]], label: str, path: Path) -> None:
    """Curves along logarithmic axes, on which a power of the size is a straight line.

    Args:
        curves: What grows → its sizes and values.
        label: Of the values.
        path: The file to write, by its suffix.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="size", ylabel=label)
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=150, metadata={"Date": None})
