"""Exploration: lists in which chance has a part, so that what users do tells of items that would not be shown."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from retrieval.candidates import NO_ITEM, Candidates


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ExplorationConfig:
    """How much of a list is left to chance.

    Attributes:
        temperature: 0 never explores. Above it, each place of a list is drawn among the candidates that are left, with
            probabilities proportional to exp(score / temperature) (Plackett-Luce; Plackett, "The Analysis of
            Permutations", 1975). Only lists that are logged explore, since what they teach depends on the probability.
    """

    temperature: Annotated[float, Field(ge=0)] = 0.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Candidates in the order in which they were drawn."""

    candidates: Candidates  # (U, K)
    places: NDArray[np.int64]  # (U, K) where each stood before
    propensities: NDArray[np.float64]  # (U, K) probability of being drawn for its place, given those above it


def explored(candidates: Candidates, temperature: float, list_ids: Sequence[str]) -> Drawn:
    """Draw an order of the candidates.

    Args:
        candidates: (U, K), best first.
        temperature: Above 0, see ``ExplorationConfig``.
        list_ids: (U,) seed the draws: the same list is drawn again for the same id and scores.
    """
    known = candidates.items != NO_ITEM
    logits = np.where(known, candidates.scores.astype(np.float64) / temperature, -np.inf)
    seeds = (int.from_bytes(hashlib.sha256(list_id.encode()).digest()[:16]) for list_id in list_ids)
    noise = np.stack([np.random.default_rng(seed).gumbel(size=logits.shape[1]) for seed in seeds])
    # the k largest of logits with Gumbel noise are a draw without replacement (Yellott, J. Math. Psychology 15, 1977)
    places = np.argsort(-(logits + noise), axis=1, kind="stable")
    drawn = np.take_along_axis(logits, places, axis=1)
    # the sum over what is left, from the last place to the first
    left = np.logaddexp.accumulate(drawn[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore"):  # -inf - -inf beyond a row's end
        propensities = np.where(np.isfinite(drawn), np.exp(drawn - left), np.nan)
    return Drawn(candidates.at(places), places, propensities)
