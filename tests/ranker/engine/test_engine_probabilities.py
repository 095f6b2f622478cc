"""An engine's probabilities: of what, for whom, learned from whom, and when there are none."""

import numpy as np
import pandas as pd
import pytest
import tiny_engine
from tests_support import watched
from tiny_engine import HISTORY, events

import ranker
from ranker import fitting
from ranker.calibration import fit_temperature
from ranker.config import RerankConfig
from ranker.pair import training as pair_training
from ranker.reranker import Gain, KeepOrder
from ranker.split import fitting as split_fitting
from retrieval.candidates import Requests
from retrieval.fusion import FusionConfig

DEPTH, PROPOSED = 8, 15  # what the tiny engine re-ranks, and what each of its sources proposes
ALL = tiny_engine.N_ITEMS
USERS = [*range(100, 140)]


def by_user(table, k):
    """The probabilities (U, k) of lists that are all full."""
    return table["probability"].to_numpy().reshape(-1, k)


def test_the_best_share_the_coverage_by_a_softmax_of_their_scores(fitted):
    table = fitted.recommend(USERS, 12)
    assert table.columns.tolist() == ["user_id", "item_id", "score", "rank", "probability"]
    found, calibration = by_user(table, 12), fitted.calibration
    assert calibration.depth == DEPTH
    assert np.isnan(found[:, DEPTH:]).all()
    np.testing.assert_allclose(found[:, :DEPTH].sum(axis=1), calibration.coverage)
    scores = table["score"].to_numpy().reshape(-1, 12)[:, :DEPTH]
    odds = np.exp((scores - scores[:, :1]) / calibration.temperature)
    expected = calibration.coverage * odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, :DEPTH], expected, rtol=1e-4)


def test_how_many_are_asked_for_and_with_whom_changes_no_probability(fitted):
    whole = by_user(fitted.recommend(USERS, PROPOSED), PROPOSED)
    np.testing.assert_allclose(by_user(fitted.recommend(USERS, 3), 3), whole[:, :3], rtol=1e-4)
    for row in (0, 17):
        np.testing.assert_allclose(by_user(fitted.recommend([USERS[row]], 3), 3)[0], whole[row, :3], rtol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": "red robot"},
        {"allow": [f"i{n}" for n in range(ALL - 1)]},
        {"deny": ["i1"]},
        {"where": {"genres": "g1"}},
        {"exclude_seen": False},
        {"horizon": "lasting"},
        {"k": PROPOSED + 1},
    ],
    ids=str,
)
def test_what_was_not_measured_has_none(fitted, arguments):
    assert fitted.recommend(USERS, **arguments)["probability"].isna().all()


def test_a_filter_that_leaves_everything_is_none(fitted):
    everything = {"allow": fitted.catalogue.ids.ids, "deny": [], "where": {"genres": "any"}}
    pd.testing.assert_frame_equal(fitted.recommend(USERS, **everything), fitted.recommend(USERS))


def test_only_who_has_liked_something_has_them(engine):
    assert engine.recommend(history=HISTORY, k=DEPTH)["probability"].notna().all()
    engine.feedback(events(("e1", 7, "i1", "dislike"), ("e2", 8, "i1", "dislike"), ("e3", 8, "i2", "like")))
    found = engine.recommend([100, 7, 8, 9], 2)
    assert found["probability"].isna().tolist() == [False] * 2 + [True] * 2 + [False] * 2 + [True] * 2


def test_other_answers_have_no_such_column(fitted):
    plain = ["user_id", "item_id", "score", "rank"]
    assert fitted.rank(100, ["i1", "i2"]).columns.tolist() == plain
    assert next(fitted.candidates([100], 3)).schema.names == [*plain, "als", "transitions", "text", "popularity"]
    assert fitted.similar_items(["i1"]).columns.tolist() == ["item_id", "similar_item_id", "score", "rank"]


def fit(config):
    return ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)


@pytest.mark.parametrize("serves", [True, False])
@pytest.mark.parametrize("kind", ["split", "pair"])
def test_nobody_whose_lists_train_a_cross_encoder_that_serves_tells_its_temperature(
    checkpoint, monkeypatch, kind, serves
):
    lists, made, trained_on = [], [], set()
    if kind == "split":
        monkeypatch.setattr(split_fitting, "train_joint", watched(
            split_fitting.train_joint, lambda given, _: trained_on.update(*(part.users for part in given[2].parts))
        ))  # fmt: skip
    else:
        monkeypatch.setattr(pair_training, "fine_tune", watched(
            pair_training.fine_tune, lambda given, _: trained_on.update(given[2].users, given[3].users)
        ))  # fmt: skip

    def judge(_, result):
        result[0].gain = Gain(1.0 if serves else -1.0, 0.1)
        made.append(result)

    name = f"fit_{kind}"
    monkeypatch.setattr(fitting, name, watched(getattr(fitting, name), judge))
    monkeypatch.setattr(
        fitting, "held_out_lists", watched(fitting.held_out_lists, lambda _, found: lists.append(found))
    )
    settings = tiny_engine.split_config if kind == "split" else tiny_engine.config
    engine = fit(settings(checkpoint))
    ((reranker, _, judged),) = made
    assert trained_on
    assert len(judged.lists)
    assert not trained_on & set(judged.lists.users)
    ((held_out, _),) = lists
    first = held_out.containing_choice(DEPTH)
    assert engine.calibration.coverage == len(first) / len(held_out) < 1
    told = judged.lists if serves else first
    scores = reranker.score(told.requests, told.candidates) if serves else told.candidates.scores
    expected = fit_temperature(scores, told.candidates.items, told.chosen)
    assert engine.calibration.temperature == pytest.approx(expected, rel=1e-3)
    # what learning lets order in its place has probabilities, too
    by = engine.recommend(USERS, 12)
    engine.reranker.gain = Gain(-1.0 if serves else 1.0, 0.0)
    other = engine.recommend(USERS, 12)
    assert other["probability"].isna().tolist() == by["probability"].isna().tolist()
    assert other["probability"].tolist() != by["probability"].tolist()


@pytest.mark.parametrize("depth", [5, 20])  # less and more than each source proposes
def test_without_a_cross_encoder_the_fused_order_has_them(checkpoint, depth):
    split = tiny_engine.split_config(checkpoint, split={"depth": depth}).rerank.split
    engine = fit(tiny_engine.config(checkpoint, rerank=RerankConfig(enabled=False, split=split)))
    assert isinstance(engine.reranker, KeepOrder)
    found = by_user(engine.recommend(USERS, 15), 15)
    requests = Requests(engine.users.histories(USERS), np.ones(ALL, np.bool_))
    fused = engine.retriever.retrieve(requests, max(depth, PROPOSED))
    expected = engine.calibration.probabilities(fused.scores, fused.items)[:, :15]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.isnan(found).sum() == len(USERS) * max(0, 15 - depth)


def test_an_engine_that_held_nothing_out_has_none(checkpoint, tmp_path):
    config = tiny_engine.config(checkpoint, rerank=RerankConfig(enabled=False), fusion=FusionConfig(method="rrf"))
    engine = fit(config)
    assert engine.calibration is None
    assert engine.recommend(USERS)["probability"].isna().all()
    engine.save(tmp_path / "model")
    assert ranker.load(tmp_path / "model").calibration is None
