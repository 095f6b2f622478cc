import numpy as np
import pytest
from sources import build

from encoders.errors import InputError
from retrieval import similar
from retrieval.similar import similar_items


@pytest.mark.parametrize("names", [("als",), ("text",), ("als", "text", "popularity")])
def test_neighbours_are_those_of_the_mean_cosine(names, histories, vectors):
    sources = {name: build(name, histories, vectors) for name in names}
    expected = np.zeros((len(vectors), len(vectors)))
    spaces = {"als": getattr(sources.get("als"), "item_factors", None), "text": vectors}
    used = [spaces[name].astype(np.float64) for name in names if name != "popularity"]
    for space in used:
        unit = space / np.maximum(np.linalg.norm(space, axis=1, keepdims=True), 1e-12)
        expected += unit @ unit.T / len(used)
    np.fill_diagonal(expected, -np.inf)
    asked = np.array([4, 0, 59])
    found, scores = similar_items(sources, asked, 5)
    best = np.sort(expected[asked], axis=1)[:, ::-1][:, :5]
    np.testing.assert_allclose(scores, best, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected[asked], found, axis=1), best, atol=1e-5)


def test_blocks_of_items_change_nothing(histories, vectors, monkeypatch):
    sources = {"text": build("text", histories, vectors), "als": build("als", histories, vectors)}
    everything = np.arange(len(vectors))
    whole = similar_items(sources, everything, 7)
    monkeypatch.setattr(similar, "BLOCK_SCORES", 7 * len(vectors))
    found, scores = similar_items(sources, everything, 7)
    np.testing.assert_array_equal(found, whole[0])
    np.testing.assert_allclose(scores, whole[1], atol=1e-6)


def test_without_item_vectors_there_are_no_neighbours(histories, vectors):
    with pytest.raises(InputError, match="need the als or the text source, but this engine has popularity"):
        similar_items({"popularity": build("popularity", histories, vectors)}, np.array([0]), 3)
