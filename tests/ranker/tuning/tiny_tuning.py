"""A search over the made-up site, where the tastes tell what is good: popularity alone knows none of them."""

import tiny_engine

from ranker.config import RerankConfig
from ranker.evaluation import Backtest
from ranker.tuning import SearchSpace, tune

GOOD, ABSURD = ["als", "text"], ["popularity"]
BACKTEST = Backtest("leave-one-out", holdout=2)
SPACE = {
    "sources": {"choices": [GOOD, ABSURD]},
    "als.factors": {"low": 2, "high": 16},
    "als.regularization": {"low": 0.1, "high": 100, "log": True},
}


def base(checkpoint, **changes):
    return tiny_engine.config(checkpoint, rerank=RerankConfig(enabled=False), **changes)


def space(checkpoint, tree=SPACE):
    return SearchSpace.from_dict(tree, base(checkpoint))


def search(space, **options):
    """Tune without pruning, which takes half the fits, unless the options say otherwise."""
    options = {"backtest": BACKTEST, "rungs": (1,), "trials": 2, "progress": False} | options
    return tune(tiny_engine.interactions(), tiny_engine.items(), space, **options)
