"""Training and test interactions, apart in time."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Interactions to learn from and interactions to predict.

    Together they are the rows of the table that was split, under its columns and index labels, each in stable
    time order: by ``datetime``, the table's order inside ties.
    """

    train: pd.DataFrame
    test: pd.DataFrame


def leave_one_out(interactions: pd.DataFrame, *, holdout: int = 1) -> Split:
    """Hold out the last interactions of every user.

    The usual protocol of the sequential recommendation papers (Kang & McAuley, "Self-Attentive Sequential
    Recommendation", ICDM 2018). Within one user, nothing in train comes after anything in test. Across users
    it may: what others did later than a user's test is in train, so popularity and similarity know the future
    a little. `global_temporal` has no such leak.

    Args:
        interactions: ``user_id``, ``datetime`` and any other columns; left unchanged.
        holdout: Interactions to hold out per user. Users with no more than that stay in train whole.

    Raises:
        InputError: If `holdout` is below 1, columns or datetimes are missing, or no user has enough
            interactions.
    """
    if holdout < 1:
        raise InputError(f"holdout is {holdout}: at least one interaction per user has to be held out.")
    ordered = _in_time_order(interactions, ["user_id", "datetime"])
    of_user = ordered.groupby("user_id", sort=False)["user_id"]
    from_last = of_user.cumcount(ascending=False).to_numpy()
    held_out = (from_last < holdout) & (of_user.transform("size").to_numpy() > holdout)
    if not held_out.any():
        raise InputError(
            f"No user has more than {holdout:,} interactions, so none can be held out: lower holdout, or "
            "split with global_temporal."
        )
    return _cut(ordered, held_out)


def global_temporal(interactions: pd.DataFrame, test_fraction: float = 0.1) -> Split:
    """Hold out everything from one instant on.

    The only protocol here under which nothing in train is later than anything in test, for anybody (Meng et
    al., "Exploring Data Splitting Strategies for the Evaluation of Recommendation Models", RecSys 2020).

    Args:
        interactions: ``datetime`` and any other columns; left unchanged.
        test_fraction: Share of the interactions to hold out, in (0, 1). The cut is the instant of the
            earliest of the last ``ceil(test_fraction * n)``; all interactions at that very instant go to
            test, which can make test larger than asked for, never smaller.

    Raises:
        InputError: If `test_fraction` is not in (0, 1), columns or datetimes are missing, or train would be
            empty.
    """
    if not 0 < test_fraction < 1:
        raise InputError(f"test_fraction is {test_fraction}: it has to lie between 0 and 1, both excluded.")
    ordered = _in_time_order(interactions, ["datetime"])
    times = ordered["datetime"].to_numpy()
    cut = times[len(times) - int(np.ceil(test_fraction * len(times)))]
    held_out = times >= cut
    if held_out.all():
        raise InputError(
            f"All {len(times):,} interactions fall into test, since none is earlier than the cut at {cut}: "
            "lower test_fraction, or give finer datetimes."
        )
    return _cut(ordered, held_out)


def _in_time_order(interactions: pd.DataFrame, needed: list[str]) -> pd.DataFrame:
    absent = [name for name in needed if name not in interactions.columns]
    if absent:
        raise InputError(
            f"interactions has no column {', '.join(absent)}; it has "
            f"{', '.join(map(str, interactions.columns))}. read_interactions gives the columns that "
            "are needed."
        )
    if interactions.empty:
        raise InputError("interactions has no rows: there is nothing to split.")
    n_missing = int(interactions[needed].isna().any(axis=1).sum())
    if n_missing:
        raise InputError(
            f"{n_missing:,} of {len(interactions):,} interactions have no {' or no '.join(needed)}: leave "
            "them out first, as read_interactions with on_bad_rows='drop' does."
        )
    return interactions.sort_values("datetime", kind="stable")


def _cut(ordered: pd.DataFrame, held_out: NDArray[np.bool_]) -> Split:
    return Split(train=ordered[~held_out], test=ordered[held_out])
