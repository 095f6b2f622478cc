import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from encoders import RankingTask, RetrievalTask
from encoders.errors import InputError


def csr(rows):
    return sparse.csr_array(np.array(rows, dtype=bool))


def ndcg_by_definition(relevant, order):
    gains = [1 / math.log2(place + 2) for place, item in enumerate(order) if relevant[item]]
    return sum(gains) / sum(1 / math.log2(place + 2) for place in range(min(sum(relevant), len(order))))


def test_metrics_equal_hand_computed_ones():
    task = RetrievalTask(("q", "r"), ("a", "b", "c", "d"), csr([[1, 0, 1, 1], [0, 1, 0, 0]]))
    found = np.array([[0, 1], [1, 0]])
    np.testing.assert_allclose(task.recall(found), [0.5, 1.0])
    np.testing.assert_allclose(task.ndcg(found), [1 / (1 + 1 / math.log2(3)), 1.0])


@given(seed=st.integers(0, 10_000), k=st.integers(1, 8))
def test_ndcg_and_recall_equal_their_definitions(seed, k):
    rng = np.random.default_rng(seed)
    relevant = rng.random((5, 8)) < 0.4
    relevant[:, 0] = True
    task = RetrievalTask(tuple(f"q{i}" for i in range(5)), tuple(f"d{i}" for i in range(8)), csr(relevant))
    vectors = rng.standard_normal((13, 4)).astype(np.float32)
    found = task.search(vectors[:5], vectors[5:], k)
    scores = vectors[:5] @ vectors[5:].T
    for row in range(5):
        expected = sorted(range(8), key=lambda item, row=row: (-scores[row, item], item))[:k]
        assert list(found[row]) == expected
        hits = sum(relevant[row, item] for item in expected)
        assert task.recall(found)[row] == pytest.approx(hits / min(k, relevant[row].sum()))
        assert task.ndcg(found)[row] == pytest.approx(ndcg_by_definition(relevant[row], expected))


def test_a_document_with_the_querys_own_text_is_not_counted():
    task = RetrievalTask(("cat",), ("cat", "dog", "cat", "cow"), csr([[1, 1, 1, 0]]))
    vectors = np.eye(4, dtype=np.float32)
    found = task.search(vectors[:1], vectors, 2)
    assert list(found[0]) == [1, 3]
    assert task.recall(found)[0] == 1.0


def test_ties_go_to_the_lower_place():
    task = RetrievalTask(("q",), ("a", "b", "c"), csr([[1, 0, 0]]))
    ones = np.ones((3, 2), dtype=np.float32)
    assert list(task.search(ones[:1], ones, 3)[0]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("queries", "documents", "relevant", "message"),
    [
        (("a",), ("b",), [[1, 0]], r"relevant is \(1, 2\), but there are 1 queries and 1 documents"),
        (("a", "c"), ("b",), [[1], [0]], r"1 of 2 queries have no relevant document .*query 1"),
        (("a",), ("a",), [[1]], r"1 of 1 queries have no relevant document with another text"),
    ],
)
def test_a_retrieval_task_that_does_not_line_up_is_refused(queries, documents, relevant, message):
    with pytest.raises(InputError, match=message):
        RetrievalTask(queries, documents, csr(relevant))


def test_a_retrieval_task_without_queries_is_refused():
    with pytest.raises(InputError, match="no queries"):
        RetrievalTask((), ("a",), sparse.csr_array((0, 1), dtype=bool))


def test_ranking_ndcg_equals_its_definition():
    pairs = tuple(("u", f"i{n}") for n in range(12))
    relevant = (np.arange(12) % 5 == 0, np.arange(3) == 2)
    task = RankingTask((pairs, pairs[:3]), relevant)
    scores = np.random.default_rng(0).standard_normal(15).astype(np.float32)
    expected = [
        ndcg_by_definition(relevant[0], np.argsort(-scores[:12])[:10]),
        ndcg_by_definition(relevant[1], np.argsort(-scores[12:])[:10]),
    ]
    np.testing.assert_allclose(task.ndcg(scores), expected)
    assert [len(part) for part in task.split(scores)] == [12, 3]


@pytest.mark.parametrize(
    ("lists", "relevant", "message"),
    [
        (((("u", "a"), ("u", "b")),), (), "1 lists and 0 arrays"),
        (
            ((("u", "a"), ("u", "b")),),
            (np.array([True]),),
            r"list 0 has 2 pairs but relevance of shape \(1,\)",
        ),
        (((("u", "a"), ("u", "b")),), (np.array([False, False]),), "2 pairs, 0 of them relevant"),
        (((("u", "a"),),), (np.array([True]),), "1 pairs, 1 of them relevant"),
    ],
)
def test_a_ranking_task_that_does_not_line_up_is_refused(lists, relevant, message):
    with pytest.raises(InputError, match=message):
        RankingTask(lists, relevant)
