"""The engine: who asks, what they have done up to this moment, and what they should see next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from encoders import Encoder
from encoders.errors import InputError
from ranker.answers import answer_table, best_of, read_queries
from ranker.arguments import Horizon, OnUnknown, View, asked, check_horizon, check_k, list_names, listed
from ranker.artifact import serving
from ranker.batches import candidate_batches
from ranker.calibration import UNMEASURED, Calibration, Calibrations
from ranker.config import EngineConfig
from ranker.feedback import EventLog
from ranker.intake import Intake, Refuse
from ranker.learning.versions import Learned, base_of, refresh, roll_back
from ranker.observations import Observations
from ranker.reranker import Reranker
from ranker.status import status_of
from ranker.users import UserHistories, newer_users
from ranker.views import Views
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.fusion import FusedRetriever
from retrieval.ids import Ids
from retrieval.interactions import Interactions
from retrieval.queries import Queries
from retrieval.similar import similar_items
from retrieval.training import TrainingReport

UNSAVED = "unsaved"  # the version of an engine that no folder holds


class Engine:
    """Ranks the items of a catalogue for users, and takes their feedback.

    ``ranker.fit`` and ``ranker.load`` return one, whole. ``recommend`` and ``rank`` never learn. Threads may share it.

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
        calibrations: Make probabilities of scores, as far as something was held out to learn them from.
        sources_until: Offset of the newest event of the log that the sources were fitted on, beyond the log of the fit.
        version: What logged lists are told to come from.
        folder: Where the engine is saved; None where it is not.
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
        calibrations: Calibrations = UNMEASURED,
        sources_until: int = 0,
        version: str = UNSAVED,
        folder: Path | None = None,
    ) -> None:
        self.catalogue, self.encoder = catalogue, encoder
        self.views = self.saved_views = Views(retriever, lasting, sources_until)
        self.reranker, self.config = reranker, config
        self.training, self.calibrations = training, calibrations
        self.version, self.folder = version, folder
        self.learned: Learned | None = None  # what serves in place of the saved weights and sources
        self.observations = Observations()
        self.intake = Intake(
            interactions, log, catalogue, config.feedback, self.observations,
            lambda: newer_users(self.folder, base_of(self)),
        )  # fmt: skip

    @property
    def retriever(self) -> FusedRetriever:
        """Proposes candidates for what comes next."""
        return self.views.next

    @property
    def lasting(self) -> FusedRetriever | None:
        """The same for lasting taste; None where the engine has no such view."""
        return self.views.lasting

    @property
    def calibration(self) -> Calibration | None:
        """Makes probabilities of the scores by which requests are answered now."""
        return self.calibrations.of(self.reranker)

    @property
    def users(self) -> UserHistories:
        """What everybody did, up to now."""
        return self.intake.users

    @property
    def log(self) -> EventLog:
        """Where feedback is kept."""
        return self.intake.log

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
                learns what comes next. "auto" is lasting for users who come back (``config.lasting.pause_seconds``)
                and ask without a query, next for all others.
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
        check_horizon(horizon, self.lasting is not None, history)
        ids, histories = asked(self.users, self.catalogue, user_ids, history, on_unknown)
        names = None if list_ids is None else list_names(list_ids, ids, history is not None)
        allowed = self.catalogue.allowed(allow, deny, where)
        blocks = Requests(histories, allowed, exclude_seen, self._read(query, len(ids))).blocks()
        answers = [best_of(self, block, k, horizon, None if names is None else names[rows]) for rows, block in blocks]
        items, scores, probabilities, propensities = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        if names is not None:
            shown = answer_table(ids, self.catalogue.ids, items, scores, {"propensity": propensities})
            self.intake.show(shown, dict(zip(ids, names, strict=True)), self.version)
        return answer_table(ids, self.catalogue.ids, items, scores, {"probability": probabilities})

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
        ids, histories = asked(self.users, self.catalogue, [user_id], None, on_unknown)
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

    def candidates(
        self, user_ids: Ids | None = None, k: int | None = None, *, rerank: bool = False, horizon: View = "next"
    ) -> Iterator[pa.RecordBatch]:
        """The candidates of many users, a block of users at a time; ``ranker.offline`` has them on disk.

        Args:
            user_ids: The users; None for everybody.
            k: Items for each, at most; None for as many as ``config.fusion.depth``.
            rerank: Let the re-ranker order its part of them.
            horizon: As for ``recommend``: lists that will be used later are better of the lasting view.

        Returns:
            Batches ``user_id, item_id, score, rank`` and each source's own score, null where it has none.

        Raises:
            InputError: A user is unknown (when their block is reached), or there are no such candidates.
        """
        return candidate_batches(self, user_ids, k, rerank, horizon, self.users)

    def feedback(self, events: pd.DataFrame, refuse: Refuse | None = None) -> int:
        """Take in what users just did; the very next ``recommend`` knows it.

        Args:
            events: ``event_id, user_id, item_id, kind, value, datetime``; see ``ranker.feedback``. Unchanged.
            refuse: Is told each event that cannot be used, by its row from 0 and why; the others are recorded.

        Returns:
            How many events were new, once all are on disk (in memory for an engine that was never saved).

        Raises:
            InputError: An event cannot be used and nobody is told, or a column is missing. Nothing is recorded then.
            ArtifactError: The log could not be written. To send all again is harmless.
        """
        return self.intake.take(events, refuse)

    def save(self, folder: Path | str) -> Path:
        """Write the engine as a new version of ``folder`` and keep feedback there from now on.

        Returns:
            The version's folder.

        Raises:
            ArtifactError: The folder holds something else, or the disk refused; what it held is untouched then.
        """
        from ranker.persistence import save_engine  # persistence builds engines, so it imports this module

        return save_engine(self, Path(folder))

    def rollback(self, version: str) -> None:
        """Let a kept version of what was learned serve, see ``status``; a learner goes on from there.

        Raises:
            InputError: The engine has none: it was never saved, or its re-ranker does not learn.
            ArtifactError: The version is not there, or is damaged. What served goes on then.
        """
        roll_back(self, version)

    def refresh(self) -> bool:
        """Let serve what another process learned for this saved engine, or returned to; whether that is something else.

        That is weights of the cross-encoder, and sources that were fitted again. What users did is known without it. A
        newer version of the whole engine is not taken over, see ``outdated``.

        Raises:
            ArtifactError: The learned version is damaged. What served goes on then.
        """
        return refresh(self)

    def outdated(self) -> bool:
        """Whether its folder holds another version of the whole engine by now, as after a fit; load that."""
        return self.folder is not None and serving(self.folder) not in ("", base_of(self))

    def status(self) -> dict[str, Any]:
        """What serves, what is in the log and in memory, and what was counted and timed since this object was made."""
        return status_of(self)

    def forget(self, user_ids: Ids) -> int:
        """Delete the log's events of these users, and what the fit's log holds of them; how many the former were.

        Saved versions hold the latter until ``ranker.persistence.erase``, but none tells of them once it is loaded.
        What the sources learned from everybody stays until the next fit.

        Raises:
            InputError: A user's id is of another kind than the known ones, or given twice.
            ArtifactError: The log could not be written.
        """
        return self.intake.forget(listed(user_ids))

    def _read(self, query: str | Sequence[str] | None, n_users: int) -> Queries | None:
        return None if query is None else read_queries(query, n_users, self.reranker, self.encoder)
