"""Histories that grow: every event in its place, for every reader."""

import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import ArtifactError, InputError
from ranker.feedback import N_KINDS
from ranker.users import UserHistories
from retrieval.histories import Histories
from retrieval.ids import UNKNOWN, IdMap
from retrieval.interactions import Interactions

EVENT = st.tuples(st.integers(0, 5), st.integers(0, 9), st.floats(0, 5, width=32), st.integers(0, 6), st.integers(0, 3))


def base(events, n_users=3):
    types = (np.int64, np.int64, np.float32, np.int64, np.uint8)
    columns = zip(*events, strict=True) if events else [[]] * 5
    *columns, kinds = (np.array(column, kind) for column, kind in zip(columns, types, strict=True))
    histories = Histories.from_rows(*columns, n_users, kinds)
    return UserHistories(Interactions(IdMap(range(n_users)), histories))


def extend(users, events):
    ids, items, weights, times, kinds = zip(*events, strict=True)
    users.extend(list(ids), np.array(items), np.array(weights, np.float32), np.array(times), np.array(kinds, np.uint8))


@settings(deadline=None)
@given(st.lists(EVENT.filter(lambda event: event[0] < 3)), st.lists(st.lists(EVENT, min_size=1), max_size=4))
def test_a_history_is_the_log_and_every_event_since_in_stable_time_order(old, batches):
    users = base(old)
    for batch in batches:
        extend(users, batch)
    asked = [5, 0, 2, 4, 1, 3]
    histories = users.histories(asked)
    had = {(user, item, time) for user, item, _, time, _ in old}
    newer = [e for batch in batches for e in batch if (e[0], e[1], e[3]) not in had]  # what the log gave is not doubled
    everything = [*old, *newer]
    for row, user in enumerate(asked):
        expected = sorted((event for event in everything if event[0] == user), key=lambda event: event[3])
        part = slice(histories.indptr[row], histories.indptr[row + 1])
        assert histories.items[part].tolist() == [event[1] for event in expected]
        assert histories.weights[part].tolist() == [event[2] for event in expected]
        assert histories.times[part].tolist() == [event[3] for event in expected]
        assert histories.kinds[part].tolist() == [event[4] for event in expected]
    known = {event[0] for event in everything} | {0, 1, 2}
    assert set(users.ids) == known
    assert len(users) == len(known)
    assert (users.rows(asked) == UNKNOWN).tolist() == [user not in known for user in asked]


@pytest.mark.parametrize("ids", [["1"], [1.5], [True], [None]])
def test_an_id_of_another_kind_is_refused_and_nothing_is_added(ids):
    users = base([(0, 1, 1.0, 1, 0)])
    for use in (users.rows, users.histories):
        with pytest.raises(InputError, match="user_ids: ids here are integers"):
            use(ids)
    with pytest.raises(InputError, match="user_ids: ids here are integers"):
        users.extend([7, *ids], np.array([1, 2]), np.ones(2, np.float32), np.array([1, 2]), np.ones(2, np.uint8))
    assert len(users) == 3


def test_a_reader_sees_a_whole_batch_or_none_of_it():
    users = base([(0, 1, 1.0, 0, 0)])
    torn, current, stop = [], [1], threading.Event()

    def newcomers(n):
        return range(100 * n, 100 * n + 40)

    def read():
        while not stop.is_set():
            n = current[0]
            known, *new = users.histories([0, *newcomers(n)]).lengths
            if set(new) != {int(known > n)}:  # the known user has one event of the base and one of each batch
                torn.append((n, known, new))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(1, 300):
        current[0] = n
        extend(users, [(user, n % 10, 1.0, n, 1) for user in [0, *newcomers(n)]])
    stop.set()
    for reader in readers:
        reader.join()
    sys.setswitchinterval(interval)
    assert not torn


def test_the_cost_of_one_user_does_not_grow_with_their_number():
    def counted(n_users):
        histories = Histories(
            np.arange(n_users + 1), *(np.zeros(n_users, kind) for kind in (np.int64, np.float32, np.int64, np.uint8))
        )
        users = UserHistories(Interactions(IdMap(range(n_users)), histories))
        users.histories([0])  # the ids' hash table is made once
        import tracemalloc

        tracemalloc.start()
        users.histories([n_users - 1])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert counted(200_000) < 2 * counted(2_000)


def test_save_and_load_keep_the_base(tmp_path):
    users = base([(0, 1, 1.0, 1, 0), (2, 3, 0.0, 5, 7), (2, 2, 2.5, 4, 0)])
    extend(users, [(9, 9, 1.0, 1, 2)])  # the feedback log's to keep
    users.save(tmp_path)
    loaded = UserHistories.load(tmp_path, 10)
    assert loaded.ids == [0, 1, 2]
    for name in ("indptr", "items", "weights", "times", "kinds"):
        np.testing.assert_array_equal(getattr(loaded.base.histories, name), getattr(users.base.histories, name))
    with pytest.raises(ArtifactError, match="do not belong together"):
        UserHistories.load(tmp_path, 3)
    np.save(tmp_path / "kinds.npy", np.array([0, N_KINDS, 0], np.uint8))
    with pytest.raises(ArtifactError, match="do not belong together"):
        UserHistories.load(tmp_path, 10)
