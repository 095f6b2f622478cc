"""Splits: rows are kept, time runs one way, and ties do not shake the result."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import InputError
from ranker.evaluation import Split, global_temporal, leave_one_out

# few users and few instants, so that ties are the rule
LOGS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=40)


def log(events: list[tuple[int, int]]) -> pd.DataFrame:
    users, seconds = np.array(events).T
    return pd.DataFrame(
        {
            "user_id": users,
            "item_id": np.arange(len(events)),
            "datetime": seconds.astype("datetime64[s]").astype("datetime64[us]"),
        },
        index=np.arange(len(events))[::-1] + 100,  # labels that are no positions
    )


def assert_partition(interactions: pd.DataFrame, split: Split) -> None:
    together = pd.concat([split.train, split.test])
    pd.testing.assert_frame_equal(together.loc[interactions.index], interactions)
    assert len(together) == len(interactions)


@settings(deadline=None)
@given(LOGS, st.integers(1, 3))
def test_leave_one_out_takes_each_users_last_events_in_stable_time_order(
    events: list[tuple[int, int]], holdout: int
) -> None:
    interactions = log(events)
    expected: list[int] = []  # the oracle: plain Python, one user after the other
    for user in range(5):
        own = [(second, row) for row, (who, second) in enumerate(events) if who == user]
        expected += [row for _, row in sorted(own)[-holdout:]] if len(own) > holdout else []
    if not expected:
        with pytest.raises(InputError, match="No user has more than"):
            leave_one_out(interactions, holdout=holdout)
        return
    before = interactions.copy(deep=True)
    split = leave_one_out(interactions, holdout=holdout)
    assert set(split.test["item_id"]) == set(expected)
    assert_partition(interactions, split)
    pd.testing.assert_frame_equal(interactions, before)
    for part in (split.train, split.test):
        order = list(zip(part["datetime"], part["item_id"], strict=True))
        assert order == sorted(order)


@settings(deadline=None)
@given(LOGS, st.floats(0.01, 0.99))
def test_global_temporal_never_trains_on_the_future(events: list[tuple[int, int]], test_fraction: float) -> None:
    interactions = log(events)
    before = interactions.copy(deep=True)
    try:
        split = global_temporal(interactions, test_fraction)
    except InputError:
        seconds = sorted(second for _, second in events)
        assert seconds[len(seconds) - int(np.ceil(test_fraction * len(seconds)))] == seconds[0]
        return
    assert split.train["datetime"].max() < split.test["datetime"].min()
    assert len(split.test) >= test_fraction * len(interactions)
    # no later cut holds out enough
    later = split.test[split.test["datetime"] > split.test["datetime"].min()]
    assert len(later) < test_fraction * len(interactions)
    assert_partition(interactions, split)
    pd.testing.assert_frame_equal(interactions, before)


@settings(deadline=None)
@given(LOGS)
def test_a_split_repeats_itself(events: list[tuple[int, int]]) -> None:
    interactions = log([*events, (0, 0), (0, 9)])
    first, second = leave_one_out(interactions), leave_one_out(interactions)
    pd.testing.assert_frame_equal(first.test, second.test)
    pd.testing.assert_frame_equal(first.train, second.train)


def test_ties_keep_their_order_however_many_they_are() -> None:
    seconds = np.random.default_rng(0).integers(0, 3, 2_000)  # long enough for an unstable sort to show
    split = leave_one_out(log([(0, int(second)) for second in seconds]), holdout=500)
    in_order = sorted(range(2_000), key=lambda row: seconds[row])
    assert split.train["item_id"].tolist() == in_order[:-500]
    assert split.test["item_id"].tolist() == in_order[-500:]


def test_events_at_the_cut_go_to_test() -> None:
    split = global_temporal(log([(0, 1), (1, 2), (2, 2), (3, 2)]), test_fraction=0.25)
    assert split.test["item_id"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_a_test_fraction_outside_zero_to_one_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="test_fraction"):
        global_temporal(log([(0, 1), (0, 2)]), fraction)


def test_what_cannot_be_split_is_refused_with_a_reason() -> None:
    interactions = log([(0, 1), (0, 2)])
    with pytest.raises(InputError, match="holdout is 0"):
        leave_one_out(interactions, holdout=0)
    with pytest.raises(InputError, match="no column datetime; it has user_id, item_id"):
        leave_one_out(interactions.drop(columns="datetime"))
    with pytest.raises(InputError, match="no rows"):
        global_temporal(interactions.iloc[:0])
    with pytest.raises(InputError, match="1 of 2 interactions have no datetime"):
        global_temporal(interactions.assign(datetime=[pd.NaT, pd.Timestamp(0)]))
