"""The re-ranker re-orders: it adds, drops and forgets nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders import PairCrossEncoder, PairCrossEncoderConfig
from ranker.pair.reranker import Blend, PairReranker, PairTexts
from ranker.reranker import Gain, KeepOrder
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.fusion import standardised
from retrieval.histories import Histories

N_ITEMS = 30
SERVES, SERVES_NOT = Gain(0.1, 0.01), Gain(0.1, 0.2)
TEXTS = [f"{word} {n}" for n, word in zip(range(N_ITEMS), ["red", "cat", "river", "old", "night"] * 6, strict=True)]
TITLES = [f"title {n}" for n in range(N_ITEMS)]


@pytest.fixture(scope="module")
def cross_encoder(checkpoint):
    config = PairCrossEncoderConfig(max_tokens=32, batch_size=8, layers=1, device="cpu")
    return PairCrossEncoder.load(checkpoint, config, seed=3)


def requests(*histories):
    """Requests of users who liked these items, oldest first; a negative number is one that was disliked."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    events = np.array([item for history in histories for item in history], np.int64)
    table = Histories.from_rows(
        rows, np.abs(events), (events >= 0).astype(np.float32), np.arange(len(events)), len(histories)
    )
    return Requests(table, np.ones(N_ITEMS, np.bool_))


def candidates(rows, k):
    """Candidates with falling scores, padded to k."""
    items = np.full((len(rows), k), NO_ITEM)
    scores = np.full((len(rows), k), -np.inf, np.float32)
    for at, row in enumerate(rows):
        items[at, : len(row)] = row
        scores[at, : len(row)] = np.linspace(3, -2, len(row)) if len(row) else []
    return Candidates(items, scores, np.stack([scores, 2 * scores], axis=2), ("a", "b"))


ROWS = st.lists(
    st.permutations(range(N_ITEMS)).flatmap(lambda p: st.integers(0, 12).map(lambda n: p[:n])), min_size=1, max_size=3
)
WEIGHTS = st.sampled_from([0.0, 0.3, 1.0])


@settings(deadline=None, max_examples=40)
@given(ROWS, st.integers(1, 15), WEIGHTS, WEIGHTS, st.data())
def test_the_order_is_the_blend_and_nothing_is_added_or_dropped(cross_encoder, rows, depth, fused, logit, data):
    k = max(1, max(map(len, rows)) + data.draw(st.integers(0, 2)))
    asked = requests(*[data.draw(st.lists(st.integers(1, N_ITEMS - 1), max_size=4)) for _ in rows])
    before = candidates(rows, k)
    reranker = PairReranker(cross_encoder, PairTexts(TITLES, TEXTS, 3), depth, Blend(fused, logit), SERVES)
    after = reranker.rerank(asked, before)
    assert after.items.shape == before.items.shape
    logits = reranker.logits(asked, before.items)
    for row, items in enumerate(rows):
        found = after.items[row]
        assert sorted(found[: len(items)]) == sorted(items)
        assert (found[len(items) :] == NO_ITEM).all()
        assert np.isneginf(after.scores[row, len(items) :]).all()
        assert np.isfinite(after.scores[row, : len(items)]).all()
        assert (np.diff(after.scores[row, : len(items)]) <= 0).all()
        head = items[:depth]
        assert set(found[: len(head)]) == set(head)  # what was not scored stays below
        assert found[len(head) : len(items)].tolist() == items[depth:]  # in its fused order
        place = {item: at for at, item in enumerate(before.items[row])}
        own = [place[item] for item in found[: len(items)]]
        np.testing.assert_array_equal(after.by_source[row, : len(items)], before.by_source[row, own])
        opinions = np.stack([before.scores[row, : len(head)], logits[row, : len(head)]], axis=1)[None]
        blend = standardised(opinions)[0] @ np.array([fused, logit], np.float32)
        if (blend != 0).any():
            np.testing.assert_allclose(after.scores[row, : len(head)], np.sort(blend)[::-1], atol=1e-5)
        else:
            assert found[: len(head)].tolist() == head


def test_a_cross_encoder_that_does_not_serve_is_not_asked():
    before = candidates([[7, 3, 22]], 4)
    nobody = None  # would fail at the first pair
    after = PairReranker(nobody, PairTexts(TITLES, TEXTS, 3), 4, Blend(), SERVES_NOT).rerank(requests([1]), before)
    np.testing.assert_array_equal(after.items, before.items)
    np.testing.assert_array_equal(after.scores, before.scores)


@pytest.mark.parametrize("blend", [Blend(1, 1), Blend(0, 1), Blend(1, 0), Blend(0, 0)])
def test_users_without_context_keep_the_fused_order(cross_encoder, blend):
    row = [7, 3, 22, 9, 1, 14]
    reranker = PairReranker(cross_encoder, PairTexts(TITLES, TEXTS, 3), 4, blend, SERVES)
    after = reranker.rerank(requests([], [-5]), candidates([row, row], 8))  # no event, and no positive one
    assert after.items[:, :6].tolist() == [row, row]


def test_the_context_holds_the_newest_liked_titles_newest_first():
    texts = PairTexts(TITLES, TEXTS, 2)
    assert texts.contexts(requests([4, 5, -6, 7], [], [3])) == ["title 7; title 5", "", "title 3"]


def test_a_batch_equals_its_rows_and_inputs_are_left_unchanged(cross_encoder):
    asked = requests([1, 2], [], [3])
    before = candidates([[5, 9, 11, 20], [7, 8], [25, 2, 4, 6, 9]], 6)
    copies = [array.copy() for array in (before.items, before.scores, before.by_source)]
    reranker = PairReranker(cross_encoder, PairTexts(TITLES, TEXTS, 3), 3, Blend(0.5, 1), SERVES)
    batch = reranker.rerank(asked, before)
    for row in range(3):
        part = slice(row, row + 1)
        one = Candidates(before.items[part], before.scores[part], before.by_source[part], before.sources)
        alone = reranker.rerank(asked.take(np.array([row])), one)
        np.testing.assert_array_equal(alone.items[0], batch.items[row])
        np.testing.assert_allclose(alone.scores[0], batch.scores[row], rtol=1e-5)
    for array, copy in zip((before.items, before.scores, before.by_source), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_without_a_cross_encoder_the_fused_order_stands():
    before = candidates([[5, 9], [7]], 3)
    assert KeepOrder().rerank(requests([1], []), before) is before
