import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from encoders.errors import InputError
from retrieval.candidates import NO_ITEM, Candidates, Requests, top_k
from retrieval.histories import Histories
from retrieval.queries import Queries

few_values = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0])  # few, so that ties abound


shapes = st.one_of(
    nps.array_shapes(min_dims=2, max_dims=2, max_side=8), st.tuples(st.integers(1, 2), st.integers(50, 200))
)


@given(nps.arrays(np.float32, shapes, elements=few_values), st.integers(1, 9))
def test_top_k_equals_a_full_stable_sort(scores, k):
    items, best = top_k(scores, k)
    for row in range(len(scores)):
        ranked = sorted(np.flatnonzero(np.isfinite(scores[row])), key=lambda item: (-scores[row, item], item))[:k]
        padded = ranked + [NO_ITEM] * (k - len(ranked))
        assert items[row].tolist() == padded
        expected = [scores[row, item] if item != NO_ITEM else -np.inf for item in padded]
        np.testing.assert_array_equal(best[row], expected)


def test_reordered_candidates_keep_each_item_with_its_sources():
    candidates = Candidates(
        np.array([[4, 2, NO_ITEM]]),
        np.array([[2.0, 1.0, -np.inf]], np.float32),
        np.array([[[0.4], [0.2], [-np.inf]]], np.float32),
        ("als",),
    )
    again = candidates.reordered(np.array([[0.0, 5.0, 9.0]], np.float32))
    assert again.items.tolist() == [[2, 4, NO_ITEM]]
    np.testing.assert_array_equal(again.by_source[0, :, 0], np.array([0.2, 0.4, -np.inf], np.float32))


def test_equal_new_scores_put_the_lower_item_first():
    candidates = Candidates(
        np.array([[9, 2, 5]]), np.zeros((1, 3), np.float32), np.zeros((1, 3, 0), np.float32), sources=()
    )
    assert candidates.reordered(np.zeros((1, 3), np.float32)).items.tolist() == [[2, 5, 9]]


def test_shapes_that_do_not_line_up_are_refused():
    with pytest.raises(InputError, match="do not line up"):
        Candidates(np.zeros((2, 3), np.int64), np.zeros((2, 2), np.float32), np.zeros((2, 3, 1), np.float32), ("als",))
    vectors = np.zeros((1, 3), np.float32)
    with pytest.raises(InputError, match="1 queries for 2 users"):
        Requests(Histories.empty(2), np.ones(4, np.bool_), queries=Queries.without_states(vectors))
    with pytest.raises(InputError, match="1 vectors, 2 rows of states and 1 lengths do not line up"):
        Queries(vectors, np.zeros((2, 5, 3), np.float16), np.ones(1, np.int64))


def test_blocks_cover_every_request_once():
    requests = Requests(Histories.empty(2500), np.ones(3, np.bool_))
    covered = np.concatenate([np.arange(len(requests))[rows] for rows, _ in requests.blocks()])
    assert covered.tolist() == list(range(2500))
