"""Micro-batching: every caller gets its own answer, whoever ran it, and small and large requests run apart."""

import random
import threading

import pytest
from tiny_batcher import (
    GUARD_S,
    Call,
    Model,
    answer,
    await_waiting,
    batcher_of,
    behind_a_run,
    check_answered,
    size,
)

from ranker.batching import BatchingStats

pytestmark = pytest.mark.timeout(2 * GUARD_S)


def test_under_load_every_caller_gets_the_answer_to_its_own_request():
    model = Model()
    batcher = batcher_of(model, max_size=200, buckets=(8, 64))
    start = threading.Barrier(16)
    wrong = []

    def work(me):
        sizes = random.Random(me)
        start.wait(GUARD_S)
        for n in range(200):
            request = (f"{me}-{n}", sizes.choice([1, 5, 9, 60, 70, 300]))
            if batcher.ask(request) != answer(request):
                wrong.append(request)

    threads = [threading.Thread(target=work, args=(me,), daemon=True) for me in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD_S)
        assert not thread.is_alive()
    assert wrong == []
    asked = [request for batch in model.batches for request in batch]
    assert sorted(name for name, _ in asked) == sorted(f"{me}-{n}" for me in range(16) for n in range(200))
    assert all(len(batch) == 1 or sum(map(size, batch)) <= 200 for batch in model.batches)
    assert all(len({(s > 8) + (s > 64) for _, s in batch}) == 1 for batch in model.batches)
    largest = max(map(len, model.batches))
    assert batcher.stats() == BatchingStats(3200, len(model.batches), largest, refused=0, waiting=0)


def test_a_lone_caller_runs_its_request_in_its_own_thread_and_alone():
    model = Model()
    batcher = batcher_of(model)
    calls = []
    for n in range(3):
        calls.append(Call(batcher, (n, 10)))
        check_answered((calls[-1], (n, 10)))
    assert model.batches == [[(0, 10)], [(1, 10)], [(2, 10)]]
    assert model.threads == calls


def test_a_lone_caller_that_may_not_wait_is_answered():
    assert batcher_of(Model()).ask(("a", 1), timeout_s=0) == answer(("a", 1))


def test_what_comes_during_a_run_runs_together_up_to_the_largest_size():
    model = Model(held=1)
    batcher = batcher_of(model, max_size=100, buckets=())
    requests = [("a", 40), ("b", 40), ("c", 40), ("d", 20), ("e", 60)]
    first, calls = behind_a_run(batcher, model, *requests)
    model.let_go()
    check_answered((first, ("first", 1)), *zip(calls, requests, strict=True))
    assert model.batches == [[("first", 1)], [("a", 40), ("b", 40), ("d", 20)], [("c", 40), ("e", 60)]]
    assert model.threads == [first, calls[0], calls[2]]
    assert batcher.stats() == BatchingStats(requests=6, batches=3, largest_batch=3, refused=0, waiting=0)


def test_small_and_large_requests_run_apart_and_the_oldest_always_goes_next():
    model = Model(held=1)
    batcher = batcher_of(model, buckets=(32, 128))
    requests = [("a", 100), ("b", 32), ("c", 33), ("d", 1), ("e", 129), ("f", 128)]
    first, calls = behind_a_run(batcher, model, *requests)
    model.let_go()
    check_answered((first, ("first", 1)), *zip(calls, requests, strict=True))
    assert model.batches[1:] == [[("a", 100), ("c", 33), ("f", 128)], [("b", 32), ("d", 1)], [("e", 129)]]


def test_a_large_request_is_not_starved_by_small_ones_that_keep_coming():
    model = Model(held=4)
    batcher = batcher_of(model, buckets=(32,))
    first, calls = behind_a_run(batcher, model, ("small 0", 1), ("large", 100))
    for n in (1, 2, 3):
        model.let_go()
        model.await_run()
        calls.append(Call(batcher, (f"small {n}", 1)))
        await_waiting(batcher, [2, 2, 1][n - 1])
    model.let_go()
    for call in (first, *calls):
        call.outcome()
    names = [[name for name, _ in batch] for batch in model.batches]
    assert names == [["first"], ["small 0"], ["large"], ["small 1", "small 2"], ["small 3"]]


def test_a_request_larger_than_any_batch_runs_alone():
    model = Model(held=1)
    batcher = batcher_of(model, max_size=50, buckets=())
    requests = [("a", 10), ("large", 51), ("b", 10), ("also large", 400)]
    first, calls = behind_a_run(batcher, model, *requests)
    model.let_go()
    check_answered((first, ("first", 1)), *zip(calls, requests, strict=True))
    assert model.batches[1:] == [[("a", 10), ("b", 10)], [("large", 51)], [("also large", 400)]]


def test_buckets_may_be_given_in_any_order():
    model = Model(held=1)
    batcher = batcher_of(model, buckets=(128, 32))
    requests = [("a", 100), ("b", 20), ("c", 60)]
    first, calls = behind_a_run(batcher, model, *requests)
    model.let_go()
    check_answered((first, ("first", 1)), *zip(calls, requests, strict=True))
    assert model.batches[1:] == [[("a", 100), ("c", 60)], [("b", 20)]]
