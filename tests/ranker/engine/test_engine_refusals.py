"""Events that cannot be used: told one by one, while the others are recorded."""

import numpy as np
import pandas as pd
import pytest
import tiny_engine
from tiny_engine import events

from encoders.errors import InputError

GOOD = [(f"e{n}", 100 + n % 5, f"i{n}", "click") for n in range(9)]


@pytest.fixture
def refused():
    return []


@pytest.fixture
def engine(checkpoint):
    return tiny_engine.small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())


@pytest.mark.parametrize("bad", [[0], [8], [3, 4], [0, 2, 5, 7, 8], list(range(9))])
def test_the_others_are_recorded_in_their_order(engine, refused, bad):
    table = events(*(row if n not in bad else (*row[:2], "none such", row[3]) for n, row in enumerate(GOOD)))
    before = table.copy()
    new = engine.feedback(table, lambda row, why: refused.append((row, why)))
    assert [row for row, _ in refused] == bad
    assert all("'none such'" in why for _, why in refused)
    assert new == 9 - len(bad)
    assert engine.log.read()["event_id"].tolist() == [row[0] for n, row in enumerate(GOOD) if n not in bad]
    assert engine.observations.events.labels("refused")._value.get() == len(bad)
    pd.testing.assert_frame_equal(table, before)


def test_of_two_events_with_one_id_the_first_is_recorded(engine, refused):
    table = events(*GOOD[:4], (GOOD[0][0], 104, "i9", "like"))
    assert engine.feedback(table, lambda row, why: refused.append((row, why))) == 4
    ((row, why),) = refused
    assert row == 4
    assert "different content" in why


@pytest.mark.parametrize(
    "table", [pd.DataFrame(), [1], None, events(*GOOD).drop(columns="kind"), events(*GOOD).iloc[:0]]
)
def test_what_is_no_table_of_events_is_the_callers_mistake(engine, refused, table):
    with pytest.raises(InputError):
        engine.feedback(table, lambda row, why: refused.append(row))
    assert not refused


@pytest.mark.parametrize(
    ("column", "value"),
    [("value", np.inf), ("datetime", pd.Timestamp("2090-01-01")), ("kind", "clik"), ("user_id", -1.5), ("list_id", 3)],
)
def test_one_odd_value_takes_no_other_event_with_it(engine, refused, column, value):
    table = events(*GOOD).assign(list_id=None).astype("object")
    table.loc[4, column] = value
    expected = 9 if column == "list_id" else 8
    assert engine.feedback(table, lambda row, why: refused.append(row)) == expected
    assert refused == [4] * (9 - expected)
