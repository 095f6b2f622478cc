"""ALS by Spark ML: the same confidences, the same answers on the same factors, and as good an order."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tiny_engine
from pyspark.ml.recommendation import ALS
from tiny_engine import N_ITEMS, interactions, taste

from encoders.errors import InputError
from ranker.spark import fit_als
from retrieval.als import AlsConfig, AlsRetriever
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.ids import IdMap
from retrieval.interactions import Interactions

pytestmark = pytest.mark.slow

CONFIG = AlsConfig(factors=8, iterations=5, regularization=1.0, alpha=1.0)


@pytest.fixture(scope="module")
def items():
    return IdMap([f"i{n}" for n in range(N_ITEMS)])


@pytest.fixture(scope="module")
def log():
    return interactions()


@pytest.fixture(scope="module")
def found(spark, items, log):
    strings = log.assign(user_id="u" + log["user_id"].astype(str))
    return fit_als(spark.createDataFrame(pa.Table.from_pandas(strings)), items, CONFIG, seed=0)


def requests(items, log):
    known = Interactions.from_frame(log, Catalogue(tiny_engine.items()))
    return Requests(known.histories, np.ones(len(items), np.bool_))


def test_its_factors_find_what_is_to_a_users_taste(found, items, log):
    asked = requests(items, log)
    local = AlsRetriever.fit(asked.histories, len(items), CONFIG, 0)
    own = np.array([taste(user) for user in range(len(asked))])
    shares = {}
    for name, source in {"spark": found, "local": local}.items():
        listed = source.retrieve(asked, 5).items
        shares[name] = (np.vectorize(taste)(listed) == own[:, None]).mean()
    assert shares["spark"] > 0.6  # a quarter by chance
    assert abs(shares["spark"] - shares["local"]) < 0.15


def test_the_same_factors_give_the_same_answers_wherever_they_were_trained(found, items, log, tmp_path):
    asked = requests(items, log)
    found.save(tmp_path)
    again = AlsRetriever.load(tmp_path)
    same = AlsRetriever(found.item_factors, CONFIG)
    for other in (again, same):
        np.testing.assert_array_equal(other.retrieve(asked, 7).items, found.retrieve(asked, 7).items)


def test_confidences_are_those_of_one_machine(spark, items, monkeypatch):
    log = pd.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2, 3],
            "item_id": ["i0", "i0", "i1", "i0", "elsewhere", "i2"],
            "weight": [1.0, 3.0, 2.0, 5.0, 1.0, -1.0],
        }
    )
    ratings = []
    fit = ALS.fit
    monkeypatch.setattr(
        ALS, "fit", lambda self, table: ratings.append((self, table.toArrow().to_pandas())) or fit(self, table)
    )
    fit_als(
        spark.createDataFrame(pa.Table.from_pandas(log)),
        items,
        AlsConfig(factors=2, iterations=1, alpha=0.5, regularization=3.0),
    )
    ((als, table),) = ratings
    confidences = sorted((1 + 0.5 * table["rating"]).tolist())
    # two events of weights 1 and 3: (1 + .5) + (1 + 1.5); one of 2: 1 + 1; one of 5: 1 + 2.5
    np.testing.assert_allclose(confidences, [2.0, 3.5, 4.0])
    assert als.getRegParam() == 3.0 / 1.5  # two users with three items between them


def test_items_that_nobody_took_get_factors_from_their_texts(spark, items, log):
    rng = np.random.default_rng(0)
    vectors = np.eye(4, 16, dtype=np.float32)[[taste(n) for n in range(N_ITEMS)]]
    vectors += 0.01 * rng.standard_normal(vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    seen = spark.createDataFrame(pa.Table.from_pandas(log[log["item_id"] != "i59"], preserve_index=False))
    config = AlsConfig(factors=8, iterations=5, regularization=1.0, alpha=1.0, text_penalty=0.01)
    without = fit_als(seen, items, config)
    assert not without.item_factors[59].any()
    filled = fit_als(seen, items, config, vectors=vectors)
    factors = filled.item_factors / np.linalg.norm(filled.item_factors, axis=1, keepdims=True)
    near = factors @ factors[59]
    same = np.array([taste(n) == taste(59) for n in range(59)])
    assert near[:59][same].mean() > near[:59][~same].mean() + 0.3


def test_a_log_that_cannot_be_used_is_refused(spark, items):
    with pytest.raises(InputError, match="no column 'weight'"):
        fit_als(spark.createDataFrame([(1, "i0")], "user_id long, item_id string"), items, CONFIG)
    elsewhere = spark.createDataFrame([(1, "no item", 1.0)], "user_id long, item_id string, weight double")
    with pytest.raises(InputError, match="no positive event is on an item of the catalogue"):
        fit_als(elsewhere, items, CONFIG)
