"""What an engine answers, to whom, alone and in a batch."""

import numpy as np
import pandas as pd
import pytest
import tiny_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import same_ranking
from tiny_engine import HISTORY

import ranker

ALL = tiny_engine.N_ITEMS
LOG = tiny_engine.interactions()
USERS = [100, 7, 117, 139, 8, 101]  # 7 and 8 are unknown


def assert_rows_equal(one, batch):
    """A user's list alone equals their part of a batch, scores within rounding."""
    for user, alone in one.items():
        together = batch[batch["user_id"] == user]
        assert alone["rank"].tolist() == together["rank"].tolist() == list(range(1, len(alone) + 1))
        same_ranking(
            alone["item_id"].to_numpy(), alone["score"].to_numpy(),
            together["item_id"].to_numpy(), together["score"].to_numpy(),
        )  # fmt: skip


CASES = {
    "plain": {},
    "every item": {"k": ALL},
    "beyond the depth of the sources": {"k": 40},
    "one item": {"k": 1},
    "seen ones too": {"k": ALL, "exclude_seen": False},
    "a query": {"query": "red robot"},
    "a query and every item": {"query": "cat love", "k": ALL},
    "a filter": {"k": ALL, "where": {"genres": "g1"}},
    "a filter that leaves few": {"k": 20, "allow": ["i1", "i2", "i3", "i40"]},
    "a filter that leaves none": {"k": 5, "allow": []},
    "all of it": {"k": 30, "query": "old", "deny": ["i1"], "where": {"year": ranker.Between(1970, 1999)}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_batch_equals_its_users_one_by_one(fitted, case):
    arguments = CASES[case]
    batch = fitted.recommend(USERS, **arguments)
    assert_rows_equal({user: fitted.recommend([user], **arguments) for user in USERS}, batch)
    assert batch["user_id"].drop_duplicates().tolist() == (USERS if len(batch) else [])


@pytest.mark.parametrize("case", CASES)
def test_a_batch_of_given_histories_equals_them_one_by_one(fitted, case):
    arguments = CASES[case]
    batch = fitted.recommend(history=HISTORY, **arguments)
    one = {user: fitted.recommend(history=part, **arguments) for user, part in HISTORY.groupby("user_id")}
    assert_rows_equal(one, batch)


@pytest.mark.parametrize("case", CASES)
def test_lists_keep_every_filter_and_never_repeat(fitted, case):
    arguments = {"k": 10, **CASES[case]}
    found = fitted.recommend(USERS, **arguments)
    allowed = fitted.catalogue.ids.at(
        np.flatnonzero(fitted.catalogue.allowed(*(arguments.get(name) for name in ("allow", "deny", "where"))))
    )
    seen = LOG.groupby("user_id")["item_id"].agg(set)
    for user, part in found.groupby("user_id"):
        assert part["item_id"].is_unique
        assert set(part["item_id"]) <= set(allowed)
        assert (part["score"].diff().dropna() <= 0).all()
        assert np.isfinite(part["score"]).all()
        consumed = seen.get(user, set()) if arguments.get("exclude_seen", True) else set()
        assert not consumed & set(part["item_id"])
        assert len(part) <= arguments["k"]


def test_every_item_is_reached_where_the_sources_go_that_deep(fitted):
    found = fitted.recommend([100], ALL, exclude_seen=False)
    assert set(found["item_id"]) == set(fitted.catalogue.ids.ids)
    unseen = fitted.recommend([100], ALL)
    assert set(unseen["item_id"]) == set(fitted.catalogue.ids.ids) - set(LOG.query("user_id == 100")["item_id"])


def test_a_history_that_equals_what_is_known_gives_the_same_list(fitted):
    for user in (100, 117):
        given_again = LOG[LOG["user_id"] == user]
        pd.testing.assert_frame_equal(fitted.recommend(history=given_again), fitted.recommend([user]))


def test_a_history_stands_in_place_of_what_is_known_and_is_forgotten(fitted):
    before = fitted.recommend([100])
    other = fitted.recommend([100], history=pd.DataFrame({"user_id": [100], "item_id": ["i1"]}), k=ALL)
    assert "i1" not in set(other["item_id"])
    assert set(LOG.query("user_id == 100")["item_id"]) - {"i1"} <= set(other["item_id"])
    pd.testing.assert_frame_equal(fitted.recommend([100]), before)


def test_users_of_a_history_without_a_row_get_what_is_popular(fitted):
    found = fitted.recommend(["b", "nobody"], history=HISTORY[HISTORY["user_id"] == "b"])
    nobody = found[found["user_id"] == "nobody"]
    assert nobody["item_id"].tolist() == fitted.recommend([7])["item_id"].tolist()


def test_an_unknown_user_gets_the_most_popular_items_in_order(fitted):
    counts = LOG["item_id"].value_counts()
    found = fitted.recommend([7], 15)["item_id"]
    assert counts[found].tolist() == sorted(counts, reverse=True)[:15]


def test_recommending_never_learns(fitted):
    before = fitted.recommend(USERS)
    fitted.rank(100, ["i1", "i2"])
    fitted.recommend(history=HISTORY, query="robot")
    fitted.similar_items(["i1"])
    list(fitted.candidates())
    pd.testing.assert_frame_equal(fitted.recommend(USERS), before)


def test_one_query_for_all_equals_it_given_to_each(fitted):
    one = fitted.recommend(USERS, query="old river")
    pd.testing.assert_frame_equal(fitted.recommend(USERS, query=["old river"] * len(USERS)), one)


def test_each_user_gets_their_own_query(fitted):
    queries = ["robot", "cat", "robot", "river", "dog", "cat"]
    batch = fitted.recommend(USERS, query=queries)
    one = {user: fitted.recommend([user], query=query) for user, query in zip(USERS, queries, strict=True)}
    assert_rows_equal(one, batch)


def test_ids_come_back_as_they_were_given(fitted):
    for ids in ([100, 7], np.array([100, 7]), pd.Series([100, 7], index=[3, 3]), pd.Index([100, 7]), (100, 7)):
        found = fitted.recommend(ids, 2)
        assert found["user_id"].tolist() == [100, 100, 7, 7]
        assert found["user_id"].dtype == np.int64


def test_rank_orders_exactly_the_given_items(fitted):
    given_items = ["i3", "i50", "i1", "i59", "i22", "i0", "i8", "i9", "i10", "i33", "i44"]
    found = fitted.rank(100, given_items)
    assert sorted(found["item_id"]) == sorted(given_items)
    assert found["rank"].tolist() == list(range(1, len(given_items) + 1))
    pd.testing.assert_frame_equal(fitted.rank(100, given_items[::-1]), found)
    assert fitted.rank(7, ["i3"])["item_id"].tolist() == ["i3"]


def test_rank_keeps_seen_items(fitted):
    seen = LOG.query("user_id == 100")["item_id"].tolist()
    assert set(fitted.rank(100, seen)["item_id"]) == set(seen)


def test_similar_items_leave_the_item_out_and_are_best_first(fitted):
    found = fitted.similar_items(["i5", "i0"], ALL - 1)
    assert found.columns.tolist() == ["item_id", "similar_item_id", "score", "rank"]
    for item, part in found.groupby("item_id"):
        assert set(part["similar_item_id"]) == set(fitted.catalogue.ids.ids) - {item}
        assert (part["score"].diff().dropna() <= 0).all()


def test_candidates_of_everybody_come_in_blocks_and_equal_those_of_one(fitted, monkeypatch):
    whole = pd.concat(batch.to_pandas() for batch in fitted.candidates(k=12))
    monkeypatch.setattr("ranker.batches.BLOCK_USERS", 7)
    blocks = [batch.to_pandas() for batch in fitted.candidates(k=12)]
    assert [block["user_id"].nunique() for block in blocks] == [7] * 5 + [5]
    together = pd.concat(blocks)
    assert_rows_equal({user: whole[whole["user_id"] == user] for user in range(100, 140)}, together)
    assert {"als", "transitions", "text", "popularity"} <= set(together.columns)


def test_inputs_are_left_unchanged(fitted):
    history = HISTORY.assign(datetime=pd.Timestamp("2024-01-01"), weight=2.0)
    users, where, allow = [100, 7], {"year": [1960, 1961]}, [f"i{n}" for n in range(20)]
    copies = history.copy(deep=True), list(users), dict(where), list(allow)
    fitted.recommend(users, where=where, allow=allow)
    fitted.recommend(history=history)
    pd.testing.assert_frame_equal(history, copies[0])
    assert (users, where, allow) == copies[1:]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_request_is_answered_alike_alone_and_in_a_batch(fitted, data):
    users = data.draw(st.lists(st.sampled_from([*range(100, 140), 1, 2, 3]), unique=True, min_size=1, max_size=5))
    arguments = {
        "k": data.draw(st.integers(1, ALL)),
        "exclude_seen": data.draw(st.booleans()),
        "where": data.draw(st.sampled_from([None, {"genres": "g2"}, {"year": ranker.Between(1990, None)}])),
        "query": data.draw(st.sampled_from([None, "robot war", "summer"])),
    }
    batch = fitted.recommend(users, **arguments)
    assert_rows_equal({user: fitted.recommend([user], **arguments) for user in users}, batch)
