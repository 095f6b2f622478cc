"""What every source of candidates keeps, the fused ones included."""

import numpy as np
import pytest
from sources import ITEM_ITEM, NEW, build
from tests_support import same_ranking

from encoders.errors import ArtifactError
from retrieval.candidates import NO_ITEM, Requests
from retrieval.fusion import FusedRetriever
from retrieval.histories import Histories
from retrieval.queries import Queries


def test_a_batch_equals_its_rows_one_by_one(source, requests_):
    batch = source.retrieve(requests_, 10)
    for row in range(len(requests_)):
        alone = source.retrieve(requests_.take(np.array([row])), 10)
        same_ranking(alone.items[0], alone.scores[0], batch.items[row], batch.scores[row])


def test_candidates_are_allowed_unseen_distinct_and_best_first(source, requests_):
    found = source.retrieve(requests_, 15)
    histories = requests_.histories
    for row in range(len(requests_)):
        items = found.items[row][found.items[row] != NO_ITEM]
        seen = histories.items[histories.indptr[row] : histories.indptr[row + 1]]
        assert len(set(items)) == len(items)
        assert requests_.allowed[items].all()
        assert not np.isin(items, seen).any()
        assert (np.diff(found.scores[row][: len(items)]) <= 0).all()


def test_seen_items_return_when_asked_for(source, requests_):
    open_requests = Requests(requests_.histories, np.ones_like(requests_.allowed), exclude_seen=False)
    found = source.retrieve(open_requests, len(requests_.allowed)).items
    histories = requests_.histories
    seen_again = [np.isin(histories.items[histories.rows == row], found[row]).any() for row in range(2, len(found))]
    assert np.mean(seen_again) > 0.9


def test_empty_places_are_marked_and_at_the_end(source, requests_):
    found = source.retrieve(requests_, len(requests_.allowed))
    empty = found.items == NO_ITEM
    assert empty[:, -1].all()  # two items are not allowed, so no row can be full
    assert np.isneginf(found.scores[empty]).all()
    assert np.isfinite(found.scores[~empty]).all()
    assert (np.diff(empty.astype(int), axis=1) >= 0).all()


def test_retrieved_scores_are_the_scores_of_those_items(source, requests_):
    # fused scores compare within one set of items only, so all that were fused are needed
    found = source.union(requests_, 10) if isinstance(source, FusedRetriever) else source.retrieve(requests_, 10)
    scores = source.score(requests_, found.items)
    np.testing.assert_allclose(scores, found.scores, rtol=1e-4, atol=1e-5)


def test_a_user_without_a_positive_event_gets_nothing_or_what_is_popular(source, requests_):
    nobody = requests_.take(np.array([0, 1]))
    found = source.retrieve(nobody, 5)
    knows_popularity = isinstance(source, FusedRetriever) or hasattr(source, "item_scores")
    assert (found.items == NO_ITEM).all() != knows_popularity


def test_inputs_are_left_unchanged(source, requests_):
    histories = requests_.histories
    before = [array.copy() for array in (histories.items, histories.weights, histories.times, requests_.allowed)]
    source.retrieve(requests_, 10)
    source.score(requests_, np.zeros((len(requests_), 2), np.int64))
    after = (histories.items, histories.weights, histories.times, requests_.allowed)
    assert all((one == other).all() for one, other in zip(before, after, strict=True))


def test_no_requests_give_no_candidates(source, requests_):
    found = source.retrieve(Requests(Histories.empty(0), requests_.allowed), 4)
    assert found.items.shape == (0, 4)


def test_save_and_load_give_equal_answers(source, requests_, tmp_path):
    if isinstance(source, FusedRetriever):
        sources = {}
        for name, part in source.sources.items():
            (tmp_path / name).mkdir()
            part.save(tmp_path / name)
            sources[name] = type(part).load(tmp_path / name)
        loaded = FusedRetriever(sources, source.weights, source.config)
    else:
        source.save(tmp_path)
        loaded = type(source).load(tmp_path)
    before, after = source.retrieve(requests_, 10), loaded.retrieve(requests_, 10)
    np.testing.assert_array_equal(before.items, after.items)
    np.testing.assert_array_equal(before.scores, after.scores)


def test_a_damaged_file_is_named(source, tmp_path):
    parts = source.sources.values() if isinstance(source, FusedRetriever) else [source]
    for part in parts:
        folder = tmp_path / type(part).__name__
        folder.mkdir()
        part.save(folder)
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 3])
            with pytest.raises(ArtifactError, match=path.name):
                type(part).load(folder)
            path.write_bytes(content)


def test_a_query_is_answered_by_text_alone_and_ordered_by_all(vectors, requests_, histories):
    fused = build("fused", histories, vectors)
    queries = vectors[np.arange(len(requests_)) % len(vectors)]
    asked = Requests(histories, requests_.allowed, queries=Queries.without_states(queries))
    union = fused.union(asked, 5)
    proposed = fused.sources["text"].retrieve(asked, fused.config.depth).items
    for row in range(len(asked)):
        assert set(union.items[row]) - {NO_ITEM} == set(proposed[row]) - {NO_ITEM}


@pytest.mark.parametrize("name", ["als", *ITEM_ITEM])
def test_of_an_item_that_nobody_took_a_collaborative_source_says_nothing(name, without, vectors):
    source = build(name, without, vectors)
    everything = Requests(without, np.ones(source.n_items, np.bool_))
    assert not np.isin(source.retrieve(everything, source.n_items).items, NEW).any()
    every = np.tile(np.arange(source.n_items), (len(without), 1))
    said = np.isfinite(source.score(everything, every))
    assert not said[:, NEW].any()
    assert said[without.liked().lengths > 0].any(axis=1).all()
