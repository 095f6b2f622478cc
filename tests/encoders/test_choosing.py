"""The fastest execution is chosen among those that answer as the CPU does, and the choice can be kept."""

import dataclasses
import json

import numpy as np
import pytest
from onnx import helper
from small_graphs import FLOAT, attention, attention_feed, model

from encoders import choosing
from encoders.binding import Buckets
from encoders.choosing import Choice, choose, same_order, within
from encoders.errors import ConfigError
from encoders.execution import EXECUTIONS, Execution, Workload, usable
from encoders.session import CPU

WORKLOAD = Workload([attention_feed(3, 6, seed=seed) for seed in range(3)], Buckets({"users": (4,), "items": (8,)}))
PLAIN, HALF, INT8 = Execution("plain", CPU), Execution("half", CPU, "half"), Execution("int8", CPU, "int8")
BOUND = Execution("bound", CPU, captured=True)
TEAPOT = Execution("teapot", "TeapotExecutionProvider")


def chosen(executions, agree=None):
    choice = choose(attention(), WORKLOAD, agree or within(0.02), executions, threads=1)
    return choice, {row.execution: row for row in choice.measurements}


def test_every_execution_has_a_row_and_the_fastest_that_agrees_is_chosen():
    choice, rows = chosen((TEAPOT, PLAIN, HALF, BOUND, INT8))
    assert list(rows) == ["teapot", "plain", "half", "bound", "int8"]
    able = {name: row for name, row in rows.items() if not row.obstacle}
    assert {"plain", "half", "bound"} <= set(able)
    assert choice.execution == min(able, key=lambda name: able[name].median_ms)
    assert [name for name, row in rows.items() if row.chosen] == [choice.execution]
    assert all(row.median_ms > 0 and row.opening_ms > 0 for row in able.values())
    assert rows["plain"].difference == 0
    assert rows["half"].difference > 0
    assert "no Teapot" in rows["teapot"].obstacle
    assert rows["teapot"].median_ms is rows["teapot"].difference is None
    assert choice.measured


def test_one_that_does_not_agree_is_not_chosen_however_fast_it_is():
    choice, rows = chosen((PLAIN, HALF, INT8), within(1e-7))
    assert choice.execution == "plain"
    for name in ("half", "int8"):
        assert "do not agree" in rows[name].obstacle
        assert rows[name].median_ms > 0


def test_answers_that_are_no_finite_numbers_agree_with_nobody():
    nodes = [helper.make_node("Add", ["x", "shift"], ["z"]), helper.make_node("Log", ["z"], ["y"])]
    shift = np.array([2049], np.float32)  # 2048 in half precision
    graph = model(nodes, [("x", FLOAT, ["n"])], [("y", FLOAT, ["n"])], [("shift", shift)])
    workload = Workload([{"x": np.array([-2048.5], np.float32)}], Buckets({}))
    choice = choose(graph, workload, lambda expected, found: True, (PLAIN, HALF), threads=1)
    assert choice.execution == "plain"
    assert choice.measurements[1].obstacle == "Its answers are not finite."


def test_where_only_one_can_run_nothing_is_measured():
    choice, rows = chosen((PLAIN, TEAPOT))
    assert choice.execution == "plain"
    assert rows["plain"].chosen
    assert rows["plain"].median_ms is rows["plain"].opening_ms is None
    assert not choice.measured


def test_where_none_can_run_each_reason_is_given():
    with pytest.raises(ConfigError, match="teapot: This ONNX Runtime has no Teapot"):
        chosen((TEAPOT,))
    with pytest.raises(ConfigError, match="do not agree"):
        chosen((HALF, INT8), within(0))


def test_one_that_cannot_be_opened_is_passed_over_with_the_reason():
    no_matrix = Workload(WORKLOAD.feeds, Buckets({"users": ()}))  # no size to pad to
    choice = choose(attention(), no_matrix, within(0.02), (PLAIN, BOUND), threads=1)
    assert choice.execution == "plain"
    assert choice.measurements[1].obstacle


@pytest.mark.parametrize("message", ["", "\n"])
def test_one_that_fails_without_a_word_is_not_chosen(monkeypatch, message):
    opened = choosing.open_execution

    def exhausted(model, execution, workload, *, threads):
        if execution is HALF:
            raise MemoryError(message)
        return opened(model, execution, workload, threads=threads)

    monkeypatch.setattr(choosing, "open_execution", exhausted)
    choice, rows = chosen((HALF, PLAIN))
    assert choice.execution == "plain"
    assert rows["half"].obstacle == "MemoryError"


def test_on_this_machine_every_execution_is_measured_or_has_a_reason():
    choice, rows = chosen(EXECUTIONS)
    assert list(rows) == [execution.name for execution in EXECUTIONS]
    assert choice.execution in {execution.name for execution in usable()}
    assert choice.measured == (len(usable()) > 1)


def test_a_choice_can_be_written_as_json_and_read_again():
    choice, rows = chosen((PLAIN, HALF, TEAPOT))
    read = json.loads(json.dumps(dataclasses.asdict(choice)))
    assert read["execution"] == choice.execution
    assert read["measurements"] == [dataclasses.asdict(row) for row in rows.values()]
    assert isinstance(choice, Choice)


@pytest.mark.parametrize(
    ("expected", "found", "tolerance", "agree"),
    [
        ([[1.0, 10.0]], [[1.0, 10.1]], 0.0101, True),
        ([[1.0, 10.0]], [[1.0, 10.1]], 0.0099, False),
        ([[0.0]], [[0.0]], 0.0, True),
        ([[0.0]], [[0.1]], 0.5, False),
    ],
)
def test_a_tolerance_is_a_share_of_the_largest_value(expected, found, tolerance, agree):
    answers = [[np.array(values, np.float32)] for values in (expected, found)]
    assert within(tolerance)(*answers) == agree


def test_orders_agree_by_rank_and_not_by_value():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 30)).astype(np.float32)
    assert same_order(1.0)([logits], [3 * logits + 7])
    assert not same_order(0.9)([logits], [-logits])
    assert not same_order(0.5)([logits], [rng.normal(size=(4, 30))])
    assert not same_order(0.5)([logits], [np.zeros_like(logits)])
    assert same_order(1.0)([np.zeros((2, 3))], [rng.normal(size=(2, 3))])  # where all tie, no order is wrong
    assert same_order(1.0)([logits[0]], [logits[0]])  # a list by itself
