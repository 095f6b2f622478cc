"""The protocols: how a log is split, and what is asked of every system alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranker.evaluation import Backtest, Split
from ranker.evaluation.questions import Questions
from ranker.users import UserHistories
from retrieval.catalogue import Catalogue
from retrieval.histories import Histories
from retrieval.interactions import Interactions

ProtocolName = Literal["loo", "temporal", "prequential", "cold"]
Ties = Literal["file", "random"]

LIKED = 4  # stars from which a rating is a positive, where not all ratings are
NEWEST = 0.1  # share of the log, by time, that is the test of the protocols that cut at an instant
COLD = 0.1  # share of the items that nobody is known to have rated
DESCRIBED: dict[ProtocolName, str] = {
    "loo": "Leave-one-out: each user's last rating is the test, all their earlier ones are known; all ratings are "
    "positives. What other users did after a test rating is known too, as in the papers that use this protocol.",
    "temporal": "Global temporal split: the newest tenth of all ratings is the test, nothing of it is known. One list "
    f"for each user; all that they rated {LIKED} or more in the test is relevant.",
    "prequential": "Prequential: the newest tenth of all ratings is replayed. Before each rating a list is made that "
    f"knows every earlier one of its user, then the rating is revealed. Ratings of {LIKED} or more are judged; what "
    "was trained saw the first nine tenths alone.",
    "cold": "Cold items: a tenth of the films, drawn by the seed, have no rating in what is trained on, but their "
    f"texts are known. One list for each user; those of these films that they rated {LIKED} or more are relevant.",
}

PLANS: dict[ProtocolName, Backtest] = {
    "loo": Backtest("leave-one-out"),
    "temporal": Backtest("global-temporal", test_fraction=NEWEST, least_weight=LIKED),
    "prequential": Backtest("prequential", test_fraction=NEWEST, least_weight=LIKED),
    "cold": Backtest(least_weight=LIKED),
}


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One split of a log, and the lists that are asked for."""

    protocol: ProtocolName
    train: pd.DataFrame
    items: pd.DataFrame
    catalogue: Catalogue
    before: UserHistories  # what users did in train
    asked: Questions
    described: str

    @property
    def log(self) -> Histories:
        """Every user's history in train."""
        return self.before.base.histories

    @property
    def rows(self) -> NDArray[np.int64]:
        """(L,) row of the log of each list's user, UNKNOWN for one who is not in train."""
        return self.before.base.users.positions(list(self.asked.users))

    def some(self, most: int, seed: int) -> Task:
        """The same task with so many of its lists at most, drawn by the seed."""
        lists = np.sort(np.random.default_rng(seed).permutation(len(self.asked))[:most])
        return replace(self, asked=self.asked.take(lists))

    def liked_from(self, least: float) -> Task:
        """The same task, ratings of less being no sign of liking to whoever reads it."""
        log = _liked_from(self.log, least)
        return replace(
            self,
            train=self.train.assign(weight=self.train["weight"].where(self.train["weight"] >= least, 0)),
            before=UserHistories(Interactions(self.before.base.users, log)),
            asked=replace(self.asked, log=_liked_from(self.asked.log, least)),
        )


def pose(interactions: pd.DataFrame, items: pd.DataFrame, protocol: ProtocolName, ties: Ties, seed: int = 0) -> Task:
    """The questions of a protocol.

    Args:
        interactions: All of a log, ``user_id, item_id, weight, datetime``, in its file's order.
        items: The catalogue.
        protocol: Which.
        ties: What decides between ratings of the same second: the file's order, or chance.
        seed: Of chance, and of which items are cold.
    """
    if ties == "random":
        interactions = interactions.sample(frac=1, random_state=seed)
    catalogue = Catalogue(items)
    plan = PLANS[protocol]
    split = cold_items(interactions, seed) if protocol == "cold" else plan.cut(interactions)
    before = UserHistories(Interactions.from_frame(split.train, catalogue))
    asked = plan.asked(before, catalogue, split.test)
    return Task(protocol, split.train, items, catalogue, before, asked, described(protocol, ties, asked, catalogue))


def _liked_from(histories: Histories, least: float) -> Histories:
    return replace(histories, weights=np.where(histories.weights >= least, histories.weights, 0))


def cold_items(interactions: pd.DataFrame, seed: int) -> Split:
    """Every rating of some items is the test, however old."""
    rated = np.sort(interactions["item_id"].unique())
    cold = np.random.default_rng(seed).permutation(rated)[: round(COLD * len(rated))]
    ordered = interactions.sort_values("datetime", kind="stable")
    held_out = ordered["item_id"].isin(cold)
    return Split(ordered[~held_out], ordered[held_out])


def described(protocol: ProtocolName, ties: Ties, asked: Questions, catalogue: Catalogue) -> str:
    """The protocol in words, with its counts."""
    users = asked.users.nunique()
    new = int((asked.histories().lengths == 0).sum())
    order = "the file's order" if ties == "file" else "an order drawn by the seed"
    return (
        f"{DESCRIBED[protocol]} Ratings of one user in one second stand in {order}. All {len(catalogue):,} films less "
        f"those that the user had are ranked: {len(asked):,} lists of {users:,} users, {new:,} of the lists for users "
        "of whom nothing is known yet."
    )
