"""What every Encoder and every PairScorer promises."""

import logging

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import catalogue

from encoders.errors import InputError

TORCH = ("bert", "gpt2", "roberta")
ENCODERS = [f"{name}{suffix}" for name in TORCH for suffix in ("", "-fp32", "-int8")]
SCORERS = [f"{name}{suffix}" for name in ("bert", "roberta") for suffix in ("", "-fp32", "-int8")]

anything = st.text(st.characters(exclude_categories=()), max_size=60)  # surrogates and unassigned included
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=ENCODERS)
def encoder(request, encoders):
    return encoders[request.param]


@pytest.fixture(params=SCORERS)
def scorer(request, scorers):
    return scorers[request.param]


def test_vectors_are_unit_rows_of_the_stated_width(encoder):
    vectors = encoder.encode(catalogue())
    assert vectors.shape == (40, encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_batch_of_texts_equals_its_texts_one_by_one(encoder):
    texts = catalogue()
    np.testing.assert_allclose(
        encoder.encode(texts), np.concatenate([encoder.encode([text]) for text in texts]), atol=1e-5
    )


def test_a_text_is_encoded_alike_among_long_and_short_ones(encoder):
    alone = encoder.encode(["old robot"])
    among = encoder.encode(["winter " * 20, "old robot", "", "cat"])[1:2]
    np.testing.assert_allclose(alone, among, atol=1e-5)


def test_vectors_keep_the_order_of_the_texts(encoder):
    texts = list(catalogue())
    shuffled = np.random.default_rng(5).permutation(len(texts))
    np.testing.assert_allclose(encoder.encode([texts[i] for i in shuffled]), encoder.encode(texts)[shuffled], atol=1e-5)


def test_no_texts_give_no_rows(encoder):
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_what_is_over_the_token_limit_changes_nothing(encoder):
    long = "river " * 50
    np.testing.assert_allclose(encoder.encode([long]), encoder.encode([long + "cat"]), atol=1e-6)


def test_a_missing_text_is_named(encoder):
    with pytest.raises(InputError, match=r"Text 1 is nan, not a string"):
        encoder.encode(["cat", float("nan")])


@few
@given(texts=st.lists(anything, min_size=1, max_size=5))
@pytest.mark.parametrize("name", ENCODERS)
def test_any_unicode_gives_finite_unit_rows(encoders, name, texts):
    vectors = encoders[name].encode(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_scores_are_one_number_per_pair(scorer):
    pairs = list(zip(catalogue(10), catalogue(10, seed=1), strict=True))
    scores = scorer.score(pairs)
    assert scores.shape == (10,)
    assert scores.dtype == np.float32
    assert np.ptp(scores) > 0


def test_a_batch_of_pairs_equals_its_pairs_one_by_one(scorer):
    pairs = list(zip(catalogue(), catalogue(seed=1), strict=True))
    np.testing.assert_allclose(scorer.score(pairs), np.concatenate([scorer.score([pair]) for pair in pairs]), atol=1e-4)


def test_scores_keep_the_order_of_the_pairs(scorer):
    pairs = list(zip(catalogue(), catalogue(seed=1), strict=True))
    np.testing.assert_allclose(scorer.score(pairs[::-1]), scorer.score(pairs)[::-1], atol=1e-4)


def test_no_pairs_give_no_scores(scorer):
    assert scorer.score([]).shape == (0,)


def test_the_item_side_survives_a_long_user_side(scorer):
    long = "river " * 60
    one, same, other = scorer.score([(long, "cat"), (long + "city", "cat"), (long, "dog")])
    assert one == pytest.approx(same, abs=1e-5)
    assert one != pytest.approx(other, abs=1e-5)


def test_the_user_side_survives_a_long_item_side(scorer):
    long = "river " * 60
    one, same, other = scorer.score([("cat", long), ("cat", long + "city"), ("dog", long)])
    assert one == pytest.approx(same, abs=1e-5)
    assert one != pytest.approx(other, abs=1e-5)


def test_a_malformed_pair_is_named(scorer):
    with pytest.raises(InputError, match="Pair 1 is 'cat'"):
        scorer.score([("cat", "dog"), "cat"])


@few
@given(pairs=st.lists(st.tuples(anything, anything), min_size=1, max_size=4))
@pytest.mark.parametrize("name", SCORERS)
def test_any_unicode_pair_gives_a_finite_score(scorers, name, pairs):
    assert np.isfinite(scorers[name].score(pairs)).all()


@pytest.mark.parametrize("name", TORCH)
def test_the_fp32_export_equals_torch(encoders, name):
    texts = [*catalogue(seed=7), "", "winter " * 40]
    np.testing.assert_allclose(encoders[f"{name}-fp32"].encode(texts), encoders[name].encode(texts), atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_the_fp32_cross_encoder_export_equals_torch(scorers, name):
    pairs = list(zip(catalogue(seed=7), catalogue(seed=8), strict=True))
    np.testing.assert_allclose(scorers[f"{name}-fp32"].score(pairs), scorers[name].score(pairs), atol=1e-4)


def test_encoding_is_silent(encoders, capfd, caplog):
    caplog.set_level(logging.WARNING)
    encoders["bert"].encode(["cat"], progress=True)
    encoders["bert-int8"].encode(["cat"], progress=True)
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.records) == ("", "", [])
