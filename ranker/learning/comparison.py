"""Which weights shall serve: comparisons on lists that none of them has learned from."""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ranker.learning.config import LearningConfig

Verdict = Literal["wait", "promote", "drop"]


class Trial:
    """Learned weights against those that serve, on each list before it is learned from (test, then train).

    A look is taken after every ``least_lists`` lists, not after each one, so that chance gets few occasions. Promoted
    is what gained more than one standard error; dropped what lost as much, or gained nothing in ``most_lists``.
    """

    def __init__(self, config: LearningConfig) -> None:
        self._config = config
        self._gains: list[float] = []
        self._looked = 0

    def add(self, serving: NDArray[np.float64], learned: NDArray[np.float64]) -> None:
        """NDCG@10 of both on the same lists, (L,)."""
        self._gains += (learned - serving).tolist()

    @property
    def lists(self) -> int:
        """How many were compared."""
        return len(self._gains)

    @property
    def gain(self) -> float:
        """Mean NDCG@10 of the learned weights less that of the serving ones; 0 before the first list."""
        return float(np.mean(self._gains)) if self._gains else 0.0

    @property
    def error(self) -> float:
        """Standard error of the gain; 0 before the second list."""
        return float(np.std(self._gains, ddof=1) / np.sqrt(len(self._gains))) if len(self._gains) > 1 else 0.0

    def verdict(self) -> Verdict:
        """What the lists so far say."""
        if len(self._gains) // self._config.least_lists == self._looked:
            return "wait"
        self._looked = len(self._gains) // self._config.least_lists
        if self.gain > self.error:
            return "promote"
        return "drop" if self.gain < -self.error or len(self._gains) >= self._config.most_lists else "wait"


class Watch:
    """What serves against the weights of the saved engine, on the newest lists."""

    def __init__(self, config: LearningConfig) -> None:
        self._config = config
        self._serving: deque[float] = deque(maxlen=config.window_lists)
        self._frozen: deque[float] = deque(maxlen=config.window_lists)

    def add(self, serving: NDArray[np.float64], frozen: NDArray[np.float64]) -> None:
        """NDCG@10 of both on the same lists, (L,)."""
        self._serving.extend(serving.tolist())
        self._frozen.extend(frozen.tolist())

    @property
    def serving(self) -> float:
        """Mean NDCG@10 of what served; NaN before the first list."""
        return float(np.mean(self._serving)) if self._serving else float("nan")

    @property
    def frozen(self) -> float:
        """Mean NDCG@10 of the saved engine's weights on the same lists; NaN before the first list."""
        return float(np.mean(self._frozen)) if self._frozen else float("nan")

    def has_lost(self) -> bool:
        """Whether what serves is below the saved engine's weights by the margin and by two standard errors."""
        if len(self._serving) < self._config.least_lists:
            return False
        losses = np.array(self._frozen) - np.array(self._serving)
        error = float(np.std(losses, ddof=1)) / np.sqrt(len(losses))
        return bool(losses.mean() > max(self._config.margin, 2 * error))
