"""Lowered graphs answer nearly as the graphs that they are made of, masks and all."""

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from small_graphs import attention, attention_feed, run_exactly

from encoders import open_session
from encoders.lowering import half, static_int8

FEEDS = [attention_feed(3, 5, 7, 4, seed=seed) for seed in range(8)]
LOWER = {"half": half, "int8": lambda graph: static_int8(graph, FEEDS)}
CLOSE = {"half": 0.005, "int8": 0.05}  # as a share of the largest answer


def answers(graph, feeds):
    session = open_session(graph.SerializeToString(), ["CPUExecutionProvider"], threads=1, unsaturated=True)
    return [session.run(feed) for feed in feeds]


@pytest.mark.parametrize("how", LOWER)
def test_a_lowered_graph_answers_nearly_the_same(how):
    graph = attention()
    for found, expected in zip(answers(LOWER[how](graph), FEEDS), answers(graph, FEEDS), strict=True):
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == np.float32
            assert np.abs(one - other).max() <= CLOSE[how] * np.abs(other).max()


@pytest.mark.parametrize("how", LOWER)
def test_lowering_leaves_the_graph_and_the_logging_as_they_are(how):
    graph = attention()
    before, handlers = graph.SerializeToString(), list(logging.getLogger().handlers)
    LOWER[how](graph)
    assert graph.SerializeToString() == before
    assert logging.getLogger().handlers == handlers


def test_half_precision_takes_a_row_of_nothing_but_masks():
    feed = attention_feed()
    feed["mask"][0] = -1e9  # which is -inf in half precision
    found, expected = run_exactly(half(attention()), feed), run_exactly(attention(), feed)
    assert np.isfinite(found[0]).all()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one[1], other[1], rtol=0.01, atol=0.01)


def test_a_graph_in_half_precision_is_a_valid_one():
    onnx.checker.check_model(half(attention()), full_check=True)


def test_half_precision_halves_the_weights_and_keeps_the_types_of_inputs_and_outputs():
    graph, lowered = attention(), half(attention())
    kinds = {constant.name: constant.data_type for constant in lowered.graph.initializer}
    assert {kinds[name] for name in ("key_turned", "widen", "narrow", "head")} == {TensorProto.FLOAT16}
    for one, other in ((graph.graph.input, lowered.graph.input), (graph.graph.output, lowered.graph.output)):
        types = [[value.type.tensor_type.elem_type for value in values] for values in (one, other)]
        assert types[0] == types[1]


def test_int8_quantizes_both_sides_of_products_with_weights_symmetrically_and_of_no_other():
    graph = static_int8(attention(), FEEDS).graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {constant.name: constant for constant in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul":
            quantized = [makers[name].op_type == "DequantizeLinear" for name in node.input if name in makers]
            weighted = node.name in ("keys", "wide", "narrowed", "column")
            assert (quantized == [True, True]) == weighted
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero_point = constants[node.input[2]]
            assert zero_point.data_type == TensorProto.INT8
            assert not numpy_helper.to_array(zero_point).any()
