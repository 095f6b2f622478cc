"""Tuning: settings that rank better on a validation part of the log, searched for with Optuna."""

from ranker.tuning.plot import draw
from ranker.tuning.space import Choices, Range, SearchSpace
from ranker.tuning.study import tune
from ranker.tuning.trials import Tuning

__all__ = ["Choices", "Range", "SearchSpace", "Tuning", "draw", "tune"]
