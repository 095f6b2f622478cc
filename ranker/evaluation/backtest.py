"""A backtest: how a log is cut in time, and how an engine fitted on the earlier part is measured on the later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd

from encoders.errors import InputError
from ranker.evaluation.evaluate import Evaluation, judged
from ranker.evaluation.questions import Questions, asked_before_each, asked_once
from ranker.evaluation.splits import Split, global_temporal, leave_one_out
from ranker.users import UserHistories
from retrieval.catalogue import Catalogue

if TYPE_CHECKING:
    from ranker.engine import Engine

SplitName = Literal["leave-one-out", "global-temporal", "prequential"]


@dataclass(frozen=True)
class Backtest:
    """What is held out of a log, and what of it is to be found.

    Attributes:
        split: "leave-one-out" holds out each user's newest events, "global-temporal" everything from one instant on;
            "prequential" cuts like the latter, and predicts each event from all before it.
        holdout: Newest events of each user; for leave-one-out.
        test_fraction: Share of the events; for the other two.
        least_weight: Events of less are not to be found, though a replay reveals them; those of weight 0 never are.
    """

    split: SplitName = "global-temporal"
    holdout: int = 1
    test_fraction: float = 0.1
    least_weight: float = 0

    def cut(self, interactions: pd.DataFrame) -> Split:
        """The earlier events and the later ones.

        Raises:
            InputError: As `leave_one_out` or `global_temporal` says, or the weight is no number.
        """
        if not math.isfinite(self.least_weight):
            raise InputError(f"least_weight is {self.least_weight}: give a number; 0 leaves every event to be found.")
        if self.split == "leave-one-out":
            return leave_one_out(interactions, holdout=self.holdout)
        if self.split in ("global-temporal", "prequential"):
            return global_temporal(interactions, self.test_fraction)
        raise InputError(f"No split {self.split!r}: take leave-one-out, global-temporal or prequential.")

    def asked(self, before: UserHistories, catalogue: Catalogue, test: pd.DataFrame) -> Questions:
        """The lists to rank, and what is to be found in each.

        Args:
            before: What users had done, none of the test's events among it.
            catalogue: The items.
            test: The later events.

        Raises:
            InputError: As `asked_once` or `asked_before_each` says.
        """
        wanted = ((test["weight"] > 0) & (test["weight"] >= self.least_weight)).to_numpy()
        if self.split == "prequential":
            return asked_before_each(before, catalogue, test, wanted)
        return asked_once(before, catalogue, test[wanted])

    def measure(
        self, engine: Engine, test: pd.DataFrame, *, cutoffs: Sequence[int] = (5, 10, 20), seed: int = 0
    ) -> Evaluation:
        """Judge an engine that was fitted on the earlier events.

        Args:
            engine: It knows none of the test's events.
            test: The later events.
            cutoffs: Ranks at which metrics are taken; 10 must be among them.
            seed: Of the bootstrap.

        Raises:
            InputError: As `asked_once` or `asked_before_each` says.
        """
        return judged(engine, self.asked(engine.users, engine.catalogue, test), cutoffs=cutoffs, seed=seed)

    def __str__(self) -> str:
        size = f"holdout {self.holdout}" if self.split == "leave-one-out" else f"test fraction {self.test_fraction:g}"
        weight = f", of weight {self.least_weight:g} or more" if self.least_weight else ""
        return f"{self.split}, {size}{weight}"
