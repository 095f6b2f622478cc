"""Collaborative candidates by similar items: those that the same users liked; for catalogues of any size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from implicit.nearest_neighbours import bm25_weight
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import sparse

from retrieval.histories import Histories
from retrieval.item_item import ItemItemConfig, ItemItemRetriever, binary, shrunk, strongest_by_block
from retrieval.storage import load_settings, load_weights, save_settings, save_weights


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NeighbourConfig(ItemItemConfig):
    """Settings of the neighbours source; see ``ItemItemConfig`` for how a history is read.

    Attributes:
        similarity: "cosine" of two items' users; "bm25" first weighs each user of an item, less where the item has many
            and where the user likes much, and takes the inner product.
        k1: Of "bm25": how much an event counts before it saturates.
        b: Of "bm25": how far an item's weights shrink with how many users it has, 0 to 1.
        shrinkage: Common users that halve the worth of a similarity which rests on so many; 0 takes one for a rule.
        neighbours: Similar items that are kept of each item, the nearest.
    """

    half_life: Annotated[float | None, Field(gt=0)] = 1.0
    similarity: Literal["cosine", "bm25"] = "bm25"
    k1: Annotated[float, Field(gt=0)] = 1.2
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    shrinkage: Annotated[float, Field(ge=0)] = 0.0
    neighbours: Annotated[int, Field(ge=1)] = 200


class NeighbourRetriever(ItemItemRetriever):
    """Item-based nearest neighbours (Sarwar et al., WWW 2001; Deshpande & Karypis, ACM TOIS 22(1), 2004).

    The weight between two items is their similarity times ``n / (n + shrinkage)``, n being the users who liked both.
    With X items × users, 1 where a user liked an item, "cosine" is ``XXᵀ`` over both rows' norms. "bm25" is ``YYᵀ``,
    where Y is X under Okapi BM25 (Robertson & Zaragoza, FnTIR 3(4), 2009) with items as documents and users as terms,
    as in implicit's ``BM25Recommender``.

    Args:
        weights: (I, I), from an item of the history → to a candidate.
        config: The settings that they were made with.
    """

    name: ClassVar[str] = "neighbours"
    weights: sparse.csr_array

    def __init__(self, weights: sparse.csr_array, config: NeighbourConfig) -> None:
        super().__init__(weights, config)
        self.config = config

    @classmethod
    def fit(cls, histories: Histories, n_items: int, config: NeighbourConfig) -> NeighbourRetriever:
        """Compare items by the users who liked them, each once.

        A block of items is compared with all others at a time, so memory is that of the log and of the weights kept:
        8 bytes × ``neighbours`` for each item.
        """
        users = binary(histories, n_items)
        items = users.T.tocsr()
        weighed = _weighed(items, config)
        weighed_by_user = weighed.T.tocsr()

        def block_weights(rows: slice) -> sparse.csr_array:
            block: sparse.csr_array = weighed[rows] @ weighed_by_user
            if config.shrinkage:
                common = items[rows] @ users
                common.data = shrunk(common.data, config.shrinkage)
                block = block.multiply(common).tocsr()
            return block

        return cls(strongest_by_block(n_items, config.neighbours, block_weights), config)

    def lasting(self) -> NeighbourRetriever:
        """The same weights, every event of a history counting the same."""
        return NeighbourRetriever(self.weights, replace(self.config, half_life=None))

    def save(self, folder: Path) -> None:
        """Write the weights and the settings into this empty folder."""
        save_weights(self.weights, folder)
        save_settings(self.config, folder / "config.json")

    @classmethod
    def load(cls, folder: Path) -> NeighbourRetriever:
        """Read what ``save`` wrote; the weights stay memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        return cls(load_weights(folder), load_settings(NeighbourConfig, folder / "config.json"))


def _weighed(items: sparse.csr_array, config: NeighbourConfig) -> sparse.csr_array:
    """Items × users, so that the similarity of two items is the inner product of their rows."""
    if not items.nnz:
        return items  # the means that BM25 divides by are 0
    if config.similarity == "bm25":
        weighed: sparse.csr_array = sparse.csr_array(bm25_weight(items, config.k1, config.b))
        return weighed
    norms = np.sqrt(np.diff(items.indptr))
    cosine = items.copy()
    cosine.data /= np.repeat(norms, np.diff(items.indptr))
    return cosine
