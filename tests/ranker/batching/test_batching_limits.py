"""A full queue, a time that is up and settings out of range refuse a request, and all others are answered."""

import pytest
from pydantic import ValidationError
from tiny_batcher import GUARD_S, Call, Model, await_waiting, batcher_of, behind_a_run, check_answered

from encoders.errors import InputError, OverloadError
from ranker.batching import BatchingConfig, BatchingStats

pytestmark = pytest.mark.timeout(2 * GUARD_S)


def test_a_full_queue_refuses_at_once_and_what_waits_is_answered():
    model = Model(held=1)
    batcher = batcher_of(model, max_queued=2)
    first, calls = behind_a_run(batcher, model, ("a", 1), ("b", 1))
    with pytest.raises(OverloadError, match=r"^2 requests wait already.*: retry later, raise max_queued, or add proc"):
        Call(batcher, ("c", 1)).outcome()
    assert batcher.stats() == BatchingStats(requests=1, batches=1, largest_batch=1, refused=1, waiting=2)
    model.let_go()
    check_answered((first, ("first", 1)), (calls[0], ("a", 1)), (calls[1], ("b", 1)))
    check_answered((Call(batcher, ("c", 1)), ("c", 1)))
    assert model.batches[1:] == [[("a", 1), ("b", 1)], [("c", 1)]]


@pytest.mark.parametrize("timeout_s", [0, 0.01])
def test_a_request_whose_time_is_up_is_withdrawn_and_never_run(timeout_s):
    model = Model(held=1)
    batcher = batcher_of(model)
    first, calls = behind_a_run(batcher, model, ("a", 1))
    with pytest.raises(OverloadError, match=rf"^The request waited {timeout_s} s and its run had not begun: retry"):
        Call(batcher, ("late", 1), timeout_s=timeout_s).outcome()
    model.let_go()
    check_answered((first, ("first", 1)), (calls[0], ("a", 1)))
    assert model.batches == [[("first", 1)], [("a", 1)]]
    assert batcher.stats() == BatchingStats(requests=2, batches=2, largest_batch=1, refused=1, waiting=0)


def test_a_run_that_began_in_time_is_waited_for():
    for timeout_s in (0.1, 1, 10):  # a busy machine may begin too late for a short one
        model = Model(held=2)
        batcher = batcher_of(model)
        first, calls = behind_a_run(batcher, model, ("a", 1))
        late = Call(batcher, ("late", 1), timeout_s=timeout_s)
        await_waiting(batcher, 2)
        model.let_go()
        model.await_run()
        late.join(2 * timeout_s)
        model.let_go()
        check_answered((first, ("first", 1)), (calls[0], ("a", 1)))
        if ("late", 1) in model.batches[1]:
            check_answered((late, ("late", 1)))
            return
    pytest.fail("no run began within 10 s")


def test_counts_add_up():
    model = Model(held=1)
    batcher = batcher_of(model, max_queued=3)
    assert batcher.stats() == BatchingStats(requests=0, batches=0, largest_batch=0, refused=0, waiting=0)
    _, calls = behind_a_run(batcher, model, ("a", 1), ("b", 1), ("c", 200))
    for _ in range(4):
        with pytest.raises(OverloadError):
            Call(batcher, ("refused", 1)).outcome()
    model.let_go()
    for call in calls:
        call.outcome()
    stats = batcher.stats()
    assert stats == BatchingStats(requests=4, batches=3, largest_batch=2, refused=4, waiting=0)
    assert (stats.requests, stats.batches) == (sum(map(len, model.batches)), len(model.batches))


@pytest.mark.parametrize("timeout_s", [-1, -0.001, float("nan")])
def test_a_timeout_that_is_no_time_is_refused(timeout_s):
    with pytest.raises(InputError, match="timeout_s is"):
        batcher_of(Model()).ask(("a", 1), timeout_s=timeout_s)


@pytest.mark.parametrize(
    "settings", [{"max_size": 0}, {"max_queued": 0}, {"buckets": (0, 8)}, {"buckets": ("small",)}, {"max_wait_ms": 1}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValidationError):
        BatchingConfig(**settings)
