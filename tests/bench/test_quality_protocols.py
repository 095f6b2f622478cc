"""The protocols of the quality benchmark: what is known and what is asked, on a log small enough to read."""

import numpy as np
import pandas as pd
import pytest

from bench.peers.grids import GRIDS, combinations
from bench.quality.protocols import PLANS, pose
from bench.quality.systems import K, unseen, with_popular
from encoders.errors import InputError
from ranker.evaluation.questions import asked_once
from ranker.users import UserHistories
from retrieval.candidates import NO_ITEM
from retrieval.catalogue import Catalogue
from retrieval.ids import UNKNOWN
from retrieval.interactions import Interactions

N_ITEMS = 60
ITEMS = pd.DataFrame({"item_id": range(N_ITEMS), "title": [f"t{n}" for n in range(N_ITEMS)], "text": "x"})


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    """20 users with 10 ratings each, of 1 to 5 stars, the last two of a user in one second; a 21st comes at the end."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(20):
        for place, item in enumerate(rng.permutation(N_ITEMS)[:10]):
            rows.append((user, item, 1 + (item + user) % 5, 1000 * min(place, 8) + user))
    rows += [(20, item, 5, 9000 + item) for item in range(4)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "second"])
    return table.assign(datetime=pd.to_datetime(table["second"], unit="s")).drop(columns="second")


def test_leave_one_out_asks_for_each_users_last_rating_whatever_it_is(log) -> None:
    task = pose(log, ITEMS, "loo", "file")
    last = log.groupby("user_id")["item_id"].last()
    assert task.asked.users.tolist() == last.index.tolist()
    assert task.asked.relevant.indices.tolist() == last.tolist()
    assert (task.asked.histories().lengths == [*[9] * 20, 3]).all()


def test_chance_decides_between_ratings_of_one_second_and_no_others(log) -> None:
    orders = {tuple(pose(log, ITEMS, "loo", "random", seed).asked.relevant.indices.tolist()) for seed in range(3)}
    assert len(orders) == 3
    for order in orders:
        for user, item in enumerate(order[:20]):
            assert item in log[log["user_id"] == user]["item_id"].tolist()[-2:]
        assert order[20] == 3


@pytest.mark.parametrize("protocol", ["temporal", "prequential"])
def test_nothing_that_is_trained_on_is_as_late_as_the_test(log, protocol) -> None:
    task = pose(log, ITEMS, protocol, "file")
    split = PLANS[protocol].cut(log)
    assert task.train["datetime"].max() < split.test["datetime"].min()
    liked = split.test[split.test["weight"] >= 4]
    assert task.asked.relevant.sum() == len(liked)
    assert (task.rows[task.asked.users == 20] == UNKNOWN).all()


def test_a_list_of_the_replay_knows_what_was_revealed_before_it(log) -> None:
    task = pose(log, ITEMS, "prequential", "file")
    new = np.flatnonzero(task.asked.users == 20)
    assert task.asked.histories().lengths[new].tolist() == [0, 1, 2, 3]
    assert task.asked.relevant.indices[new].tolist() == [0, 1, 2, 3]


def test_cold_items_are_in_no_history_that_is_trained_on(log) -> None:
    task = pose(log, ITEMS, "cold", "file", seed=1)
    cold = np.unique(task.asked.relevant.indices)
    assert len(cold)
    assert not task.train["item_id"].isin(cold).any()
    rated = log["item_id"].nunique()
    assert rated - task.train["item_id"].nunique() == round(0.1 * rated)


def test_a_split_that_leaks_is_found_out(log) -> None:
    """Were the test's own events trained on, nothing new would be left to ask for."""
    catalogue = Catalogue(ITEMS)
    split = PLANS["loo"].cut(log)
    with pytest.raises(InputError, match="fitted on the test's own events"):
        asked_once(UserHistories(Interactions.from_frame(log, catalogue)), catalogue, split.test)


def test_whom_a_peer_knows_nothing_of_gets_popular_items_that_are_new_to_them(log) -> None:
    task = pose(log, ITEMS, "prequential", "file")
    items = np.full((len(task.asked), K), NO_ITEM, np.int64)
    items[0] = np.arange(K)
    filled = with_popular(items, task)
    assert filled[0].tolist() == list(range(K))
    counts = task.train.groupby("item_id").size().reindex(range(N_ITEMS), fill_value=0)
    for at in range(1, len(items)):
        had = set(task.asked.histories(slice(at, at + 1)).items.tolist())
        assert not had & set(filled[at].tolist())
        assert counts[filled[at][0]] == max(counts[item] for item in range(N_ITEMS) if item not in had)


def test_low_ratings_can_be_no_sign_of_liking_without_changing_what_is_asked(log) -> None:
    task = pose(log, ITEMS, "temporal", "file")
    lowered = task.liked_from(4)
    assert (lowered.asked.relevant != task.asked.relevant).nnz == 0
    for before, after in ((task.log, lowered.log), (task.asked.histories(), lowered.asked.histories())):
        assert (after.items == before.items).all()
        assert (after.weights == np.where(before.weights >= 4, before.weights, 0)).all()
    assert lowered.train["weight"].tolist() == [weight if weight >= 4 else 0 for weight in task.train["weight"]]
    assert (task.log.weights > 0).all()


def test_some_lists_of_a_task_are_lists_of_it(log) -> None:
    task = pose(log, ITEMS, "prequential", "file")
    some = task.some(7, seed=0)
    assert len(some.asked) == 7
    known = {(user, item) for user, item in zip(task.asked.users, task.asked.relevant.indices, strict=True)}
    assert {(user, item) for user, item in zip(some.asked.users, some.asked.relevant.indices, strict=True)} < known
    assert len(task.some(10_000, seed=0).asked) == len(task.asked)


def test_what_a_peer_names_although_it_was_seen_is_dropped(log) -> None:
    read = pose(log, ITEMS, "temporal", "file").asked.histories()
    named = np.tile(np.arange(N_ITEMS), (len(read), 1))
    left = unseen(named, read)
    for row, items in enumerate(left):
        seen = read.items[read.indptr[row] : read.indptr[row + 1]]
        assert items.tolist() == [item for item in range(N_ITEMS) if item not in seen][:K]
    few = unseen(named[:, :2], read)
    assert few.shape == (len(read), K)
    assert (few[:, 2:] == NO_ITEM).all()


def test_every_setting_of_a_grid_is_tried_once() -> None:
    tried = list(combinations({"a": (1, 2), "b": ("x", "y", "z")}))
    assert len(tried) == len({tuple(one.items()) for one in tried}) == 6
    assert all(list(combinations(grid)) for grid in GRIDS.values())
