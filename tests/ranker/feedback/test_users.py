"""Histories that grow: every act in its place, for every reader, with no state but the log."""

import sys
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import ArtifactError, InputError
from ranker.feedback import IN_MEMORY, KIND_CODES, N_KINDS, FeedbackLog, FeedbackPolicy
from ranker.feedback.events import COLUMNS, DTYPES
from ranker.users import LoggedActs, UserHistories, load_interactions, save_interactions
from retrieval.histories import Histories
from retrieval.ids import IdMap
from retrieval.interactions import Interactions

BASE = st.tuples(st.integers(0, 2), st.integers(0, 9), st.floats(0, 5, width=32), st.integers(0, 6), st.integers(0, 3))
LATER = st.tuples(st.integers(0, 5), st.integers(0, 11), st.sampled_from(["click", "cart"]), st.integers(0, 6))
POLICY = FeedbackPolicy(same_act_seconds=0)
ITEMS = IdMap(range(10))


def interactions(events, n_users=3):
    types = (np.int64, np.int64, np.float32, np.int64, np.uint8)
    columns = zip(*events, strict=True) if events else [[]] * 5
    *columns, kinds = (np.array(column, kind) for column, kind in zip(columns, types, strict=True))
    return Interactions(IdMap(range(n_users)), Histories.from_rows(*columns, n_users, kinds))


def logged(log, events):
    """Append (user, item, kind, microsecond) events."""
    start = log.last_offset()
    columns = [list(column) for column in zip(*events, strict=True)]
    table = pd.DataFrame(dict(zip(("user_id", "item_id", "kind", "datetime"), columns, strict=True)))
    table = table.assign(event_id=[str(start + n) for n in range(len(table))], source="")
    table["datetime"] = table["datetime"].astype("datetime64[us]")
    log.append(table.reindex(columns=list(COLUMNS)).astype(DTYPES))


def laid_over(base, log, **arguments):
    return UserHistories(base, LoggedActs(log, POLICY, ITEMS, **arguments))


def rows(histories):
    """Each row's (item, weight, time, kind), oldest first."""
    whole = list(
        zip(*(getattr(histories, name).tolist() for name in ("items", "weights", "times", "kinds")), strict=True)
    )
    return [whole[start:stop] for start, stop in zip(histories.indptr[:-1], histories.indptr[1:], strict=True)]


@settings(deadline=None)
@given(st.lists(BASE), st.lists(st.lists(LATER, min_size=1), max_size=4), st.integers(1, 3))
def test_a_history_is_the_log_of_the_fit_and_every_act_since_in_stable_time_order(old, batches, most_users):
    log = FeedbackLog(IN_MEMORY)
    users = laid_over(interactions(old), log, most_users=most_users)
    asked = [5, 0, 2, 4, 1, 3]
    for batch in batches:
        logged(log, batch)
        users.histories(asked[:2])  # some are in memory, some come from the log at the end
    had = {(user, item, time) for user, item, _, time, _ in old}
    newer = [
        (user, item, POLICY.weight(kind, None), time, KIND_CODES[kind])
        for user, item, kind, time in dict.fromkeys(event for batch in batches for event in batch)
        if item in ITEMS.ids and (user, item, time) not in had  # what the fit was given is not doubled
    ]
    everything = sorted([*old, *newer], key=lambda event: event[3])
    found = rows(users.histories(asked))
    for user, row in zip(asked, found, strict=True):
        assert sorted(row) == sorted(event[1:] for event in everything if event[0] == user)
        assert [event[2] for event in row] == sorted(event[2] for event in row)
    assert set(users.ids) == {0, 1, 2} | {event[0] for batch in batches for event in batch}
    assert rows(users.merged().histories) == rows(users.histories(users.ids))
    assert len(users.logged) <= most_users
    log.close()


def test_what_another_process_logged_is_known_at_once(tmp_path):
    mine, theirs = FeedbackLog(tmp_path / "log"), FeedbackLog(tmp_path / "log")
    users = laid_over(interactions([(0, 1, 1.0, 1, 0)]), mine)
    assert [len(row) for row in rows(users.histories([0, 9]))] == [1, 0]
    logged(theirs, [(0, 2, "click", 5), (9, 3, "click", 6)])
    assert [len(row) for row in rows(users.histories([0, 9]))] == [2, 1]


def test_a_refusal_takes_the_weight_of_older_events_of_the_fit_too():
    log = FeedbackLog(IN_MEMORY)
    users = laid_over(interactions([(0, 1, 3.0, 1, 0), (0, 2, 3.0, 2, 0), (0, 1, 3.0, 9, 0), (1, 1, 3.0, 1, 0)]), log)
    logged(log, [(0, 1, "hide", 5)])
    assert [[weight for _, weight, _, _ in row] for row in rows(users.histories([0, 1]))] == [[0, 3, 0, 3], [3]]


def test_who_was_forgotten_is_told_of_by_neither():
    log, base = FeedbackLog(IN_MEMORY), interactions([(0, 1, 1.0, 1, 0), (1, 2, 1.0, 1, 0), (2, 3, 1.0, 1, 0)])
    logged(log, [(1, 4, "click", 5), (2, 4, "click", 5), (7, 4, "click", 5)])
    log.forget([1, 7])
    users = laid_over(base, log)
    assert list(users.ids) == [0, 2]
    assert [len(row) for row in rows(users.histories([0, 1, 2, 7]))] == [1, 0, 2, 0]
    logged(log, [(1, 5, "click", 6)])  # and may come back as somebody new
    assert [len(row) for row in rows(users.histories([0, 1, 2, 7]))] == [1, 1, 2, 0]


def test_what_another_process_forgot_is_told_of_no_longer(tmp_path):
    mine, theirs = FeedbackLog(tmp_path / "log"), FeedbackLog(tmp_path / "log")
    users = laid_over(interactions([(0, 1, 1.0, 1, 0), (1, 2, 1.0, 1, 0)]), mine)
    logged(mine, [(0, 4, "click", 5), (1, 4, "click", 5), (7, 4, "click", 5)])
    assert [len(row) for row in rows(users.histories([0, 1, 7]))] == [2, 2, 1]  # all are in memory now
    theirs.forget([1, 7])
    assert [len(row) for row in rows(users.histories([0, 1, 7]))] == [2, 0, 0]
    assert list(users.ids) == [0, 2]
    assert list(users.base.users.ids) == [0, 2]
    theirs.compact(pd.Timestamp(6, unit="us"))
    assert [len(row) for row in rows(users.histories([0, 1, 7]))] == [1, 0, 0]


@pytest.mark.parametrize("ids", [["1"], [1.5], [True], [None]])
def test_an_id_of_another_kind_is_refused(ids):
    with pytest.raises(InputError, match="user_ids: ids here are integers"):
        laid_over(interactions([(0, 1, 1.0, 1, 0)]), FeedbackLog(IN_MEMORY)).histories(ids)


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_reader_sees_a_whole_batch_or_none_of_it(kind, tmp_path):
    log = FeedbackLog(IN_MEMORY if kind == "memory" else tmp_path / "log")
    users = laid_over(interactions([(0, 1, 1.0, 0, 0)]), log)
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
    for n in range(1, 100):
        current[0] = n
        logged(log, [(user, n % 10, "click", n) for user in [0, *newcomers(n)]])
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
        users = laid_over(Interactions(IdMap(range(n_users)), histories), FeedbackLog(IN_MEMORY))
        users.histories([0])  # the ids' hash table is made once
        import tracemalloc

        tracemalloc.start()
        users.histories([n_users - 1])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert counted(200_000) < 2 * counted(2_000)


def test_save_and_load_keep_the_log_of_the_fit(tmp_path):
    base = interactions([(0, 1, 1.0, 1, 0), (2, 3, 0.0, 5, 7), (2, 2, 2.5, 4, 0)])
    save_interactions(base, tmp_path)
    loaded = load_interactions(tmp_path, 10)
    assert list(loaded.users.ids) == [0, 1, 2]
    for name in ("indptr", "items", "weights", "times", "kinds"):
        np.testing.assert_array_equal(getattr(loaded.histories, name), getattr(base.histories, name))
    with pytest.raises(ArtifactError, match="do not belong together"):
        load_interactions(tmp_path, 3)
    np.save(tmp_path / "kinds.npy", np.array([0, N_KINDS, 0], np.uint8))
    with pytest.raises(ArtifactError, match="do not belong together"):
        load_interactions(tmp_path, 10)
