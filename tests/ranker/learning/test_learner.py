"""Learning while serving: what changes, what may not, and what is dropped."""

import numpy as np
import pandas as pd
import pytest
import tiny_engine
import torch
from tiny_engine import N_ITEMS, events, taste

import ranker
from encoders.errors import ConfigError
from ranker.feedback import FeedbackLog
from ranker.learning.config import LearningConfig
from ranker.learning.learner import Learner
from ranker.reranker import NO_GAIN, Gain
from retrieval.candidates import Requests

FAST = {"learning_rate": 1e-3, "least_lists": 40, "most_lists": 200, "measured": 1.0, "anchor": 0.0, "user_share": 1.0}


def told(engine, n, kind="click", seed=0, like=None):
    """Give the engine n events of new users, six each, on items of one taste or of any."""
    rng = np.random.default_rng(seed)
    start = engine.log.last_offset()
    wanted = [item for item in range(N_ITEMS) if like is None or taste(item) == like]
    rows = [(f"{start + at}", 1000 + start + at // 6, f"i{rng.choice(wanted)}", kind) for at in range(n)]
    times = pd.Timestamp("2024-06-01") + pd.to_timedelta(start + np.arange(n), unit="min")
    engine.feedback(events(*rows, datetime=times))


def weights(engine):
    return {name: weight.clone() for name, weight in engine.reranker.joint.weights.items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def run(learner):
    outcomes = []
    while (step := learner.step()).events:
        outcomes.append(step.outcome)
    return outcomes


def test_every_event_is_taken_once_in_order_and_an_empty_log_is_no_step(split_engine):
    learner = Learner(split_engine, LearningConfig(**FAST, batch_lists=10), after=0)
    assert learner.step().outcome == "nothing"
    told(split_engine, 25)
    steps = [learner.step() for _ in range(4)]
    assert [step.events for step in steps] == [10, 10, 5, 0]
    assert learner.offset == split_engine.log.last_offset()
    assert learner.counts["events"] == 25
    passed = sum(learner.counts[why] for why in ("repeated", "had before", "not proposed", "overruled"))
    assert sum(step.lists for step in steps) + passed == 25


def test_a_learner_begins_at_the_end_of_the_log(split_engine):
    told(split_engine, 5)
    assert Learner(split_engine, LearningConfig(**FAST)).step().events == 0


def test_a_new_taste_is_learned_and_serves_once_it_gained(split_engine):
    before = weights(split_engine)
    learner = Learner(split_engine, LearningConfig(**FAST), after=0)
    told(split_engine, 1500, like=3)
    outcomes = run(learner)
    assert "promoted" in outcomes
    assert outcomes.index("promoted") > 0
    assert not same(weights(split_engine), before)
    assert learner.watch.serving > learner.watch.frozen
    assert learner.counts["promotions"] == outcomes.count("promoted")


def test_a_cross_encoder_that_did_not_serve_is_measured_against_the_fused_order_and_serves_once_it_gained(
    split_engine,
):
    reranker = split_engine.reranker
    reranker.gain = reranker.saved_gain = NO_GAIN
    learner = Learner(split_engine, LearningConfig(**FAST), after=0)
    told(split_engine, 1500, like=3)
    requests = Requests(split_engine.users.histories([*range(100, 140)]), np.ones(N_ITEMS, np.bool_))
    fused = split_engine.retriever.retrieve(requests, N_ITEMS)

    def ranked():
        return reranker.rerank(requests, fused).items.tolist()

    assert ranked() == fused.items.tolist()
    assert "promoted" in run(learner)
    assert ranked() != fused.items.tolist()
    assert ranked() == reranker.reordered(requests, fused).items.tolist()
    assert learner.watch.serving > learner.watch.frozen
    assert split_engine.calibration == split_engine.calibrations.reranked != split_engine.calibrations.fused
    assert split_engine.recommend([1000], 3)["probability"].notna().all()
    again = ranker.load(split_engine.folder)
    assert again.reranker.gain == reranker.gain
    split_engine.rollback("saved")
    assert ranked() == fused.items.tolist()


def test_what_serves_changes_only_by_a_promotion(split_engine):
    before = weights(split_engine)
    learner = Learner(split_engine, LearningConfig(**{**FAST, "least_lists": 10**6, "most_lists": 10**6}), after=0)
    told(split_engine, 200, like=3)
    assert set(run(learner)) == {"learned"}
    assert same(weights(split_engine), before)
    assert learner.counts["steps"] > 0


def test_weights_that_fall_behind_give_way_to_the_saved_ones(split_engine):
    saved = weights(split_engine)
    settings = {**FAST, "learning_rate": 1e-9, "margin": 0.0}
    learner = Learner(split_engine, LearningConfig(**settings), after=0)
    first = split_engine.recommend(range(100, 140), 3)
    worse = {name: weight.clone() for name, weight in saved.items()}
    worse["wide.weight"] = -10 * worse["wide.weight"].abs() - 1  # whatever is proposed first comes last
    split_engine.reranker.gain = split_engine.reranker.saved_gain = Gain(0.1, 0.01)  # its order serves
    split_engine.reranker.joint.replace(worse)
    shown = first[["user_id", "item_id", "rank"]].itertuples(index=False)
    rows = [(f"{user} {rank}", user, item, "click") for user, item, rank in shown]
    split_engine.feedback(events(*rows))
    assert "rolled back" in run(learner)
    assert same(weights(split_engine), saved)
    assert learner.counts["rollbacks"] == 1


def test_a_step_that_is_no_finite_number_is_not_taken(split_engine):
    learner = Learner(split_engine, LearningConfig(**FAST), after=0)
    with torch.no_grad():
        learner._model.head.bias.fill_(torch.nan)
    told(split_engine, 30)
    before = weights(split_engine)
    run(learner)
    assert learner.counts["steps not taken"] > 0
    assert learner.counts["steps"] == 0
    assert same(weights(split_engine), before)


def test_a_burst_of_odd_events_is_passed_over_and_a_lasting_change_is_learned(split_engine):
    settings = {**FAST, "learning_rate": 1e-9, "least_lists": 10**6, "batch_lists": 8, "quarantine": 3.0}
    learner = Learner(split_engine, LearningConfig(**settings), after=0)
    ranked = split_engine.recommend(range(1000, 1400), 8)  # of strangers: what is popular

    def tell(place, users):
        rows = ranked[ranked["user_id"].isin(users) & (ranked["rank"] == place)]
        shown = rows[["user_id", "item_id"]].itertuples(index=False)
        split_engine.feedback(events(*[(f"{place} {user}", user, item, "click") for user, item in shown]))
        run(learner)

    tell(1, range(1000, 1096))
    tell(2, range(1096, 1192))
    steps = learner.counts["steps"]
    assert (steps, learner.counts["steps in quarantine"]) == (24, 0)
    tell(8, range(1192, 1208))
    assert learner.counts["steps in quarantine"] > 0
    assert learner.counts["steps"] < steps + 2
    tell(8, range(1208, 1400))
    assert learner.counts["steps"] > steps + 5


def test_one_user_teaches_no_more_than_a_share(split_engine):
    config = LearningConfig(**{**FAST, "user_share": 0.005})
    learner = Learner(split_engine, config, after=0)
    times = pd.Timestamp("2024-06-01") + pd.to_timedelta(np.arange(40), unit="min")
    split_engine.feedback(events(*[(f"{n}", 7, f"i{n}", "click") for n in range(40)], datetime=times))
    run(learner)
    assert learner.counts["lists"] == 5
    assert learner.counts["beyond a user's share"] > 0


def test_who_was_forgotten_by_whichever_process_is_learned_from_no_longer(split_engine):
    learner = Learner(split_engine, LearningConfig(**FAST, replayed=0), after=0)
    told(split_engine, 600)
    run(learner)
    remembered = {each.key[0] for each in learner._memory.sample(10**6)}
    gone = sorted(remembered)[: len(remembered) // 2]
    other = FeedbackLog(split_engine.log.path)
    other.forget(gone)
    other.close()
    learner.step()
    assert {each.key[0] for each in learner._memory.sample(10**6)} == remembered - set(gone)


def test_the_anchor_holds_weights_near_the_saved_ones(split_engine):
    def distance(anchor):
        learner = Learner(split_engine, LearningConfig(**{**FAST, "anchor": anchor, "least_lists": 10**6}), after=0)
        run(learner)
        saved = split_engine.reranker.joint.weights
        return sum(float((weight - saved[name]).norm()) for name, weight in learner._model.state_dict().items())

    told(split_engine, 300, like=3)
    assert distance(300.0) < 0.9 * distance(0.0)


def test_the_same_log_teaches_the_same(split_engine):
    told(split_engine, 200, like=3)
    learners = [Learner(split_engine, LearningConfig(**{**FAST, "least_lists": 10**6}), after=0) for _ in range(2)]
    for learner in learners:
        run(learner)
    one, other = (learner._model.state_dict() for learner in learners)
    assert same(one, other)


def test_an_engine_that_cannot_learn_is_refused(checkpoint):
    engine = tiny_engine.small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())
    with pytest.raises(ConfigError, match="needs a split cross-encoder"):
        Learner(engine, LearningConfig())
    assert isinstance(engine, ranker.Engine)
