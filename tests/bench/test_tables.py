"""Tables: the same figures on the console, in Markdown and in JSON."""

import json

import pandas as pd

from bench.tables import markdown, tabulated, write_json


def test_json_has_null_where_there_is_no_number(tmp_path) -> None:
    write_json({"rows": [{"a": float("nan"), "b": (1.5, float("nan"))}], 3: "x"}, tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == {"rows": [{"a": None, "b": [1.5, None]}], "3": "x"}


def test_a_single_row_stands_upright() -> None:
    table = tabulated({"a": 1, "part": {"b": 2.0}})
    assert list(table.itertuples(index=False, name=None)) == [("a", 1), ("part: b", 2.0)]


def test_markdown_leaves_missing_numbers_blank() -> None:
    table = pd.DataFrame({"name": ["x", "y"], "value": [1234.56, float("nan")]})
    assert markdown(table) == "| name | value |\n| --- | --- |\n| x | 1235 |\n| y |  |\n"
