"""Whether an engine's probabilities of the next item can be taken at their word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from encoders.errors import InputError
from ranker.calibration import predicted
from ranker.evaluation.probabilities import auc, brier_score, expected_calibration_error, log_loss
from ranker.evaluation.questions import Questions

if TYPE_CHECKING:
    from ranker.engine import Engine


@dataclass(frozen=True)
class CalibrationReport:
    """Predicted probabilities of (list, item) pairs against what was then taken; see `ranker.evaluation.probabilities`.

    Attributes:
        lists: Lists whose items have a probability.
        pairs: Items with one, over all these lists.
        predicted: Mean probability.
        observed: Share of the pairs whose item was the one taken.
        auc: The chance that an item that was taken is predicted higher than one that was not, over all lists at once.
        log_loss: Of the probabilities, in nats.
        constant_log_loss: Of predicting ``observed`` for each pair, which no constant beats.
        brier_score: Of the probabilities.
        expected_calibration_error: Of the probabilities, in ten bins of equal mass.
    """

    lists: int
    pairs: int
    predicted: float
    observed: float
    auc: float
    log_loss: float
    constant_log_loss: float
    brier_score: float
    expected_calibration_error: float


def calibration_report(engine: Engine, asked: Questions) -> CalibrationReport:
    """Judge an engine's probabilities on lists that each have one next item.

    Args:
        engine: It knows nothing of what is to be found.
        asked: Such questions, as `Backtest("leave-one-out")` and `Backtest("prequential")` ask them.

    Raises:
        InputError: The engine has no calibration, a list has several items to be found, or no probability is of an item
            that was taken.
    """
    if engine.calibration is None:
        raise InputError("This engine predicts no probabilities: nothing was held out when it was fitted.")
    if (np.diff(asked.relevant.indptr) != 1).any():
        raise InputError(
            "A probability is that of the next item, but some lists have several to be found: ask before each event "
            "(prequential), or hold out one event of each user (leave-one-out)."
        )
    depth = engine.config.rerank.chosen.depth
    told, taken, lists, start = [], [], 0, 0
    for requests in asked.requests():
        ranked = engine.reranker.rerank(requests, engine.retriever.retrieve(requests, depth))
        probabilities = predicted(engine.calibration, requests, ranked)
        known = np.isfinite(probabilities)
        next_items = asked.relevant.indices[start : start + len(requests)]
        told.append(probabilities[known])
        taken.append((ranked.items == next_items[:, None])[known])
        lists += int(known.any(axis=1).sum())
        start += len(requests)
    p, y = np.concatenate(told), np.concatenate(taken)
    if not y.any():
        raise InputError(f"None of {len(asked):,} lists holds the item that was taken, so nothing can be judged.")
    observed = float(y.mean())
    return CalibrationReport(
        lists=lists,
        pairs=len(p),
        predicted=float(p.mean()),
        observed=observed,
        auc=auc(y, p),
        log_loss=log_loss(y, p),
        constant_log_loss=log_loss(y, np.full(len(y), observed)),
        brier_score=brier_score(y, p),
        expected_calibration_error=expected_calibration_error(y, p),
    )
