"""Scores that say how likely choices are become probabilities that can be taken at their word."""

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import special

from ranker.calibration import Calibration, fit_calibration, fit_temperature
from ranker.evaluation import expected_calibration_error
from ranker.lists import LabelledLists
from ranker.reranker import Judged
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.histories import Histories

N_ITEMS, WIDTH = 200, 20


def drawn(count, temperature, seed=0, coverage=1.0):
    """Lists (items, scores, chosen) of up to 20 items whose choice is drawn from a softmax, or is not in it."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(N_ITEMS - 1)[:WIDTH] for _ in range(count)])
    scores = -np.sort(-rng.normal(rng.normal(0, 50, (count, 1)), 2, (count, WIDTH)), axis=1)
    for row in range(0, count, 3):  # some end early
        items[row, 5 + row % 10 :] = NO_ITEM
    scores[items == NO_ITEM] = -np.inf
    noisy = scores / temperature + rng.gumbel(size=scores.shape)  # its largest is a draw from the softmax
    chosen = items[np.arange(count), noisy.argmax(axis=1)]
    chosen[rng.random(count) >= coverage] = N_ITEMS - 1
    return items, scores, chosen


def labelled(items, scores, chosen, users=None):
    count = len(items)
    requests = Requests(Histories.empty(count), np.ones(N_ITEMS, np.bool_))
    candidates = Candidates.of("a", items, scores.astype(np.float32))
    return LabelledLists(np.arange(count) if users is None else users, requests, candidates, chosen)


def likelihood(temperature, items, scores, chosen):
    """The mean log likelihood of the choices, list by list."""
    logs = []
    for row in range(len(items)):
        known = items[row] != NO_ITEM
        own = list(items[row][known]).index(chosen[row])
        logs.append(math.log(special.softmax(scores[row][known] / temperature)[own]))
    return sum(logs) / len(logs)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_choices_were_drawn_with_is_found(temperature):
    items, scores, chosen = drawn(4000, temperature)
    assert fit_temperature(scores, items, chosen) == pytest.approx(temperature, rel=0.1)


def test_no_other_temperature_makes_the_choices_likelier():
    lists = items, scores, chosen = drawn(300, 1.5, seed=1)
    found = fit_temperature(scores, items, chosen)
    best = likelihood(found, *lists)
    assert all(likelihood(found * factor, *lists) < best for factor in (0.2, 0.9, 0.97, 1.03, 1.1, 5))


def test_the_temperature_follows_the_scale_of_scores_and_no_shift_or_order_of_them():
    items, scores, chosen = drawn(300, 1.5)
    found = fit_temperature(scores, items, chosen)
    shifted = scores + np.random.default_rng(0).normal(0, 100, (300, 1))
    assert fit_temperature(shifted, items, chosen) == pytest.approx(found, rel=1e-3)
    assert fit_temperature(scores / 5000, items, chosen) == pytest.approx(found / 5000, rel=1e-3)
    assert fit_temperature(scores[:, ::-1], items[:, ::-1], chosen) == pytest.approx(found, rel=1e-6)


def test_scores_that_say_nothing_or_everything_have_a_temperature():
    items, scores, _ = drawn(50, 1.0)
    lengths = (items != NO_ITEM).sum(axis=1)
    last = items[np.arange(50), lengths - 1]
    assert fit_temperature(np.zeros_like(scores), items, last) == 1.0
    first = Calibration(fit_temperature(scores, items, items[:, 0]), 1.0, WIDTH).probabilities(scores, items)
    assert first[:, 0].mean() > 0.99  # it was always taken
    wrong = Calibration(fit_temperature(scores, items, last), 1.0, WIDTH).probabilities(scores, items)
    np.testing.assert_allclose(wrong[:, 0] * lengths, 1, atol=0.01)  # so the order is worth nothing: all are as likely


def test_probabilities_are_the_shares_of_a_softmax():
    items, scores, _ = drawn(30, 1.0)
    found = Calibration(0.7, 0.6, 8).probabilities(scores.astype(np.float32), items)
    for row in range(30):
        known = [s for s, item in zip(scores[row, :8], items[row, :8], strict=True) if item != NO_ITEM]
        odds = [math.exp((s - max(known)) / 0.7) for s in known]
        expected = [0.6 * one / sum(odds) for one in odds]
        np.testing.assert_allclose(found[row, : len(known)], expected, rtol=1e-4)
        assert np.isnan(found[row, len(known) :]).all()
    assert (items[:, :8] == NO_ITEM).any()  # some lists end before the depth


def test_a_row_adds_up_to_the_coverage_and_keeps_its_order_whatever_is_added_to_it():
    items, scores, _ = drawn(30, 1.0)
    calibration = Calibration(0.7, 0.6, 12)
    found = calibration.probabilities(scores, items)
    np.testing.assert_allclose(np.nansum(found, axis=1), 0.6)
    assert (np.diff(found[:, :5], axis=1) <= 0).all()
    shifted = calibration.probabilities(scores + np.linspace(-1e4, 1e4, 30)[:, None], items)
    np.testing.assert_allclose(shifted, found, rtol=1e-8)


def test_rows_without_items_and_columns_beyond_the_depth_have_none():
    calibration = Calibration(1e-3, 1.0, 2)
    items = np.array([[NO_ITEM] * 3, [4, NO_ITEM, NO_ITEM], [4, 5, 6]])
    scores = np.where(items == NO_ITEM, -np.inf, np.float32([1e6, -1e6, -2e6]))
    expected = [[np.nan] * 3, [1, np.nan, np.nan], [1, 0, np.nan]]
    np.testing.assert_array_equal(calibration.probabilities(scores, items), expected)
    assert calibration.probabilities(scores[:, :0], items[:, :0]).shape == (3, 0)
    assert calibration.probabilities(scores[:0], items[:0]).shape == (0, 3)


def test_a_fitted_calibration_holds_on_lists_that_it_did_not_see():
    lists = labelled(*drawn(3000, 1.5, seed=2, coverage=0.7))
    found = fit_calibration(lists, WIDTH, None, seed=0)
    assert found.coverage == np.mean(lists.chosen != N_ITEMS - 1)
    assert found.temperature == pytest.approx(1.5, rel=0.1)
    items, scores, chosen = drawn(3000, 1.5, seed=3, coverage=0.7)
    known = items != NO_ITEM
    taken = (items == chosen[:, None])[known]
    errors = [
        expected_calibration_error(taken, one.probabilities(scores, items)[known])
        for one in (found, Calibration(1.0, 1.0, WIDTH))
    ]
    assert errors[0] < 0.01 < 0.02 < errors[1]


def test_only_the_first_candidates_count():
    lists = labelled(*drawn(2000, 1.5))
    found = fit_calibration(lists, 3, None, seed=0)
    near = (lists.candidates.items[:, :3] == lists.chosen[:, None]).any(axis=1)
    assert found.coverage == near.mean() < 0.95
    assert found.depth == 3
    first = lists.take(np.flatnonzero(near))
    expected = fit_temperature(first.candidates.scores[:, :3], first.candidates.items[:, :3], first.chosen)
    assert found.temperature == pytest.approx(expected, rel=1e-3)
    assert fit_calibration(lists, WIDTH + 5, None, seed=0).depth == WIDTH  # what has not been proposed was not measured


def test_where_a_re_ranker_serves_its_lists_tell_the_temperature_and_all_lists_the_coverage():
    lists = labelled(*drawn(500, 1.0, coverage=0.5))
    items, scores, chosen = drawn(200, 3.0, seed=4)
    found = fit_calibration(lists, WIDTH, Judged(labelled(items, scores, chosen), scores.astype(np.float32)), seed=0)
    assert found.temperature == pytest.approx(fit_temperature(scores, items, chosen), rel=1e-3)
    assert found.coverage == np.mean(lists.chosen != N_ITEMS - 1)


def test_users_whose_lists_tuned_the_encoder_tell_no_temperature():
    users = np.arange(400) % 40
    lists = labelled(*drawn(400, 1.0), users=users)
    others = lists.take(np.flatnonzero(users >= 30))
    found = fit_calibration(lists, WIDTH, None, 0, np.arange(30))
    expected = fit_temperature(others.candidates.scores, others.candidates.items, others.chosen)
    assert found.temperature == pytest.approx(expected, rel=1e-3)
    assert found.temperature != pytest.approx(fit_calibration(lists, WIDTH, None, 0).temperature, rel=1e-3)


def test_lists_that_never_hold_their_choice_calibrate_nothing():
    lists = labelled(*drawn(20, 1.0))
    missed = replace(lists, chosen=np.full(20, N_ITEMS - 1))
    assert fit_calibration(missed, WIDTH, None, 0) is None
    assert fit_calibration(lists, WIDTH, None, 0, lists.users) is None


@pytest.mark.parametrize(
    "values", [(0, 0.5, 9), (math.nan, 0.5, 9), (math.inf, 0.5, 9), (1, 0, 9), (1, 1.1, 9), (1, 1, 0)]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValidationError):
        Calibration(*values)
