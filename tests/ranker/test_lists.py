"""Labelled lists know nothing of the event that labels them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import InputError
from ranker.feedback.labels import LabelledEvents
from ranker.held_out import held_out_events, held_out_sizes
from ranker.lists import labelled_lists, refused_lists
from retrieval.candidates import NO_ITEM, Requests
from retrieval.fusion import FusedRetriever, FusionConfig
from retrieval.histories import Histories
from retrieval.popularity import PopularityConfig, PopularityRetriever

N_ITEMS = 12
LOGS = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=7), min_size=1, max_size=6)


def log(users, disliked=()):
    """Items per user, oldest first; the times of all users interleave."""
    rows = np.repeat(np.arange(len(users)), [len(user) for user in users])
    items = np.array([item for user in users for item in user], np.int64)
    times = np.array([10 * place + row for row, user in enumerate(users) for place in range(len(user))], np.int64)
    weights = (~np.isin(items, disliked)).astype(np.float32)
    return Histories.from_rows(rows, items, weights, times, len(users))


def retriever(histories, depth=5):
    source = PopularityRetriever.fit(histories, N_ITEMS, PopularityConfig())
    return FusedRetriever({"popularity": source}, {"popularity": 1.0}, FusionConfig(depth=depth))


def hold_out(histories, holdout, most=100, seed=0):
    sizes = held_out_sizes(histories, holdout)
    return held_out_events(histories, sizes, most, np.random.default_rng(seed)), histories.without_latest(sizes)


@given(LOGS, st.integers(1, 3), st.integers(1, 20), st.integers(0, 3))
def test_the_newest_events_are_held_out_but_no_more_than_half(users, holdout, most, seed):
    histories = log(users)
    sizes = [min(holdout, len(user) // 2) for user in users]
    if not any(sizes):
        with pytest.raises(InputError, match=f"None of {len(users)} users has two positive events"):
            hold_out(histories, holdout, most, seed)
        return
    events, rest = hold_out(histories, holdout, most, seed)
    assert rest.lengths.tolist() == [len(user) - size for user, size in zip(users, sizes, strict=True)]
    assert len(events) <= max(most, *sizes)
    assert len(np.unique(events)) == len(events)
    for event in events:
        row = histories.rows[event]
        assert event >= histories.indptr[row + 1] - sizes[row]
        assert histories.items[event] not in histories.items[histories.indptr[row] : event]
    if most >= sum(sizes):  # nobody is left out: every fresh one of the newest is there
        expected = [
            (row, item)
            for row, user in enumerate(users)
            for place, item in enumerate(user)
            if place >= len(user) - sizes[row] and item not in user[:place]
        ]
        found = list(zip(histories.rows[events].tolist(), histories.items[events].tolist(), strict=True))
        assert found == expected


@settings(deadline=None)
@given(LOGS.filter(lambda users: any(len(user) > 1 for user in users)), st.integers(1, 8))
def test_a_list_knows_only_what_was_before_its_event(users, depth):
    histories = log(users)
    events, rest = hold_out(histories, 2)
    lists = labelled_lists(histories, events, retriever(rest, depth), N_ITEMS)
    assert len(lists) == len(events)
    own = lists.requests.histories
    for at, event in enumerate(events):
        row = histories.rows[event]
        assert lists.users[at] == row
        assert lists.chosen[at] == histories.items[event]
        known = own.items[own.indptr[at] : own.indptr[at + 1]]
        assert known.tolist() == histories.items[histories.indptr[row] : event].tolist()
        assert (own.times[own.indptr[at] : own.indptr[at + 1]] < histories.times[event]).all()
        assert not np.isin(lists.candidates.items[at], known).any()


def test_scores_do_not_depend_on_what_came_later():
    users = [[0, 1, 2, 3], [1, 2, 5, 4]]
    other = [[0, 1, 2, 9], [1, 2, 5, 11]]  # the same but for the newest event of each
    scores = []
    for each in (users, other):
        histories = log(each)
        events = np.array([2, 6])  # the last but one of each
        lists = labelled_lists(histories, events, retriever(histories.without_latest(2)), N_ITEMS)
        scores.append((lists.candidates.items, lists.candidates.by_source))
    np.testing.assert_array_equal(scores[0][0], scores[1][0])
    np.testing.assert_array_equal(scores[0][1], scores[1][1])


@pytest.fixture
def lists():
    histories = log([[0, 1, 2, 3], [4, 5, 0], [2, 2, 1, 7], [8, 9, 3]])
    events, rest = hold_out(histories, 2)
    return labelled_lists(histories, events, retriever(rest, 8), N_ITEMS)


def test_lists_that_hold_their_choice_are_cut_to_the_depth(lists):
    kept = lists.containing_choice(4)
    held = [chosen in row for chosen, row in zip(lists.chosen, lists.candidates.items[:, :4], strict=True)]
    assert 0 < len(kept) == sum(held) < len(lists)
    assert kept.candidates.items.shape[1] == 4
    np.testing.assert_array_equal(kept.chosen, lists.chosen[held])
    np.testing.assert_array_equal(kept.candidates.items, lists.candidates.items[held, :4])
    assert len(kept.requests) == len(kept)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_a_split_has_no_user_in_common_and_loses_no_list(lists, fraction):
    first, second = lists.split_by_user(fraction, np.random.default_rng(0))
    assert not set(first.users) & set(second.users)
    assert len(first) + len(second) == len(lists)
    assert len(second) > 0


def test_taken_lists_are_those_lists(lists):
    rows = np.array([3, 0, 3])
    taken = lists.take(rows)
    np.testing.assert_array_equal(taken.chosen, lists.chosen[rows])
    np.testing.assert_array_equal(taken.candidates.items, lists.candidates.items[rows])
    np.testing.assert_array_equal(taken.requests.histories.lengths, lists.requests.histories.lengths[rows])


def test_dislikes_are_read_but_never_chosen():
    histories = log([[0, 9, 1, 2, 9, 3, 10], [9, 4, 10, 5]], disliked=(9, 10))
    liked = histories.liked()
    sizes = held_out_sizes(liked, 2)
    events = held_out_events(histories, sizes, 100, np.random.default_rng(0))
    lists = labelled_lists(histories, events, retriever(liked.without_latest(sizes)), N_ITEMS)
    assert lists.chosen.tolist() == [2, 3, 5]
    own = lists.requests.histories
    known = [own.items[start:end].tolist() for start, end in zip(own.indptr, own.indptr[1:], strict=False)]
    assert known == [[0, 9, 1], [0, 9, 1, 2, 9], [9, 4, 10]]


def test_what_was_disliked_before_cannot_be_chosen_after():
    histories = log([[9, 0, 1, 2]], disliked=())
    weights = np.array([0, 1, 1, 1], np.float32)
    again = Histories.from_rows(np.zeros(4, np.int64), np.array([2, 0, 1, 2]), weights, histories.times, 1)
    assert held_out_events(again, np.array([2]), 9, np.random.default_rng(0)).tolist() == [2]


def refused(items, histories):
    users = np.arange(len(items))
    requests = Requests(histories, np.ones(N_ITEMS, np.bool_))
    return LabelledEvents(users, requests, np.array(items), np.zeros(len(items), np.float32))


def test_refused_lists_hold_the_refused_item_among_what_is_proposed():
    histories = log([[0, 1, 2], [0, 1, 3], [0, 2, 4, 5]])
    of = retriever(histories, 3)
    events = refused([3, 11, 3], log([[0, 1], [0], []]))
    lists = refused_lists(events, of, 3)
    proposed = of.union(events.requests, 3)
    assert lists.chosen.tolist() == [3, 11, 3]
    for row, item in enumerate(events.items):
        expected = proposed.items[row, :3].tolist()
        expected = expected if item in expected else [*expected[:-1], item]
        assert sorted(lists.candidates.items[row]) == sorted(expected)
    np.testing.assert_array_equal(lists.candidates.scores, np.sort(lists.candidates.scores)[:, ::-1])


def test_a_refused_item_beside_nothing_else_gives_no_list():
    histories = log([[0], [0, 1]])
    events = refused([1, 0, 5], log([[0, *range(2, N_ITEMS)], [1], [*range(5), *range(6, N_ITEMS)]]))
    lists = refused_lists(events, retriever(histories), 4)
    assert (lists.candidates.items != NO_ITEM).sum(axis=1).min(initial=9) > 1
    assert 2 not in lists.users
