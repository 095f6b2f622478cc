"""Drawn orders have the probabilities that are logged of them."""

import itertools

import numpy as np
import pytest

from ranker.exploration import explored
from retrieval.candidates import NO_ITEM, Candidates

SCORES = np.array([2.0, 1.0, 0.0, -np.inf], np.float32)
ITEMS = np.array([5, 7, 9, NO_ITEM])


def drawn(n, temperature):
    candidates = Candidates.of("any", np.tile(ITEMS, (n, 1)), np.tile(SCORES, (n, 1)))
    return explored(candidates, temperature, [f"list {at}" for at in range(n)])


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_each_order_is_drawn_as_often_as_its_propensities_say(temperature):
    n = 20_000
    found = drawn(n, temperature)
    strength = dict(zip(ITEMS.tolist(), np.exp(SCORES / temperature).tolist(), strict=True))
    total = 0.0
    for order in itertools.permutations((5, 7, 9)):
        left = [sum(strength[item] for item in order[place:]) for place in range(3)]
        expected = [strength[item] / rest for item, rest in zip(order, left, strict=True)]
        rows = (found.candidates.items[:, :3] == order).all(axis=1)
        np.testing.assert_allclose(found.propensities[rows][:, :3], np.tile(expected, (rows.sum(), 1)), rtol=1e-6)
        share = np.prod(expected)
        assert abs(rows.mean() - share) < 4 * np.sqrt(share * (1 - share) / n)
        total += rows.mean()
    assert total == pytest.approx(1)


def test_an_empty_place_is_drawn_last_and_never_by_chance():
    found = drawn(100, 3.0)
    assert (found.candidates.items[:, 3] == NO_ITEM).all()
    assert np.isnan(found.propensities[:, 3]).all()


def test_a_list_is_drawn_again_for_its_id_whatever_is_asked_beside_it():
    both, first = drawn(2, 1.0), drawn(1, 1.0)
    np.testing.assert_array_equal(both.candidates.items[:1], first.candidates.items)
    np.testing.assert_array_equal(np.take_along_axis(np.tile(ITEMS, (2, 1)), both.places, 1), both.candidates.items)


def test_little_heat_leaves_the_order_and_much_heat_forgets_it():
    assert (drawn(200, 0.01).candidates.items == ITEMS).all()
    first = drawn(3000, 1e4).candidates.items[:, 0]
    assert all(abs((first == item).mean() - 1 / 3) < 0.04 for item in (5, 7, 9))
