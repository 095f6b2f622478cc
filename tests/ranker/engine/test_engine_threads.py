"""Threads ask an engine, tell it and save it at once, and no event is lost or doubled."""

import threading

import pandas as pd
import tiny_engine
from tiny_engine import events, small_fit

import ranker

ALL = tiny_engine.N_ITEMS


def test_threads_give_feedback_and_ask_without_losing_or_doubling_an_event(engine, model):
    failures, stop = [], threading.Event()

    def tell(me):
        try:
            for n in range(10):
                own = events((f"{me}-{n}", 1000 + me, f"i{n}", "like"))
                shared = events((f"shared-{n}", 2000, f"i{n}", "like"))  # sent by all, counted once
                engine.feedback(pd.concat([own, shared]))
                assert f"i{n}" not in set(engine.recommend([1000 + me], ALL)["item_id"])  # reads its own write
        except BaseException as error:
            failures.append(error)

    def ask():
        try:
            while not stop.is_set():
                engine.recommend([100, 1000, 1003, 2000], 10, query="robot")
                engine.rank(1001, ["i1", "i2", "i3"])
                engine.recommend([100, 2000], ALL)
        except BaseException as error:
            failures.append(error)

    tellers = [threading.Thread(target=tell, args=(me,)) for me in range(4)]
    askers = [threading.Thread(target=ask) for _ in range(2)]
    for thread in [*tellers, *askers]:
        thread.start()
    for thread in tellers:
        thread.join()
    stop.set()
    for thread in askers:
        thread.join()
    assert failures == []
    users = [1000, 1001, 1002, 1003, 2000]
    assert len(engine.log) == 50
    assert engine.users.histories(users).lengths.tolist() == [10] * 5
    loaded = ranker.load(model)
    pd.testing.assert_frame_equal(loaded.recommend(users, ALL), engine.recommend(users, ALL))


def test_feedback_during_a_save_is_in_the_log_it_moves_to(checkpoint, tmp_path):
    engine = small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())
    told, stop = [], threading.Event()

    def tell():
        while not stop.is_set():
            told.append(f"e{len(told)}")
            engine.feedback(events((told[-1], 7, f"i{len(told) % ALL}", "click")))

    thread = threading.Thread(target=tell)
    thread.start()
    for n in range(3):
        engine.save(tmp_path / f"model{n}")
    stop.set()
    thread.join()
    assert ranker.load(tmp_path / "model2").log.read()["event_id"].tolist() == told
