"""An engine that comes after another one: some of its parts exchanged, over the same log of feedback."""

from __future__ import annotations

from encoders import Encoder
from ranker.engine import Engine
from ranker.reranker import Reranker
from ranker.views import Views
from retrieval.catalogue import Catalogue


def successor(engine: Engine, catalogue: Catalogue, encoder: Encoder, views: Views, reranker: Reranker) -> Engine:
    """Another engine with these parts, unsaved; the one that is given goes on as it is.

    What makes probabilities of scores goes along.
    """
    return Engine(
        catalogue=catalogue,
        interactions=engine.users.base,
        encoder=encoder,
        retriever=views.next,
        lasting=views.lasting,
        sources_until=views.until,
        reranker=reranker,
        log=engine.log,
        config=engine.config,
        training=engine.training,
        calibrations=engine.calibrations,
    )
