"""Offline evaluation: splits in time, ranking metrics, and how sure a difference is."""

from ranker.evaluation.comparison import MeanInterval, PairedDifference, bootstrap_mean, paired_bootstrap
from ranker.evaluation.evaluate import Evaluation, evaluate
from ranker.evaluation.metrics import coverage, per_user_metrics
from ranker.evaluation.splits import Split, global_temporal, leave_one_out

__all__ = [
    "Evaluation",
    "MeanInterval",
    "PairedDifference",
    "Split",
    "bootstrap_mean",
    "coverage",
    "evaluate",
    "global_temporal",
    "leave_one_out",
    "paired_bootstrap",
    "per_user_metrics",
]
