"""What is drawn is what was given: positions of dots, lines and steps, and their names."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ranker.evaluation import plots

SYSTEMS = ["als", "engine"]


def drawn(plot, *args, **kwargs) -> Figure:
    """The figure before it becomes SVG."""
    return plot.__wrapped__(*args, **kwargs)


def test_dots_and_intervals_lie_at_their_values_from_the_top() -> None:
    values = np.array([[0.2, 0.1, 0.3], [0.5, 0.45, 0.6]])
    (axes,) = drawn(plots.intervals, SYSTEMS, {"ndcg": values}, "ndcg (0 to 1)").axes
    (dots,) = axes.lines
    np.testing.assert_array_equal(dots.get_xydata(), [[0.2, 0], [0.5, 1]])
    np.testing.assert_array_equal([line[:, 0] for line in axes.collections[0].get_segments()], values[:, 1:])
    assert [label.get_text() for label in axes.get_yticklabels()] == SYSTEMS
    assert axes.get_ylim() == (1.5, -0.5)
    assert axes.get_xlabel() == "ndcg (0 to 1)"


def test_groups_stand_apart_within_a_row_and_what_is_not_known_is_not_drawn() -> None:
    known, unknown = np.full((2, 3), 0.5), np.full((2, 3), np.nan)
    (axes,) = drawn(plots.intervals, SYSTEMS, {"head": known, "tail": unknown}, "x", against_zero=True).axes
    zero, head, tail = axes.lines
    assert [*zero.get_xdata()] == [0, 0]
    assert np.isnan(tail.get_xdata()).all()
    apart = tail.get_ydata() - head.get_ydata()
    assert ((apart > 0) & (apart < 0.5)).all()
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == ["head", "tail"]


def test_every_metric_has_a_panel_with_a_line_for_each_system() -> None:
    means = pd.DataFrame(
        {"hr@10": [0.2, 0.3], "hr@5": [0.1, 0.2], "ndcg@5": [0.05, 0.1], "ndcg@10": [0.1, 0.15]}, SYSTEMS
    )
    panels = drawn(plots.curves, means).axes
    assert [panel.get_title(loc="left") for panel in panels] == ["hr@k", "ndcg@k"]
    for name, panel in zip(("hr", "ndcg"), panels, strict=True):
        for system, line in zip(SYSTEMS, panel.lines, strict=True):
            expected = [(k, means.loc[system, f"{name}@{k}"]) for k in (5, 10)]
            np.testing.assert_array_equal(line.get_xydata(), expected)
        assert panel.lines[0].get_color() != panel.lines[1].get_color()


@pytest.mark.parametrize("values", [[0, 0, 0.25, 0.25, 1], [0.5, 0.5], [0, 0]])
def test_the_share_of_users_above_every_value_is_as_counted(values: list[float]) -> None:
    (axes,) = drawn(plots.shares, {"als": np.array(values, float)}, "ndcg of a user (0 to 1)").axes
    (line,) = axes.lines
    assert line.get_drawstyle() == "steps-post"
    x, y = line.get_xydata().T
    for at in np.linspace(0, 0.99, 34):
        assert y[np.searchsorted(x, at, side="right") - 1] == pytest.approx(np.mean([value > at for value in values]))
    assert axes.get_ylim()[1] >= y.max()
