"""Texts that Spark encodes have the vectors that one process gives them."""

import numpy as np
import pyarrow as pa
import pytest
import tiny_engine

from encoders import ExportConfig, OnnxTextEncoder, TextEncoder, TextEncoderConfig, export_text_encoder
from encoders.errors import InputError
from ranker.spark import encode
from ranker.tasks import retrieval_task
from retrieval.catalogue import Catalogue
from retrieval.interactions import Interactions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    catalogue = Catalogue(tiny_engine.items())
    histories = Interactions.from_frame(tiny_engine.interactions(), catalogue).histories
    task = retrieval_task(histories.liked(), catalogue, np.random.default_rng(0))
    original = TextEncoder.load(checkpoint, TextEncoderConfig(max_tokens=32, batch_size=16, device="cpu"))
    export_text_encoder(original, task, folder, ExportConfig(precisions=("int8",), tolerance=0.9))
    return OnnxTextEncoder.load(folder)


def test_vectors_are_those_of_one_process(spark, encoder):
    items = tiny_engine.items()
    rows = pa.Table.from_pandas(items[["item_id", "text", "year"]], preserve_index=False)
    found = encode(spark.createDataFrame(rows).repartition(3), encoder).toArrow()
    assert found.schema.names == ["item_id", "vector"]
    vectors = dict(zip(found["item_id"].to_pylist(), found["vector"].to_pylist(), strict=True))
    expected = encoder.encode(items["text"].tolist())
    np.testing.assert_allclose([vectors[item] for item in items["item_id"]], expected, atol=1e-5)


def test_a_table_without_texts_is_refused(spark, encoder):
    with pytest.raises(InputError, match="no column 'text'"):
        encode(spark.createDataFrame([(1,)], "item_id long"), encoder)
