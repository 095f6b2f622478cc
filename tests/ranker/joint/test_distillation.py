"""Joint layers learn a list's order from a teacher, which reads each drawn candidate once."""

import dataclasses
import shutil

import numpy as np
import pytest
import tiny_engine
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_joint import fresh_model, input_reader, run
from tiny_lists import CONFIG, TEXTS, lists

import ranker
from encoders import PairCrossEncoder, PairCrossEncoderConfig, TextEncoder
from encoders.errors import ArtifactError, ConfigError
from ranker.lists import Lessons
from ranker.pair.reranker import PairTexts
from ranker.split.distillation import TeacherScores, distilled, load_teacher, teacher_loss, teacher_scores
from ranker.split.training import bce_loss, softmax_loss, train_joint
from retrieval.candidates import NO_ITEM
from retrieval.histories import Histories

READS = PairTexts(TEXTS, TEXTS, 1)
WHOLLY = dataclasses.replace(CONFIG, distillation=1.0, teacher_lists=10_000)
MODEL = PairCrossEncoderConfig(max_tokens=48, batch_size=16, device="cpu")


class LikesRobots:
    """A teacher whose logits are known: robots are likelier by far, whoever asks; lower numbers a little."""

    def __init__(self):
        self.asked = []

    def score(self, pairs, *, progress=False):
        self.asked += pairs
        return np.array([3 * ("robot" in text) - int(text.split()[1]) / 50 for _, text in pairs], np.float32)

    def save(self, folder):
        raise NotImplementedError


def without_history(of, rows):
    """The same lists, these of users who did nothing before."""
    histories = of.requests.histories
    kept = ~np.isin(histories.rows, rows)
    empty = Histories.from_rows(
        histories.rows[kept], histories.items[kept], histories.weights[kept], histories.times[kept], len(histories)
    )
    return dataclasses.replace(of, requests=dataclasses.replace(of.requests, histories=empty))


@pytest.fixture(scope="module")
def cross_encoder(checkpoint, tmp_path_factory):
    """A folder with a pair cross-encoder, head included, as an engine saves it."""
    folder = tmp_path_factory.mktemp("teacher")
    PairCrossEncoder.load(checkpoint, MODEL).save(folder)
    return folder


@pytest.fixture(scope="module")
def reader(encoder, tmp_path_factory):
    shape = fresh_model(encoder, 1, sources=1, max_events=3).shape
    return input_reader(tmp_path_factory.mktemp("stores") / "one", encoder, shape, TEXTS)


def test_every_drawn_candidate_is_scored_once_in_list_order():
    of, teacher = without_history(lists(30, 1, short=True), [0, 4]), LikesRobots()
    config = dataclasses.replace(WHOLLY, negatives=5, teacher_lists=12)
    taught = teacher_scores(teacher, READS, of, config, 0, progress=False)
    assert len(set(taught.rows)) == 12
    assert (np.diff(taught.rows) > 0).all()
    assert not set(taught.rows) & {0, 4}
    contexts, expected = READS.contexts(of.requests), []
    for row, places, logits in zip(taught.rows, taught.places, taught.logits, strict=True):
        items = of.candidates.items[row, places]
        assert items[0] == of.chosen[row]
        known = items != NO_ITEM
        assert len(set(items[known])) == known.sum() == min(6, (of.candidates.items[row] != NO_ITEM).sum())
        pairs = [(contexts[row], TEXTS[item]) for item in items[known]]
        np.testing.assert_array_equal(logits[known], LikesRobots().score(pairs))
        assert (logits[~known] == -np.inf).all()
        expected += pairs
    assert teacher.asked == expected
    again = teacher_scores(LikesRobots(), READS, of, config, 0, progress=False)
    for field in dataclasses.fields(TeacherScores):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(taught, field.name))
    other = teacher_scores(LikesRobots(), READS, of, config, 1, progress=False)
    assert other.rows.tolist() != taught.rows.tolist()


def test_a_scored_list_is_always_drawn_alike_and_others_are_left_as_they_are():
    taught = TeacherScores(np.array([2, 5]), np.array([[1, 0], [3, 2]]), np.array([[7.0, -np.inf], [8, 9]], np.float32))
    places = np.array([[4, 5], [6, 7], [8, 9]])
    logits = taught.put(np.array([5, 3, 2]), places)
    assert places.tolist() == [[3, 2], [6, 7], [1, 0]]
    assert logits.tolist() == [[8, 9], [-np.inf, -np.inf], [7, -np.inf]]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 1.0]), st.sampled_from([1, 200]))
def test_lists_that_the_teacher_scored_learn_from_it_and_others_do_not(seed, weight, scale):
    rng = np.random.default_rng(seed)
    logits, teacher = rng.normal(size=(2, 6, 5)) * scale
    lengths = rng.integers(1, 6, 6)
    labels = np.where(np.arange(5) < lengths[:, None], 0.0, -1.0)
    labels[np.arange(6), rng.integers(0, lengths)] = 1
    taught = rng.random(6) < 0.5
    teacher = np.where(taught[:, None] & (labels >= 0), teacher, -np.inf)
    refused = np.zeros(6, np.bool_)
    expected = []
    for row in range(6):
        said = logits[row, : lengths[row]] - np.logaddexp.reduce(logits[row, : lengths[row]])
        own = -said[labels[row, : lengths[row]] == 1][0]
        if taught[row]:
            told = teacher[row, : lengths[row]] - np.logaddexp.reduce(teacher[row, : lengths[row]])
            expected.append((1 - weight) * own + weight * (np.exp(told) * (told - said)).sum())
        else:
            expected.append(own)
    logits, labels, refused, teacher = (torch.tensor(array) for array in (logits, labels, refused, teacher))
    losses = distilled(softmax_loss(logits, labels, refused), logits, teacher, weight)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("loss", [softmax_loss, bce_loss])
def test_without_a_teacher_the_loss_is_the_ordinary_one(loss):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 5, generator=generator), torch.eye(5)[:4]
    refused = torch.tensor([False, True, False, True])
    silent = torch.full_like(logits, -torch.inf)
    losses = loss(logits, labels, refused)
    assert torch.equal(distilled(losses, logits, silent, 1.0), losses)


def test_the_teachers_own_shares_cost_nothing_whatever_its_offset():
    teacher = torch.tensor([[2.0, -1.0, -torch.inf], [0.0, 1.0, 2.0]])
    logits = torch.where(teacher.isfinite(), teacher + 7, torch.tensor(30.0)).requires_grad_()
    losses = teacher_loss(logits, teacher)
    losses.mean().backward()
    np.testing.assert_allclose(losses.detach(), 0, atol=1e-6)
    torch.testing.assert_close(logits.grad, torch.zeros(2, 3), atol=1e-6, rtol=0)


def test_the_teachers_order_is_learned_where_labels_say_nothing(encoder, reader):
    """What is taken is drawn at random; the teacher puts robots first for everybody."""
    rng, of, other = np.random.default_rng(0), lists(400, 1, short=True), lists(60, 9)
    places = [rng.choice(np.flatnonzero(row != NO_ITEM)) for row in of.candidates.items]
    of = dataclasses.replace(of, chosen=of.candidates.items[np.arange(len(of)), places])
    settings = {"learning_rate": 1e-2, "head_rate": 2, "epochs": 5, "negatives": 7, "batch_size": 32, "patience": 24}
    config = dataclasses.replace(WHOLLY, **settings)
    robots = other.candidates.items % 2 == 0
    validation = other.take(np.flatnonzero(other.chosen % 2 == 0))  # keeps the step that likes robots most
    lead = {}
    for name, teacher in (("taught", LikesRobots()), ("alone", None)):
        model = fresh_model(encoder, 1, sources=1, max_events=3)
        extra = () if teacher is None else (teacher_scores(teacher, READS, of, config, 0, progress=False),)
        train_joint(model, reader, Lessons.of(of), validation, config, 0, False, *extra)
        logits = run(model, reader.read(other.requests, other.candidates)).logits
        lead[name] = logits[robots].mean() - logits[~robots].mean()
    assert lead["taught"] > 2
    assert lead["taught"] > 2 * lead["alone"]


def test_a_saved_cross_encoder_teaches_an_engine(checkpoint, cross_encoder, caplog):
    training = tiny_engine.split_config(checkpoint).rerank.split.training
    weights = {}
    with caplog.at_level("INFO"):
        for teacher in (None, str(cross_encoder)):
            split = {"training": dataclasses.replace(training, teacher=teacher, distillation=1.0, teacher_lists=30)}
            config = tiny_engine.split_config(checkpoint, split)
            engine = ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)
            weights[teacher] = engine.reranker.joint.weights["head.weight"]
    assert not torch.equal(*weights.values())
    assert [text for text in caplog.messages if "scored 30 of" in text]


def fit_with(checkpoint, teacher):
    training = dataclasses.replace(tiny_engine.split_config(checkpoint).rerank.split.training, teacher=teacher)
    config = tiny_engine.split_config(checkpoint, {"training": training})
    return ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)


def test_a_teacher_that_cannot_teach_is_refused_before_the_items_are_read(
    checkpoint, cross_encoder, tmp_path, monkeypatch
):
    def encode(*_, **__):
        raise AssertionError("items are read")

    monkeypatch.setattr(TextEncoder, "encode", encode)
    damaged = shutil.copytree(cross_encoder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    for teacher, error, message in (
        (str(checkpoint), ConfigError, "teacher: .* has no head that scores pairs"),
        (str(tmp_path), ArtifactError, "is no checkpoint: it has no config.json"),
        ("no such/check point", ArtifactError, "is neither a folder nor the name of a Hub checkpoint"),
        (str(damaged), ArtifactError, "the weights cannot be loaded"),
    ):
        with pytest.raises(error, match=message) as caught:
            fit_with(checkpoint, teacher)
        assert "\n" not in str(caught.value)


def test_scores_that_are_no_numbers_are_refused(cross_encoder):
    teacher = load_teacher(str(cross_encoder), MODEL)
    with torch.no_grad():
        teacher.model.classifier.bias.fill_(torch.nan)
    with pytest.raises(ConfigError, match=r"teacher: 12 of its 12 scores are no finite numbers"):
        teacher_scores(teacher, READS, lists(4, 0), dataclasses.replace(WHOLLY, negatives=2), 0, progress=False)


@pytest.mark.parametrize("changed", [{"distillation": 0}, {"distillation": 1.5}, {"teacher_lists": 0}])
def test_settings_out_of_range_are_named(changed):
    (name,) = changed
    with pytest.raises(ConfigError, match=rf"^config: rerank\.split\.training\.{name} = "):
        ranker.EngineConfig.from_dict({"rerank": {"split": {"training": changed}}})
