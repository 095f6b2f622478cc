"""Items like an item: nearest in every vector space that the sources hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from encoders.errors import InputError
from retrieval.als import AlsRetriever
from retrieval.candidates import Retriever, top_k
from retrieval.text import TextRetriever


def similar_items(
    sources: Mapping[str, Retriever], items: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``k`` items nearest to each of these, by the mean of their cosines in ALS and in text space.

    An item without a single event has no place in ALS space; its cosine there counts 0.

    Returns:
        Items and scores, both (len(items), k), best first, the item itself left out.

    Raises:
        InputError: No source holds item vectors.
    """
    spaces: list[NDArray[np.float32]] = []
    for source in sources.values():
        if isinstance(source, AlsRetriever):
            norms = np.linalg.norm(source.item_factors, axis=1, keepdims=True)
            spaces.append(source.item_factors / np.maximum(norms, 1e-12))
        elif isinstance(source, TextRetriever):
            spaces.append(source.vectors)
    if not spaces:
        raise InputError(f"Similar items need the als or the text source, but this engine has {', '.join(sources)}.")
    scores = np.zeros((len(items), len(spaces[0])), np.float32)
    for vectors in spaces:
        scores += vectors[items] @ vectors.T / len(spaces)
    scores[np.arange(len(items)), items] = -np.inf
    return top_k(scores, k)
