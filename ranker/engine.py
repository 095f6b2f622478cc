"""The engine: who asks, what they have done up to this moment, and what they should see next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders import Encoder
from encoders.errors import InputError
from ranker.answers import answer_table, candidate_tables, read_queries
from ranker.arguments import (
    Horizon,
    OnUnknown,
    check_choice,
    check_horizon,
    check_k,
    check_known,
    given_histories,
    list_names,
    listed,
)
from ranker.calibration import Calibration, predicted
from ranker.config import EngineConfig
from ranker.exploration import explored
from ranker.feedback import EventLog, checked_events
from ranker.feedback.impressions import impressions
from ranker.reranker import Reranker
from ranker.users import LoggedActs, UserHistories
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.fusion import FusedRetriever
from retrieval.histories import Histories
from retrieval.ids import Ids
from retrieval.interactions import Interactions
from retrieval.queries import Queries
from retrieval.similar import similar_items
from retrieval.training import TrainingReport

UNSAVED = "unsaved"  # the version of an engine that no folder holds


class Engine:
    """Ranks the items of a catalogue for users, and takes their feedback.

    ``ranker.fit`` and ``ranker.load`` return one; it is whole from then on. ``recommend`` and ``rank`` never learn.
    It may be used from several threads.

    Args:
        catalogue: The items.
        interactions: The log that the parts were fitted on.
        encoder: Encodes free-text queries, the way it encoded the items.
        retriever: Proposes candidates for what comes next.
        lasting: The same for lasting taste; None where the engine has no such view.
        reranker: Re-orders the best of them.
        log: Where feedback is kept.
        config: The settings that the parts were made with.
        training: What the cross-encoder's fine-tuning reached; None where there was none.
        calibration: Makes probabilities of scores; None where nothing was held out to learn it from.
        version: What logged lists are told to come from.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        interactions: Interactions,
        encoder: Encoder,
        retriever: FusedRetriever,
        lasting: FusedRetriever | None,
        reranker: Reranker,
        log: EventLog,
        config: EngineConfig,
        training: TrainingReport | None,
        calibration: Calibration | None,
        version: str = UNSAVED,
    ) -> None:
        self.catalogue = catalogue
        self.encoder = encoder
        self.retriever = retriever
        self.lasting = lasting
        self.reranker = reranker
        self.config = config
        self.training = training
        self.calibration = calibration
        self.version = version
        self.users = UserHistories(interactions)
        self.use_log(log)

    def recommend(
        self,
        user_ids: Ids | None = None,
        k: int = 10,
        *,
        history: pd.DataFrame | None = None,
        query: str | Sequence[str] | None = None,
        allow: Ids | None = None,
        deny: Ids | None = None,
        where: Mapping[str, Any] | None = None,
        exclude_seen: bool = True,
        on_unknown: OnUnknown = "popular",
        horizon: Horizon = "next",
        list_ids: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """What each user should see.

        Args:
            user_ids: The users; those of ``history`` where it is None.
            k: Items for each, at most; fewer where filters leave fewer.
            history: ``user_id, item_id`` and optionally ``weight, datetime``: what these users did, in place of what
                the engine knows of them. They need not be known.
            query: A free text that the items should match, for all users or one for each.
            allow: Only these items.
            deny: Not these items.
            where: Attribute filters, see ``Catalogue.allowed``.
            exclude_seen: Leave out what the user had before.
            on_unknown: A user without any event gets popular items, or raises.
            horizon: "next" says what they may take now, "lasting" what they may come back for in the coming weeks: for
                that the whole history counts the same, and the fused order is the answer, since the cross-encoder
                learns what comes next.
            list_ids: New ids, one for each user's list: each list is logged as shown, on disk before it is returned, so
                that feedback can name the list that it answers. None logs nothing.

        Returns:
            ``user_id, item_id, score, rank, probability``: rank counts from 1; scores compare within one user's list
            only. The probability is that of the item being what the user takes next, of all that they have not had, and
            compares between users; missing (NaN) where nothing was measured, see ``ranker.calibration``.

        Raises:
            InputError: An argument cannot be used; the message says which and why.
            ArtifactError: The log could not be read, or written.
        """
        check_k(k, len(self.catalogue), len(self.catalogue))
        check_horizon(horizon, self.lasting is not None)
        ids, histories = self._asked(user_ids, history, on_unknown)
        names = None if list_ids is None else list_names(list_ids, ids, history is not None)
        allowed = self.catalogue.allowed(allow, deny, where)
        requests = Requests(histories, allowed, exclude_seen, self._read(query, len(ids)))
        blocks = requests.blocks()
        answers = [self._answer(block, k, horizon, None if names is None else names[rows]) for rows, block in blocks]
        items, scores, *more = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        told = dict(zip(("probability", "propensity"), more, strict=True))
        table = answer_table(ids, self.catalogue.ids, items, scores, told)
        if names is not None:
            self._record(impressions(table, dict(zip(ids, names, strict=True)), self.version))
        return table.drop(columns="propensity")

    def rank(
        self, user_id: Any, item_ids: Ids, *, query: str | None = None, on_unknown: OnUnknown = "popular"
    ) -> pd.DataFrame:
        """These items in the order in which this user should see them; seen ones are kept.

        Returns:
            ``user_id, item_id, score, rank``, one row per item.

        Raises:
            InputError: There is no item, one is unknown or given twice, or the user is unknown and may not be.
        """
        items = self.catalogue.require(item_ids, "rank")
        if not len(items) or len(np.unique(items)) < len(items):
            raise InputError(
                f"rank: {len(items)} items with {len(np.unique(items))} distinct ids; pass each item once."
            )
        ids, histories = self._asked([user_id], None, on_unknown)
        everything = np.ones(len(self.catalogue), np.bool_)
        requests = Requests(histories, everything, False, self._read(query, 1))
        ranked = self.reranker.rerank(requests, self.retriever.arrange(requests, items[None, :]))
        return answer_table(ids, self.catalogue.ids, ranked.items, ranked.scores)

    def similar_items(self, item_ids: Ids, k: int = 10) -> pd.DataFrame:
        """The items nearest to each of these, by text and by who likes them.

        Returns:
            ``item_id, similar_item_id, score, rank``; the score is the mean cosine.

        Raises:
            InputError: An item is unknown, or ``k`` is not below the catalogue's size.
        """
        check_k(k, len(self.catalogue) - 1, len(self.catalogue))
        items = self.catalogue.require(item_ids, "similar_items")
        found = similar_items(self.retriever.sources, items, k)
        table = answer_table(self.catalogue.ids.at(items), self.catalogue.ids, *found)
        return table.rename(columns={"item_id": "similar_item_id", "user_id": "item_id"})

    def candidates(self, user_ids: Ids | None = None, k: int | None = None) -> Iterator[pd.DataFrame]:
        """The candidates of many users, not re-ranked, a block of users at a time.

        Args:
            user_ids: The users; None for everybody.
            k: Items for each, at most; None for as many as ``config.fusion.depth``.

        Returns:
            Tables ``user_id, item_id, score, rank`` and each source's own score (missing where it has none).

        Raises:
            InputError: A user is unknown (when their block is reached), or ``k`` is out of range.
        """
        k = min(self.config.fusion.depth, len(self.catalogue)) if k is None else k
        check_k(k, len(self.catalogue), len(self.catalogue))
        ids = self.users.ids if user_ids is None else listed(user_ids)
        return candidate_tables(self.retriever, self.users, ids, self.catalogue.ids, k)

    def feedback(self, events: pd.DataFrame) -> int:
        """Take in what users just did; the very next ``recommend`` knows it.

        Args:
            events: ``event_id, user_id, item_id, kind, value, datetime``; see ``ranker.feedback``. Unchanged.

        Returns:
            How many events were new, once all are on disk (in memory for an engine that was never saved).

        Raises:
            InputError: An event cannot be used; none of the batch is recorded then.
            ArtifactError: The log could not be written; none of the batch is recorded then.
        """
        checked = checked_events(events, self.catalogue, self.users.base.users)
        return len(self._record(checked))

    def save(self, folder: Path | str) -> Path:
        """Write the engine as a new version of ``folder`` and keep feedback there from now on.

        Returns:
            The version's folder.

        Raises:
            ArtifactError: The folder holds something else, or the disk refused; what it held is untouched then.
        """
        from ranker.persistence import save_engine  # persistence builds engines, so it imports this module

        return save_engine(self, Path(folder))

    def forget(self, user_ids: Ids) -> int:
        """Delete what is known of these users, the log's events and those of the fit.

        Saved versions hold the latter until ``ranker.persistence.erase``, but none tells of them once it is loaded.
        What the sources learned from everybody stays until the next fit.

        Returns:
            How many events of the log were deleted.

        Raises:
            InputError: A user's id is of another kind than the known ones, or given twice.
            ArtifactError: The log could not be written.
        """
        self.users.base.users.positions(ids := listed(user_ids), "forget: user_ids")
        deleted = self.log.forget(ids)
        self.use_log(self.log)
        return deleted

    def use_log(self, log: EventLog) -> None:
        """Know what this log holds, in place of the log so far, and keep feedback there from now on."""
        logged = LoggedActs(log, self.config.feedback, self.catalogue.ids)
        self.users = UserHistories(self.users.base, logged, log.forgotten())
        self.log = log

    def _record(self, events: pd.DataFrame) -> pd.DataFrame:
        new = (log := self.log).append(events)
        if self.log is not log:  # a save has moved it meanwhile
            self.log.append(events)
        return new

    def _asked(
        self, user_ids: Ids | None, history: pd.DataFrame | None, on_unknown: OnUnknown
    ) -> tuple[Sequence[Any], Histories]:
        check_choice("on_unknown", on_unknown, OnUnknown)
        if history is not None:
            return given_histories(user_ids, history, self.catalogue)
        if user_ids is None:
            raise InputError("recommend: pass user_ids, or a history table whose users are meant.")
        ids = listed(user_ids)
        histories = self.users.histories(ids)
        if on_unknown == "raise":
            check_known(ids, histories.lengths)
        return ids, histories

    def _read(self, query: str | Sequence[str] | None, n_users: int) -> Queries | None:
        return None if query is None else read_queries(query, n_users, self.reranker, self.encoder)

    def _answer(
        self, requests: Requests, k: int, horizon: Horizon, names: Sequence[str] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
        """The best ``k``, their scores, their probabilities, and their propensities or NaN, each (U, k)."""
        if horizon == "lasting" and self.lasting is not None:
            found, calibration = self.lasting.retrieve(requests, k), None
        else:
            depth = self.config.rerank.chosen.depth
            found = self.reranker.rerank(requests, self.retriever.retrieve(requests, max(k, depth)))
            # with more candidates than were measured standardised together, scores have another scale
            calibration = self.calibration if k <= max(depth, self.config.fusion.depth) else None
        probabilities = predicted(calibration, requests, found)
        propensities = np.full_like(probabilities, np.nan)
        if names is not None and self.config.exploration.temperature:
            drawn = explored(found, self.config.exploration.temperature, names)
            found, propensities = drawn.candidates, drawn.propensities
            probabilities = np.take_along_axis(probabilities, drawn.places, axis=1)
        return found.items[:, :k], found.scores[:, :k], probabilities[:, :k], propensities[:, :k]
