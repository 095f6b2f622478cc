"""Who did what, up to this moment: the log that an engine was fitted on, and what was logged since."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders.errors import ArtifactError, InputError
from ranker.artifact import serving
from ranker.feedback.acts import Acts, Report, acts_of, reports_of
from ranker.feedback.event_log import EventLog, Logged
from ranker.feedback.events import N_KINDS
from ranker.feedback.policy import FeedbackPolicy
from retrieval.histories import Histories
from retrieval.ids import UNKNOWN, IdList, IdMap, Ids
from retrieval.interactions import Interactions
from retrieval.storage import load_array

logger = logging.getLogger(__name__)

USERS = "users"  # folder of a saved version
MOST_USERS = 100_000  # whose logged events stay in memory
ARRAYS = ("indptr", "items", "weights", "times", "kinds")


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """What was read of a user's part of the log."""

    offset: int  # of the newest event that is known
    reports: tuple[Report, ...]
    acts: Acts


NOTHING = _Read(0, (), acts_of((), 0))


class LoggedActs:
    """What users did by the feedback log, which is the only state there is: memory holds what was read of it.

    Each question reads the user's events that came since the last one, so that what is in the log, from whichever
    thread or process, is always known, and what was deleted from it no longer. Users of whom nobody asked for longest
    leave memory, and the log brings them back, so nothing is replayed at a start. Safe to use from several threads.

    Args:
        log: The log.
        policy: What its events say.
        items: The catalogue's ids; an event on another item is passed over, since a log outlives catalogues.
        most_users: Who stay in memory at most.
        until: Offset of the newest event that counts; None: all that come.
    """

    def __init__(
        self,
        log: EventLog,
        policy: FeedbackPolicy,
        items: IdMap,
        most_users: int = MOST_USERS,
        until: int | None = None,
    ) -> None:
        self.log = log
        self.most_users = most_users
        self._until = until
        self._policy = policy
        self._items = items
        self._read: OrderedDict[int | str, _Read] = OrderedDict()  # the one asked for last is last
        self._erasures = log.erasures()  # as of which all that is in memory was read
        self._lock = threading.Lock()

    def of(self, user_ids: Sequence[int | str]) -> list[Acts]:
        """What each of these users did, by all that the log holds at one moment from now.

        Raises:
            ArtifactError: The log cannot be read.
        """
        erasures = self.log.erasures()
        with self._lock:
            if erasures > self._erasures:  # what is in memory may tell of what was deleted
                self._read.clear()
                self._erasures = erasures
            read = {user_id: self._read.get(user_id, NOTHING) for user_id in user_ids}
        newer: dict[int | str, list[Logged]] = {}
        for event in self.log.of_users({user_id: known.offset for user_id, known in read.items()}):
            if self._until is None or event.offset <= self._until:
                newer.setdefault(event.user_id, []).append(event)
        for user_id, events in newer.items():
            reports = (*read[user_id].reports, *self._reports(events))
            read[user_id] = _Read(events[-1].offset, reports, acts_of(reports, self._policy.same_act_seconds))
        with self._lock:
            if erasures == self._erasures:
                self._read |= read
                for user_id in read:
                    self._read.move_to_end(user_id)
            while len(self._read) > self.most_users:
                self._read.popitem(last=False)
        return [read[user_id].acts for user_id in user_ids]

    def users(self) -> list[int | str]:
        """Everybody who did something by the log."""
        return self.log.users()

    def __len__(self) -> int:
        """How many users are in memory."""
        return len(self._read)

    def _reports(self, events: Sequence[Logged]) -> list[Report]:
        items = self._items.find([event.item_id for event in events])
        if (items == UNKNOWN).any():
            logger.warning(
                "%s: %d of %d new events of user %r are on items that this engine does not know; they are passed over.",
                self.log.path, (items == UNKNOWN).sum(), len(items), events[0].user_id,
            )  # fmt: skip
        return reports_of(events, items, self._policy)


class UserHistories:
    """Histories of users: the log that an engine was fitted on, and over it what was logged since.

    Args:
        base: The one.
        logged: The other; None: nothing. Of whom it says that they were forgotten, the base does not tell.
        newer: Whom a newer version of the saved engine knows, if there is one. Whoever was erased from that is in no
            list of who was forgotten any more.
    """

    def __init__(
        self, base: Interactions, logged: LoggedActs | None = None, newer: Callable[[], IdMap | None] = lambda: None
    ) -> None:
        self.logged = logged
        self._newer = newer
        self._base = 0, base  # and as of which erasure of the log it tells of nobody who was forgotten

    def over(self, logged: LoggedActs) -> UserHistories:
        """The same base under another log."""
        return UserHistories(self._base[1], logged, self._newer)

    @property
    def base(self) -> Interactions:
        """The log of the fit, less whoever was forgotten up to now, by whichever process."""
        known, base = self._base
        erasures = known if self.logged is None else self.logged.log.erasures()
        if self.logged is not None and erasures != known:
            kept = np.setdiff1d(np.arange(len(base.users)), base.users.find(self.logged.log.forgotten()))
            if (newer := self._newer()) is not None:
                kept = kept[newer.find(base.users.at(kept).tolist()) != UNKNOWN]
            if len(kept) < len(base.users):
                base = Interactions(IdMap(base.users.at(kept)), base.histories.take(kept))
            self._base = erasures, base
        return base

    @property
    def ids(self) -> IdList:
        """Every user's id, those whom the base does not know last."""
        base = self.base
        logged = [] if self.logged is None else self.logged.users()
        ours = base.users.of_kind(logged)
        own = [logged[place] for place in np.flatnonzero(ours)]
        if len(own) < len(logged):
            kind = "integers" if base.users.are_integers else "strings"
            logger.warning(
                "The feedback log tells of %d users of %d whose ids are no %s, as those of this engine are; they are "
                "passed over.", len(logged) - len(own), len(logged), kind,
            )  # fmt: skip
        strange = np.flatnonzero(base.users.positions(own) == UNKNOWN)
        return base.users.ids_with([own[place] for place in strange])

    def histories(self, user_ids: Ids) -> Histories:
        """The history of each user, empty for a user without any event.

        An act that the base holds, too (same user, item and time: an engine fitted on what an older one logged), is not
        laid over it again.

        Raises:
            InputError: An id is of another kind (integer, string) than the known ones.
            ArtifactError: The log cannot be read.
        """
        base = self.base
        rows = base.users.positions(user_ids, "user_ids")
        in_base = np.flatnonzero(rows != UNKNOWN)
        old = base.histories.take(rows[in_base])
        acts = self.acts(pd.Index(user_ids).tolist())
        owners = in_base[old.rows]
        weights = old.weights.copy()
        fresh: list[NDArray[np.bool_]] = [np.ones(len(own), np.bool_) for own in acts]
        for at in np.flatnonzero([len(own) > 0 for own in acts]):
            first, stop = np.searchsorted(owners, [at, at + 1])
            items, times = old.items[first:stop], old.times[first:stop]
            for item, moment in acts[at].refused.items():
                weights[first:stop][(items == item) & (times < moment)] = 0
            held = set(zip(items.tolist(), times.tolist(), strict=True))
            pairs = zip(acts[at].items.tolist(), acts[at].times.tolist(), strict=True)
            fresh[at] = np.array([pair not in held for pair in pairs], np.bool_)
        return Histories.from_rows(
            np.concatenate([owners, np.repeat(np.arange(len(acts)), [int(new.sum()) for new in fresh])]),
            np.concatenate([old.items, *(own.items[new] for own, new in zip(acts, fresh, strict=True))]),
            np.concatenate([weights, *(own.weights[new] for own, new in zip(acts, fresh, strict=True))]),
            np.concatenate([old.times, *(own.times[new] for own, new in zip(acts, fresh, strict=True))]),
            len(rows),
            np.concatenate([old.kinds, *(own.kinds[new] for own, new in zip(acts, fresh, strict=True))]),
        )

    def acts(self, user_ids: Sequence[int | str]) -> list[Acts]:
        """What each of these users did by what was logged since.

        Raises:
            ArtifactError: The log cannot be read.
        """
        return [NOTHING.acts] * len(user_ids) if self.logged is None else self.logged.of(user_ids)

    def merged(self) -> Interactions:
        """Base and newer acts as one log."""
        ids = self.ids
        return Interactions(IdMap(ids), self.histories(ids))


def newer_users(folder: Path | None, version: str) -> IdMap | None:
    """Whom the serving version of a saved engine knows; None where it is this version, or there is none.

    Raises:
        ArtifactError: Its users cannot be read.
    """
    while folder is not None and (newest := serving(folder)) not in ("", version):
        try:
            return IdMap.load(folder / newest / USERS)
        except ArtifactError:
            if serving(folder) == newest:  # or another process has saved a newer one meanwhile, and removed this
                raise
    return None


def save_interactions(log: Interactions, folder: Path) -> None:
    """Write users and histories into this empty folder."""
    log.users.save(folder)
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(log.histories, name))


def load_interactions(folder: Path, n_items: int) -> Interactions:
    """Read what ``save_interactions`` wrote; the arrays stay memory-mapped.

    Raises:
        ArtifactError: A file is missing or damaged, or the files do not belong together.
    """
    users = IdMap.load(folder)
    indptr, items, times = (
        load_array(folder / f"{name}.npy", np.int64, ndim=1) for name in ("indptr", "items", "times")
    )
    weights = load_array(folder / "weights.npy", np.float32, ndim=1)
    kinds = load_array(folder / "kinds.npy", np.uint8, ndim=1)
    out_of_range = len(items) and (items.min() < 0 or items.max() >= n_items)
    unknown_kind = len(kinds) and kinds.max() >= N_KINDS
    unordered = len(indptr) != len(users) + 1 or indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any()
    if unordered or out_of_range or unknown_kind:
        raise ArtifactError(f"{folder}: users, histories and catalogue do not belong together. Save the engine again.")
    try:
        return Interactions(users, Histories(indptr, items, weights, times, kinds))
    except InputError as error:
        raise ArtifactError(f"{folder}: {error}") from error
