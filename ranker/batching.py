"""Batches of concurrent requests: callers in many threads share one run of the model."""

from __future__ import annotations

import dataclasses
import math
import threading
from bisect import bisect_left
from collections.abc import Callable
from typing import Annotated, Generic, TypeVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders.errors import BatchError, InputError, OverloadError

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BatchingConfig:
    """Which waiting requests run together, and how many may wait.

    Attributes:
        max_size: Sum of the sizes of requests run together at most, in candidates; a larger request runs alone.
        max_queued: Requests that may wait at most; more are refused.
        buckets: Requests run together only where the smallest of these bounds that holds their size is the same, since
            all of a batch pay for its padding. Sizes above every bound are a bucket too.
    """

    max_size: Annotated[int, Field(ge=1)] = 1024
    max_queued: Annotated[int, Field(ge=1)] = 256
    buckets: tuple[Annotated[int, Field(ge=1)], ...] = (32, 128, 512, 1024)


@dataclasses.dataclass(frozen=True, slots=True)
class BatchingStats:
    """What a batcher has done so far, at one moment."""

    requests: int  # taken into a batch
    batches: int
    largest_batch: int  # in requests
    refused: int  # turned away by a full queue, or withdrawn when their time was up
    waiting: int  # now


class MicroBatcher(Generic[Request, Answer]):
    """Runs together what is asked at the same time, in the callers' own threads.

    The caller that finds nobody running becomes the leader and runs its request at once. Callers that come meanwhile
    queue; when the leader is done, the one that has waited longest leads next, and takes those of its bucket along, in
    the order of their arrival, up to ``max_size``. So batches form while the model is busy: there is no thread and no
    timer, and a lone caller waits for nothing.

    The wait is bounded: every batch holds the request that has waited longest, so a request waits for no more batches
    than requests were ahead of it, and no more than ``max_queued`` wait.

    Safe to use from several threads; one run is under way at a time.

    Args:
        run: Gives one answer for each request of a batch, in their order. It must not ask the same batcher.
        config: Its bounds.
        size: Size of a request, in candidates.
    """

    def __init__(
        self, run: Callable[[list[Request]], list[Answer]], config: BatchingConfig, size: Callable[[Request], int]
    ) -> None:
        self.config = config
        self._run = run
        self._size = size
        self._bounds = sorted(config.buckets)
        self._lock = threading.Lock()  # guards all below, and each caller's waits and leads
        self._queue: list[_Caller[Request, Answer]] = []  # by arrival; empty where nobody leads
        self._led = False
        self._requests = self._batches = self._largest_batch = self._refused = 0

    def ask(self, request: Request, timeout_s: float = math.inf) -> Answer:
        """The answer to this request, which may be run with others.

        Args:
            request: What ``run`` reads.
            timeout_s: Seconds that the request may wait for its run to begin; the run itself is not cut short. At 0 it
                is refused where another runs.

        Raises:
            OverloadError: ``max_queued`` requests wait already, or the time was up. The request is never run.
            BatchError: ``run`` did not give one answer for each request, or it was interrupted in the thread of another
                caller.
            InputError: The timeout is negative or NaN.
            Exception: What ``run`` raised, the same object for every caller of the batch.
        """
        if not timeout_s >= 0:
            raise InputError(f"timeout_s is {timeout_s}: give the seconds that the request may wait, 0 or more.")
        size = self._size(request)
        caller: _Caller[Request, Answer] = _Caller(request, size, bisect_left(self._bounds, size))
        try:
            self._enter(caller)
            self._wait(caller, timeout_s)
            return self._lead(caller) if caller.leads else caller.outcome()
        finally:  # also where an interrupt ends a wait: whoever leaves gives up its place and passes the lead on
            if caller.waits or caller.leads:
                self._leave(caller)

    def stats(self) -> BatchingStats:
        """Counts since the batcher was made."""
        with self._lock:
            return BatchingStats(
                requests=self._requests,
                batches=self._batches,
                largest_batch=self._largest_batch,
                refused=self._refused,
                waiting=len(self._queue),
            )

    def _enter(self, caller: _Caller[Request, Answer]) -> None:
        with self._lock:
            if len(self._queue) >= self.config.max_queued:
                self._refused += 1
                raise OverloadError(
                    f"{len(self._queue)} requests wait already, as many as max_queued allows: retry later, raise "
                    "max_queued, or add processes."
                )
            caller.waits = True
            self._queue.append(caller)
            if not self._led:
                self._call_next()

    def _wait(self, caller: _Caller[Request, Answer], timeout_s: float) -> None:
        """Return once this caller leads or another has run its request."""
        if caller.woken.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX)):
            return
        with self._lock:
            if caller.waits:
                self._withdraw(caller)
                self._refused += 1
                raise OverloadError(
                    f"The request waited {timeout_s:g} s and its run had not begun: retry later, give it more time, or "
                    "add processes."
                )
        caller.woken.acquire()

    def _lead(self, leader: _Caller[Request, Answer]) -> Answer:
        with self._lock:
            leader.followers = self._take_followers(leader)
            self._requests += 1 + len(leader.followers)
            self._batches += 1
            self._largest_batch = max(self._largest_batch, 1 + len(leader.followers))
        requests = [leader.request, *(follower.request for follower in leader.followers)]
        try:
            answers = self._run(requests)
            if len(answers) != len(requests):
                raise BatchError(
                    f"The model gave {len(answers)} answers for {len(requests)} requests, so none can be trusted: mend "
                    "the run that the batcher was given."
                )
        except Exception as error:
            for follower in leader.followers:
                follower.errors.append(error)
            raise
        for follower, answer in zip(leader.followers, answers[1:], strict=True):
            follower.answers.append(answer)
        return answers[0]

    def _take_followers(self, leader: _Caller[Request, Answer]) -> list[_Caller[Request, Answer]]:
        followers, rest, total = [], [], leader.size
        for caller in self._queue:
            if caller.bucket == leader.bucket and total + caller.size <= self.config.max_size:
                caller.waits = False
                followers.append(caller)
                total += caller.size
            else:
                rest.append(caller)
        self._queue = rest
        return followers

    def _leave(self, caller: _Caller[Request, Answer]) -> None:
        with self._lock:
            if caller.waits:
                self._withdraw(caller)
            if caller.leads:
                caller.leads = False
                self._call_next()
                for follower in caller.followers:
                    follower.woken.release()
                caller.followers = []  # an error's traceback holds the leader, and each follower may hold the error

    def _call_next(self) -> None:
        """Make the caller that has waited longest the leader."""
        self._led = bool(self._queue)
        if self._led:
            leader = self._queue[0]
            leader.leads = True  # first: a caller that an interrupt throws out looks at waits, then at leads
            self._withdraw(leader)
            leader.woken.release()

    def _withdraw(self, caller: _Caller[Request, Answer]) -> None:
        caller.waits = False
        self._queue.remove(caller)


class _Caller(Generic[Request, Answer]):
    """A request, and where it stands: it waits in the queue, leads, or is run by the leader whose follower it is."""

    __slots__ = ("answers", "bucket", "errors", "followers", "leads", "request", "size", "waits", "woken")

    def __init__(self, request: Request, size: int, bucket: int) -> None:
        self.request = request
        self.size = size
        self.bucket = bucket
        self.waits = False
        self.leads = False
        self.woken = threading.Lock()  # free once the caller leads or its outcome is here
        self.woken.acquire()
        self.followers: list[_Caller[Request, Answer]] = []
        self.answers: list[Answer] = []  # one, or none where the run failed
        self.errors: list[Exception] = []  # one where the run raised it

    def outcome(self) -> Answer:
        """The answer, or the error, that the leader has left here."""
        if self.errors:
            raise self.errors.pop()  # popped, or the error would hold itself through its traceback
        if not self.answers:
            raise BatchError("The run of this request was interrupted in the thread of another caller: ask again.")
        return self.answers[0]
