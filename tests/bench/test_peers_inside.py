"""Peers of implicit: what they are given, and that they rank by the history that is asked for."""

import numpy as np
import pytest

from bench.peers.inside import MODELS, ranked_inside
from retrieval.candidates import NO_ITEM
from retrieval.histories import Histories
from retrieval.ids import UNKNOWN

N_USERS, N_ITEMS = 80, 41
SETTINGS = {
    "implicit ALS": {"factors": 4, "regularization": 0.1, "alpha": 5.0, "iterations": 10},
    "implicit BPR": {"factors": 16, "learning_rate": 0.1, "regularization": 0.001, "iterations": 200},
    "implicit item-kNN": {"similarity": "bm25", "K": 20},
}


@pytest.fixture(scope="module")
def log() -> Histories:
    """Users who take seven of the ten items of their kind; item 40 was disliked by everybody."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(N_USERS), 8)
    items = np.concatenate([[*(user % 4 + 4 * rng.permutation(10)[:7]), 40] for user in range(N_USERS)])
    weights = np.where(items == 40, 0, 1).astype(np.float32)
    return Histories.from_rows(rows, items, weights, np.tile(np.arange(8), N_USERS), N_USERS)


@pytest.mark.parametrize("model", MODELS)
def test_a_peer_finds_what_is_left_of_a_users_kind(model, log) -> None:
    rows = np.array([5, 42, 11])
    found = ranked_inside(model, SETTINGS[model], log, rows, log.take(rows), N_ITEMS, 3, seed=0)
    for row, items in zip(rows, found.items, strict=True):
        assert (items % 4 == row % 4).all()
        assert 40 not in items
        assert not np.isin(items, log.take(np.array([row])).items).any()
    assert found.fit_s > 0
    assert found.rank_s > 0


@pytest.mark.parametrize("model", ["implicit ALS", "implicit item-kNN"])
def test_a_peer_that_folds_in_reads_the_history_and_not_the_user(model, log) -> None:
    other = log.take(np.array([6]))
    found = ranked_inside(model, SETTINGS[model], log, np.array([UNKNOWN]), other, N_ITEMS, 3, seed=0)
    assert (found.items % 4 == 2).all()


@pytest.mark.parametrize("model", MODELS)
def test_whom_nothing_is_known_of_gets_no_list(model, log) -> None:
    found = ranked_inside(model, SETTINGS[model], log, np.array([UNKNOWN]), Histories.empty(1), N_ITEMS, 3, seed=0)
    assert (found.items == NO_ITEM).all()
