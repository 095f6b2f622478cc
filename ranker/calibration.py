"""Calibration: from scores, which compare within one list only, to probabilities, which compare between users.

The probability that an item is the one that the user takes next, among those they have not had, is

    P(item i) = coverage · exp(score i / T) / Σ exp(score j / T)      over the first ``depth`` items of a list

The temperature T (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) and the coverage, which is the
chance that the next item is among the first ``depth``, are those under which what users took is likeliest, on lists
that were held out. T changes no order.

A probability is missing where nothing was measured: of items after the first ``depth``; for a user who has liked
nothing; with a query; with a filter; where seen items may be returned; where more items are asked for than each source
proposes by itself; for lasting taste; and everywhere in an engine that was fitted without lists (no cross-encoder, and
fusion weights that need no learning).
"""

from __future__ import annotations

import logging
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import optimize, special

from ranker.lists import NOBODY, LabelledLists
from ranker.reranker import Judged, Reranker
from retrieval.candidates import NO_ITEM, Candidates, Requests

logger = logging.getLogger(__name__)

MOST_LISTS = 5_000  # for one number; more would take seconds and tell it no better
WIDEST = (
    1_000.0  # T lies within this factor of the scores' deviation, so that it exists where a likelihood has no maximum
)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Calibration:
    """What makes probabilities of an engine's scores.

    Attributes:
        temperature: Divides the scores.
        coverage: Chance that the next item is among the first ``depth``.
        depth: Items at the top of a list that share it.
    """

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    coverage: Annotated[float, Field(gt=0, le=1)]
    depth: Annotated[int, Field(ge=1)]

    def probabilities(self, scores: NDArray[np.floating], items: NDArray[np.int64]) -> NDArray[np.float64]:
        """The probability of each item of lists in the order that is served.

        Args:
            scores: (U, K), best first; whatever stands beside NO_ITEM is passed over.
            items: (U, K) the items they belong to.

        Returns:
            (U, K), missing (NaN) beyond ``depth`` and beside NO_ITEM. What is not missing of a row adds up to the
            coverage, whatever is added to its scores.
        """
        known = items[:, : self.depth] != NO_ITEM
        logits = np.where(known, scores[:, : self.depth].astype(np.float64), -np.inf)
        best = np.where(known.any(axis=1, keepdims=True), logits.max(axis=1, keepdims=True, initial=-np.inf), 0)
        odds = np.exp((logits - best) / self.temperature)
        total = odds.sum(axis=1, keepdims=True)
        found = np.full(items.shape, np.nan)
        found[:, : self.depth] = np.divide(self.coverage * odds, total, out=np.full(odds.shape, np.nan), where=known)
        return found


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Calibrations:
    """Of both orders that an engine may serve, the fused and the re-ranked one: learning can exchange them.

    Each is None where there were no lists to learn it from.
    """

    fused: Calibration | None = None
    reranked: Calibration | None = None

    def of(self, reranker: Reranker) -> Calibration | None:
        """That of the order in which requests are answered with this re-ranker, as it is now."""
        return self.reranked if reranker.serves else self.fused


UNMEASURED = Calibrations()


def predicted(calibration: Calibration | None, requests: Requests, ranked: Candidates) -> NDArray[np.float64]:
    """The probabilities (U, K) of what is served, missing (NaN) where nothing like it was measured.

    The lists that were measured had no query, left out what their users had had and nothing else, and were of users who
    had liked something.
    """
    measured = requests.queries is None and requests.exclude_seen and bool(requests.allowed.all())
    if calibration is None or not measured:
        return np.full(ranked.items.shape, np.nan)
    found = calibration.probabilities(ranked.scores, ranked.items)
    found[requests.histories.liked().lengths == 0] = np.nan
    return found


def fit_temperature(scores: NDArray[np.floating], items: NDArray[np.int64], chosen: NDArray[np.int64]) -> float:
    """The temperature under whose softmax the choices are likeliest.

    Args:
        scores: (L, K), at least one list; whatever stands beside NO_ITEM is passed over.
        items: (L, K) the items they belong to, in any order; each list holds its choice once.
        chosen: (L,) what was taken of each list.

    Returns:
        The temperature; 1 where all scores of each list are equal, since they say the same at any.
    """
    known = items != NO_ITEM
    x = np.where(known, scores, 0).astype(np.float64)
    x -= x.sum(axis=1, keepdims=True) / known.sum(axis=1, keepdims=True)
    deviation = float(np.sqrt((x[known] ** 2).mean()))
    if deviation < 1e-9:
        return 1.0
    x[~known] = -np.inf
    own = x[items == chosen[:, None]]

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return float((special.logsumexp(x / temperature, axis=1) - own / temperature).mean())

    middle, reach = np.log(deviation), np.log(WIDEST)
    # convex in 1 / T, so that in log T, too, there is one minimum
    found = optimize.minimize_scalar(loss, bounds=(middle - reach, middle + reach), method="bounded")
    return float(np.exp(found.x))


def fit_calibration(
    lists: LabelledLists, depth: int, judged: Judged | None, seed: int, seen: NDArray[np.int64] = NOBODY
) -> Calibration | None:
    """Calibrate an order.

    The coverage is the share of all lists whose choice is among the first ``depth`` candidates, since a re-ranker
    changes their order alone. (The users whom it was judged on would not tell: each has a list that holds its choice.)

    Args:
        lists: All held-out lists, those without their choice among them.
        depth: Candidates of a request that are re-ranked, or would be.
        judged: The re-ranked order: lists that the re-ranker was not trained on, which tell the temperature. None: the
            fused one, of which a sample of all lists tells it.
        seed: Of the sample.
        seen: Users on whose lists the encoder was tuned; none of theirs is in the sample.

    Returns:
        None where no list that may be used holds its choice: nothing is known then.
    """
    found = lists.is_chosen[:, :depth].any(axis=1)
    order = "fused" if judged is None else "re-ranked"
    if judged is None:
        rows = np.random.default_rng(seed).permutation(np.flatnonzero(found & ~np.isin(lists.users, seen)))
        some = lists.take(np.sort(rows[:MOST_LISTS])).containing_choice(depth)
        judged = Judged(some, some.candidates.scores)
    items = judged.lists.candidates.items
    if not len(items):
        return None
    temperature = fit_temperature(judged.scores, items, judged.lists.chosen)
    calibration = Calibration(temperature, float(found.mean()), items.shape[1])
    logger.info(
        "Calibrated the %s order on %d lists: temperature %.3f, and %.1f %% of the next items among the first %d.",
        order, len(items), temperature, 100 * calibration.coverage, calibration.depth,
    )  # fmt: skip
    return calibration
