"""Sequential candidates: what tends to follow the items that a user took last."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import sparse

from retrieval.cold_start import shares_from_texts
from retrieval.histories import Histories
from retrieval.item_item import ItemItemConfig, ItemItemRetriever, shrunk, strongest_by_block
from retrieval.storage import load_settings, load_weights, save_settings, save_weights


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TransitionConfig(ItemItemConfig):
    """Settings of the transitions source; see ``ItemItemConfig`` for how a history is read.

    Attributes:
        window: How many events later an item still counts as following another one.
        distance_power: An item ``d`` events later counts ``1 / d ** distance_power``; 0 counts the whole window alike.
        popularity_power: How far a follower is discounted for following everything: its weight is divided by how often
            it follows anything, to this power. 0 gives the share of an item's followers.
        shrinkage: Transitions that halve the worth of a weight which rests on so many; 0 takes one for a rule.
        neighbours: Followers that are kept of each item, the strongest.
        text_neighbours: Items of the nearest texts whose transitions, by shares, an item that nobody took gets
            (``retrieval.cold_start``); 0 leaves it without.
        ties: What equal times of a user say of the order of events. "both" counts such a pair half in each direction,
            since the order in a file is then no doing of the user's; "order" takes the order as given.
    """

    half_life: Annotated[float | None, Field(gt=0)] = 2.0
    window: Annotated[int, Field(ge=1)] = 10
    distance_power: Annotated[float, Field(ge=0)] = 0.5
    popularity_power: Annotated[float, Field(ge=0)] = 0.25
    shrinkage: Annotated[float, Field(ge=0)] = 0.0
    neighbours: Annotated[int, Field(ge=1)] = 200
    text_neighbours: Annotated[int, Field(ge=0)] = 5
    ties: Literal["both", "order"] = "both"


class TransitionRetriever(ItemItemRetriever):
    """A first-order Markov chain over items that skips, counted rather than factorised.

    The weight from item i to item j is ``c_ij · s_ij / (c_i· · c_·j ** popularity_power)``. The count ``c_ij`` sums
    ``1 / d ** distance_power`` over the places where j comes d ≤ window liked events after i in a history; ``c_i·`` and
    ``c_·j`` are its sums over followers and over items followed, and ``s_ij = c_ij / (c_ij + shrinkage)``. An item that
    follows itself is not counted. Scores add up over the history, the newest event first.

    Sources: Ludewig & Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018 (sequential rules:
    a window, weights 1/d); Rendle, Freudenthaler & Schmidt-Thieme, "Factorizing personalized Markov chains", WWW 2010;
    Paudel et al., "Updatable, accurate, diverse, and scalable recommendations for interactive applications", ACM TiiS
    7(1), 2017 (RP3β: a target's popularity, to a power, divides).

    Args:
        weights: (I, I), from → to.
        config: The settings that they were made with.
    """

    name: ClassVar[str] = "transitions"
    weights: sparse.csr_array

    def __init__(self, weights: sparse.csr_array, config: TransitionConfig) -> None:
        super().__init__(weights, config)
        self.config = config

    @classmethod
    def fit(
        cls,
        histories: Histories,
        n_items: int,
        config: TransitionConfig,
        seed: int = 0,
        vectors: NDArray[np.float32] | None = None,
    ) -> TransitionRetriever:
        """Count in users' positive events, whatever they weigh.

        Memory: 24 to 32 bytes for each distinct pair within the window, beside a few arrays of the log's length.

        Args:
            histories: Every user's.
            n_items: Size of the catalogue.
            config: The settings.
            seed: Of the search for the nearest texts.
            vectors: (I, dim) the items' text vectors, from which items that nobody took get their transitions.
        """
        liked = histories.liked()
        shares = sparse.eye_array(n_items, format="csr")
        if vectors is not None:
            events = np.bincount(liked.items, minlength=n_items)
            shares = shares_from_texts(vectors, events, config.text_neighbours, seed)
        counts = _transition_counts(liked, n_items, config)
        incoming = counts.sum(axis=0) @ shares
        counts = (shares.T @ counts).tocsr()
        outgoing = counts.sum(axis=1)  # to what was taken: what goes to other items comes on top

        def block_weights(rows: slice) -> sparse.csr_array:
            block: sparse.csr_array = counts[rows] @ shares
            sources = np.repeat(outgoing[rows], np.diff(block.indptr))
            popularity = incoming[block.indices] ** config.popularity_power
            block.data = block.data * shrunk(block.data, config.shrinkage) / (sources * popularity)
            return block

        return cls(strongest_by_block(n_items, config.neighbours, block_weights), config)

    def lasting(self) -> TransitionRetriever:
        """Itself: what a user is about now tells of the coming weeks what the whole of their past does not."""
        return self

    def save(self, folder: Path) -> None:
        """Write the weights and the settings into this empty folder."""
        save_weights(self.weights, folder)
        save_settings(self.config, folder / "config.json")

    @classmethod
    def load(cls, folder: Path) -> TransitionRetriever:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        return cls(load_weights(folder), load_settings(TransitionConfig, folder / "config.json"))


def _transition_counts(liked: Histories, n_items: int, config: TransitionConfig) -> sparse.csr_array:
    """How often each item follows each other one, (I, I) from → to."""
    counts = sparse.csr_array((n_items, n_items), dtype=np.float64)
    rows = liked.rows
    for distance in range(1, min(config.window, int(liked.lengths.max(initial=0)) - 1) + 1):
        same_row = rows[:-distance] == rows[distance:]
        earlier = np.flatnonzero(same_row & (liked.items[:-distance] != liked.items[distance:]))
        later = earlier + distance
        values = np.full(len(earlier), float(distance) ** -config.distance_power)
        if config.ties == "both":
            tied = liked.times[earlier] == liked.times[later]
            values[tied] /= 2
            values = np.concatenate([values, values[tied]])
            earlier, later = np.concatenate([earlier, later[tied]]), np.concatenate([later, earlier[tied]])
        pairs = sparse.coo_array((values, (liked.items[earlier], liked.items[later])), shape=counts.shape)
        # a distance at a time, so that repeated pairs are added up before the next ones come
        counts = counts + pairs.tocsr()
    return counts
