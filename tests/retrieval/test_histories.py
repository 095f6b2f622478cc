import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.errors import InputError
from retrieval.histories import LOGGED, Histories

rows_of_events = st.lists(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([0.0, 1.0, 2.0]), st.integers(0, 4), st.integers(0, 3)), max_size=6
    ),
    max_size=5,
)


def from_lists(users: list[list[tuple[int, float, int, int]]]) -> Histories:
    loose = [(row, *event) for row, events in enumerate(users) for event in events]
    rows, items, weights, times, kinds = (np.array([e[i] for e in loose]) for i in range(5))
    as_int = lambda values: values.astype(np.int64)  # noqa: E731
    return Histories.from_rows(
        as_int(rows), as_int(items), weights.astype(np.float32), as_int(times), len(users), kinds.astype(np.uint8)
    )


def rows(histories: Histories) -> list[list[tuple[int, float, int, int]]]:
    bounds = zip(histories.indptr[:-1], histories.indptr[1:], strict=True)
    events = list(zip(histories.items, histories.weights, histories.times, histories.kinds, strict=True))
    return [events[start:stop] for start, stop in bounds]


@given(rows_of_events)
def test_rows_are_in_time_order_and_ties_keep_the_order_given(users):
    expected = [sorted(events, key=lambda event: event[2]) for events in users]
    assert rows(from_lists(users)) == expected


@given(rows_of_events, st.data())
def test_taken_rows_are_those_rows(users, data):
    chosen = data.draw(st.lists(st.integers(0, len(users) - 1), max_size=6)) if users else []
    histories = from_lists(users)
    assert rows(histories.take(np.array(chosen, np.int64))) == [rows(histories)[row] for row in chosen]


@given(rows_of_events, st.data())
def test_until_a_moment_is_what_came_before_it(users, data):
    moment = st.tuples(st.integers(0, len(users) - 1), st.integers(-1, 6))
    moments = data.draw(st.lists(moment, max_size=6)) if users else []
    histories = from_lists(users)
    at, times = np.array(moments, np.int64).reshape(-1, 2).T
    expected = [[event for event in rows(histories)[row] if event[2] < time] for row, time in moments]
    assert rows(histories.until(at, times)) == expected


@given(rows_of_events, st.integers(-2, 9))
def test_a_pause_is_the_time_since_the_newest_event(users, now):
    expected = [(now - max(event[2] for event in events)) / 1e6 if events else np.nan for events in users]
    np.testing.assert_array_equal(from_lists(users).pauses(now), np.array(expected, np.float64))


@given(rows_of_events, st.integers(1, 7))
def test_latest_and_the_rest_make_the_whole(users, n):
    histories = from_lists(users)
    pairs = zip(rows(histories.without_latest(n)), rows(histories.latest(n)), strict=True)
    assert [rest + latest for rest, latest in pairs] == rows(histories)
    assert all(len(latest) <= n for latest in rows(histories.latest(n)))


@given(rows_of_events)
def test_liked_events_are_the_positive_ones(users):
    histories = from_lists(users)
    assert rows(histories.liked()) == [[e for e in events if e[1] > 0] for events in rows(histories)]


@given(rows_of_events)
def test_before_an_event_lies_what_its_user_did_earlier(users):
    histories = from_lists(users)
    expected = [events[:at] for events in rows(histories) for at in range(len(events))]
    assert rows(histories.before(np.arange(len(histories.items)))) == expected


def test_recency_halves_every_half_life():
    histories = from_lists([[(0, 1.0, t, 0) for t in range(4)], [(1, 1.0, 0, 0)]])
    np.testing.assert_allclose(histories.recency(1.0), [1 / 8, 1 / 4, 1 / 2, 1, 1])
    assert (histories.recency(None) == 1).all()


@given(rows_of_events)
def test_the_matrix_adds_up_repeated_items_and_leaves_the_history_alone(users):
    histories = from_lists(users)
    before = rows(histories)
    expected = np.zeros((len(users), 6), np.float32)
    np.add.at(expected, (histories.rows, histories.items), histories.weights)
    np.testing.assert_array_equal(histories.matrix(histories.weights, 6).toarray(), expected)
    assert rows(histories) == before


@pytest.mark.parametrize("short", range(4))
def test_arrays_that_do_not_line_up_are_refused(short):
    kinds = (np.int64, np.float32, np.int64, np.uint8)
    arrays = [np.zeros(2 if at == short else 3, kind) for at, kind in enumerate(kinds)]
    lengths = [len(array) for array in arrays]
    with pytest.raises(InputError, match="{} items, {} weights, {} times and {} kinds".format(*lengths)):
        Histories(np.array([0, 3]), *arrays)


def test_events_without_a_kind_are_logged_ones():
    histories = Histories.from_rows(np.zeros(2, np.int64), np.arange(2), np.ones(2), np.arange(2), 1)
    assert histories.kinds.tolist() == [LOGGED, LOGGED]
    assert histories.kinds.dtype == np.uint8
