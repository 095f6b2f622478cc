"""Fine-tuning learns what is there to learn, keeps the best of it, and leaves nothing else behind."""

import dataclasses
import os
import random
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from encoders import PairCrossEncoder, PairCrossEncoderConfig
from encoders.errors import ExtraError, InputError
from ranker.config import TrainingConfig
from ranker.feedback.labels import LabelledEvents
from ranker.lists import LabelledLists
from ranker.pair.reranker import PairTexts
from ranker.pair.training import fine_tune
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.histories import Histories

N_ITEMS, DEPTH = 60, 8
RNG = np.random.default_rng(0)
WORDS = ["red", "green", "blue", "old", "new", "small", "river", "city"]
# every tenth item has the word that decides, and it is the one that is chosen
TEXTS = [f"{'robot' if n % 10 == 0 else RNG.choice(WORDS)} {RNG.choice(WORDS)} {n}" for n in range(N_ITEMS)]
PAIR_TEXTS = PairTexts([f"title {n}" for n in range(N_ITEMS)], TEXTS, 2)
CONFIG = TrainingConfig(
    negatives=4, epochs=3, batch_size=16, learning_rate=2e-3, evaluations_per_epoch=2, patience=3, validation_lists=40
)


def lists(count, seed, short=False):
    """Lists of one item with the word and seven without, in no order; every third may end early."""
    rng = np.random.default_rng(seed)
    with_word = np.arange(0, N_ITEMS, 10)
    without = np.setdiff1d(np.arange(N_ITEMS), with_word)
    chosen = rng.choice(with_word, count)
    items = np.stack([rng.permutation([c, *rng.choice(without, DEPTH - 1, replace=False)]) for c in chosen])
    if short:
        for row in range(0, count, 3):
            keep = np.array([item for item in items[row] if item == chosen[row]] + list(items[row][:4]))
            keep = keep[np.sort(np.unique(keep, return_index=True)[1])]
            items[row] = NO_ITEM
            items[row, : len(keep)] = keep
    scores = np.where(items == NO_ITEM, -np.inf, np.linspace(1, 0, DEPTH)).astype(np.float32)
    histories = Histories.from_rows(
        np.repeat(np.arange(count), 2), rng.choice(without, 2 * count), np.ones(2 * count, np.float32),
        np.arange(2 * count), count,
    )  # fmt: skip
    requests = Requests(histories, np.ones(N_ITEMS, np.bool_))
    return LabelledLists(np.arange(count), requests, Candidates.of("a", items, scores), chosen)


TRAIN, VALIDATION = lists(60, 1, short=True), lists(30, 2)


@pytest.fixture
def fresh(checkpoint):
    config = PairCrossEncoderConfig(max_tokens=32, batch_size=32, layers=1, device="cpu")
    return lambda: PairCrossEncoder.load(checkpoint, config, seed=3)


def labelled(count, seed):
    """Events on half items with the word, labelled 1, and half without, labelled 0."""
    rng = np.random.default_rng(seed)
    of = lists(max(count, 1), seed).take(np.arange(count))
    without = rng.choice(np.flatnonzero(np.arange(N_ITEMS) % 10), count)
    positive = np.arange(count) % 2 == 0
    items = np.where(positive, of.chosen, without)
    return LabelledEvents(of.users, of.requests, items, positive.astype(np.float32))


NO_EVENTS = labelled(0, 0)


def tune(cross_encoder, seed=0, train=TRAIN, validation=VALIDATION, feedback=NO_EVENTS, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return fine_tune(cross_encoder, PAIR_TEXTS, train, feedback, validation, config, seed, progress=False)


def ndcg(cross_encoder, of):
    """NDCG@10 of the cross-encoder's own order, one list after the other."""
    values = []
    for items, chosen, context in zip(of.candidates.items, of.chosen, PAIR_TEXTS.contexts(of.requests), strict=True):
        known = items[items != NO_ITEM]
        logits = cross_encoder.score(PAIR_TEXTS.pairs(context, known))
        rank = (logits >= logits[known == chosen]).sum()  # ties count against it
        values.append(1 / np.log2(1 + rank) if rank <= 10 else 0)
    return np.mean(values)


def weights(cross_encoder):
    return torch.cat([parameter.detach().ravel() for parameter in cross_encoder.model.parameters()])


def test_it_learns_what_decides_and_keeps_the_best_that_was_measured(fresh):
    cross_encoder = fresh()
    before = ndcg(cross_encoder, VALIDATION)
    report = tune(cross_encoder, learning_rate=4e-3, epochs=4, evaluations_per_epoch=1)
    after = ndcg(cross_encoder, VALIDATION)
    assert before < 0.7
    assert after > 0.95
    assert ndcg(cross_encoder, lists(30, 9)) > 0.95  # lists that neither part held
    measured = dict(report.validation_ndcg)
    assert measured[report.best_step] == max(measured.values()) == pytest.approx(after, abs=1e-6)
    assert report.best_step == min(step for step, value in measured.items() if value == max(measured.values()))


def test_the_best_is_restored_where_training_goes_astray(fresh):
    cross_encoder = fresh()
    report = tune(cross_encoder, learning_rate=0.2, epochs=4, patience=20)
    measured = dict(report.validation_ndcg)
    assert measured[max(measured)] < max(measured.values()) or len(set(measured.values())) == 1
    assert ndcg(cross_encoder, VALIDATION) == pytest.approx(measured[report.best_step], abs=1e-6)


def test_a_model_that_diverges_is_never_the_best(fresh):
    report = tune(fresh(), learning_rate=1e30, epochs=1)
    assert max(value for _, value in report.validation_ndcg) < 0.7


def test_it_stops_early_where_nothing_gets_better(fresh):
    report = tune(fresh(), learning_rate=1e-12, epochs=20, patience=2)
    per_measurement = report.validation_ndcg[0][0]
    assert report.steps == 3 * per_measurement  # the first, and two that were no better
    assert len(report.validation_ndcg) == 3


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(fresh):
    results = []
    for seed in (0, 0, 1):
        cross_encoder = fresh()
        random.seed(len(results))  # what the process drew before does not matter
        np.random.seed(len(results))  # noqa: NPY002
        torch.manual_seed(len(results))
        report = tune(cross_encoder, seed, epochs=1)
        results.append((weights(cross_encoder), report))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not torch.equal(results[0][0], results[2][0])


def test_the_pairs_are_the_chosen_item_and_as_many_others_as_asked(fresh):
    report = tune(fresh(), negatives=3, epochs=0.1)
    others = (TRAIN.candidates.items != NO_ITEM).sum(axis=1) - 1
    assert report.examples == len(TRAIN) + np.minimum(others, 3).sum()


def test_feedback_alone_teaches_what_decides(fresh):
    cross_encoder, feedback = fresh(), labelled(300, 5)
    report = tune(cross_encoder, train=TRAIN.take(np.arange(1)), feedback=feedback, epochs=4, learning_rate=4e-3)
    assert report.feedback == 300
    assert report.examples == 300 + (TRAIN.candidates.items[0] != NO_ITEM)[: CONFIG.negatives + 1].sum()
    assert ndcg(cross_encoder, VALIDATION) > 0.95


def test_feedback_without_anything_liked_before_is_left_out(fresh):
    some = labelled(10, 5)
    nothing = Requests(Histories.empty(10), some.requests.allowed)
    report = tune(fresh(), feedback=dataclasses.replace(some, requests=nothing), epochs=0.1)
    assert report.feedback == 0


def test_short_validation_lists_are_measured_like_long_ones(fresh):
    cross_encoder = fresh()
    short = lists(30, 4, short=True)
    report = tune(cross_encoder, validation=short, epochs=1)
    assert ndcg(cross_encoder, short) == pytest.approx(dict(report.validation_ndcg)[report.best_step], abs=1e-6)


def test_it_prints_writes_warns_and_reseeds_nothing(fresh, tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    cross_encoder = fresh()
    capfd.readouterr()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    tune(cross_encoder, epochs=0.5)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr().out == ""
    assert not recwarn.list
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert after == states
    assert not cross_encoder.model.training


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_a_missing_tracker_names_its_extra(fresh, tracker, monkeypatch):
    monkeypatch.setitem(sys.modules, tracker, None)  # as if it were not installed
    with pytest.raises(ExtraError, match=rf'{tracker} needs a package.*pip install "hybrid-ranker\[{tracker}\]"'):
        tune(fresh(), report_to=tracker)


def test_curves_for_tensorboard_are_kept_where_the_settings_say(fresh, tmp_path):
    report = tune(fresh(), report_to="tensorboard", report_folder=str(tmp_path / "curves"))
    events = EventAccumulator(str(tmp_path / "curves")).Reload()
    curve = [(event.step, event.value) for event in events.Scalars("eval/ndcg")]
    np.testing.assert_allclose(curve, report.validation_ndcg, atol=1e-6)


@pytest.mark.parametrize(("train", "validation"), [(0, 5), (5, 0)])
def test_too_few_lists_are_an_error_with_their_number(fresh, train, validation):
    with pytest.raises(InputError, match=f"{train} training and {validation} validation lists") as caught:
        tune(fresh(), train=lists(5, 1).take(np.arange(train)), validation=lists(5, 2).take(np.arange(validation)))
    assert "rerank.enabled: false" in str(caught.value)
