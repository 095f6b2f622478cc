"""Items like an item: nearest in every vector space that the sources hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.errors import InputError
from retrieval.als import AlsRetriever
from retrieval.candidates import BLOCK_SCORES, NO_ITEM, Source, top_k
from retrieval.products import every_product
from retrieval.text import TextRetriever


def similar_items(
    sources: Mapping[str, Source], items: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``k`` items nearest to each of these, by the mean of their cosines in ALS and in text space.

    An item without a place in ALS space (nobody took it, and the source made it no factors of its text) has 0 there.

    Returns:
        Items and scores, both (len(items), k), best first, the item itself left out.

    Raises:
        InputError: No source holds item vectors.
    """
    spaces = [space for source in sources.values() if (space := _space(source)) is not None]
    if not spaces:
        raise InputError(f"Similar items need the als or the text source, but this engine has {', '.join(sources)}.")
    n_items = len(spaces[0].vectors)
    found = np.full((len(items), k), NO_ITEM, np.int64)
    scores = np.full((len(items), k), -np.inf, np.float32)
    block = max(1, BLOCK_SCORES // n_items)
    for start in range(0, len(items), block):
        asked = items[start : start + block]
        cosines = np.zeros((len(asked), n_items), np.float32)
        for space in spaces:
            products = every_product(space.vectors[asked], space.vectors)
            cosines += products / (space.lengths[asked, None] * space.lengths)
        cosines /= len(spaces)
        cosines[np.arange(len(asked)), asked] = -np.inf
        found[start : start + block], scores[start : start + block] = top_k(cosines, k)
    return found, scores


@dataclass(frozen=True, slots=True, eq=False)
class _Space:
    vectors: NDArray[np.float32]  # (I, d)
    lengths: NDArray[np.float32]  # (I,) of the vectors, above 0


def _space(source: Source) -> _Space | None:
    if isinstance(source, AlsRetriever):
        lengths = np.sqrt(np.einsum("id,id->i", source.item_factors, source.item_factors))
        return _Space(source.item_factors, np.maximum(lengths, 1e-12))
    if isinstance(source, TextRetriever):
        return _Space(source.vectors, np.ones(len(source.vectors), np.float32))
    return None
