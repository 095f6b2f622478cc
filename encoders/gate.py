"""The gate: an exported model must do its task as well as the original, within a tolerance.

A small largest difference of outputs proves nothing about a ranking, so the task's own metrics decide, as
paired differences per query; how alike the outputs are is reported beside them.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from encoders.errors import TaskError
from encoders.pair import PairScorer
from encoders.report import MetricChange
from encoders.tasks import NDCG_CUTOFF, RankingTask, RetrievalTask
from encoders.text import Encoder

OVERLAP_CUTOFF = 10
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one exported model lost against its original."""

    passed: bool
    changes: tuple[MetricChange, ...]
    agreement: dict[str, float]


class RetrievalGate:
    """Judges encoders on a retrieval task against an original, which is run once."""

    def __init__(self, original: Encoder, task: RetrievalTask, k: int, tolerance: float, seed: int):
        self.task = task
        self.k = min(k, len(task.documents))
        self.tolerance = tolerance
        self.seed = seed
        self._documents = original.encode(task.documents, progress=True)
        self._found = self._search(original.encode(task.queries, progress=True), self._documents)

    def judge(self, exported: Encoder) -> Verdict:
        """Compare an exported encoder with the original.

        Raises:
            TaskError: the original finds nothing relevant, so that no loss can be measured.
        """
        documents = exported.encode(self.task.documents, progress=True)
        queries = exported.encode(self.task.queries, progress=True)
        finite = bool(np.isfinite(documents).all() and np.isfinite(queries).all())
        documents, queries = np.nan_to_num(documents), np.nan_to_num(queries)
        found = self._search(queries, documents)
        changes = tuple(
            _change(name, measure(self._found[:, : self.k]), measure(found[:, : self.k]), self.seed)
            for name, measure in ((f"recall@{self.k}", self.task.recall), (f"ndcg@{self.k}", self.task.ndcg))
        )
        cutoff = min(OVERLAP_CUTOFF, found.shape[1])
        shared = [
            len(np.intersect1d(one, other)) / cutoff
            for one, other in zip(self._found[:, :cutoff], found[:, :cutoff], strict=True)
        ]
        cosines = np.einsum("td,td->t", self._documents, documents, dtype=np.float64)
        agreement = {
            f"overlap@{cutoff}": float(np.mean(shared)),
            "cosine_mean": float(cosines.mean()),
            "cosine_min": float(cosines.min()),
        }
        return Verdict(finite and _within(changes, self.tolerance), changes, agreement)

    def _search(self, queries: NDArray[np.float32], documents: NDArray[np.float32]) -> NDArray[np.int64]:
        return self.task.search(queries, documents, min(max(self.k, OVERLAP_CUTOFF), len(documents)))


class RankingGate:
    """Judges pair scorers on a ranking task against an original, which is run once."""

    def __init__(self, original: PairScorer, task: RankingTask, tolerance: float, seed: int):
        self.task = task
        self.tolerance = tolerance
        self.seed = seed
        self._scores = original.score(task.pairs, progress=True)

    def judge(self, exported: PairScorer) -> Verdict:
        """Compare an exported cross-encoder with the original.

        Raises:
            TaskError: the original ranks nothing relevant, so that no loss can be measured.
        """
        scores = exported.score(self.task.pairs, progress=True)
        finite = bool(np.isfinite(scores).all())
        scores = np.nan_to_num(scores)
        change = _change(f"ndcg@{NDCG_CUTOFF}", self.task.ndcg(self._scores), self.task.ndcg(scores), self.seed)
        taus = [
            _kendall(one, other)
            for one, other in zip(self.task.split(self._scores), self.task.split(scores), strict=True)
        ]
        agreement = {"kendall_tau_mean": float(np.mean(taus)), "kendall_tau_min": float(np.min(taus))}
        return Verdict(finite and _within((change,), self.tolerance), (change,), agreement)


def _change(name: str, original: NDArray[np.float64], exported: NDArray[np.float64], seed: int) -> MetricChange:
    mean = float(original.mean())
    if mean == 0.0:
        raise TaskError(
            f"The original model's {name} on this task is 0, so no loss can be measured on it: "
            "pass a task that the model can do."
        )
    losses = (original - exported) / mean
    if len(losses) < 2 or np.ptp(losses) == 0.0:
        low = high = float(losses.mean())
    else:
        interval = scipy.stats.bootstrap(
            (losses,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=50,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return MetricChange(name, mean, float(exported.mean()), float(losses.mean()), low, high)


def _within(changes: tuple[MetricChange, ...], tolerance: float) -> bool:
    return all(change.loss <= tolerance for change in changes)


def _kendall(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Kendall's tau-b; 0 where one side ties everywhere and so orders nothing."""
    if np.ptp(one) == 0.0 or np.ptp(other) == 0.0:
        return 0.0
    return float(scipy.stats.kendalltau(one, other).statistic)
