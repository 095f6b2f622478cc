"""Learning in threads of its own, beside requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

import torch

from encoders.errors import ArtifactError
from ranker.learning.learner import Learner
from ranker.learning.refit import Refitter
from retrieval.products import one_blas_thread

logger = logging.getLogger(__name__)

LONGEST_WAIT = 60.0  # seconds after an error
REST = 2.0  # times as long as a step took: the pause after it while requests come, which share the interpreter with it


class BackgroundLearner:
    """Steps a learner whenever the log has new events, until it is closed; a context manager.

    After a step during which requests came it pauses for twice as long as the step took, so that however much there is
    to learn, most requests meet no learner. An error in a step is logged, and what serves goes on. Where the disk
    refused, the next step waits for a while; after any other error the step's events are passed over.

    It computes on one thread, and so does the BLAS of the whole process meanwhile, which knows no other limit. Requests
    of up to four users need no more; those of many at once get their products from one core.

    Args:
        learner: The learner; nobody else may step it meanwhile.
        refitter: Fits the same engine's sources again, in a second thread; the learner waits only while they are saved.
            None leaves them as they are.
        poll_s: Seconds between two looks into a log that had nothing new.
    """

    def __init__(self, learner: Learner, refitter: Refitter | None = None, poll_s: float = 0.1) -> None:
        self.learner = learner
        self.refitter = refitter
        self._poll_s = poll_s
        self._closing = threading.Event()
        self._turn = threading.Lock()  # of who changes what serves
        self._threads = [self._thread("learner", self._learn, learner.pass_over)]
        if refitter is not None:
            self._threads.append(self._thread("refitter", self._refit, refitter.pass_over))
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> BackgroundLearner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End after the steps that are under way."""
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _learn(self) -> bool:
        """One step of the learner; whether there was anything to learn from."""
        with self._turn:
            return self.learner.step().events > 0

    def _refit(self) -> bool:
        """Fit again where it is time; whether it was."""
        refitter = self.refitter
        if refitter is None or not refitter.due():
            return False
        found = refitter.fit()
        if found is not None:
            with self._turn:
                refitter.serve(found)
        return True

    def _requests(self) -> float:
        """How many the engine has answered."""
        answered = {"stage": "retrieve"}
        registry = self.learner.engine.observations.registry
        return registry.get_sample_value("ranker_seconds_count", answered) or 0

    def _thread(self, name: str, step: Callable[[], bool], pass_over: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._run, args=(step, pass_over), name=name, daemon=True)

    def _run(self, step: Callable[[], bool], pass_over: Callable[[], None]) -> None:
        torch.set_num_threads(1)  # of this thread's products alone: requests have the other cores
        with one_blas_thread():  # the BLAS's threads wait actively after a product, on the cores of requests
            self._repeat(step, pass_over)

    def _repeat(self, step: Callable[[], bool], pass_over: Callable[[], None]) -> None:
        wait = self._poll_s
        while not self._closing.is_set():
            asked, start = self._requests(), time.perf_counter()
            try:
                if step():
                    wait = self._poll_s
                    if self._requests() > asked:
                        self._closing.wait(REST * (time.perf_counter() - start))
                    continue
            except ArtifactError:  # the disk: these events are for later
                wait = min(LONGEST_WAIT, 2 * max(wait, self._poll_s))
                logger.exception("A learning step failed; the next one is in %.1f s. What serves goes on.", wait)
            except Exception:  # whatever is wrong with these events, they must not end the learning from all others
                logger.exception("A learning step failed, and its events are passed over. What serves goes on.")
                pass_over()
            self._closing.wait(wait)
