"""What an engine answers, to whom, and what it says to a mistake."""

import threading

import numpy as np
import pandas as pd
import pytest
import tiny_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import same_ranking
from tiny_engine import events

import ranker
from encoders.errors import InputError

ALL = tiny_engine.N_ITEMS
LOG = tiny_engine.interactions()
USERS = [100, 7, 117, 139, 8, 101]  # 7 and 8 are unknown
HISTORY = pd.DataFrame({"user_id": ["a", "a", "b", "c", "a"], "item_id": ["i1", "i5", "i2", "i59", "i9"]})


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
    whole = pd.concat(fitted.candidates(k=12))
    monkeypatch.setattr("ranker.engine.BLOCK_USERS", 7)
    blocks = list(fitted.candidates(k=12))
    assert [block["user_id"].nunique() for block in blocks] == [7] * 5 + [5]
    together = pd.concat(blocks)
    assert_rows_equal({user: whole[whole["user_id"] == user] for user in range(100, 140)}, together)
    assert {"als", "text", "popularity"} <= set(together.columns)


ERRORS = {
    "no user and no history": (lambda e: e.recommend(), "pass user_ids, or a history"),
    "a user alone": (lambda e: e.recommend(100), "user_ids = 100: pass a list"),
    "a string of users": (lambda e: e.recommend("100"), "user_ids = '100': pass a list"),
    "no users": (lambda e: e.recommend([]), "user_ids is empty"),
    "a user twice": (lambda e: e.recommend([100, 101, 100]), "user_ids holds 1 ids twice"),
    "users of another kind": (lambda e: e.recommend(["100"]), "user_ids: ids here are integers, but '100' is none"),
    "a float for a user": (lambda e: e.recommend([100.0]), "user_ids: ids here are integers, but 100.0 is none"),
    "a truth for a user": (lambda e: e.recommend([True]), "user_ids: ids here are integers, but True is none"),
    "nothing for a user": (lambda e: e.recommend([None]), "user_ids: ids here are integers, but None is none"),
    "a list for a user": (lambda e: e.recommend([[100]]), "user_ids holds what is no id"),
    "k of 0": (lambda e: e.recommend([100], 0), "k = 0, but it must be an integer from 1 to 60"),
    "k over the catalogue": (lambda e: e.recommend([100], 61), "k = 61, .* 1 to 60: the catalogue has 60 items"),
    "a fractional k": (lambda e: e.recommend([100], 2.5), "k = 2.5, but it must be an integer"),
    "a string for k": (lambda e: e.recommend([100], "5"), "k = '5', but it must be an integer"),
    "a truth for k": (lambda e: e.recommend([100], True), "k = True, but it must be an integer"),
    "an unknown user": (lambda e: e.recommend([100, 7], on_unknown="raise"), "1 of 2 users are unknown .first: 7"),
    "another choice": (lambda e: e.recommend([7], on_unknown="ignore"), "on_unknown = 'ignore', but it must be one of"),
    "an empty query": (lambda e: e.recommend([100], query=" "), "query: 1 texts for 1 users; .* none of them empty"),
    "too few queries": (lambda e: e.recommend([100, 7], query=["a"]), "query: 1 texts for 2 users"),
    "a number for a query": (lambda e: e.recommend([100], query=5), "query = 5: pass one text"),
    "numbers for queries": (lambda e: e.recommend([100], query=[5]), "query: 1 texts for 1 users"),
    "an unknown allowed item": (lambda e: e.recommend([100], allow=["zz"]), "allow: 1 items are not in the catalogue"),
    "a string of allowed items": (lambda e: e.recommend([100], allow="i1"), "allow: pass a list of ids"),
    "a denied item of another kind": (lambda e: e.recommend([100], deny=[1]), "deny: ids here are strings, but 1"),
    "an unknown attribute": (lambda e: e.recommend([100], where={"yer": 1}), "where: items have no column 'yer'.*year"),
    "attributes as a list": (lambda e: e.recommend([100], where=["year"]), "where: pass column names and"),
    "a bound of another type": (
        lambda e: e.recommend([100], where={"year": ranker.Between("a", None)}), "where: year cannot be compared",
    ),
    "a history that is no table": (lambda e: e.recommend(history=[("a", "i1")]), "history: pass a DataFrame"),
    "a history without items": (
        lambda e: e.recommend(history=HISTORY[["user_id"]]), "history: no column 'item_id'; the columns are user_id",
    ),
    "an empty history": (lambda e: e.recommend(history=HISTORY[:0]), "user_ids is empty"),
    "a history of others": (lambda e: e.recommend(["a"], history=HISTORY), "user 'b' is not among the 1 users"),
    "a history of another kind": (
        lambda e: e.recommend([1], history=HISTORY), "history: user_id: ids here are integers, but 'a' is none",
    ),
    "a history of unknown items": (
        lambda e: e.recommend(history=HISTORY.assign(item_id="zz")), "history: 1 items are not in the catalogue",
    ),
    "a history with a missing item": (
        lambda e: e.recommend(history=HISTORY.assign(item_id=None)), "history: ids here are strings, but None is none",
    ),
    "a weight of 0": (lambda e: e.recommend(history=HISTORY.assign(weight=0)), "history: 5 of 5 weights"),
    "a history with texts for times": (
        lambda e: e.recommend(history=HISTORY.assign(datetime="2024")), "history: column 'datetime' holds str",
    ),
    "nothing to rank": (lambda e: e.rank(100, []), "rank: 0 items"),
    "an item to rank twice": (lambda e: e.rank(100, ["i1", "i1"]), "rank: 2 items with 1 distinct"),
    "an unknown item to rank": (lambda e: e.rank(100, ["zz"]), "rank: 1 items are not in the catalogue"),
    "a string to rank": (lambda e: e.rank(100, "i1"), "rank: pass a list of ids"),
    "an unknown user to rank for": (lambda e: e.rank(7, ["i1"], on_unknown="raise"), "1 of 1 users are unknown"),
    "a list of users to rank for": (lambda e: e.rank([100], ["i1"]), "user_ids holds what is no id"),
    "an unknown item's neighbours": (lambda e: e.similar_items(["zz"]), "similar_items: 1 items are not in"),
    "as many neighbours as items": (lambda e: e.similar_items(["i1"], 60), "k = 60, but it must .* 1 to 59"),
    "candidates beyond the catalogue": (lambda e: e.candidates(k=61), "k = 61, but"),
    "candidates of an unknown user": (lambda e: list(e.candidates([7])), "1 of 1 users are unknown"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_a_mistake_is_one_line_that_names_the_argument(fitted, case):
    call, message = ERRORS[case]
    with pytest.raises(InputError, match=message) as caught:
        call(fitted)
    assert "\n" not in str(caught.value)


def test_a_query_needs_the_text_source(checkpoint):
    config = tiny_engine.config(
        checkpoint, sources=("als", "popularity"), rerank=ranker.config.RerankConfig(enabled=False)
    )
    engine = ranker.fit(LOG, tiny_engine.items(), config, progress=False)
    for ask in (lambda: engine.recommend([100], query="robot"), lambda: engine.rank(100, ["i1"], query="robot")):
        with pytest.raises(InputError, match="query: needs the source 'text', but this engine has als, popularity"):
            ask()


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


def test_threads_give_feedback_and_ask_without_losing_or_doubling_an_event(engine, model):
    failures, stop = [], threading.Event()

    def tell(me):
        try:
            for n in range(10):
                own = events((f"{me}-{n}", 1000 + me, f"i{n}", "like"))
                shared = events((f"shared-{n}", 2000, f"i{n}", "like"))  # sent by all, counted once
                engine.feedback(pd.concat([own, shared]))
                assert f"i{n}" not in set(engine.recommend([1000 + me], ALL)["item_id"])  # reads its own write
        except BaseException as error:
            failures.append(error)

    def ask():
        try:
            while not stop.is_set():
                engine.recommend([100, 1000, 1003, 2000], 10, query="robot")
                engine.rank(1001, ["i1", "i2", "i3"])
                engine.recommend([100, 2000], ALL)
        except BaseException as error:
            failures.append(error)

    tellers = [threading.Thread(target=tell, args=(me,)) for me in range(4)]
    askers = [threading.Thread(target=ask) for _ in range(2)]
    for thread in [*tellers, *askers]:
        thread.start()
    for thread in tellers:
        thread.join()
    stop.set()
    for thread in askers:
        thread.join()
    assert failures == []
    users = [1000, 1001, 1002, 1003, 2000]
    assert len(engine.log) == 50
    assert engine.users.histories(users).lengths.tolist() == [10] * 5
    loaded = ranker.load(model)
    pd.testing.assert_frame_equal(loaded.recommend(users, ALL), engine.recommend(users, ALL))


def test_feedback_during_a_save_is_in_the_log_it_moves_to(checkpoint, tmp_path):
    config = tiny_engine.config(checkpoint, rerank=ranker.config.RerankConfig(enabled=False))
    engine = ranker.fit(LOG, tiny_engine.items(), config, progress=False)
    told, stop = [], threading.Event()

    def tell():
        while not stop.is_set():
            told.append(f"e{len(told)}")
            engine.feedback(events((told[-1], 7, f"i{len(told) % ALL}", "click")))

    thread = threading.Thread(target=tell)
    thread.start()
    for n in range(3):
        engine.save(tmp_path / f"model{n}")
    stop.set()
    thread.join()
    assert ranker.load(tmp_path / "model2").log.read()["event_id"].tolist() == told
