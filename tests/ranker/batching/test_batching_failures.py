"""An error or an interrupt of a run reaches those whom it concerns, and nobody waits for ever."""

import signal
import threading

import pytest
from tiny_batcher import GUARD_S, Broken, Call, Model, answer, await_waiting, batcher_of, behind_a_run, check_answered

from encoders.errors import BatchError
from ranker.batching import BatchingStats

pytestmark = pytest.mark.timeout(2 * GUARD_S)


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
