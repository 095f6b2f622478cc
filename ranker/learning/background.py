"""A learner in a thread of its own, beside requests."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

import torch

from encoders.errors import ArtifactError
from ranker.learning.learner import Learner

logger = logging.getLogger(__name__)

LONGEST_WAIT = 60.0  # seconds after an error


class BackgroundLearner:
    """Steps a learner whenever the log has new events, until it is closed; a context manager.

    An error in a step is logged, and what serves goes on. Where the disk refused, the step is tried again after a
    while; after any other error its events are passed over.

    Args:
        learner: The learner; nobody else may step it meanwhile.
        poll_s: Seconds between two looks into a log that had nothing new.
    """

    def __init__(self, learner: Learner, poll_s: float = 0.1) -> None:
        self.learner = learner
        self._poll_s = poll_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="learner", daemon=True)
        self._thread.start()

    def __enter__(self) -> BackgroundLearner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End after the step that is under way."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(1)  # of this thread's products alone: requests have the other cores
        wait = self._poll_s
        while not self._closing.is_set():
            try:
                if self.learner.step().events:
                    wait = self._poll_s
                    continue
            except ArtifactError:  # the disk: these events are for later
                wait = min(LONGEST_WAIT, 2 * max(wait, self._poll_s))
                logger.exception("A learning step failed; the next one is in %.1f s. What serves goes on.", wait)
            except Exception:  # whatever is wrong with these events, they must not end the learning from all others
                logger.exception("A learning step failed, and its events are passed over. What serves goes on.")
                self.learner.pass_over()
            self._closing.wait(wait)
