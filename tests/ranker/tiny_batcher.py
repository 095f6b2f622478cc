"""Batchers over a model whose runs a test holds and lets go, and callers in threads of their own."""

import threading
import time

from ranker.batching import BatchingConfig, MicroBatcher

GUARD_S = 30  # nothing here takes a second; a defect must not hang the suite


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


class Broken(Model):
    """Fails for a batch that holds a request named "bad"."""

    def __init__(self, failure):
        super().__init__(held=1)
        self.failure = failure

    def answers(self, requests):
        if any(name == "bad" for name, _ in requests):
            raise self.failure
        return super().answers(requests)
