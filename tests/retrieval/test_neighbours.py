import math
from dataclasses import replace

import numpy as np
import pytest
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
from item_item_oracle import anybody, events_of, strongest
from scipy import sparse

from retrieval.neighbours import NeighbourConfig, NeighbourRetriever

N_ITEMS = 60


def plain_weights(histories, config: NeighbourConfig) -> np.ndarray:
    """Similarities pair by pair, from sets of users."""
    liked = [{item for item, _, _ in events_of(histories, row)} for row in range(len(histories))]
    takers = [{user for user, items in enumerate(liked) if item in items} for item in range(N_ITEMS)]
    average = sum(map(len, takers)) / N_ITEMS

    def worth(item: int, user: int) -> float:
        if config.similarity == "cosine":
            return 1 / math.sqrt(len(takers[item]))
        length = 1 - config.b + config.b * len(takers[item]) / average
        return (config.k1 + 1) / (config.k1 * length + 1) * (math.log(N_ITEMS) - math.log1p(len(liked[user])))

    weights = np.zeros((N_ITEMS, N_ITEMS))
    for item in range(N_ITEMS):
        for other in range(N_ITEMS):
            common = takers[item] & takers[other]
            if item != other and common:
                weights[item, other] = sum(worth(item, user) * worth(other, user) for user in common)
                weights[item, other] *= len(common) / (len(common) + config.shrinkage)
    return weights


@pytest.mark.parametrize("similarity", ["cosine", "bm25"])
@pytest.mark.parametrize("shrinkage", [0, 2.5])
def test_weights_are_those_compared_pair_by_pair(similarity, shrinkage, histories):
    config = NeighbourConfig(similarity=similarity, shrinkage=shrinkage, k1=2.0, b=0.4, neighbours=N_ITEMS)
    weights = NeighbourRetriever.fit(histories, N_ITEMS, config).weights.toarray()
    expected = plain_weights(histories, config)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    nearest = NeighbourRetriever.fit(histories, N_ITEMS, replace(config, neighbours=3)).weights.toarray()
    np.testing.assert_array_equal(nearest, strongest(weights, 3))


@pytest.mark.filterwarnings("ignore:Method expects CSR input")  # implicit makes a COO matrix itself
@pytest.mark.parametrize("similarity", ["cosine", "bm25"])
def test_weights_are_those_of_implicit(similarity, histories):
    liked = histories.liked()
    users = sparse.csr_matrix(liked.matrix(np.ones(len(liked.items), np.float32), N_ITEMS)).astype(np.float64)
    users.data[:] = 1
    peer = CosineRecommender(K=N_ITEMS) if similarity == "cosine" else BM25Recommender(K=N_ITEMS, K1=1.2, B=0.75)
    peer.fit(users, show_progress=False)
    expected = peer.similarity.toarray()
    np.fill_diagonal(expected, 0)
    config = NeighbourConfig(similarity=similarity, neighbours=N_ITEMS)
    weights = NeighbourRetriever.fit(histories, N_ITEMS, config).weights.toarray()
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


def test_a_repeated_item_counts_once_in_training(histories):
    config = NeighbourConfig(similarity="cosine", neighbours=N_ITEMS)
    once = NeighbourRetriever.fit(anybody([1, 2], [2, 3]), N_ITEMS, config).weights.toarray()
    often = NeighbourRetriever.fit(anybody([1, 1, 2], [2, 3, 2, 3]), N_ITEMS, config).weights.toarray()
    np.testing.assert_array_equal(often, once)
    assert once[1, 2] == once[2, 1] == pytest.approx(1 / math.sqrt(2))
    assert once[1, 3] == 0
