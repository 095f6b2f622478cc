"""Micro-batching: every caller gets its own answer, whoever ran it, and nobody waits for ever."""

import random
import signal
import threading
import time

import pytest
from pydantic import ValidationError

from encoders.errors import BatchError, InputError, OverloadError
from ranker.split.batching import BatchingConfig, BatchingStats, MicroBatcher

GUARD_S = 30  # nothing here takes a second; a defect must not hang the suite
pytestmark = pytest.mark.timeout(2 * GUARD_S)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def size(request):
    return request[1]


def answer(request):
    return ("answer to", *request)


class Model:
    """Answers requests (name, size), records what ran together, and holds its first ``held`` runs until ``let_go``."""

    def __init__(self, held=0):
        self.held = held
        self.batches = []
        self.threads = []
        self._begun = threading.Semaphore(0)
        self._let_go = threading.Semaphore(0)

    def __call__(self, requests):
        self.batches.append(requests)
        self.threads.append(threading.current_thread())
        if len(self.batches) <= self.held:
            self._begun.release()
            assert self._let_go.acquire(timeout=GUARD_S)
        return self.answers(requests)

    def answers(self, requests):
        return [answer(request) for request in requests]

    def await_run(self):
        assert self._begun.acquire(timeout=GUARD_S)

    def let_go(self):
        self._let_go.release()


class Call(threading.Thread):
    """One caller's thread."""

    def __init__(self, batcher, request, **options):
        super().__init__(daemon=True)
        self.ask = lambda: batcher.ask(request, **options)
        self.answers, self.errors = [], []
        self.start()

    def run(self):
        try:
            self.answers.append(self.ask())
        except BaseException as error:
            self.errors.append(error)

    def outcome(self):
        self.join(GUARD_S)
        assert not self.is_alive()
        for error in self.errors:
            raise error
        return self.answers[0]


def batcher_of(model, **settings):
    return MicroBatcher(model, BatchingConfig(**settings), size)


def await_waiting(batcher, count):
    deadline = time.monotonic() + GUARD_S
    while batcher.stats().waiting != count:
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def behind_a_run(batcher, model, *requests):
    """A caller whose run the model holds, and callers that came meanwhile, in this order."""
    first = Call(batcher, ("first", 1))
    model.await_run()
    calls = []
    for request in requests:
        calls.append(Call(batcher, request))
        await_waiting(batcher, len(calls))
    return first, calls


def check_answered(*calls_and_requests):
    for call, request in calls_and_requests:
        assert call.outcome() == answer(request)


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


class Broken(Model):
    """Fails for a batch that holds a request named "bad"."""

    def __init__(self, failure):
        super().__init__(held=1)
        self.failure = failure

    def answers(self, requests):
        if any(name == "bad" for name, _ in requests):
            raise self.failure
        return super().answers(requests)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["the leader's", "a follower's", "the last follower's"])
def test_an_error_of_the_model_reaches_the_callers_of_its_batch_and_no_others(place):
    failure = ValueError("no such item")
    batcher = batcher_of(model := Broken(failure), buckets=(32,))
    batch = [("a", 1), ("b", 1)]
    batch.insert(place, ("bad", 1))
    first, calls = behind_a_run(batcher, model, *batch, ("other", 100))
    model.let_go()
    for call in calls[:3]:
        with pytest.raises(ValueError, match="no such item") as caught:
            call.outcome()
        assert caught.value is failure
    check_answered((first, ("first", 1)), (calls[3], ("other", 100)))
    check_answered((Call(batcher, ("later", 1)), ("later", 1)))
    assert model.batches[1:3] == [batch, [("other", 100)]]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_answers_is_an_error_for_all_of_the_batch(count):
    class Miscounting(Model):
        def answers(self, requests):
            return [*super().answers(requests), "more"][:count] if len(requests) == 2 else super().answers(requests)

    batcher = batcher_of(model := Miscounting(held=1))
    first, calls = behind_a_run(batcher, model, ("a", 1), ("b", 1))
    model.let_go()
    for call in calls:
        with pytest.raises(BatchError, match=f"gave {count} answers for 2 requests"):
            call.outcome()
    check_answered((first, ("first", 1)), (Call(batcher, ("later", 1)), ("later", 1)))


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_of_a_run_is_the_leaders_and_leaves_nobody_waiting(interrupt):
    batcher = batcher_of(model := Broken(interrupt()), buckets=(32,))
    first, calls = behind_a_run(batcher, model, ("bad", 1), ("b", 1), ("c", 1), ("other", 100))
    model.let_go()
    with pytest.raises(interrupt):
        calls[0].outcome()
    for call in calls[1:3]:
        with pytest.raises(BatchError, match="interrupted in the thread of another caller: ask again"):
            call.outcome()
    check_answered((first, ("first", 1)), (calls[3], ("other", 100)))
    check_answered((Call(batcher, ("later", 1)), ("later", 1)))


@pytest.fixture
def _interruptible():
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs a signal to one thread")
@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_while_waiting_withdraws_the_request():
    model = Model(held=1)
    batcher = batcher_of(model)
    first, _ = behind_a_run(batcher, model)
    main = threading.main_thread().ident

    def interrupt():
        await_waiting(batcher, 1)
        signal.pthread_kill(main, signal.SIGINT)

    helper = threading.Thread(target=interrupt, daemon=True)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        batcher.ask(("main", 1))
    helper.join(GUARD_S)
    assert batcher.stats() == BatchingStats(requests=1, batches=1, largest_batch=1, refused=0, waiting=0)
    model.let_go()
    check_answered((first, ("first", 1)), (Call(batcher, ("later", 1)), ("later", 1)))
    assert model.batches == [[("first", 1)], [("later", 1)]]


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_on_becoming_the_leader_passes_the_lead_on():
    model = Model(held=1)
    batcher = batcher_of(model)
    first, _ = behind_a_run(batcher, model)
    others = []

    def interrupt():
        await_waiting(batcher, 1)
        others.append(Call(batcher, ("other", 1)))
        await_waiting(batcher, 2)
        signal.raise_signal(signal.SIGINT)  # in this thread, so that the main one finds it when it is woken to lead
        model.let_go()

    helper = threading.Thread(target=interrupt, daemon=True)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        batcher.ask(("main", 1))
    helper.join(GUARD_S)
    check_answered((first, ("first", 1)), (others[0], ("other", 1)))
    assert model.batches == [[("first", 1)], [("other", 1)]]


def test_an_error_of_the_size_reaches_its_caller_only():
    model = Model()
    batcher = batcher_of(model)
    with pytest.raises(IndexError):
        batcher.ask(("no size",))
    assert batcher.ask(("a", 1)) == answer(("a", 1))
    assert model.batches == [[("a", 1)]]


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


def test_buckets_may_be_given_in_any_order():
    model = Model(held=1)
    batcher = batcher_of(model, buckets=(128, 32))
    requests = [("a", 100), ("b", 20), ("c", 60)]
    first, calls = behind_a_run(batcher, model, *requests)
    model.let_go()
    check_answered((first, ("first", 1)), *zip(calls, requests, strict=True))
    assert model.batches[1:] == [[("a", 100), ("c", 60)], [("b", 20)]]
