"""Comparisons that several suites share."""

import numpy as np


def same_ranking(items_a, scores_a, items_b, scores_b, tolerance: float = 2e-5) -> None:
    """Equal scores; equal items too, but for the order of those whose scores are one within rounding."""
    np.testing.assert_allclose(scores_a, scores_b, atol=tolerance, rtol=tolerance)
    for at in np.flatnonzero(np.asarray(items_a) != np.asarray(items_b)):
        near = np.isclose(scores_b, scores_a[at], atol=tolerance, rtol=tolerance)
        last = np.isclose(scores_a[at], scores_a[-1], atol=tolerance, rtol=tolerance)
        assert items_a[at] in np.asarray(items_b)[near] or last, f"position {at}: {items_a[at]} against {items_b[at]}"
