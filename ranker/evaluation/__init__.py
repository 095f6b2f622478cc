"""Offline evaluation: splits in time, metrics of lists, and how sure a difference is."""

from ranker.evaluation.backtest import Backtest
from ranker.evaluation.beyond_accuracy import diversity, miscalibration, novelty, popularity_lift, serendipity
from ranker.evaluation.calibration import CalibrationReport, calibration_report
from ranker.evaluation.comparison import MeanInterval, PairedDifference, bootstrap_mean, paired_bootstrap
from ranker.evaluation.evaluate import Evaluation, evaluate, replay
from ranker.evaluation.metrics import coverage, per_user_metrics
from ranker.evaluation.multiple_comparisons import compare_results, compare_systems, holm, sign_flip_test
from ranker.evaluation.off_policy import OffPolicyEstimate, doubly_robust, ips, snips
from ranker.evaluation.probabilities import auc, brier_score, expected_calibration_error, log_loss
from ranker.evaluation.report import write_comparison, write_report
from ranker.evaluation.results import PerUserResults, read_per_user, write_per_user
from ranker.evaluation.slices import history_groups, popularity_groups, slice_means, usual_groups
from ranker.evaluation.splits import Split, global_temporal, leave_one_out

__all__ = [
    "Backtest",
    "CalibrationReport",
    "Evaluation",
    "MeanInterval",
    "OffPolicyEstimate",
    "PairedDifference",
    "PerUserResults",
    "Split",
    "auc",
    "bootstrap_mean",
    "brier_score",
    "calibration_report",
    "compare_results",
    "compare_systems",
    "coverage",
    "diversity",
    "doubly_robust",
    "evaluate",
    "expected_calibration_error",
    "global_temporal",
    "history_groups",
    "holm",
    "ips",
    "leave_one_out",
    "log_loss",
    "miscalibration",
    "novelty",
    "paired_bootstrap",
    "per_user_metrics",
    "popularity_groups",
    "popularity_lift",
    "read_per_user",
    "replay",
    "serendipity",
    "sign_flip_test",
    "slice_means",
    "snips",
    "usual_groups",
    "write_comparison",
    "write_per_user",
    "write_report",
]
