"""Metrics against trec_eval, against plain Python, and on lists small enough for a pencil."""

import math

import numpy as np
import pandas as pd
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from encoders.errors import InputError
from ranker.evaluation import coverage, per_user_metrics

CUTOFFS = (1, 3, 5, 10, 20)
N_ITEMS, N_RANKS = 60, 20


def random_case(seed: int, n_users: int = 40) -> tuple[NDArray[np.int64], sparse.csr_array]:
    """Lists of every length from 0 to N_RANKS, and from one to many more relevant items than ranks."""
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(N_ITEMS)[:N_RANKS] for _ in range(n_users)])
    ranked[np.arange(N_RANKS) >= rng.integers(0, N_RANKS + 1, n_users)[:, None]] = -1
    relevant = np.zeros((n_users, N_ITEMS), dtype=bool)
    for row in relevant:
        row[rng.permutation(N_ITEMS)[: rng.choice([1, 2, 7, 45])]] = True
    return ranked, sparse.csr_array(relevant)


def trec_eval(ranked: NDArray[np.int64], relevant: sparse.csr_array, measures: set[str]) -> pd.DataFrame:
    qrel = {str(user): {str(item): 1 for item in np.flatnonzero(row)} for user, row in enumerate(relevant.toarray())}
    run = {
        str(user): {str(item): float(N_RANKS - rank) for rank, item in enumerate(row) if item >= 0} or {"none": 1.0}
        for user, row in enumerate(ranked)
    }
    found = pytrec_eval.RelevanceEvaluator(qrel, measures).evaluate(run)
    return pd.DataFrame([found[str(user)] for user in range(len(ranked))])


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_trec_eval_where_the_definitions_coincide(seed: int) -> None:
    ranked, relevant = random_case(seed)
    ours = per_user_metrics(ranked, relevant, CUTOFFS)
    cuts = ",".join(map(str, CUTOFFS))
    theirs = trec_eval(
        ranked, relevant, {f"ndcg_cut.{cuts}", f"recall.{cuts}", f"P.{cuts}", "recip_rank", f"success.{cuts}"}
    )
    for k in CUTOFFS:
        for name, measure in (
            ("ndcg", "ndcg_cut"),
            ("recall", "recall"),
            ("precision", "P"),
            ("hr", "success"),
        ):
            np.testing.assert_allclose(ours[f"{name}@{k}"], theirs[f"{measure}_{k}"], atol=1e-9, rtol=0)
    # recip_rank has no cut-off: it agrees at the full length, and below it wherever the hit is within k
    np.testing.assert_allclose(ours[f"mrr@{N_RANKS}"], theirs["recip_rank"], atol=1e-9, rtol=0)
    for k in CUTOFFS:
        within = np.where(theirs["recip_rank"] >= 1 / k, theirs["recip_rank"], 0)
        np.testing.assert_allclose(ours[f"mrr@{k}"], within, atol=1e-9, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_map_is_trec_evals_rescaled_to_what_a_list_of_k_can_reach(seed: int) -> None:
    ranked, relevant = random_case(seed)
    ours = per_user_metrics(ranked, relevant, CUTOFFS)
    theirs = trec_eval(ranked, relevant, {"map_cut." + ",".join(map(str, CUTOFFS))})
    n_relevant = relevant.sum(axis=1)
    differs = False
    for k in CUTOFFS:
        scale = n_relevant / np.minimum(n_relevant, k)
        np.testing.assert_allclose(ours[f"map@{k}"], theirs[f"map_cut_{k}"] * scale, atol=1e-9, rtol=0)
        differs = differs or bool((scale > 1).any())
    assert differs


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_every_row_equals_the_definitions_written_out(seed: int) -> None:
    ranked, relevant = random_case(seed, n_users=4)
    table = per_user_metrics(ranked, relevant, (3, 10))
    for user, row in enumerate(ranked):
        wanted = set(np.flatnonzero(relevant.toarray()[user]))
        for k in (3, 10):
            r = [item in wanted for item in row[:k]]
            n_best = min(k, len(wanted))
            expected = {
                "hr": float(any(r)),
                "recall": sum(r) / len(wanted),
                "precision": sum(r) / k,
                "ndcg": sum(hit / math.log2(i + 2) for i, hit in enumerate(r))
                / sum(1 / math.log2(i + 2) for i in range(n_best)),
                "mrr": next((1 / (i + 1) for i, hit in enumerate(r) if hit), 0.0),
                "map": sum(hit * sum(r[: i + 1]) / (i + 1) for i, hit in enumerate(r)) / n_best,
            }
            got = table.loc[user, [f"{name}@{k}" for name in expected]]
            assert list(got) == pytest.approx(list(expected.values()), abs=1e-12)


def test_a_perfect_list_scores_one_even_with_more_relevant_items_than_ranks() -> None:
    table = per_user_metrics(np.array([[0, 1]]), sparse.csr_array(np.ones((1, 5), dtype=bool)), (2,))
    assert table.loc[0].to_dict() == {
        "hr@2": 1, "recall@2": 0.4, "precision@2": 1, "ndcg@2": 1, "mrr@2": 1, "map@2": 1
    }  # fmt: skip


def test_columns_come_in_the_order_of_the_cutoffs() -> None:
    ranked, relevant = random_case(0)
    names = ["hr", "recall", "precision", "ndcg", "mrr", "map"]
    assert list(per_user_metrics(ranked, relevant)) == [f"{name}@{k}" for k in (5, 10, 20) for name in names]


def test_stored_zeros_and_repeated_entries_of_the_matrix_do_not_count() -> None:
    # one relevant item, stored twice, and one stored as False
    entries = (np.array([True, True, False]), np.array([0, 0, 1]), np.array([0, 3]))
    relevant = sparse.csr_array(entries, shape=(1, 4))
    table = per_user_metrics(np.array([[1, 0]]), relevant, (2,))
    assert table.loc[0, ["recall@2", "precision@2", "mrr@2"]].tolist() == [1, 0.5, 0.5]
    assert relevant.nnz == 3  # left as it was


def test_the_arguments_are_left_unchanged() -> None:
    ranked, relevant = random_case(1)
    ranked_before, relevant_before = ranked.copy(), relevant.toarray()
    per_user_metrics(ranked, relevant)
    np.testing.assert_array_equal(ranked, ranked_before)
    np.testing.assert_array_equal(relevant.toarray(), relevant_before)


@pytest.mark.parametrize(
    ("ranked", "message"),
    [
        ([[0, 0]], "item twice"),
        ([[-1, 0]], "after NO_ITEM"),
        ([[0, 4]], "items from 0 to 4"),
        ([[-2, 0]], "items from -2"),
        ([[0, 1], [0, 1]], "2 rows and relevant 1"),
        ([[0.0, 1.0]], "integers"),
        ([0, 1], "integers of shape"),
    ],
)
def test_lists_that_are_no_rankings_are_refused(ranked: list[list[float]], message: str) -> None:
    relevant = sparse.csr_array(np.array([[True, False, False, False]]))
    with pytest.raises(InputError, match=message):
        per_user_metrics(np.array(ranked), relevant, (2,))


@pytest.mark.parametrize("cutoffs", [(), (0,), (2, 2), (3,)])
def test_cutoffs_that_do_not_fit_the_lists_are_refused(cutoffs: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="cut-offs"):
        per_user_metrics(np.array([[0, 1]]), sparse.csr_array(np.array([[True, False]])), cutoffs)


def test_users_with_nothing_to_find_are_refused_and_counted() -> None:
    relevant = sparse.csr_array(np.array([[True, False], [False, False]]))
    with pytest.raises(InputError, match=r"1 of 2 users have no relevant item \(first: row 1\)"):
        per_user_metrics(np.array([[0, 1], [0, 1]]), relevant, (2,))


def test_coverage_counts_the_catalogue_within_the_cutoff() -> None:
    ranked = np.array([[0, 1, 2], [0, 3, -1]])
    assert coverage(ranked, 8, 2) == 3 / 8
    assert coverage(ranked, 8, 3) == 4 / 8
    assert coverage(np.array([[-1, -1]]), 8, 2) == 0
    with pytest.raises(InputError, match="items from 0 to 3"):
        coverage(np.array([[0, 3]]), 3, 2)
