"""The int8 recipe, against what it claims."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tiny_models import catalogue

from encoders import TextEncoder, TextEncoderConfig, open_session
from encoders.calibration import measure_channels
from encoders.graph import PooledText, fuse, trace
from encoders.quantization import at_precision, neighbour_bounded

LARGEST_ACTIVATION = 255


@pytest.fixture(scope="module")
def encoder(bert_folder):
    return TextEncoder.load(bert_folder, TextEncoderConfig(batch_size=8))


@pytest.fixture(scope="module")
def fused(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("fused") / "traced"
    trace(PooledText(encoder.model, encoder.pooling), ("input_ids", "attention_mask"), {"vector": 1}, path)
    return fuse(path, encoder.model.config)


@pytest.fixture(scope="module")
def channels(fused, encoder):
    return measure_channels(fused, encoder.tokens.text_batches(catalogue()))


@given(seed=st.integers(0, 999), rows=st.integers(1, 9), columns=st.integers(1, 5), size=st.floats(1e-6, 1e6))
def test_no_pair_of_products_can_saturate_sixteen_bits(seed, rows, columns, size):
    weight = (np.random.default_rng(seed).standard_normal((rows, columns)) * size).astype(np.float32)
    steps, scales = neighbour_bounded(weight)
    sizes = np.abs(steps.astype(np.int64))
    sizes = np.concatenate([sizes, np.zeros((rows % 2, columns), dtype=np.int64)])
    assert LARGEST_ACTIVATION * (sizes[0::2] + sizes[1::2]).max() < 2**15
    np.testing.assert_allclose(steps * scales, weight, atol=float(scales.max()) * 0.5001)


def test_a_column_of_zeros_stays_zero():
    steps, scales = neighbour_bounded(np.zeros((4, 3), dtype=np.float32))
    assert not steps.any()
    assert (scales > 0).all()


def test_channels_are_measured_over_tokens_and_not_over_padding(fused, channels, encoder):
    one_by_one = measure_channels(
        fused, (batch for text in catalogue() for batch in encoder.tokens.text_batches([text]))
    )
    assert len(channels) == 7
    for name, found in channels.items():
        np.testing.assert_allclose(found.mean, one_by_one[name].mean, atol=1e-4)
        np.testing.assert_allclose(found.deviation, one_by_one[name].deviation, atol=1e-4)


def test_the_given_graph_is_left_unchanged(fused, channels):
    before = fused.SerializeToString(deterministic=True)
    for precision in ("int8", "fp16", "fp32"):
        at_precision(fused, precision, channels)
    assert fused.SerializeToString(deterministic=True) == before


def test_vectors_stay_close_and_closer_than_without_channels(fused, channels, encoder, tmp_path):
    texts = catalogue(seed=3)
    errors = []
    for given_channels in (channels, {}):
        onnx.save(at_precision(fused, "int8", given_channels), str(tmp_path / "model.onnx"))
        session = open_session(tmp_path / "model.onnx")
        vectors = np.empty((len(texts), encoder.dim), dtype=np.float32)
        for batch in encoder.tokens.text_batches(texts):
            vectors[batch.rows] = session.run(batch.named(session.inputs))[0]
        errors.append(1 - float((vectors * encoder.encode(texts)).sum(1).mean()))
    assert errors[0] < 1e-3
    assert errors[0] < errors[1]


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("before", ["", "Relu", "Gelu"])
def test_a_product_equals_the_float_one_to_its_step(tmp_path, trans_b, before):
    rng = np.random.default_rng(0)
    weight, bias = (
        rng.standard_normal((32, 16)).astype(np.float32),
        rng.standard_normal(16).astype(np.float32),
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 16])
    nodes = [helper.make_node("Gemm", ["h" if before else "x", "w", "b"], ["y"], transB=trans_b)]
    if before:
        domain = "com.microsoft" if before == "Gelu" else ""
        nodes.insert(0, helper.make_node(before, ["x"], ["h"], domain=domain))
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(weight.T if trans_b else weight), "w"),
        numpy_helper.from_array(bias, "b"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "product", [x], [y], initializers),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    rows = rng.standard_normal((50, 32)).astype(np.float32) * np.logspace(-3, 3, 50)[:, None].astype(np.float32)
    rows[7] = 0
    answers = []
    for precision in ("fp32", "int8"):
        onnx.save(at_precision(model, precision, {}), str(tmp_path / "model.onnx"))
        answers.append(open_session(tmp_path / "model.onnx").run({"x": rows})[0])
    size = np.abs(rows).max(1, keepdims=True) * np.abs(weight).max()
    assert (np.abs(answers[0] - answers[1]) <= 0.15 * size + 0.05).all()
    np.testing.assert_allclose(answers[0][7], answers[1][7], atol=1e-3)
