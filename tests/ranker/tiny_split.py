"""Small engines with a split cross-encoder whose joint layers are asked."""

import dataclasses

import tiny_engine
from tests_support import same_ranking
from tiny_joint import moved

import ranker
from encoders import ExportConfig
from ranker.reranker import Gain, KeepOrder

ALL = tiny_engine.N_ITEMS
USERS = [*range(100, 140), 7]
SERVES = Gain(1.0, 0.0)


def fit(checkpoint, **changes):
    config = tiny_engine.split_config(checkpoint, **changes)
    return ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)


def fitted_with(checkpoint, **changes):
    """A fitted engine whose joint layers are asked, and far enough from the fused order to see it."""
    engine = fit(checkpoint, **changes)
    engine.reranker.gain = engine.reranker.saved_gain = SERVES
    weights = moved(engine.reranker.joint.model()).state_dict()
    weights["kind.weight"].zero_()  # it learned from no feedback, so any kind reads as a logged event
    engine.reranker.joint.replace(weights)
    return engine


def assert_same(one, other, tolerance=1e-5):
    """Equal scores, and equal lists but for the order of items whose scores are one within rounding."""
    for name, table in one.items():
        assert len(other[name]) == len(table)
        owner, item = table.columns[:2]
        for whose, rows in table.groupby(owner):
            found = other[name][other[name][owner] == whose]
            same_ranking(
                rows[item].to_numpy(), rows["score"].to_numpy(), found[item].to_numpy(), found["score"].to_numpy(),
                tolerance,
            )  # fmt: skip


def without_reranker(engine):
    fused = ranker.Engine(
        catalogue=engine.catalogue,
        interactions=engine.users.base,
        encoder=engine.encoder,
        retriever=engine.retriever,
        lasting=engine.lasting,
        reranker=KeepOrder(),
        log=engine.log,
        config=engine.config,
        training=None,
        calibrations=engine.calibrations,
    )
    assert not len(engine.log.read())
    return fused


def at(engine, *precisions):
    """The same engine, to be exported in the first of these precisions that passes."""
    engine.config = dataclasses.replace(engine.config, export=ExportConfig(precisions=precisions, tolerance=0.9))
    return engine
