"""Lower layers are tuned on the texts of lists, and serve only where text search keeps what it found."""

import dataclasses
import logging

import numpy as np
import pytest
import tiny_engine
import torch
from tests_support import watched
from tiny_joint import fresh_model, input_reader, item_factors, moved, run
from tiny_lists import CONFIG, TEXTS, lists
from tiny_split import assert_same, fit

import ranker
import ranker.split.fitting as split_fitting
from encoders import ExportConfig, OnnxTextEncoder, TextEncoder, TextEncoderConfig
from encoders.errors import ConfigError, InputError, TaskError
from encoders.layers import layer_stack, lower_part, top_layers
from ranker import fitting
from ranker.config import SplitConfig, UnfreezingConfig
from ranker.split.unfreezing import JointOverTexts, TokenReader, unfreeze

LISTS = lists(80, 1, short=True)
LENGTHS = [" ".join([text, *["old river"] * (n % 5)]) for n, text in enumerate(TEXTS)]
FACTORS = item_factors(len(TEXTS))
ANYTHING_GOES = ExportConfig(precisions=("fp32",), tolerance=0.99)
TUNED = {"unfreezing": UnfreezingConfig(layers=1, batch_size=16, learning_rate=1e-3)}


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return TextEncoder.load(checkpoint, TextEncoderConfig(max_tokens=16, batch_size=16, device="cpu"))


def tune(encoder, layers, joint_layers=1, of=LISTS, seed=0, **changes):
    training = dataclasses.replace(CONFIG, epochs=1)
    unfreezing = UnfreezingConfig(**({"layers": layers, "batch_size": 16, "learning_rate": 1e-3} | changes))
    config = SplitConfig(joint_layers=joint_layers, training=training, unfreezing=unfreezing, events=3, max_tokens=12)
    return unfreeze(encoder, of, TEXTS, FACTORS, config, seed, progress=False)


def over_texts(encoder, model):
    lower = lower_part(encoder.model, model.shape.lower_layers)
    folding = top_layers(encoder.model, model.shape.joint_layers)[0]
    return JointOverTexts(lower, folding, model, encoder.tokens.pad_id)


@pytest.mark.parametrize(("joint_layers", "item_vectors"), [(1, None), (2, None), (2, 3), (3, None)])
def test_texts_read_anew_give_what_their_rows_in_the_store_give(encoder, tmp_path, joint_layers, item_vectors):
    model = moved(fresh_model(encoder, joint_layers, sources=1, max_events=3, max_tokens=10, item_vectors=item_vectors))
    stored = input_reader(tmp_path / "store", encoder, model.shape, LENGTHS)
    tokens = TokenReader(encoder, LENGTHS, stored.factors, model.shape)
    expected = run(model, stored.read(LISTS.requests, LISTS.candidates)).logits
    anew = over_texts(encoder, model).train()  # there is no dropout, either
    with torch.no_grad():
        found = anew(**tokens.read(LISTS.requests, LISTS.candidates).tensors()).numpy()
    known = LISTS.candidates.items >= 0
    np.testing.assert_allclose(found[known], expected[known], atol=2e-2)
    np.testing.assert_allclose(found[known].std(), expected[known].std(), rtol=1e-2)


@pytest.mark.parametrize(("layers", "joint_layers"), [(1, 1), (2, 1), (1, 2)])
def test_the_named_layers_change_and_nothing_else_does(encoder, layers, joint_layers):
    before = {name: weight.clone() for name, weight in encoder.model.state_dict().items()}
    tuned, users = tune(encoder, layers, joint_layers)
    after = tuned.model.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    lower = 3 - joint_layers
    named = {f"encoder.layer.{at}." for at in range(lower - layers, lower)}
    # a key's bias adds the same to every logit of a softmax: rounding alone, or decay, moves it
    expected = {name for name in before if name.startswith(tuple(named))}
    assert {name for name in expected ^ changed if not name.endswith("key.bias")} == set()
    assert all(torch.equal(weight, before[name]) for name, weight in encoder.model.state_dict().items())
    assert all(weight.requires_grad for weight in tuned.model.parameters())
    assert tuned.fingerprint != encoder.fingerprint
    assert set(users) < set(LISTS.users)


def test_the_same_seed_tunes_alike_and_no_more_lists_than_asked_for_are_used(encoder):
    (one, users), (again, _) = tune(encoder, 1, lists=20, batch_size=4), tune(encoder, 1, lists=20, batch_size=4)
    other, others = tune(encoder, 1, lists=20, batch_size=4, seed=1)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert len(users) == len(others) == 20
    assert users.tolist() != others.tolist()


@pytest.mark.parametrize(("joint_layers", "item_vectors"), [(1, None), (2, None), (2, 3)])
def test_the_gradient_of_a_lower_layer_is_that_of_the_logits(encoder, joint_layers, item_vectors):
    """A step along it changes the logits' sum of squares by the square of its length, by central differences."""
    shape = {"sources": 1, "max_events": 3, "max_tokens": 10, "item_vectors": item_vectors}
    model = over_texts(encoder, moved(fresh_model(encoder, joint_layers, **shape), far=0.2))
    inputs = TokenReader(encoder, LENGTHS, FACTORS, model.joint.shape).read(LISTS.requests, LISTS.candidates).tensors()
    known = torch.from_numpy(LISTS.candidates.items >= 0)
    weights = list(layer_stack(model.lower)[-1].requires_grad_(True).parameters())
    gradient = torch.autograd.grad((model(**inputs)[known] ** 2).mean(), weights)
    length = torch.sqrt(sum((part**2).sum() for part in gradient))
    values = []
    with torch.no_grad():
        for step in (1e-2, -2e-2):
            for weight, part in zip(weights, gradient, strict=True):
                weight += step * part / length
            values.append(float((model(**inputs)[known] ** 2).mean()))
    assert float(length) > 0.01
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(length), rel=0.05)


def test_too_few_lists_are_an_error_before_anything_is_tuned(encoder):
    with pytest.raises(InputError, match="0 training and 1 validation lists"):
        tune(encoder, 1, of=LISTS.take(np.arange(1)))


@pytest.mark.parametrize("quantized", [False, True])
def test_an_engine_serves_from_the_tuned_encoder_before_and_after_a_save(checkpoint, tmp_path, quantized):
    engine = fit(checkpoint, split=TUNED | {"quantized": quantized}, export=ANYTHING_GOES)
    original = TextEncoder.load(checkpoint, engine.config.encoder)
    texts = engine.catalogue.texts
    assert isinstance(engine.encoder, OnnxTextEncoder if quantized else TextEncoder)
    vectors = engine.encoder.encode(texts)
    assert np.abs(vectors - original.encode(texts)).max() > 1e-3
    np.testing.assert_allclose(engine.retriever.sources["text"].vectors, vectors, atol=1e-5)
    assert engine.reranker.items.encoder is engine.encoder
    assert engine.reranker.inputs.store.version == engine.reranker.items.version
    assert engine.reranker.items.read_by(original).version != engine.reranker.items.version
    answers = tiny_engine.answers(engine)
    engine.save(tmp_path / "model")
    loaded = ranker.load(tmp_path / "model")
    assert loaded.encoder.fingerprint == engine.encoder.fingerprint
    np.testing.assert_allclose(loaded.encoder.encode(texts), vectors, atol=1e-5)
    assert_same(answers, tiny_engine.answers(loaded))


def test_the_joint_layers_start_from_the_pretrained_ones_again(checkpoint):
    engine = fit(checkpoint, split=TUNED, export=ANYTHING_GOES)
    original = TextEncoder.load(checkpoint, engine.config.encoder)
    (pretrained,) = top_layers(original.model, 1)
    for name, weight in pretrained.state_dict().items():
        assert torch.equal(engine.reranker.items.folding.state_dict()[name], weight)


def test_nobody_whose_lists_tuned_the_encoder_measures_the_gain(encoder):
    seen = np.arange(60)
    for seed in range(5):
        train, validation = LISTS.split_by_user(0.2, np.random.default_rng(seed), seen)
        assert not set(validation.users) & set(seen)
        assert len(np.unique(validation.users)) == 16
        assert len(train) + len(validation) == len(LISTS)


def test_a_fit_measures_the_gain_on_users_that_the_encoder_was_not_tuned_on(checkpoint, monkeypatch):
    tuned_on, measured_on = [], []

    monkeypatch.setattr(fitting, "unfreeze", watched(unfreeze, lambda _, made: tuned_on.extend(made[1])))
    monkeypatch.setattr(
        split_fitting,
        "judged_on",
        watched(split_fitting.judged_on, lambda given, _: measured_on.extend(given[1].users)),
    )
    fit(checkpoint, split=TUNED, export=ANYTHING_GOES)
    assert tuned_on
    assert measured_on
    assert not set(tuned_on) & set(measured_on)


def test_an_encoder_that_searches_worse_is_dropped_with_a_warning(checkpoint, caplog):
    """Steps far too large leave little of what the layers read."""
    export = ExportConfig(precisions=("fp32",), tolerance=0.0)
    far = {"unfreezing": UnfreezingConfig(layers=2, batch_size=4, learning_rate=5.0)}
    with caplog.at_level(logging.WARNING):
        engine = fit(checkpoint, split=far, export=export)
    (warning,) = [record.getMessage() for record in caplog.records if "tuned encoder" in record.getMessage()]
    assert "loses more than 0.0 % at text search (recall@10 " in warning
    assert "the encoder stays as it was. Lower rerank.split.unfreezing.learning_rate or .layers" in warning
    plain = fit(checkpoint, export=export)
    assert engine.encoder.fingerprint == plain.encoder.fingerprint
    assert_same(tiny_engine.answers(plain), tiny_engine.answers(engine))


def test_an_encoder_whose_search_tells_nothing_stays_as_it_was(checkpoint, monkeypatch, caplog):
    def nothing_found(*_):
        raise TaskError("The original model's recall@10 on this task is 0.")

    monkeypatch.setattr(fitting.RetrievalGate, "judge", nothing_found)
    engine = fit(checkpoint, split=TUNED, export=ANYTHING_GOES)
    assert "so the tuned encoder cannot be judged, and the encoder stays as it was." in caplog.text
    assert engine.encoder.fingerprint == TextEncoder.load(checkpoint, engine.config.encoder).fingerprint


def test_more_layers_than_lie_below_are_refused_before_the_items_are_read(checkpoint, monkeypatch):
    def encode(*_, **__):
        raise AssertionError("items are read")

    monkeypatch.setattr(TextEncoder, "encode", encode)
    for joint_layers, lower in ((1, 2), (3, 0)):
        split = {"joint_layers": joint_layers, "unfreezing": UnfreezingConfig(layers=lower + 1)}
        with pytest.raises(
            ConfigError, match=rf"unfreezing\.layers is {lower + 1}, but {lower} layers.*take 0 to {lower}"
        ):
            fit(checkpoint, split=split)


@pytest.mark.parametrize("changed", [{"layers": -1}, {"lists": 0}, {"batch_size": 0}, {"learning_rate": 0}])
def test_settings_out_of_range_are_named(changed):
    (name,) = changed
    with pytest.raises(ConfigError, match=rf"^config: rerank\.split\.unfreezing\.{name} = "):
        ranker.EngineConfig.from_dict({"rerank": {"split": {"unfreezing": changed}}})


def test_the_lower_part_ends_where_the_next_layer_would_read(encoder):
    batch = next(encoder.tokens.text_batches(TEXTS[:5]))
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    with torch.no_grad():
        whole = encoder.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        for count in range(4):
            part = lower_part(encoder.model, count)(input_ids=ids, attention_mask=mask).last_hidden_state
            assert torch.equal(part, whole[count])
    assert len(layer_stack(encoder.model)) == 3
