"""Lists with queries are known-item searches: the user's own moments, and what the query would have shown them."""

import dataclasses

import numpy as np
import pytest
import tiny_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_joint import states_of

from encoders import TextEncoder, TextEncoderConfig
from encoders.errors import ConfigError, InputError
from ranker import EngineConfig
from ranker.config import JointTrainingConfig, SplitConfig
from ranker.held_out import held_out_events, held_out_sizes
from ranker.lists import labelled_lists
from ranker.split.queries import known_item_lists, read_queries
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.fusion import FusedRetriever, FusionConfig
from retrieval.interactions import Interactions
from retrieval.popularity import PopularityConfig, PopularityRetriever
from retrieval.queries import Queries
from retrieval.text import TextConfig, TextRetriever

LOWER, MAX_TOKENS, DEPTH = 2, 16, 8
ALL = tiny_engine.N_ITEMS


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return TextEncoder.load(checkpoint, TextEncoderConfig(max_tokens=32, batch_size=16, device="cpu"))


@pytest.fixture(scope="module")
def catalogue():
    """Every seventh item has a blank title."""
    items = tiny_engine.items()
    items.loc[::7, "title"] = " "
    return Catalogue(items)


@pytest.fixture(scope="module")
def retriever(encoder, catalogue):
    histories = Interactions.from_frame(tiny_engine.interactions(), catalogue).histories
    sources = {
        "text": TextRetriever.fit(encoder.encode(catalogue.texts), TextConfig(), 0),
        "popularity": PopularityRetriever.fit(histories, ALL, PopularityConfig()),
    }
    return FusedRetriever(sources, {"text": 1.0, "popularity": 0.5}, FusionConfig(depth=15))


@pytest.fixture(scope="module")
def lists(catalogue, retriever):
    histories = Interactions.from_frame(tiny_engine.interactions(), catalogue).histories
    events = held_out_events(histories, held_out_sizes(histories, 2), 999, np.random.default_rng(0))
    return labelled_lists(histories, events, retriever, ALL)


def config(share):
    return SplitConfig(depth=DEPTH, max_tokens=MAX_TOKENS, training=JointTrainingConfig(queries=share))


class Unread:
    """An encoder that may not be asked."""

    def read(self, texts, lower_layers):
        raise AssertionError("texts are read")


@settings(deadline=None, max_examples=15)
@given(st.floats(0, 0.99), st.integers(0, 2**32 - 1))
def test_some_lists_become_searches_for_the_title_of_what_was_chosen(lists, retriever, encoder, catalogue, share, seed):
    found = known_item_lists(lists, retriever, encoder, LOWER, catalogue, config(share), seed)
    assert len(found) <= round(share * len(lists))
    moments = {
        (user, chosen): lists.requests.histories.items[slice(*lists.requests.histories.indptr[row : row + 2])].tolist()
        for row, (user, chosen) in enumerate(zip(lists.users, lists.chosen, strict=True))
    }
    asked = found.requests.histories
    for row, (user, chosen) in enumerate(zip(found.users, found.chosen, strict=True)):
        assert asked.items[slice(*asked.indptr[row : row + 2])].tolist() == moments.pop((user, chosen))  # each once
        assert catalogue.titles[chosen].strip()
        assert chosen in found.candidates.items[row]
    if not len(found):
        return
    assert found.candidates.items.shape[1] == DEPTH
    vectors = encoder.encode([catalogue.titles[item] for item in found.chosen])
    requests = Requests(asked, np.ones(ALL, np.bool_), queries=Queries.without_states(vectors))
    shown = retriever.retrieve(requests, DEPTH)
    np.testing.assert_allclose(found.candidates.scores, shown.scores, atol=1e-4)
    np.testing.assert_allclose(found.candidates.by_source, shown.by_source, atol=1e-4)


def test_every_list_that_can_be_a_search_is_one_at_the_largest_share(lists, retriever, encoder, catalogue):
    found = known_item_lists(lists, retriever, encoder, LOWER, catalogue, config(0.999), 0)
    titles = [catalogue.titles[item] for item in lists.chosen]
    vectors = encoder.encode(titles)
    requests = dataclasses.replace(lists.requests, queries=Queries.without_states(vectors))
    shown = retriever.retrieve(requests, DEPTH).items
    able = [bool(title.strip()) for title in titles] & (shown == lists.chosen[:, None]).any(axis=1)
    assert 0 < able.sum() < len(lists)
    assert set(zip(found.users, found.chosen, strict=True)) == set(
        zip(lists.users[able], lists.chosen[able], strict=True)
    )


@given(st.integers(0, 2**32 - 1))
def test_a_share_of_none_makes_no_list_and_reads_no_text(lists, retriever, catalogue, seed):
    found = known_item_lists(lists, retriever, Unread(), LOWER, catalogue, config(0), seed)
    assert len(found) == 0
    assert found.requests.queries is None


def test_an_engine_that_cannot_be_searched_makes_none(lists, retriever, catalogue):
    only = FusedRetriever({"popularity": retriever.sources["popularity"]}, {"popularity": 1.0}, FusionConfig())
    assert len(known_item_lists(lists, only, Unread(), LOWER, catalogue, config(0.5), 0)) == 0


def test_items_without_a_title_make_none(lists, retriever, catalogue):
    untitled = Catalogue(catalogue.frame.assign(title="\t"))
    assert len(known_item_lists(lists, retriever, Unread(), LOWER, untitled, config(0.9), 0)) == 0


def test_the_users_who_measure_are_not_those_whose_lists_are_searched(lists, retriever, encoder, catalogue):
    """One list a user: were the draws the same, all searches would be on one side of the split."""
    first = lists.take(np.unique(lists.users, return_index=True)[1])
    found = known_item_lists(first, retriever, encoder, LOWER, catalogue, config(0.5), 0)
    train, validation = first.split_by_user(0.5, np.random.default_rng(0))
    sides = [np.isin(found.users, side.users).mean() for side in (train, validation)]
    assert min(sides) > 0.2


def test_queries_are_what_the_encoder_makes_of_them(encoder):
    texts = ["old river", "red robot war city", "cat", "river " * 40]
    queries = read_queries(encoder, texts, LOWER, MAX_TOKENS)
    np.testing.assert_allclose(queries.vectors, encoder.encode(texts), atol=1e-5)
    assert queries.states.dtype == np.float16
    assert queries.states.shape == (4, MAX_TOKENS, 32)
    for row, text in enumerate(texts):
        states = states_of(encoder, text, LOWER)[:MAX_TOKENS]
        assert queries.lengths[row] == len(states)
        np.testing.assert_allclose(queries.states[row, : len(states)], states, atol=4e-3)


def test_queries_are_taken_row_by_row(encoder):
    queries = read_queries(encoder, ["old river", "cat", "dog winter night"], LOWER, MAX_TOKENS)
    taken = queries.take(np.array([2, 0, 2]))
    for name in ("vectors", "states", "lengths"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(queries, name)[[2, 0, 2]])
    assert len(taken) == 3
    assert read_queries(encoder, [], LOWER, MAX_TOKENS).states.shape == (0, 0, 32)
    with pytest.raises(InputError, match="do not line up"):
        Queries(queries.vectors, queries.states, queries.lengths[:2])


@pytest.mark.parametrize("share", [-0.1, 1, 2])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ConfigError, match=r"rerank\.split\.training\.queries"):
        EngineConfig.from_dict({"rerank": {"split": {"training": {"queries": share}}}})
