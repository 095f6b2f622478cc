"""Training teaches the joint layers what decides, keeps the best of it, and leaves nothing else behind."""

import copy
import dataclasses
import os
import random
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_joint import fresh_model, input_reader, run
from tiny_lists import CONFIG, N_ITEMS, TEXTS, WORDS, lists

from encoders.errors import ExtraError, InputError
from ranker.feedback import N_KINDS
from ranker.lists import Lessons, list_ndcg
from ranker.split.queries import read_queries
from ranker.split.training import bce_loss, softmax_loss, train_joint
from retrieval.candidates import NO_ITEM, Requests


@pytest.fixture(scope="module")
def readers(encoder, tmp_path_factory):
    """Inputs from the store of TEXTS; neither the factors nor the scores know which word decides."""
    folder = tmp_path_factory.mktemp("stores")
    shapes = {count: fresh_model(encoder, count, sources=1, max_events=3).shape for count in (1, 2)}
    return {count: input_reader(folder / str(count), encoder, shape, TEXTS) for count, shape in shapes.items()}


@pytest.fixture
def fresh(encoder):
    return lambda joint_layers=1: fresh_model(encoder, joint_layers, sources=1, max_events=3)


TRAIN, VALIDATION = lists(240, 1, short=True), lists(60, 2)
NOTHING = TRAIN.take(np.arange(0))


def tune(model, reader, seed=0, train=TRAIN, queried=NOTHING, refused=NOTHING, validation=VALIDATION, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return train_joint(model, reader, Lessons(train, queried, refused), validation, config, seed, progress=False)


def with_kinds(of):
    """The same lists, whose events are feedback of every kind."""
    histories = of.requests.histories
    kinds = 1 + np.arange(len(histories.items)) % (N_KINDS - 1)
    histories = dataclasses.replace(histories, kinds=kinds.astype(np.uint8))
    return dataclasses.replace(of, requests=dataclasses.replace(of.requests, histories=histories))


def asking(of, encoder, shape, seed=0):
    """The same lists as searches for the chosen item's word; what their users did before says nothing of it."""
    histories = of.requests.histories
    items = np.random.default_rng(seed).integers(0, N_ITEMS, len(histories.items))
    queries = read_queries(encoder, [WORDS[item % 2] for item in of.chosen], shape.lower_layers, shape.max_tokens)
    requests = Requests(dataclasses.replace(histories, items=items), of.requests.allowed, queries=queries)
    return dataclasses.replace(of, requests=requests)


def ndcg(model, reader, of):
    """NDCG@10 of the model's own order, one list after the other."""
    values = []
    for row in range(len(of)):
        one = of.take(np.array([row]))
        logits = run(model, reader.read(one.requests, one.candidates)).logits[0]
        known = one.candidates.items[0] != NO_ITEM
        rank = (logits[known] >= logits[one.candidates.items[0] == one.chosen]).sum()  # ties count against it
        values.append(1 / np.log2(1 + rank))
    return np.mean(values)


def weights(model):
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


LEARNS = {  # settings with which any seed learns it
    ("softmax", 1): {"learning_rate": 1e-2, "head_rate": 1, "epochs": 9, "negatives": 7},
    ("bce", 1): {"learning_rate": 1e-2, "head_rate": 2, "epochs": 24, "negatives": 3},
    ("softmax", 2): {"learning_rate": 5e-3, "head_rate": 2, "epochs": 6, "negatives": 7},
}


@pytest.mark.parametrize(("loss", "joint_layers"), LEARNS)
def test_it_learns_what_decides_and_keeps_the_best_that_was_measured(fresh, readers, loss, joint_layers):
    model, reader, train = fresh(joint_layers), readers[joint_layers], lists(1000 // joint_layers, 1, short=True)
    before = ndcg(model, reader, VALIDATION)
    report = tune(model, reader, train=train, loss=loss, batch_size=32, patience=24, **LEARNS[loss, joint_layers])
    after = ndcg(model, reader, VALIDATION)
    assert before < 0.6
    assert after > 0.9
    assert ndcg(model, reader, lists(60, 9)) > 0.9  # lists that neither part held
    measured = dict(report.validation_ndcg)
    assert measured[report.best_step] == max(measured.values()) == pytest.approx(after, abs=1e-6)
    assert report.best_step == min(step for step, value in measured.items() if value == max(measured.values()))
    assert report.examples == len(train)
    assert not model.training


@pytest.mark.parametrize("joint_layers", [1, 2])
def test_it_learns_to_find_what_a_query_names(fresh, readers, encoder, joint_layers):
    model, reader = fresh(joint_layers), readers[joint_layers]
    taken, searched, others = (lists(count, seed, short=True) for count, seed in ((500, 1), (500, 3), (60, 9)))
    queried, others = (asking(of, encoder, model.shape, seed) for seed, of in enumerate((searched, others)))
    before = ndcg(model, reader, others)
    settings = LEARNS["softmax", joint_layers] | {"epochs": 6, "batch_size": 32, "patience": 24}
    report = tune(model, reader, train=taken, queried=queried, **settings)
    assert before < 0.6
    assert ndcg(model, reader, others) > 0.9
    assert ndcg(model, reader, VALIDATION) > 0.9  # and what users take without one
    assert report.examples == len(taken) + len(queried)
    assert report.feedback == 0


def test_items_like_the_refused_ones_fall_behind(fresh, readers):
    """Users take either word alike often, but all that they refuse are robots."""
    model, reader = fresh(), readers[1]
    taken, more, validation, other = lists(300, 1), lists(600, 4, short=True), lists(200, 2), lists(60, 9)
    refused, cats = more.take(np.flatnonzero(more.chosen % 2 == 0)), validation.chosen % 2 == 1
    settings = {"learning_rate": 1e-2, "head_rate": 2, "epochs": 6, "negatives": 7, "batch_size": 32}
    report = tune(
        model, reader, train=taken, refused=refused, validation=validation.take(np.flatnonzero(cats)), **settings
    )
    assert report.feedback == len(refused)
    assert report.examples == len(taken) + len(refused)
    logits = run(model, reader.read(other.requests, other.candidates)).logits
    robots = other.candidates.items % 2 == 0
    assert logits[robots].mean() < logits[~robots].mean() - 0.2


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_losses_are_those_of_a_draw_and_of_single_answers(seed, extreme):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(6, 5)) * (40 if extreme else 1)
    lengths = rng.integers(2, 6, 6)
    labels = np.where(np.arange(5) < lengths[:, None], 0.0, -1.0)
    chosen = rng.integers(0, lengths)
    labels[np.arange(6), chosen] = 1
    refused = rng.random(6) < 0.5
    draws, answers = [], []
    for row in range(6):
        odds = np.exp(logits[row, : lengths[row]] - logits[row].max())
        share = odds / odds.sum()
        others = np.delete(share, chosen[row]).sum()
        draws.append(-np.log(others if refused[row] else share[chosen[row]]))
        told = [chosen[row]] if refused[row] else range(lengths[row])
        taken = [place == chosen[row] and not refused[row] for place in told]
        signs = [-1 if target else 1 for target in taken]
        answers.append(np.mean([np.logaddexp(0, s * logits[row, place]) for s, place in zip(signs, told, strict=True)]))
    given_to = (torch.tensor(logits), torch.tensor(labels), torch.tensor(refused))
    np.testing.assert_allclose(softmax_loss(*given_to), draws, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(bce_loss(*given_to), answers, rtol=1e-6, atol=1e-12)


def test_the_best_is_restored_where_training_goes_astray(fresh, readers):
    model = fresh()
    report = tune(model, readers[1], learning_rate=0.1, epochs=3)
    measured = dict(report.validation_ndcg)
    assert len(set(measured.values())) > 1
    assert ndcg(model, readers[1], VALIDATION) == pytest.approx(measured[report.best_step], abs=1e-6)


def test_it_stops_early_where_nothing_gets_better(fresh, readers):
    report = tune(fresh(), readers[1], learning_rate=1e-12, epochs=20, patience=2)
    assert len(report.validation_ndcg) == 3  # the first, and two that were no better
    assert report.steps == 3 * report.validation_ndcg[0][0]


def test_every_weight_that_is_served_is_trained(fresh, readers, encoder):
    for joint_layers, reader in readers.items():
        model = fresh(joint_layers)
        of = with_kinds(TRAIN)
        before = copy.deepcopy(model.state_dict())
        tune(model, reader, train=of, queried=asking(TRAIN, encoder, model.shape), epochs=1)
        still = {name for name, weight in model.state_dict().items() if torch.equal(weight, before[name])}
        # the folded part of a single layer is not computed again
        folded = {
            f"top.layer.{name}" for name in ("query.bias", "key.weight", "key.bias", "value.weight", "value.bias")
        }
        assert still == (folded if joint_layers == 1 else set())


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(fresh, readers):
    results = []
    for seed in (0, 0, 1):
        model = fresh()
        random.seed(len(results))  # what the process drew before does not matter
        np.random.seed(len(results))  # noqa: NPY002
        torch.manual_seed(len(results))
        report = tune(model, readers[1], seed, epochs=1)
        results.append((weights(model), report))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not torch.equal(results[0][0], results[2][0])


def test_without_queries_what_reads_them_stays_as_it_was(fresh, readers):
    model = fresh()
    tune(model, readers[1], epochs=1)
    assert not model.query.any()


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_empty_places_neither_teach_nor_count(fresh, readers, loss):
    """Lists with empty places at their end train and measure like the same lists without."""
    longer = lists(40, 5, short=True)
    length = 4
    longer = longer.take(np.arange(0, 40, 3))
    shorter = dataclasses.replace(longer, candidates=longer.candidates.head(length))
    assert (longer.candidates.items[:, length:] == NO_ITEM).all()
    found = []
    for of in (longer, shorter):
        model = fresh()
        report = tune(model, readers[1], train=of, validation=of, loss=loss, negatives=3, epochs=2, batch_size=99)
        assert torch.isfinite(weights(model)).all()
        assert ndcg(model, readers[1], of) == pytest.approx(dict(report.validation_ndcg)[report.best_step], abs=1e-6)
        found.append(weights(model))
    torch.testing.assert_close(found[0], found[1], atol=2e-3, rtol=0)


def test_more_negatives_than_a_list_holds_are_all_that_it_holds(fresh, readers):
    report = tune(fresh(), readers[1], negatives=500, epochs=0.2)
    assert report.steps > 0


def test_training_leaves_lists_store_and_factors_as_they_are(fresh, readers):
    reader, of = readers[1], lists(30, 3, short=True)
    arrays = [
        of.candidates.items, of.candidates.scores, of.candidates.by_source, of.chosen, of.requests.histories.items,
        reader.factors,
    ]  # fmt: skip
    copies = [array.copy() for array in arrays]
    tune(fresh(), reader, train=of, epochs=1)
    for array, before in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, before)


def test_the_measure_is_that_of_whole_lists(fresh, readers):
    """Validation lists are scored with all their candidates, also where training draws a few."""
    model = fresh()
    report = tune(model, readers[1], negatives=1, learning_rate=1e-12, epochs=0.1)
    scores = np.where(VALIDATION.candidates.items == NO_ITEM, -np.inf, VALIDATION.candidates.scores)
    fused = list_ndcg(scores, VALIDATION.candidates.items == VALIDATION.chosen[:, None]).mean()
    assert report.validation_ndcg[0][1] == pytest.approx(fused, abs=1e-6)


def test_it_prints_writes_warns_and_reseeds_nothing(fresh, readers, tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    model = fresh()
    capfd.readouterr()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    tune(model, readers[1], epochs=0.5)
    assert os.listdir(tmp_path) == []
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert not recwarn.list
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert after == states


def test_a_missing_tracker_names_its_extra(fresh, readers, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ExtraError, match=r'wandb needs a package.*pip install "hybrid-ranker\[wandb\]"'):
        tune(fresh(), readers[1], report_to="wandb")


@pytest.mark.parametrize(("train", "validation"), [(0, 5), (5, 0)])
def test_too_few_lists_are_an_error_with_their_number(fresh, readers, train, validation):
    with pytest.raises(InputError, match=f"{train} training and {validation} validation lists") as caught:
        tune(
            fresh(),
            readers[1],
            train=lists(5, 1).take(np.arange(train)),
            validation=lists(5, 2).take(np.arange(validation)),
        )
    assert "rerank.enabled: false" in str(caught.value)
