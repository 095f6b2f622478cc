"""Peers in an environment of their own: what they get, and what comes back."""

import numpy as np
import pytest

from bench.peers import outside
from bench.peers.outside import PYTHON, ranked_outside
from bench.peers.rank import MODELS
from retrieval.candidates import NO_ITEM
from retrieval.histories import Histories

there = pytest.mark.skipif(not PYTHON.exists(), reason="needs the peers' environment: make peers")
SETTINGS = {
    "RecTools SASRec": {
        "epochs": 40,
        "n_factors": 32,
        "n_heads": 1,
        "lr": 5e-3,
        "session_max_len": 8,
        "dropout_rate": 0.0,
    },
    "RecTools BERT4Rec": {"epochs": 1, "n_factors": 16},
    "LensKit ItemKNN": {"feedback": "implicit"},
    "LensKit EASE": {"regularization": 10.0},
}


@pytest.fixture(scope="module")
def log() -> Histories:
    """Users who each take every seventh of 50 items, some of them disliked items of another kind, too."""
    rows = np.repeat(np.arange(100), 7)
    items = (rows + 7 * np.tile(np.arange(7), 100)) % 50
    weights = np.where(np.arange(len(rows)) % 7 == 3, 0, 1).astype(np.float32)
    items[weights == 0] = 50
    return Histories.from_rows(rows, items, weights, np.tile(np.arange(7) * 10**6, 100), 100)


@there
@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_peer_ranks_for_the_users_that_are_asked_for_what_they_did_not_have(model, log) -> None:
    users = np.array([41, 3, 88])
    found = ranked_outside(model, SETTINGS[model], log, log.take(users), k=5, seed=0)
    assert found.items.shape == (3, 5)
    assert found.fit_s > 0
    assert found.rank_s > 0
    for user, items in zip(users, found.items, strict=True):
        assert len(set(items)) == 5
        assert NO_ITEM not in items
        assert 50 not in items  # nobody liked it, so no peer knows it
        assert not np.isin(items, log.items[log.indptr[user] : log.indptr[user + 1]]).any()


@there
@pytest.mark.slow
def test_a_peer_that_learns_an_order_gets_the_users_own(log) -> None:
    users = np.arange(0, 100, 5)
    found = ranked_outside("RecTools SASRec", SETTINGS["RecTools SASRec"], log, log.take(users), k=1, seed=0)
    assert (found.items[:, 0] == (users + 49) % 50).mean() > 0.8


@there
@pytest.mark.slow
@pytest.mark.parametrize("model", ["RecTools SASRec", "LensKit EASE"])
def test_a_peer_reads_events_that_it_did_not_learn_from(model, log) -> None:
    """The last event of a history decides what comes next, whoever had it."""
    short = log.take(np.array([41, 3])).latest(1)
    found = ranked_outside(model, SETTINGS[model], log, short, k=3, seed=0)
    for row in range(2):
        assert set(found.items[row]) & {(short.items[row] + step) % 50 for step in (7, 43)}


@there
@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_peer_passes_over_items_that_came_after_it_was_trained(model, log) -> None:
    quick = {"epochs": 1} if "epochs" in SETTINGS[model] else {}
    row = log.take(np.array([41])).latest(4)
    new = Histories(row.indptr, np.array([51, *row.items[1:]]), np.ones_like(row.weights), row.times, row.kinds)
    alone = Histories(np.array([0, 1]), np.array([51]), new.weights[:1], new.times[:1], new.kinds[:1])
    both = Histories.from_rows(
        np.concatenate([new.rows, alone.rows + 1]),
        np.concatenate([new.items, alone.items]),
        np.concatenate([new.weights, alone.weights]),
        np.concatenate([new.times, alone.times]),
        2,
    )
    listed, nothing = ranked_outside(model, {**SETTINGS[model], **quick}, log, both, k=3, seed=0).items
    assert len(set(listed) - {NO_ITEM, 51}) == 3
    assert (nothing == NO_ITEM).all()


@there
def test_a_peer_that_fails_says_why(log) -> None:
    with pytest.raises(SystemExit, match=r"LensKit EASE failed: .*regularization"):
        ranked_outside("LensKit EASE", {"regularization": "much"}, log, log.take(np.array([1])), k=5, seed=0)


def test_without_the_peers_environment_it_says_how_to_make_one(log, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(outside, "PYTHON", tmp_path / "python")
    with pytest.raises(SystemExit, match="Set it up with: make peers"):
        ranked_outside("LensKit EASE", {}, log, log.take(np.array([1])), k=5, seed=0)
