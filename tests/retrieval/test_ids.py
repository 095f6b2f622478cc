"""Ids keep their kind, and what can never be found is an error."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_support import is_mapped

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
    IdMap(ids).save(tmp_path)
    loaded = IdMap.load(tmp_path)
    assert list(loaded.ids) == ids
    assert loaded.are_integers == isinstance(ids[0], int)


def test_integers_in_a_column_of_objects_stay_integers():
    assert IdMap(pd.Series([3, 1], dtype=object)).are_integers


@pytest.mark.parametrize("dtype", ["category", object])
def test_ids_are_found_in_columns_of_every_type(dtype):
    for ids in ([3, 1], ["b", "a"]):
        assert IdMap(pd.Series(ids, dtype=dtype)).at(np.arange(2)).tolist() == ids
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


def test_ids_that_share_a_key_are_told_apart(monkeypatch, tmp_path):
    monkeypatch.setattr("retrieval.ids._keys", lambda values: np.array([len(value) for value in values], np.uint64))
    held = ["aa", "b", "c", "bb", "cc", "d"]
    IdMap(held).save(tmp_path)
    for ids in (IdMap(held), IdMap.load(tmp_path)):
        assert ids.positions([*held, "x", "xx", "xxx"]).tolist() == [0, 1, 2, 3, 4, 5, *[UNKNOWN] * 3]
    with pytest.raises(InputError, match="Id 'b' occurs more than once"):
        IdMap([*held, "b"])


@pytest.mark.parametrize("dtype", [None, object])
def test_a_string_that_is_no_text_is_refused(dtype):
    ids = ["b", "\ud800"] if dtype is None else pd.Series(["b", "\ud800"], dtype=dtype)
    for use in (IdMap, IdMap(["a", "b"]).positions):
        with pytest.raises(InputError, match="these are no ids"):
            use(ids)


@given(st.one_of(INTEGERS, STRINGS), st.data())
def test_a_list_of_ids_is_a_sequence_in_their_order(ids, data):
    given = IdMap(ids).ids_with(ids[:2])
    expected = [*ids, *ids[:2]]
    start, stop = (data.draw(st.integers(0, len(expected))) for _ in range(2))
    assert list(given) == expected
    assert [given[at] for at in range(len(given))] == expected
    assert list(given[start:stop]) == expected[start:stop]


@pytest.mark.parametrize("ids", [[5, -2, 7], ["b", "a", "Ä"]])
def test_what_was_saved_stays_in_its_files(ids, tmp_path):
    IdMap(ids).save(tmp_path)
    before = pa.total_allocated_bytes()
    loaded = IdMap.load(tmp_path)
    assert pa.total_allocated_bytes() == before
    assert is_mapped(loaded._sorted)
    assert is_mapped(loaded._places)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"other": [1, 2]}),
        pa.table({"id": [1.0, 2.0]}),
        pa.table({"id": [1, None]}),
        pa.table({"id": pa.array([1, 2]).cast("int32")}),
    ],
)
def test_a_file_that_holds_no_ids_is_named(table, tmp_path):
    IdMap([1, 2]).save(tmp_path)
    with pa.ipc.new_file(tmp_path / "ids.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ArtifactError, match=r"ids\.arrow: not a table of ids"):
        IdMap.load(tmp_path)


@pytest.mark.parametrize("parts", [[], [[1, 2], [3]]])
def test_ids_are_one_part_of_a_file(parts, tmp_path):
    IdMap([1, 2]).save(tmp_path)
    with pa.ipc.new_file(tmp_path / "ids.arrow", pa.schema({"id": pa.int64()})) as writer:
        for part in parts:
            writer.write_batch(pa.record_batch({"id": pa.array(part)}))
    with pytest.raises(ArtifactError, match=r"ids\.arrow: not a table of ids"):
        IdMap.load(tmp_path)
    (tmp_path / "ids.arrow").write_bytes(b"no table")
    with pytest.raises(ArtifactError, match=r"ids\.arrow: not a table of ids"):
        IdMap.load(tmp_path)


@pytest.mark.parametrize("name", ["keys.npy", "places.npy"])
@pytest.mark.parametrize("ids", [[5, -2, 7], ["b", "a", "Ä"]])
def test_files_that_do_not_belong_together_are_refused(ids, name, tmp_path):
    IdMap(ids).save(tmp_path)
    original = np.load(tmp_path / name)
    wrong = [original[:2], original[::-1], np.append(original, original[-1:]), np.roll(original, 1)]
    for values in [*wrong, np.full_like(original, original[0]), np.where(original == original[1], 2**40, original)]:
        np.save(tmp_path / name, values.astype(original.dtype))
        with pytest.raises(ArtifactError, match=r"ids\.arrow, keys\.npy and places\.npy do not belong together"):
            IdMap.load(tmp_path)
    np.save(tmp_path / name, original.astype(np.float64))
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        IdMap.load(tmp_path)


@pytest.mark.parametrize("ids", [[5, -2, 5], ["b", "a", "b"]])
def test_ids_that_occur_twice_in_a_file_are_refused(ids, tmp_path):
    IdMap([*ids[:2], ids[0] * 2]).save(tmp_path)
    with pa.ipc.new_file(tmp_path / "ids.arrow", pa.schema({"id": _kind(ids)})) as writer:
        writer.write_batch(pa.record_batch({"id": pa.array(ids, _kind(ids))}))
    places = np.argsort([_key(one) for one in ids], kind="stable")
    np.save(tmp_path / "places.npy", places)
    np.save(tmp_path / "keys.npy", np.sort(np.array([_key(one) for one in ids], np.uint64)))
    with pytest.raises(ArtifactError, match="occurs more than once"):
        IdMap.load(tmp_path)


def _kind(ids):
    return pa.int64() if isinstance(ids[0], int) else pa.large_string()


def _key(one):
    return int(pd.util.hash_array(np.array([one], object))[0]) if isinstance(one, str) else one % 2**64
