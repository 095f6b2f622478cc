"""A report on probabilities is what their metrics say of what is recommended."""

import pandas as pd
import pytest
import tiny_engine

import ranker
from encoders.errors import InputError
from ranker.calibration import UNMEASURED
from ranker.config import RerankConfig
from ranker.evaluation import (
    Backtest,
    auc,
    brier_score,
    calibration_report,
    expected_calibration_error,
    log_loss,
)

LOG = tiny_engine.interactions()
PLAN = Backtest("leave-one-out")
SPLIT = PLAN.cut(LOG)
DEPTH = 8


def fit(checkpoint, log):
    split = tiny_engine.split_config(checkpoint, split={"depth": DEPTH}).rerank.split
    config = tiny_engine.config(checkpoint, rerank=RerankConfig(enabled=False, split=split))
    return ranker.fit(log, tiny_engine.items(), config, progress=False)


@pytest.fixture(scope="module")
def honest(checkpoint):
    """An engine that never saw the test."""
    return fit(checkpoint, SPLIT.train)


def test_it_equals_the_metrics_of_what_is_recommended(honest):
    found = calibration_report(honest, PLAN.asked(honest.users, honest.catalogue, SPLIT.test))
    table = honest.recommend(SPLIT.test["user_id"].unique(), 15).dropna()
    taken = SPLIT.test.set_index("user_id")["item_id"]
    y = (table["item_id"].to_numpy() == taken[table["user_id"]].to_numpy()).astype(int)
    p = table["probability"].to_numpy()
    assert 0 < y.sum() < tiny_engine.N_USERS
    assert found.lists == tiny_engine.N_USERS
    assert found.pairs == len(p)
    assert found.predicted == pytest.approx(p.mean())
    assert found.observed == y.mean()
    assert found.auc == pytest.approx(auc(y, p))
    assert found.log_loss == pytest.approx(log_loss(y, p))
    rate = pd.Series(y.mean(), range(len(y))).to_numpy()
    assert found.constant_log_loss == pytest.approx(log_loss(y, rate))
    assert found.brier_score == pytest.approx(brier_score(y, p))
    assert found.expected_calibration_error == pytest.approx(expected_calibration_error(y, p), abs=1e-6)


def test_a_replay_is_judged_before_each_event(checkpoint):
    plan = Backtest("prequential", test_fraction=0.2)
    split = plan.cut(LOG)
    engine = fit(checkpoint, split.train)
    asked = plan.asked(engine.users, engine.catalogue, split.test)
    found = calibration_report(engine, asked)
    assert found.lists == len(asked) > split.test["user_id"].nunique()
    assert found.pairs == DEPTH * found.lists
    assert found.predicted == pytest.approx(engine.calibration.coverage / DEPTH)


def test_what_cannot_be_judged_is_refused(honest):
    several = honest.recommend([100, 101], 2).assign(weight=1.0)
    with pytest.raises(InputError, match="some lists have several to be found"):
        calibration_report(honest, PLAN.asked(honest.users, honest.catalogue, several))
    asked = PLAN.asked(honest.users, honest.catalogue, SPLIT.test)
    kept, honest.calibrations = honest.calibrations, UNMEASURED
    try:
        with pytest.raises(InputError, match="predicts no probabilities"):
            calibration_report(honest, asked)
    finally:
        honest.calibrations = kept


def test_lists_without_the_item_that_was_taken_cannot_be_judged(honest):
    """Every user takes what is last in their list."""
    last = (
        honest.recommend(SPLIT.test["user_id"].unique(), tiny_engine.N_ITEMS)
        .groupby("user_id")
        .tail(1)
        .assign(weight=1.0)
    )
    with pytest.raises(InputError, match="None of 40 lists holds the item"):
        calibration_report(honest, PLAN.asked(honest.users, honest.catalogue, last))
