"""Groups of users as counted by hand, and means over them as the whole table's functions give them."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from encoders.errors import InputError
from ranker.evaluation import (
    bootstrap_mean,
    history_groups,
    per_user_metrics,
    popularity_groups,
    slice_means,
    usual_groups,
)
from ranker.evaluation.questions import Questions
from retrieval.histories import Histories


def test_histories_are_grouped_by_given_bounds() -> None:
    found = history_groups(np.array([0, 1, 9, 10, 49, 50, 700]), bounds=[10, 50])
    assert list(found) == [
        "new", "1 to 9 events", "1 to 9 events", "10 to 49 events", "10 to 49 events", "50 events and more",
        "50 events and more",
    ]  # fmt: skip
    assert list(found.categories) == ["new", "1 to 9 events", "10 to 49 events", "50 events and more"]
    assert list(history_groups(np.array([1, 2, 3]), bounds=[2, 3])) == ["1 event", "2 events", "3 events and more"]


@pytest.mark.parametrize("quantiles", [(0.5,), (0.25, 0.75)])
def test_quantiles_make_groups_of_their_shares_among_users_with_a_history(quantiles: tuple[float, ...]) -> None:
    lengths = np.random.default_rng(0).permutation(np.concatenate([np.arange(1, 401), np.zeros(100, np.int64)]))
    found = pd.Series(history_groups(lengths, quantiles=quantiles)).value_counts(sort=False)
    shares = np.diff([0, *quantiles, 1])
    assert list(found) == [100, *(400 * shares)]
    assert (np.asarray(history_groups(lengths, quantiles=quantiles)) == "new").tolist() == (lengths == 0).tolist()


def test_equal_lengths_share_a_group() -> None:
    found = history_groups(np.array([1, 1, 1, 1, 8]), quantiles=(0.2, 0.5))
    assert list(found) == ["1 event"] * 4 + ["2 events and more"]


def test_users_are_grouped_by_the_popularity_of_what_they_were_to_find() -> None:
    popularity = np.array([5, 60, 20, 15, 0])  # items 1 and 2 have 80 of 100 events
    wanted = sparse.csr_array(
        np.array([[0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0]], dtype=bool)
    )
    assert list(popularity_groups(wanted, popularity)) == ["head", "head and tail", "tail", "head"]
    assert list(popularity_groups(wanted, popularity, head_share=0.6)) == [
        "head and tail", "head and tail", "tail", "tail"
    ]  # fmt: skip
    assert list(popularity_groups(wanted, popularity, head_share=0.81))[1] == "head"  # takes item 3 to reach it


def test_means_and_intervals_are_those_of_each_groups_users_alone() -> None:
    rng = np.random.default_rng(0)
    ranked = np.stack([rng.permutation(30)[:10] for _ in range(60)])
    metrics = per_user_metrics(ranked, sparse.csr_array(rng.random((60, 30)) < 0.3), (5, 10)).assign(user_id=range(60))
    groups = history_groups(rng.integers(0, 20, 60), bounds=[5])
    table = slice_means(metrics, groups, seed=3)
    assert list(table["group"].unique()) == ["new", "1 to 4 events", "5 events and more"]
    assert list(table["metric"].unique()) == [name for name in metrics if name != "user_id"]
    for _, row in table.iterrows():
        values = metrics[row["metric"]].to_numpy()[np.asarray(groups) == row["group"]]
        expected = bootstrap_mean(values, seed=3)
        assert (row["mean"], row["low"], row["high"], row["n_users"]) == (
            expected.mean, expected.low, expected.high, expected.n_users
        )  # fmt: skip
    weighted = table[table["metric"] == "ndcg@10"]
    assert np.average(weighted["mean"], weights=weighted["n_users"]) == pytest.approx(metrics["ndcg@10"].mean())


def test_names_will_do_as_groups_and_what_is_unknown_is_not_counted() -> None:
    metrics = pd.DataFrame({"novelty@5": [1.0, np.nan, 3.0, 5.0, np.nan, 9.0]}, index=[9, 8, 7, 6, 5, 4])
    table = slice_means(metrics, ["b", "b", "b", "a", "c", None], seed=0).set_index("group")
    assert list(table.index) == ["a", "b", "c"]
    assert table["n_users"].to_dict() == {"a": 1, "b": 2, "c": 0}
    assert table.loc["b", "mean"] == 2
    assert (table.loc["a", "mean"], math.isnan(table.loc["a", "low"])) == (5, True)  # one user has no interval
    assert math.isnan(table.loc["c", "mean"])


METRICS = pd.DataFrame({"ndcg@5": [0.5, 1.0]})
WANTED = sparse.csr_array(np.array([[True, False], [False, True]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: history_groups(np.array([1.0, 2.0])), "lengths is float64"),
        (lambda: history_groups(np.array([-1, 2])), "from 0"),
        (lambda: history_groups(np.array([1, 2]), bounds=[]), r"bounds are \[\]"),
        (lambda: history_groups(np.array([1, 2]), bounds=[1]), "rising lengths from 2"),
        (lambda: history_groups(np.array([1, 2]), bounds=[5, 5]), "rising lengths from 2"),
        (lambda: history_groups(np.array([1, 2]), quantiles=[50]), "quantiles are"),
        (lambda: history_groups(np.array([4, 4, 0])), "No quantile divides"),
        (lambda: history_groups(np.array([0, 0])), "No quantile divides"),
        (lambda: popularity_groups(WANTED, np.ones(3)), "relevant has 2 columns for 3 items"),
        (lambda: popularity_groups(WANTED, np.array([1, -1])), "negative"),
        (lambda: popularity_groups(WANTED, np.zeros(2)), "0 for every item"),
        (lambda: popularity_groups(WANTED, np.ones(2), head_share=1), "head_share is 1"),
        (lambda: popularity_groups(sparse.csr_array((2, 2)), np.ones(2)), "2 of 2 users have no relevant item"),
        (lambda: slice_means(METRICS, ["a"], seed=0), "1 groups for 2 users"),
        (lambda: slice_means(METRICS, [None, None], seed=0), "No user is in a group"),
        (lambda: slice_means(METRICS, ["a", "a"], seed=0, confidence=95), "confidence is 95"),
        (lambda: slice_means(METRICS * np.inf, ["a", "a"], seed=0), "2 of 2 values of ndcg@5 of a are NaN or infinite"),
    ],
)
def test_what_makes_no_groups_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_users_with_several_rows_are_resampled_with_all_of_theirs() -> None:
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 12, 60))
    metrics, groups = pd.DataFrame({"ndcg@5": rng.random(60)}), np.where(rng.random(60) < 0.5, "a", "b")
    table = slice_means(metrics, [*groups], seed=3, users=users).set_index("group")
    for group in ("a", "b"):
        within = groups == group
        expected = bootstrap_mean(metrics["ndcg@5"][within].to_numpy(), seed=3, users=users[within])
        row = table.loc[group]
        assert (row["mean"], row["low"], row["high"]) == (expected.mean, expected.low, expected.high)
        assert row["n_users"] == len({*users[within]})
    alone = slice_means(metrics[:3], ["a"] * 3, seed=0, users=np.array([7, 7, 7])).iloc[0]
    assert (alone["n_users"], np.isnan(alone["low"])) == (1, True)


def test_the_usual_groups_are_made_of_what_each_list_knows_and_asks_for() -> None:
    log = Histories.from_rows(np.array([0] * 4 + [1] * 6), np.arange(10) % 3, np.ones(10, np.float32), np.arange(10), 2)
    relevant = sparse.csr_array(np.array([[1, 0, 0], [0, 0, 1], [0, 0, 1]], bool))
    asked = Questions(log, np.array([1, 4, 10]), np.array([0, 0, 1]), pd.Index([5, 5, 6]), relevant, 0)
    popularity = np.array([9, 1, 1])
    assert [*asked.lengths] == [len(one) for one in np.split(asked.histories().items, asked.histories().indptr[1:-1])]
    found = usual_groups(asked, popularity)
    assert [[*groups] for groups in found.values()] == [
        [*history_groups(np.array([1, 4, 6]))], ["head", "tail", "tail"]
    ]  # fmt: skip
    alike = Questions(log, np.array([4, 8]), np.array([0, 1]), pd.Index([5, 6]), relevant[:2], 0)
    assert [*usual_groups(alike, popularity)] == [[*found][1]]  # both know four events
