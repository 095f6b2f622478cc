"""The joint layers are given what users did last, and nothing that depends on whom they are batched with."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_joint import (
    EVENTS,
    FACTORS,
    TEXTS,
    asking,
    candidates,
    fresh_model,
    input_reader,
    item_factors,
    moved,
    requests,
    run,
    states_of,
)

from encoders.errors import InputError
from ranker.feedback import KIND_CODES, N_KINDS
from ranker.split.inputs import (
    JointInputs,
    collaborative,
    features_of,
    newest_events,
    query_tokens,
    stacked,
)
from ranker.split.model import MASKED, pooled_of
from retrieval.candidates import NO_ITEM
from retrieval.histories import LOGGED, Histories, weight_levels
from retrieval.queries import Queries


@pytest.fixture(scope="module")
def readers(encoder, tmp_path_factory):
    """Readers of TEXTS for one and for two joint layers."""
    folder = tmp_path_factory.mktemp("stores")
    return {n: input_reader(folder / str(n), encoder, fresh_model(encoder, n).shape, TEXTS) for n in (1, 2)}


@pytest.fixture
def reader(readers, joint_layers):
    return readers[joint_layers]


def lines(count, seed=0):
    """Token states (count, 32)."""
    return np.random.default_rng(seed).normal(size=(count, 32)).astype(np.float16)


LEVEL_BOUNDS = (0.0, 1.0, 2.0, 4.0, 8.0)


def level(weight):
    """A weight's level, written out."""
    return sum(weight > bound for bound in LEVEL_BOUNDS)


EVENT = st.tuples(st.integers(0, 9), st.floats(0, 100, width=32), st.integers(0, 5), st.integers(0, N_KINDS - 1))


@settings(deadline=None)
@given(st.lists(st.lists(EVENT, max_size=9), max_size=5), st.integers(1, 7))
def test_the_newest_events_of_each_user_come_newest_first(users, count):
    events = [(row, *event) for row, user in enumerate(users) for event in user]
    rows, items, weights, times, kinds = (np.array([event[at] for event in events]) for at in range(5))
    histories = Histories.from_rows(
        rows.astype(np.int64), items.astype(np.int64), weights.astype(np.float32), times.astype(np.int64), len(users),
        kinds.astype(np.uint8),
    )  # fmt: skip
    found, found_kinds, levels, bias = newest_events(histories, count)
    # sorted is stable: of two events at one time, the one given later is the newer
    newest = [sorted(user, key=lambda event: event[2])[::-1][:count] for user in users]
    width = max([1, *map(len, newest)])
    assert found.shape == found_kinds.shape == levels.shape == bias.shape == (len(users), width)
    assert (found.dtype, found_kinds.dtype, levels.dtype, bias.dtype) == (np.int64, np.int64, np.int64, np.float32)
    for row, user in enumerate(newest):
        rest = width - len(user)
        assert found[row].tolist() == [item for item, _, _, _ in user] + [NO_ITEM] * rest
        assert found_kinds[row].tolist() == [kind for _, _, _, kind in user] + [0] * rest
        assert levels[row, : len(user)].tolist() == [level(np.float32(weight)) for _, weight, _, _ in user]
        np.testing.assert_array_equal(bias[row], np.float32([0] * len(user) + [MASKED] * rest))


def test_the_level_of_a_weight_grows_once_per_doubling():
    table = {
        -1.0: 0, 0.0: 0, 0.5: 1, 1.0: 1, 1.001: 2, 2.0: 2, 2.001: 3, 4.0: 3, 4.001: 4, 8.0: 4, 8.001: 5, 16.0: 5,
        1e6: 5,
    }  # fmt: skip
    assert weight_levels(np.array(list(table), np.float32)).tolist() == list(table.values())


@given(st.lists(st.floats(0, 2.0**20, width=32), max_size=20))
def test_the_level_of_any_weight_is_the_number_of_bounds_it_is_beyond(weights):
    assert weight_levels(np.array(weights, np.float32)).tolist() == [level(weight) for weight in weights]


def test_inputs_are_the_rows_and_factors_of_the_items_they_name(reader, encoder, joint_layers):
    hidden = KIND_CODES["hide"]
    asked = requests((3, (5, 0.0, hidden)), (), (7,))
    shown = candidates([5, 9], [1, 0, 3], [8])
    inputs = reader.read(asked, shown)
    for row, user in enumerate(([5, 3], [], [7])):
        for place in range(2):
            known = place < len(user)
            text = states_of(encoder, TEXTS[user[place]], 3 - joint_layers).mean(0) if known else np.zeros(32)
            found = pooled_of(inputs.rows[inputs.event_places[row, place]], reader.shape)
            np.testing.assert_allclose(found, text, atol=2e-3)
            expected = reader.factors[user[place]] if known else np.zeros(FACTORS)
            np.testing.assert_array_equal(inputs.event_factors[row, place], expected)
    for row, items in enumerate(shown.items):
        for place, item in enumerate(items):
            if item == NO_ITEM:
                assert not inputs.places[row, place].any()
                assert not inputs.factors[row, place].any()
            else:
                np.testing.assert_array_equal(inputs.factors[row, place], reader.factors[item])
                if joint_layers > 1:
                    tokens = states_of(encoder, TEXTS[item], 3 - joint_layers)
                    places = inputs.places[row, place]
                    np.testing.assert_allclose(inputs.rows[places[: len(tokens)]], tokens, atol=2e-3)
                    assert not places[len(tokens) :].any()
    assert inputs.event_kinds.tolist() == [[hidden, LOGGED], [0, 0], [LOGGED, 0]]
    assert inputs.event_levels.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert not inputs.rows[0].any()
    np.testing.assert_array_equal(inputs.features, features_of(asked, shown))


def test_a_history_longer_than_the_limit_keeps_the_newest_events(reader):
    history = (1, 2, 3, 4, (5, 3.0), 6, 7, (8, 2.0), 9)
    assert len(history) > EVENTS
    shown = candidates([0, 10])
    whole, newest = (reader.read(requests(events), shown) for events in (history, history[-EVENTS:]))
    for field in dataclasses.fields(JointInputs):
        if field.name != "features":
            np.testing.assert_array_equal(getattr(whole, field.name), getattr(newest, field.name))
    np.testing.assert_array_equal(whole.features[..., :-1], newest.features[..., :-1])
    assert (whole.features[..., -1] > newest.features[..., -1]).all()  # how much is known is not cut
    assert whole.event_levels.tolist() == [[1, 2, 1, 1, 3, 1]]


def test_features_that_are_given_stand_for_the_candidates_own_scores(reader):
    asked, shown = requests((3,), (4,)), candidates([5, 9], [1, 0])
    given_features = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    inputs = reader.read(asked, shown, given_features)
    np.testing.assert_array_equal(inputs.features, given_features)


def test_scores_are_standardised_among_a_requests_candidates():
    shown = candidates([5, 9, 2], [1])
    features = features_of(requests((3,), (4,)), shown)
    every = np.concatenate([shown.scores[0][:, None], shown.by_source[0]], axis=1)
    np.testing.assert_allclose(features[0, :, :3], (every - every.mean(0)) / every.std(0), rtol=1e-5)
    assert not features[1, :, :3].any()  # a single candidate is like all of them


def test_ranks_are_told_of_every_source_and_a_silent_one_ranks_last():
    shown = candidates([5, 9, 2], [1, 4, 7])
    silent = shown.by_source.copy()
    silent[1, 2, 0] = -np.inf
    features = features_of(requests((3,), (4,)), dataclasses.replace(shown, by_source=silent))
    every = np.concatenate([shown.scores[:, :, None], silent], axis=2)
    for user, feature in np.ndindex(2, 3):
        better = (every[user, :, None, feature] < every[user, None, :, feature]).sum(axis=1)
        np.testing.assert_allclose(features[user, :, 3 + feature], -np.log1p(better), rtol=1e-6)


def test_how_many_signs_of_liking_are_known_is_told_of_every_candidate():
    asked = requests((3, (5, 0.0, KIND_CODES["hide"]), 7), (), (1,))
    features = features_of(asked, candidates([5, 9, 2], [1, 4], [2]))
    expected = np.log([[3], [1], [2]]) / np.log(1001)
    np.testing.assert_allclose(features[..., -1], np.repeat(expected, 3, axis=1), rtol=1e-6)


def test_an_item_without_a_store_row_is_an_error(reader):
    for asked, shown in (((3,), [5, len(TEXTS)]), ((3, len(TEXTS)), [5, 9])):
        with pytest.raises(InputError, match=rf"Item {len(TEXTS)} is not in the store .*holds {len(TEXTS)} items"):
            reader.read(requests(asked), candidates(shown))


def test_requests_of_nothing_but_empty_places_are_scored_all_the_same(reader, encoder, joint_layers):
    model = moved(fresh_model(encoder, joint_layers))
    for history in ((3, 5), ()):
        logits = run(model, reader.read(requests(history), candidates([], width=2))).logits
        assert logits.shape == (1, 2)
        assert np.isfinite(logits).all()


def test_inputs_stacked_score_as_they_do_apart(reader, encoder, joint_layers):
    model = moved(fresh_model(encoder, joint_layers))
    shown = [
        (requests((3, (5, 6.0), 7)), candidates([5, 9, 11])),
        (requests(()), candidates([6], seed=1)),
        (requests((1, 2), (4, 3, 2, 1, 0)), candidates([1, 0, 3, 4, 8], [7, 6], seed=2)),
        (requests((9,)), candidates([], width=1)),
        (asking(requests((2,), ()), lines(3, seed=1), lines(5, seed=2)), candidates([1, 0], [3, 2], seed=3)),
        (asking(requests((4,)), lines(1, seed=3)), candidates([7, 2, 1], seed=4)),
    ]
    parts = [reader.read(*given_to) for given_to in shown]
    whole = run(model, stacked(parts)).logits
    start = 0
    for part, (_, of) in zip(parts, shown, strict=True):
        alone = run(model, part).logits
        users, count = alone.shape
        known = of.items != NO_ITEM
        found = whole[start : start + users, :count]
        np.testing.assert_allclose(found[known], alone[known], atol=1e-5)
        start += users
    assert start == len(whole)
    assert np.isfinite(whole).all()


def test_stacking_one_changes_nothing(reader):
    asked, shown = requests((3, 5), ()), candidates([5, 9], [1])
    for inputs in (reader.read(asked, shown), reader.read(asking(asked, lines(2), lines(4)), shown)):
        for field in dataclasses.fields(JointInputs):
            after, before = getattr(stacked([inputs]), field.name), getattr(inputs, field.name)
            assert after.dtype == before.dtype
            np.testing.assert_array_equal(after, before)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 7), st.booleans())
def test_the_first_tokens_of_each_query_are_read(lengths, most, with_states):
    shape = SimpleNamespace(max_tokens=most, layer=SimpleNamespace(dim=3))
    states = np.random.default_rng(0).normal(size=(len(lengths), max(lengths), 3)).astype(np.float16)
    queries = Queries(np.ones((len(lengths), 3), np.float32), states, np.array(lengths))
    if not with_states:
        queries = Queries.without_states(queries.vectors)
        lengths = [0] * len(lengths)
    asked = dataclasses.replace(requests(*[()] * len(lengths)), queries=queries)
    found, bias = query_tokens(asked, shape)
    width = min(most, max(lengths))
    assert found.shape == (len(lengths), width, 3)
    assert bias.shape == (len(lengths), width)
    assert (found.dtype, bias.dtype) == (np.float16, np.float32)
    for row, length in enumerate(lengths):
        kept = min(most, length)
        np.testing.assert_array_equal(found[row, :kept], states[row, :kept])
        assert not found[row, kept:].any()
        np.testing.assert_array_equal(bias[row], np.float32([0] * kept + [MASKED] * (width - kept)))


def test_queries_that_another_encoder_read_are_an_error(reader):
    asked = asking(requests((3,)), np.ones((2, 31)))
    with pytest.raises(InputError, match="states have length 31, the joint layers' 32"):
        reader.read(asked, candidates([5, 9]))


def test_reading_leaves_requests_candidates_and_factors_as_they_are(reader):
    asked, shown = requests((3, (5, 0.0), (6, 2.0)), (), (7, 8)), candidates([5, 9], [1, 0, 3], [8])
    asked = asking(asked, lines(2), lines(2), lines(2))  # none is padding, which would be a copy in any case
    histories = asked.histories
    arrays = [
        asked.queries.states,
        histories.items,
        histories.weights,
        shown.items,
        shown.scores,
        shown.by_source,
        reader.factors,
    ]
    copies = [array.copy() for array in arrays]
    inputs = reader.read(asked, shown)
    for field in dataclasses.fields(JointInputs):
        getattr(inputs, field.name)[...] = 7  # what is read may be written to, and is nobody else's
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_collaborative_vectors_have_a_mean_length_of_one_in_any_scale(scale):
    factors = item_factors(20)
    scaled = collaborative(np.float32(scale) * factors)
    np.testing.assert_allclose(scaled, factors / np.linalg.norm(factors, axis=1).mean(), rtol=1e-4)
    assert scaled.dtype == np.float32
    assert np.isfinite(collaborative(np.zeros((3, 2), np.float32))).all()
