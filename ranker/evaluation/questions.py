"""What is asked of every system alike: histories to rank for, and what was then to be found.

Prequential questions (test, then reveal: Dawid, "Statistical theory: the prequential approach", JRSS A 147(2), 1984;
for recommenders Vinagre, Jorge & Gama, "Evaluation of recommender systems in streaming environments", 2014) are what an
engine is asked in production, where a list follows the last click.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from encoders.errors import InputError
from ranker.data.times import US_PER_SECOND
from ranker.users import UserHistories
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.histories import Histories
from retrieval.ids import UNKNOWN, IdMap
from retrieval.interactions import microseconds

LISTS_AT_ONCE = 1024  # whose histories are held at once


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Lists to rank; row ``l`` of each part belongs to one of them.

    Attributes:
        log: Histories that hold all that any list may know.
        ends: (L,) where in ``log.items`` the history of each list ends, exclusive: what comes after is not known to it.
        rows: (L,) row of the log.
        users: (L,) whose each list is.
        relevant: (L, I) what is to be found; nothing that its history holds.
        users_left_out: Users of the test of whom nothing could be asked.
        times: (L,) when each is asked for, microseconds since 1970; None where that is at no time of its own.
    """

    log: Histories
    ends: NDArray[np.int64]
    rows: NDArray[np.int64]
    users: pd.Index
    relevant: sparse.csr_array
    users_left_out: int
    times: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many events each list knows, (L,)."""
        return self.ends - self.log.indptr[self.rows]

    def take(self, lists: NDArray[np.int64]) -> Questions:
        """These lists, in this order."""
        times = None if self.times is None else self.times[lists]
        return Questions(
            self.log, self.ends[lists], self.rows[lists], self.users[lists], self.relevant[lists], self.users_left_out,
            times,
        )  # fmt: skip

    @property
    def pauses(self) -> NDArray[np.float64] | None:
        """Seconds from the newest event that each list knows to when it is asked for, (L,).

        NaN where it knows none, and None where lists are asked for at no time of their own.
        """
        if self.times is None:
            return None
        since = (self.times - self.log.times[self.ends - 1]) / US_PER_SECOND
        return np.where(self.lengths > 0, since, np.nan)

    def histories(self, lists: slice = slice(None)) -> Histories:
        """What these lists know, a row for each."""
        return self.log.up_to(self.rows[lists], self.ends[lists])

    def requests(self) -> Iterator[Requests]:
        """The lists in blocks of bounded memory; all of the catalogue may be returned but what a history holds."""
        everything = np.ones(self.relevant.shape[1], np.bool_)
        for start in range(0, len(self), LISTS_AT_ONCE):
            part = self.histories(slice(start, start + LISTS_AT_ONCE))
            for _, block in Requests(part, everything).blocks():
                yield block


def asked_once(before: UserHistories, catalogue: Catalogue, test: pd.DataFrame) -> Questions:
    """One list for each user of a test; all that they did in it is to be found.

    Args:
        before: What users had done, none of the test's events among it.
        catalogue: The items.
        test: ``user_id, item_id``.

    Raises:
        InputError: A column is missing, or fewer than two users can be judged.
    """
    _check_test(test, ("user_id", "item_id"))
    users = IdMap(pd.unique(test["user_id"]))
    log = before.histories(list(users.ids))
    shape = (len(users), len(catalogue))
    items = catalogue.ids.positions(test["item_id"], "test: item_id")
    known = items != UNKNOWN  # an item that is not in the catalogue cannot be found by any system
    rows = users.positions(test["user_id"])[known]
    relevant = sparse.csr_array((np.ones(len(rows), np.int64), (rows, items[known])), shape=shape)
    seen = log.matrix(np.ones(len(log.items), np.float32), len(catalogue))
    relevant = sparse.csr_array(relevant - relevant.multiply(seen > 0)).astype(np.bool_)
    relevant.eliminate_zeros()
    judged = np.flatnonzero(np.diff(relevant.indptr))
    if len(judged) < 2:
        raise InputError(
            f"test: {len(judged)} of {len(users)} users have an item that is in the catalogue and new to them; at "
            "least two are needed. Was the engine fitted on the test's own events?"
        )
    return Questions(log, log.indptr[judged + 1], judged, users.at(judged), relevant[judged], len(users) - len(judged))


def asked_before_each(
    before: UserHistories,
    catalogue: Catalogue,
    test: pd.DataFrame,
    relevant: Sequence[bool] | NDArray[np.bool_] | None = None,
) -> Questions:
    """A list before each event of a test, which knows all earlier ones of its user; the event is to be found.

    An event is asked for where its item is in the catalogue and new to its user; every other one is revealed alone.

    Args:
        before: What users had done, none of the test's events among it.
        catalogue: The items.
        test: ``user_id, item_id, weight, datetime``, in the order in which events of equal times are revealed.
        relevant: Which rows of the test are asked for at all, such as those with a high rating; None: all of a weight
            above 0.

    Raises:
        InputError: A column is missing, an event is earlier than what the engine knows of its user, or fewer than two
            users have an event that can be asked for.
    """
    _check_test(test, ("user_id", "item_id", "weight", "datetime"))
    chosen = test["weight"].to_numpy() > 0 if relevant is None else np.asarray(relevant, np.bool_)
    if len(chosen) != len(test):
        raise InputError(f"relevant has {len(chosen):,} entries for {len(test):,} rows of test: give one for each.")
    users = IdMap(pd.unique(test["user_id"]))
    items = catalogue.ids.positions(test["item_id"], "test: item_id")
    known = items != UNKNOWN  # an item that is not in the catalogue can be neither found nor read
    log, ends = _revealed(
        before.histories(list(users.ids)),
        users.positions(test["user_id"])[known],
        items[known],
        test["weight"].to_numpy(np.float32)[known],
        microseconds(test["datetime"])[known],
        chosen[known],
    )
    rows = log.rows[ends]
    left_out = len(users) - len(np.unique(rows))
    if len(users) - left_out < 2:
        raise InputError(
            f"test: {len(users) - left_out} of {len(users)} users have an event to judge, on an item that is in the "
            "catalogue and new to them; at least two are needed. Was the engine fitted on the test's own events?"
        )
    found = sparse.csr_array(
        (np.ones(len(ends), np.bool_), log.items[ends], np.arange(len(ends) + 1)),
        shape=(len(ends), len(catalogue)),
    )
    return Questions(log, ends, rows, users.at(rows), found, left_out, log.times[ends])


def _revealed(
    before: Histories,
    rows: NDArray[np.int64],
    items: NDArray[np.int64],
    weights: NDArray[np.float32],
    times: NDArray[np.int64],
    chosen: NDArray[np.bool_],
) -> tuple[Histories, NDArray[np.int64]]:
    """Histories with the test's events at their ends, and which of these are judged: positions in ``items``."""
    newest = np.full(len(before), np.iinfo(np.int64).min)
    filled = before.lengths > 0
    newest[filled] = before.times[before.indptr[1:][filled] - 1]
    early = np.flatnonzero(times < newest[rows])
    if len(early):
        raise InputError(
            f"test: {len(early):,} of {len(times):,} events are earlier than the newest one that the engine knows of "
            "their user. Replay what came later: fit on the earlier part of ranker.evaluation.global_temporal."
        )
    log = Histories.from_rows(
        np.concatenate([before.rows, rows]),
        np.concatenate([before.items, items]),
        np.concatenate([before.weights, weights]),
        np.concatenate([before.times, times]),
        len(before),
        np.concatenate([before.kinds, np.zeros(len(rows), np.uint8)]),
    )
    # the same order as that of the log: by row and time, equal times as given
    order = np.lexsort((np.concatenate([before.times, times]), np.concatenate([before.rows, rows])))
    asked = np.concatenate([np.zeros(len(before.items), np.bool_), chosen])[order]
    again = pd.DataFrame({"row": log.rows, "item": log.items}).duplicated().to_numpy()
    return log, np.flatnonzero(asked & ~again)


def _check_test(test: pd.DataFrame, columns: Sequence[str]) -> None:
    if not isinstance(test, pd.DataFrame):
        raise InputError(f"test: pass a DataFrame with {' and '.join(columns)}, not a {type(test).__name__}.")
    for name in columns:
        if name not in test.columns:
            raise InputError(f"test: no column {name!r}; the columns are {', '.join(map(str, test.columns))}.")
    if test.empty:
        raise InputError("test: the table has no rows, so there is nobody to judge by.")
    if "datetime" in columns and not pd.api.types.is_datetime64_any_dtype(test["datetime"]):
        raise InputError(
            f"test: column 'datetime' holds {test['datetime'].dtype}, not datetimes. Convert it, or read the file "
            "with ranker.data.read_interactions."
        )
