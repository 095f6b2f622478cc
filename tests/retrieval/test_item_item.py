"""What the item-item sources share: how a history is scored, which weights are kept, and what is read from disk."""

import numpy as np
import pytest
from item_item_oracle import anybody, asked, events_of, scores, strongest
from scipy import sparse
from sources import ITEM_ITEM, N_ITEMS, build

from encoders.errors import ArtifactError
from retrieval.candidates import NO_ITEM
from retrieval.item_item import BLOCK_ITEMS, strongest_by_block
from retrieval.storage import load_weights, save_weights


def dense(source) -> np.ndarray:
    return source.weights.toarray() if sparse.issparse(source.weights) else np.array(source.weights)


@pytest.fixture(scope="module", params=ITEM_ITEM)
def item_item(request, histories, vectors):
    return build(request.param, histories, vectors)


def test_scores_add_up_what_each_event_says(item_item, histories):
    expected = scores(dense(item_item), histories, item_item.config, not sparse.issparse(item_item.weights))
    every = np.tile(np.arange(N_ITEMS), (len(histories), 1))
    actual = item_item.score(asked(histories, N_ITEMS), every)
    assert np.isneginf(expected).any()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_candidates_are_the_best_by_those_scores(item_item, histories):
    expected = scores(dense(item_item), histories, item_item.config, not sparse.issparse(item_item.weights))
    found = item_item.retrieve(asked(histories, N_ITEMS), 5)
    for row, of_row in enumerate(expected):
        known = of_row[of_row > 0] if sparse.issparse(item_item.weights) else of_row[of_row > -np.inf]
        best = np.sort(known)[::-1][:5]
        np.testing.assert_allclose(found.scores[row][: len(best)], best, rtol=1e-4, atol=1e-6)
        assert (found.items[row][len(best) :] == NO_ITEM).all()


def test_no_item_says_anything_of_itself(item_item):
    assert not dense(item_item).diagonal().any()


def test_a_click_changes_the_next_answer_and_nothing_else_is_kept(item_item, histories):
    row = int(np.argmax(histories.liked().lengths))
    before = [item for item, _, _ in events_of(histories, row)]
    once, again = anybody(before), anybody([*before, before[0]])
    every = np.arange(N_ITEMS)[None]
    first, second = (item_item.score(asked(one, N_ITEMS), every) for one in (once, again))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(item_item.score(asked(once, N_ITEMS), every), first)


def test_without_events_there_is_nothing_to_say(item_item, vectors):
    silent = build(item_item.name, anybody([], []), vectors)
    assert not dense(silent).any()
    assert (item_item.retrieve(asked(anybody([]), N_ITEMS), 4).items == NO_ITEM).all()


def test_a_source_that_learned_nothing_is_kept_like_any_other(item_item, vectors, tmp_path):
    silent = build(item_item.name, anybody([], []), vectors)
    silent.save(tmp_path)
    loaded = type(silent).load(tmp_path)
    assert loaded.n_items == N_ITEMS
    assert not dense(loaded).any()


def test_the_strongest_are_kept_across_blocks_and_ties_keep_lower_items():
    n_items = BLOCK_ITEMS + 40
    rng = np.random.default_rng(5)
    weights = sparse.random_array((n_items, n_items), density=0.01, rng=rng, format="csr")
    weights.data = rng.integers(-1, 4, weights.nnz).astype(np.float64)  # many ties, and some that are not above 0
    expected = weights.toarray()
    expected[expected < 0] = 0
    np.fill_diagonal(expected, 0)
    kept = strongest_by_block(n_items, 4, lambda rows: weights[rows])
    np.testing.assert_array_equal(kept.toarray(), strongest(expected, 4))
    assert kept.dtype == np.float32
    assert (kept.data > 0).all()


def test_no_items_have_no_weights():
    assert strongest_by_block(0, 4, lambda rows: sparse.csr_array((0, 0))).shape == (0, 0)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("indptr", lambda array: array[:-1]),
        ("indptr", lambda array: array[:0]),
        ("indptr", lambda array: array[::-1]),
        ("indptr", lambda array: np.concatenate([array[:1] + 1, array[1:]])),
        ("indptr", lambda array: np.concatenate([array[:1], array[:1] + 3, array[:1] + 1, array[3:]])),
        ("indptr", lambda array: array.astype(np.int32)),
        ("indices", lambda array: array[:-1]),
        ("indices", lambda array: array + 2),
        ("indices", lambda array: array - 2),
        ("indices", lambda array: array[None]),
        ("data", lambda array: array[:-1]),
        ("data", lambda array: array * np.float32(np.nan)),
        ("data", lambda array: np.full_like(array, np.inf)),
        ("data", lambda array: -array),
        ("data", lambda array: array.astype(np.float64)),
    ],
)
def test_sparse_weights_that_do_not_fit_together_are_refused(name, damage, tmp_path):
    weights = sparse.csr_array(np.array([[0, 1, 2, 0], [3, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]], np.float32))
    save_weights(weights, tmp_path)
    np.testing.assert_array_equal(load_weights(tmp_path).toarray(), weights.toarray())
    path = tmp_path / f"{name}.npy"
    np.save(path, damage(np.load(path)))
    with pytest.raises(ArtifactError, match=r"\.npy: .*[Ss]ave the engine again\."):
        load_weights(tmp_path)
