"""Ids keep their kind, and what can never be found is an error."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.errors import ArtifactError, InputError
from retrieval.ids import UNKNOWN, IdMap

INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1)
STRINGS = st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), unique=True, min_size=1)


@given(st.one_of(INTEGERS, STRINGS))
def test_every_id_is_found_at_its_own_place(ids):
    ids_map = IdMap(ids)
    assert ids_map.positions(ids).tolist() == list(range(len(ids)))
    assert ids_map.at(np.arange(len(ids))).tolist() == ids


@pytest.mark.parametrize("ids", [[5, -2, 7], ["b", "a", "Ä"]])
def test_save_and_load_keep_ids_and_their_kind(ids, tmp_path):
    IdMap(ids).save(tmp_path / "ids.parquet")
    loaded = IdMap.load(tmp_path / "ids.parquet")
    assert loaded.ids.tolist() == ids
    assert loaded.are_integers == isinstance(ids[0], int)


def test_integers_in_a_column_of_objects_stay_integers():
    assert IdMap(pd.Series([3, 1], dtype=object)).are_integers


@pytest.mark.parametrize("dtype", ["category", object])
def test_ids_are_found_in_columns_of_every_type(dtype):
    for ids in ([3, 1], ["b", "a"]):
        assert IdMap(pd.Series(ids, dtype=dtype)).ids.tolist() == ids
        assert IdMap(ids).positions(pd.Series(ids[::-1], dtype=dtype)).tolist() == [1, 0]


def test_what_the_map_does_not_hold_is_unknown():
    assert IdMap([1, 2]).positions([2, 9]).tolist() == [1, UNKNOWN]


@pytest.mark.parametrize("ids", [["1"], [1.0], [True], [None], [1, "a"], [(1, 2)], [np.nan], pd.Series([1.0])])
def test_an_id_that_is_no_integer_can_never_be_among_integers(ids):
    with pytest.raises(InputError, match=r"^user_ids: ids here are integers, but .* is none\."):
        IdMap([1, 2]).positions(ids, "user_ids")


@pytest.mark.parametrize("ids", [[1], ["a", None], [b"a"], [["a"]], [True], pd.Series([1])])
def test_an_id_that_is_no_string_can_never_be_among_strings(ids):
    with pytest.raises(InputError, match=r"^allow: ids here are strings, but .* is none\."):
        IdMap(["a", "1"]).positions(ids, "allow")


@pytest.mark.parametrize("ids", ["a", 5, None, b"a"])
def test_what_is_no_list_of_ids_is_refused(ids):
    with pytest.raises(InputError, match=r"^deny: pass a list of ids"):
        IdMap(["a"]).positions(ids, "deny")


@pytest.mark.parametrize("ids", [[2**63], pd.Series([2**63], dtype="uint64"), [-(2**70)]])
def test_integers_of_more_than_64_bits_are_refused(ids):
    for use in (IdMap, IdMap([1]).positions):
        with pytest.raises(InputError, match="64 bits at most"):
            use(ids)


@pytest.mark.parametrize("ids", [[1, "a"], [1.5], [True], ["a", None], pd.Series([1, None], dtype="Int64")])
def test_a_map_holds_one_kind(ids):
    with pytest.raises(InputError, match="all integers or all strings"):
        IdMap(ids)


def test_a_file_that_holds_no_ids_is_named(tmp_path):
    path = tmp_path / "ids.parquet"
    with pytest.raises(ArtifactError, match=r"ids\.parquet: not a table of ids"):
        IdMap.load(path)
    pd.DataFrame({"other": [1]}).to_parquet(path)
    with pytest.raises(ArtifactError, match=r"ids\.parquet: not a table of ids"):
        IdMap.load(path)
