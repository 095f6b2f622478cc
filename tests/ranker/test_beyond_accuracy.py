"""Novelty, diversity, serendipity, popularity lift and calibration against their definitions in plain Python."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.distance import cosine

from encoders.errors import InputError
from ranker.evaluation import (
    beyond_accuracy,
    diversity,
    miscalibration,
    novelty,
    per_user_metrics,
    popularity_lift,
    serendipity,
)

CUTOFFS = (1, 3, 10)
N_USERS, N_ITEMS, N_RANKS, N_GENRES, N_TRAINED = 40, 60, 10, 6, 500


class Case:
    """Lists of every length from 0 to N_RANKS, histories from none to a third of the catalogue."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.ranked = np.stack([rng.permutation(N_ITEMS)[:N_RANKS] for _ in range(N_USERS)])
        self.ranked[np.arange(N_RANKS) >= rng.integers(0, N_RANKS + 1, N_USERS)[:, None]] = -1
        self.ranked[0], self.ranked[1, 1:] = -1, -1
        self.primitive = np.stack([rng.permutation(N_ITEMS)[:20] for _ in range(N_USERS)])
        self.primitive[np.arange(20) >= rng.integers(0, 21, N_USERS)[:, None]] = -1
        self.relevant = rng.random((N_USERS, N_ITEMS)) < 0.3
        self.relevant[:, 0] = True
        self.histories = rng.random((N_USERS, N_ITEMS)) < rng.choice([0.02, 0.3], (N_USERS, 1))
        self.histories[2] = False
        self.popularity = rng.integers(0, N_TRAINED, N_ITEMS)
        self.popularity[:5] = 0
        self.vectors = rng.normal(size=(N_ITEMS, 8)).astype(np.float32)
        self.genres = (rng.random((N_ITEMS, N_GENRES)) < 0.3) * rng.choice([1.0, 2.0], (N_ITEMS, N_GENRES))
        self.genres[:8] = 0

    def items(self, user: int, k: int) -> list[int]:
        return [int(item) for item in self.ranked[user, :k] if item >= 0]


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def plain_novelty(case: Case, user: int, k: int) -> float:
    return mean([-math.log2(max(case.popularity[item], 1) / N_TRAINED) for item in case.items(user, k)])


def plain_diversity(case: Case, user: int, k: int) -> float:
    pairs = itertools.combinations(case.items(user, k), 2)
    return mean([float(cosine(*case.vectors[list(pair)].astype(float))) for pair in pairs])


def plain_serendipity(case: Case, user: int, k: int) -> float:
    expected = set(case.primitive[user])
    return sum(bool(case.relevant[user, item]) and item not in expected for item in case.items(user, k)) / k


def plain_lift(case: Case, user: int, k: int) -> float:
    usual = mean([float(case.popularity[item]) for item in np.flatnonzero(case.histories[user])])
    return mean([float(case.popularity[item]) for item in case.items(user, k)]) / usual - 1 if usual else math.nan


def plain_distribution(case: Case, items: list[int]) -> list[float]:
    rows = [case.genres[item] / case.genres[item].sum() for item in items if case.genres[item].any()]
    return [mean([row[genre] for row in rows]) for genre in range(N_GENRES)]


def plain_miscalibration(case: Case, user: int, k: int, alpha: float = 0.01) -> float:
    p = plain_distribution(case, [int(item) for item in np.flatnonzero(case.histories[user])])
    q = plain_distribution(case, case.items(user, k))
    if math.isnan(p[0]) or math.isnan(q[0]):
        return math.nan
    return sum(a * math.log(a / ((1 - alpha) * b + alpha * a)) for a, b in zip(p, q, strict=True) if a > 0)


def measured(case: Case) -> dict[str, pd.DataFrame]:
    relevant, histories = sparse.csr_array(case.relevant), sparse.csr_array(case.histories)
    return {
        "novelty": novelty(case.ranked, case.popularity, N_TRAINED, CUTOFFS),
        "diversity": diversity(case.ranked, case.vectors, CUTOFFS),
        "serendipity": serendipity(case.ranked, relevant, case.primitive, CUTOFFS),
        "popularity_lift": popularity_lift(case.ranked, case.popularity, histories, CUTOFFS),
        "miscalibration": miscalibration(case.ranked, histories, case.genres, CUTOFFS),
    }


PLAIN: dict[str, Callable[[Case, int, int], float]] = {
    "novelty": plain_novelty,
    "diversity": plain_diversity,
    "serendipity": plain_serendipity,
    "popularity_lift": plain_lift,
    "miscalibration": plain_miscalibration,
}


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_user_equals_the_definitions_written_out(
    seed: int, in_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_blocks:
        monkeypatch.setattr(beyond_accuracy, "BLOCK_VALUES", 100)  # a user or a few at a time
    case = Case(seed)
    for name, table in measured(case).items():
        assert list(table) == [f"{name}@{k}" for k in CUTOFFS]
        assert (table.dtypes == np.float64).all()
        for k in CUTOFFS:
            expected = [PLAIN[name](case, user, k) for user in range(N_USERS)]
            np.testing.assert_allclose(table[f"{name}@{k}"], expected, atol=1e-6, rtol=0, err_msg=f"{name}@{k}")


def test_what_is_undefined_is_not_a_number_and_nothing_else_is() -> None:
    tables = measured(Case(0))
    for name in ("novelty", "diversity", "popularity_lift", "miscalibration"):
        assert tables[name].loc[0].isna().all()  # an empty list
    assert tables["diversity"].loc[1].isna().all()  # one item makes no pair
    assert tables["novelty"].loc[1].notna().all()
    assert tables["popularity_lift"].loc[2].isna().all()  # no history
    assert tables["miscalibration"].loc[2].isna().all()
    assert (tables["serendipity"].loc[0] == 0).all()  # as precision is


def test_small_cases_by_pencil() -> None:
    ranked = np.array([[0, 1, 2]])
    assert novelty(ranked, np.array([4, 2, 0]), 4, (3,)).loc[0, "novelty@3"] == 1  # 0, 1 and 2 bits
    square = np.array([[2.0, 0.0], [0.0, 0.5], [-3.0, 0.0]])
    assert diversity(ranked, square, (2, 3)).loc[0].tolist() == pytest.approx([1, 4 / 3])  # 1, 2 and 1
    had = sparse.csr_array(np.array([[True, False, True]]))
    assert popularity_lift(ranked, np.array([3, 9, 1]), had, (2,)).loc[0, "popularity_lift@2"] == 2  # 6 over 2
    wanted, popular = sparse.csr_array(np.ones((1, 3), dtype=bool)), np.array([[1, -1]])
    assert serendipity(ranked, wanted, popular, (2, 3)).loc[0].tolist() == pytest.approx([1 / 2, 2 / 3])


def test_equal_items_have_no_diversity_and_equal_distributions_no_divergence() -> None:
    vectors = np.random.default_rng(0).normal(size=(1, 300)).repeat(10, axis=0)
    found = diversity(np.arange(10)[None], vectors, (10,)).loc[0, "diversity@10"]
    assert 0 <= found < 1e-12
    genres = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    had = sparse.csr_array(np.array([[False, True]]))
    assert 0 <= miscalibration(np.array([[0]]), had, genres, (1,)).loc[0, "miscalibration@1"] < 1e-12


@pytest.mark.parametrize("alpha", [0.01, 0.2])
def test_nothing_in_common_costs_the_log_of_the_smoothing(alpha: float) -> None:
    had = sparse.csr_array(np.array([[False, True]]))
    found = miscalibration(np.array([[0]]), had, sparse.csr_array(np.eye(2)), (1,), alpha=alpha)
    assert found.loc[0, "miscalibration@1"] == pytest.approx(math.log(1 / alpha))


def test_serendipity_is_precision_where_nothing_was_to_be_expected() -> None:
    case = Case(1)
    relevant, nothing = sparse.csr_array(case.relevant), np.full((N_USERS, 1), -1)
    precision = per_user_metrics(case.ranked, relevant, CUTOFFS)
    for k in CUTOFFS:
        found = serendipity(case.ranked, relevant, nothing, CUTOFFS)[f"serendipity@{k}"]
        np.testing.assert_allclose(found, precision[f"precision@{k}"])


def test_a_history_counts_each_item_once_and_is_left_unchanged() -> None:
    entries = (np.array([5.0, 0.0, 2.0, 1.0]), np.array([0, 1, 2, 2]), np.array([0, 4]))
    had = sparse.csr_array(entries, shape=(1, 3))  # items 0 and 2; a stored zero; item 2 twice
    lift = popularity_lift(np.array([[1]]), np.array([1, 6, 3]), had, (1,))
    assert lift.loc[0, "popularity_lift@1"] == 2
    assert had.data.tolist() == [5, 0, 2, 1]


def lists(*rows: list[int]) -> NDArray[np.int64]:
    return np.array(rows)


HAD = sparse.csr_array(np.array([[True, False]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: novelty(lists([0, 0]), np.array([1, 1]), 2, (2,)), "item twice"),
        (lambda: novelty(lists([0, 2]), np.array([1, 1]), 2, (2,)), "items from 0 to 2"),
        (lambda: novelty(lists([0, 1]), np.array([1, 1]), 2, (3,)), "cut-offs"),
        (lambda: novelty(lists([0, 1]), np.array([1, 3]), 2, (2,)), "up to 3 and n_users is 2"),
        (lambda: novelty(lists([0, 1]), np.array([1, -1]), 2, (2,)), "negative or not finite"),
        (lambda: novelty(lists([0, 1]), np.array([[1, 1]]), 2, (2,)), r"shape \(1, 2\)"),
        (lambda: diversity(lists([0, 1]), np.array([[1.0], [0.0]]), (2,)), r"1 of 2 vectors .* \(first: item 1\)"),
        (lambda: diversity(lists([0, 1]), np.array([[1.0], [np.nan]]), (2,)), "not finite"),
        (lambda: diversity(lists([0, 1]), np.ones(2), (2,)), "one row per item"),
        (lambda: serendipity(lists([0, 1]), HAD, lists([0, 0]), (2,)), "rows of primitive hold an item twice"),
        (lambda: serendipity(lists([0, 1]), HAD, lists([0], [1]), (2,)), "ranked has 1 rows and primitive 2"),
        (lambda: serendipity(lists([0, 1], [0, 1]), HAD, lists([0], [1]), (2,)), "ranked has 2 rows and relevant 1"),
        (lambda: popularity_lift(lists([0]), np.array([1.0, np.nan]), HAD, (1,)), "negative or not finite"),
        (lambda: popularity_lift(lists([0]), np.ones(3), HAD, (1,)), "histories has 2 columns for 3 items"),
        (lambda: popularity_lift(lists([0], [1]), np.ones(2), HAD, (1,)), "ranked has 2 rows and histories 1"),
        (lambda: miscalibration(lists([0]), HAD, -np.eye(2), (1,)), "attributes holds values that are negative"),
        (lambda: miscalibration(lists([0]), HAD, np.eye(3), (1,)), "histories has 2 columns for 3 items"),
        (lambda: miscalibration(lists([0]), HAD, np.eye(2), (1,), alpha=0), "alpha is 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
