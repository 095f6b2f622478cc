"""The states that the sequence source scores by: read once for each batch, and never those of another."""

import numpy as np
import pytest
from sources import build

from retrieval.candidates import Requests
from retrieval.fusion import FusedRetriever, FusionConfig
from retrieval.sequence.model import EventReader


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """How many rows each call of the event reader had."""
    rows: list[int] = []
    forward = EventReader.forward

    def watched(self, representations, **events):
        rows.append(len(events["places"]))
        return forward(self, representations, **events)

    monkeypatch.setattr(EventReader, "forward", watched)
    return rows


@pytest.fixture
def source(histories, vectors):
    return build("sequence", histories, vectors)


def test_a_fusion_reads_each_batch_once(source, requests_, reads) -> None:
    reads.clear()
    FusedRetriever({"sequence": source}, {"sequence": 1.0}, FusionConfig(depth=5)).retrieve(requests_, 5)
    assert reads == [int((requests_.histories.liked().lengths > 0).sum())]


def test_another_batch_gets_its_own_states(source, requests_) -> None:
    halves = [np.arange(0, 20), np.arange(20, 40)]
    whole = source.states(requests_.histories)
    for _ in range(2):
        for rows in halves:
            part = requests_.take(rows)
            np.testing.assert_allclose(source.states(part.histories), whole[rows], atol=1e-5)
            longer = Requests(part.histories.latest(1), part.allowed)
            assert not np.allclose(source.states(longer.histories), whole[rows], atol=1e-3)
