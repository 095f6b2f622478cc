"""The engine: who asks, what they have done up to this moment, and what they should see next."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders import Encoder
from encoders.errors import InputError
from ranker.answers import answer_table, scores_by_source
from ranker.arguments import (
    Horizon,
    OnUnknown,
    check_choice,
    check_horizon,
    check_k,
    check_known,
    given_histories,
    listed,
    query_texts,
)
from ranker.calibration import Calibration, predicted
from ranker.config import EngineConfig
from ranker.feedback import checked_events
from ranker.log import FeedbackLog
from ranker.reranker import Reranker
from ranker.users import UserHistories
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.fusion import FusedRetriever
from retrieval.histories import Histories
from retrieval.ids import UNKNOWN, Ids
from retrieval.queries import Queries
from retrieval.similar import similar_items
from retrieval.training import TrainingReport

logger = logging.getLogger(__name__)

BLOCK_USERS = 1024  # in a table of candidates: those of a block, with every source's score, stay in memory


class Engine:
    """Ranks the items of a catalogue for users, and takes their feedback.

    ``ranker.fit`` and ``ranker.load`` return one; it is whole from then on. ``recommend`` and ``rank`` never learn.
    It may be used from several threads.

    Args:
        catalogue: The items.
        users: What everybody did so far.
        encoder: Encodes free-text queries, the way it encoded the items.
        retriever: Proposes candidates for what comes next.
        lasting: The same for lasting taste; None where the engine has no such view.
        reranker: Re-orders the best of them.
        log: Where feedback is kept.
        config: The settings that the parts were made with.
        training: What the cross-encoder's fine-tuning reached; None where there was none.
        calibration: Makes probabilities of scores; None where nothing was held out to learn it from.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        users: UserHistories,
        encoder: Encoder,
        retriever: FusedRetriever,
        lasting: FusedRetriever | None,
        reranker: Reranker,
        log: FeedbackLog,
        config: EngineConfig,
        training: TrainingReport | None,
        calibration: Calibration | None,
    ) -> None:
        self.catalogue = catalogue
        self.users = users
        self.encoder = encoder
        self.retriever = retriever
        self.lasting = lasting
        self.reranker = reranker
        self.log = log
        self.config = config
        self.training = training
        self.calibration = calibration
        self._feedback_lock = threading.Lock()  # so that events are taken in in the order in which the log has them
        self._take_in(log.read())

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

        Returns:
            ``user_id, item_id, score, rank, probability``: rank counts from 1; scores compare within one user's list
            only. The probability is that of the item being what the user takes next, of all that they have not had, and
            compares between users; missing (NaN) where nothing was measured, see ``ranker.calibration``.

        Raises:
            InputError: An argument cannot be used; the message says which and why.
        """
        check_k(k, len(self.catalogue), len(self.catalogue))
        check_horizon(horizon, self.lasting is not None)
        ids, histories = self._asked(user_ids, history, on_unknown)
        allowed = self.catalogue.allowed(allow, deny, where)
        requests = Requests(histories, allowed, exclude_seen, self._queries(query, len(ids)))
        answers = [self._answer(block, k, horizon) for _, block in requests.blocks()]
        items, scores, probabilities = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        return answer_table(ids, self.catalogue.ids, items, scores, {"probability": probabilities})

    def rank(
        self,
        user_id: Any,
        item_ids: Ids,
        *,
        query: str | None = None,
        on_unknown: OnUnknown = "popular",
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
        requests = Requests(histories, everything, False, self._queries(query, 1))
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
        found, scores = similar_items(self.retriever.sources, items, k)
        table = answer_table(self.catalogue.ids.at(items), self.catalogue.ids, found, scores)
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
        return self._candidates(self.users.ids if user_ids is None else listed(user_ids), k)

    def feedback(self, events: pd.DataFrame) -> int:
        """Take in what users just did; the very next ``recommend`` knows it.

        Args:
            events: ``event_id, user_id, item_id, kind, value, datetime``; see ``ranker.feedback``. Unchanged.

        Returns:
            How many events were new. One that was sent before counts once; it returns once all are on disk (an
            engine that was never saved keeps them in memory until it is).

        Raises:
            InputError: An event cannot be used; none of the batch is recorded then.
            ArtifactError: The log could not be written; none of the batch is recorded then.
        """
        checked = checked_events(events, self.catalogue, self.users.base.users)
        with self._feedback_lock:
            new = self.log.append(checked)
            self._take_in(new)
        return len(new)

    def save(self, folder: Path | str) -> Path:
        """Write the engine as a new version of ``folder`` and keep feedback there from now on.

        Returns:
            The version's folder.

        Raises:
            ArtifactError: The folder holds something else, or the disk refused; what it held is untouched then.
        """
        from ranker.persistence import save_engine  # persistence builds engines, so it imports this module

        return save_engine(self, Path(folder))

    def move_feedback(self, log: FeedbackLog) -> None:
        """Keep feedback in another log from now on; what each of the two holds so far is in both afterwards.

        Raises:
            InputError: The logs hold an event of the same id with different content. Nothing is moved then.
            ArtifactError: The log cannot be written.
        """
        with self._feedback_lock:
            theirs, ours = log.read(), self.log.read()
            log.append(ours)
            self.log = log
            self._take_in(theirs[~theirs["event_id"].isin(ours["event_id"])])

    def _take_in(self, events: pd.DataFrame) -> None:
        # A log outlives versions, so it may hold items and kinds of user ids that this engine never had.
        ours = self.catalogue.ids.of_kind(events["item_id"]) & self.users.base.users.of_kind(events["user_id"])
        items = np.full(len(events), UNKNOWN)
        items[ours] = self.catalogue.ids.positions(events["item_id"][ours])
        known = items != UNKNOWN
        if not known.all():
            logger.warning(
                "%s: %d of %d events are on items or of users that this engine cannot know; they are passed over.",
                self.log.path, (~known).sum(), len(events),
            )  # fmt: skip
        self.users.take_in(events[known], items[known], self.config.feedback)

    def _asked(
        self, user_ids: Ids | None, history: pd.DataFrame | None, on_unknown: OnUnknown
    ) -> tuple[Sequence[Any], Histories]:
        check_choice("on_unknown", on_unknown, OnUnknown)
        if history is not None:
            return given_histories(user_ids, history, self.catalogue)
        if user_ids is None:
            raise InputError("recommend: pass user_ids, or a history table whose users are meant.")
        ids = listed(user_ids)
        if on_unknown == "raise":
            check_known(ids, self.users.rows(ids))
        return ids, self.users.histories(ids)

    def _queries(self, query: str | Sequence[str] | None, n_users: int) -> Queries | None:
        if query is None:
            return None
        texts = query_texts(query, n_users)
        places = {text: place for place, text in enumerate(sorted(set(texts)))}
        queries = self.reranker.read_queries(list(places), self.encoder)
        return queries.take(np.array([places[text] for text in texts], np.int64))

    def _candidates(self, user_ids: Sequence[Any], k: int) -> Iterator[pd.DataFrame]:
        everything = np.ones(len(self.catalogue), np.bool_)
        for start in range(0, len(user_ids), BLOCK_USERS):
            ids, histories = self._asked(user_ids[start : start + BLOCK_USERS], None, "raise")
            found = self.retriever.retrieve(Requests(histories, everything), k)
            yield answer_table(ids, self.catalogue.ids, found.items, found.scores, scores_by_source(found))

    def _answer(
        self, requests: Requests, k: int, horizon: Horizon
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
        """The best ``k``, their scores and their probabilities, each (U, k)."""
        if horizon == "lasting" and self.lasting is not None:
            found, calibration = self.lasting.retrieve(requests, k), None
        else:
            depth = self.config.rerank.chosen.depth
            found = self.reranker.rerank(requests, self.retriever.retrieve(requests, max(k, depth)))
            # with more candidates than were measured standardised together, scores have another scale
            calibration = self.calibration if k <= max(depth, self.config.fusion.depth) else None
        return found.items[:, :k], found.scores[:, :k], predicted(calibration, requests, found)[:, :k]
