"""An evaluation is the mean of what can be counted by hand, on users who can be judged."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tiny_engine
from tiny_engine import events

import ranker
from encoders.errors import InputError
from ranker.config import RerankConfig
from ranker.evaluation import leave_one_out
from ranker.evaluation.evaluate import CANDIDATES, CROSS_ENCODER, ENGINE, LASTING, evaluate

LOG = tiny_engine.interactions()
SPLIT = leave_one_out(LOG, holdout=2)


@pytest.fixture(scope="module")
def honest(checkpoint):
    """An engine that never saw the test."""
    return ranker.fit(SPLIT.train, tiny_engine.items(), tiny_engine.config(checkpoint), progress=False)


def by_hand(lists, test, k):
    """NDCG, hit rate and reciprocal rank of each user's list, counted in plain Python."""
    rows = []
    for user, wanted in test.groupby("user_id")["item_id"].agg(set).items():
        ranks = [rank for rank, item in enumerate(lists[user][:k], 1) if item in wanted]
        ideal = sum(1 / np.log2(1 + rank) for rank in range(1, min(k, len(wanted)) + 1))
        ndcg = sum(1 / np.log2(1 + rank) for rank in ranks) / ideal
        rows.append((user, ndcg, float(bool(ranks)), 1 / ranks[0] if ranks else 0.0))
    return pd.DataFrame(rows, columns=["user_id", f"ndcg@{k}", f"hr@{k}", f"mrr@{k}"])


@pytest.mark.parametrize("k", [5, 10])
def test_it_equals_a_count_by_hand_of_what_is_recommended(honest, k):
    found = evaluate(honest, SPLIT.test, cutoffs=(5, 10))
    users = sorted(SPLIT.test["user_id"].unique())
    served = honest.recommend(users, 10).groupby("user_id")["item_id"].agg(list)
    proposed = pa.Table.from_batches(list(honest.candidates(users, 10))).to_pandas()
    fused = proposed.groupby("user_id")["item_id"].agg(list)
    for system, lists in ((ENGINE, served), (CANDIDATES, fused)):
        expected = by_hand(lists, SPLIT.test, k)
        measured = found.per_user[system].set_index("user_id").loc[users].reset_index()[expected.columns]
        pd.testing.assert_frame_equal(measured, expected, check_dtype=False)
    assert found.users_left_out == 0
    assert found.coverage[ENGINE] == pytest.approx(len(set(served.explode())) / tiny_engine.N_ITEMS)


def test_every_source_and_both_stages_are_judged_on_the_same_users(honest):
    found = evaluate(honest, SPLIT.test)
    sources = ["als", "transitions", "text", "popularity"]
    assert list(found.per_user) == [*sources, LASTING, CANDIDATES, CROSS_ENCODER, ENGINE]
    users = [table["user_id"].tolist() for table in found.per_user.values()]
    assert all(one == users[0] for one in users)
    assert found.summary.index.tolist() == list(found.per_user)
    means = {name: table["ndcg@10"].mean() for name, table in found.per_user.items()}
    assert found.summary["ndcg@10"].to_dict() == pytest.approx(means)
    assert found.summary.loc["als", "ndcg@10"] > 0.2  # the tastes are there to be found


def test_the_difference_is_paired_by_user(honest):
    found = evaluate(honest, SPLIT.test)
    change = found.per_user[ENGINE]["ndcg@10"] - found.per_user[CANDIDATES]["ndcg@10"]
    difference = found.difference()
    assert difference.difference == pytest.approx(change.mean())
    assert found.interval(ENGINE).mean == pytest.approx(found.per_user[ENGINE]["ndcg@10"].mean())
    table = found.comparisons().set_index("system")
    assert list(table.index) == [name for name in found.per_user if name != CANDIDATES]
    assert table.loc[ENGINE, "difference"] == difference.difference


def test_users_who_cannot_be_judged_are_left_out_and_counted(honest):
    seen = SPLIT.train.groupby("user_id")["item_id"].first()
    test = pd.DataFrame(
        [
            (100, "i1" if "i1" not in set(SPLIT.train.query("user_id == 100").item_id) else "i2"),
            (101, SPLIT.test.query("user_id == 101")["item_id"].iloc[0]),
            (102, seen[102]),  # nothing new
            (103, "not in the catalogue"),
            (7, "i3"),  # unknown, and can be judged
        ],
        columns=["user_id", "item_id"],
    )
    found = evaluate(honest, test)
    assert sorted(found.per_user[ENGINE]["user_id"]) == [7, 100, 101]
    assert found.users_left_out == 2


def test_an_engine_fitted_on_the_test_is_refused(fitted):
    with pytest.raises(InputError, match=r"test: 0 of 40 users have .*Was the engine fitted on the test's own events"):
        evaluate(fitted, SPLIT.test)


def test_what_was_consumed_by_feedback_is_not_relevant_any_more(checkpoint, tmp_path):
    config = tiny_engine.config(checkpoint, rerank=RerankConfig(enabled=False))
    engine = ranker.fit(SPLIT.train, tiny_engine.items(), config, progress=False)
    test = SPLIT.test.query("user_id < 104")
    told = events(*[(f"e{n}", 100, item, "like") for n, item in enumerate(test.query("user_id == 100").item_id)])
    engine.feedback(told)
    found = evaluate(engine, test)
    assert found.users_left_out == 1
    assert 100 not in set(found.per_user[ENGINE]["user_id"])


def test_an_item_that_was_taken_however_often_is_to_be_found(honest):
    once = evaluate(honest, SPLIT.test).per_user[ENGINE]
    often = pd.concat([SPLIT.test] * 256)
    pd.testing.assert_frame_equal(evaluate(honest, often).per_user[ENGINE], once)


def test_a_catalogue_smaller_than_the_cut_off_is_no_hindrance(checkpoint):
    items = tiny_engine.items().iloc[:12]
    log = LOG[LOG["item_id"].isin(items["item_id"])]
    users = log["user_id"].value_counts()
    log = log[log["user_id"].isin(users.index[users > 1])]
    split = leave_one_out(log)
    config = tiny_engine.config(
        checkpoint, rerank=RerankConfig(enabled=False), fusion=ranker.config.FusionConfig("rrf")
    )
    found = evaluate(ranker.fit(split.train, items, config, progress=False), split.test)
    assert (found.per_user[ENGINE]["hr@20"] == 1).all()  # every item there is, less what was seen


@pytest.mark.parametrize(
    ("test", "cutoffs", "message"),
    [
        (SPLIT.test.drop(columns="item_id"), (10,), "test: no column 'item_id'"),
        (SPLIT.test, (5, 20), r"cutoffs are \(5, 20\); the summary is taken at 10"),
        (SPLIT.test, (0, 10), "The cut-offs are"),
        (SPLIT.test, (10, 10.5), "The cut-offs are"),
        (SPLIT.test[:0], (10,), "test: the table has no rows"),
        (SPLIT.test.assign(user_id="a"), (10,), "user_ids: ids here are integers, but 'a' is none"),
        (SPLIT.test.assign(item_id=1), (10,), "test: item_id: ids here are strings, but 1 is none"),
        (SPLIT.test.assign(item_id="zz"), (10,), "0 of 40 users have an item that is in the catalogue and new to them"),
        ([(100, "i1")], (10,), "test: pass a DataFrame"),
    ],
)
def test_a_test_that_cannot_be_used_is_one_line(honest, test, cutoffs, message):
    with pytest.raises(InputError, match=message) as caught:
        evaluate(honest, test, cutoffs=cutoffs)
    assert "\n" not in str(caught.value)


def test_the_test_is_left_unchanged_and_judging_never_learns(honest):
    test = SPLIT.test.copy()
    before = honest.recommend([100, 101])
    evaluate(honest, test)
    pd.testing.assert_frame_equal(test, SPLIT.test)
    pd.testing.assert_frame_equal(honest.recommend([100, 101]), before)
