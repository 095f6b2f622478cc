"""AUC, log loss, Brier score and calibration error against scikit-learn and plain Python."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics

from encoders.errors import InputError
from ranker.evaluation import auc, brier_score, expected_calibration_error, log_loss


def case(seed: int, n: int = 500) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Probabilities with many ties, 0 and 1 among them, and labels that follow them loosely."""
    rng = np.random.default_rng(seed)
    probabilities = np.round(rng.random(n), rng.integers(1, 4))
    return (rng.random(n) < 0.2 + 0.5 * probabilities).astype(np.int64), probabilities


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(5))
def test_they_equal_scikit_learns(seed: int, kind: type[np.floating]) -> None:
    labels, probabilities = case(seed)
    probabilities = probabilities.astype(kind)
    assert auc(labels, probabilities) == pytest.approx(metrics.roc_auc_score(labels, probabilities), abs=1e-12)
    assert log_loss(labels, probabilities) == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-6)
    assert brier_score(labels, probabilities) == pytest.approx(
        metrics.brier_score_loss(labels, probabilities), abs=1e-7
    )
    assert auc(labels == 1, probabilities) == auc(labels, probabilities)


def test_the_auc_counts_pairs() -> None:
    labels, probabilities = case(9, 60)
    pairs = [(p > q) + (p == q) / 2 for p in probabilities[labels == 1] for q in probabilities[labels == 0]]
    assert auc(labels, probabilities) == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.parametrize("n_bins", [1, 4, 10])
@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_equals_its_definition_on_bins_of_equal_mass(seed: int, n_bins: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.permutation(np.linspace(0.01, 0.7, 200))  # no ties
    labels = (rng.random(200) < probabilities**2).astype(np.int64)
    ordered = sorted(zip(probabilities, labels, strict=True))
    size, expected = 200 // n_bins, 0.0
    for start in range(0, 200, size):
        part = ordered[start : start + size]
        expected += abs(sum(p for p, _ in part) / size - sum(y for _, y in part) / size) * size / 200
    assert expected_calibration_error(labels, probabilities, n_bins=n_bins) == pytest.approx(expected)


def test_the_calibration_error_depends_on_no_order_of_events() -> None:
    labels, probabilities = case(1)
    order = np.random.default_rng(0).permutation(len(labels))
    found = expected_calibration_error(labels, probabilities)
    assert expected_calibration_error(labels[order], probabilities[order]) == pytest.approx(found, abs=1e-12)
    rare = np.array([1, 0, 0, 0])  # one value alone: observed against predicted rate, however many bins
    assert expected_calibration_error(rare, np.full(4, 0.75), n_bins=4) == 0.5


def test_calling_no_feedback_1_changes_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(202)  # bins cannot all be of one size
    labels = (rng.random(202) < probabilities**2).astype(np.int64)
    found = expected_calibration_error(labels, probabilities)
    assert expected_calibration_error(1 - labels, 1 - probabilities) == pytest.approx(found, abs=1e-12)


def test_true_probabilities_are_calibrated_and_squeezed_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(100_000)
    labels = (rng.random(100_000) < true).astype(np.int64)
    assert expected_calibration_error(labels, true) < 0.005
    squeezed = 0.25 + true / 2  # off by a quarter at both ends, by an eighth on average
    assert expected_calibration_error(labels, squeezed) == pytest.approx(0.125, abs=0.005)
    assert auc(labels, squeezed) == auc(labels, true)


def test_by_pencil() -> None:
    labels, half = np.array([1, 0]), np.array([0.5, 0.5])
    assert (auc(labels, half), log_loss(labels, half), brier_score(labels, half)) == (0.5, math.log(2), 0.25)
    wrong = np.array([0.0, 1.0])
    assert (auc(labels, wrong), brier_score(labels, wrong)) == (0, 1)
    assert log_loss(labels, wrong) == pytest.approx(36.04, abs=0.01)  # finite
    assert log_loss(np.array([1, 1]), half) == math.log(2)  # one class is enough here


LABELS, PROBABILITIES = np.array([1, 0]), np.array([0.4, 0.6])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auc(np.array([1, 1]), PROBABILITIES), "All 2 labels are 1, and an AUC compares"),
        (lambda: auc(np.array([0, 0]), PROBABILITIES), "All 2 labels are 0"),
        (lambda: log_loss(np.array([1, 2]), PROBABILITIES), "labels holds 2"),
        (lambda: log_loss(LABELS, np.array([0.5, 1.5])), r"1 of 2 probabilities are outside .*first: 1.5.*sigmoid"),
        (lambda: brier_score(LABELS, np.array([0.5, np.nan])), r"outside \[0, 1\] or not numbers \(first: nan"),
        (lambda: brier_score(LABELS, np.array([0, 1])), "floating point"),
        (lambda: brier_score(LABELS, PROBABILITIES[:1]), r"shape \(2,\) and probabilities \(1,\)"),
        (lambda: brier_score(LABELS[:0], PROBABILITIES[:0]), "has to be an event"),
        (lambda: expected_calibration_error(LABELS, PROBABILITIES, n_bins=3), "n_bins is 3: it has to be from 1 to 2"),
        (lambda: expected_calibration_error(LABELS, PROBABILITIES, n_bins=0), "n_bins is 0"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
