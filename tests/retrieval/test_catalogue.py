import pandas as pd
import pytest

from encoders.errors import InputError
from retrieval.catalogue import Between, Catalogue


def passing(catalogue: Catalogue, **filters) -> set[str]:
    return set(catalogue.ids.at(catalogue.allowed(**filters).nonzero()[0]))


def test_without_filters_everything_passes(catalogue):
    assert catalogue.allowed().all()


def test_allow_and_deny_lists(catalogue):
    assert passing(catalogue, allow=["i3", "i5"]) == {"i3", "i5"}
    assert passing(catalogue, allow=["i3", "i5"], deny=["i5"]) == {"i3"}
    assert passing(catalogue, allow=[]) == set()


def test_attributes_match_by_value_any_of_several_range_or_membership(catalogue):
    assert passing(catalogue, where={"year": 1961}) == {"i1"}
    assert passing(catalogue, where={"year": [1961, 1963]}) == {"i1", "i3"}
    assert passing(catalogue, where={"year": Between(1962, 1964)}) == {"i2", "i3", "i4"}
    assert passing(catalogue, where={"year": Between(high=1960)}) == {"i0"}
    assert passing(catalogue, where={"genres": "war", "year": Between(high=1965)}) == {"i1", "i4"}


def test_unknown_ids_columns_and_bounds_say_what_is_wrong(catalogue):
    with pytest.raises(InputError, match="1 items are not in the catalogue of 60 \\(first: 'zz'\\)"):
        catalogue.allowed(allow=["zz", "i1"])
    with pytest.raises(InputError, match=r"no column 'yaer'.*Did you mean 'year'"):
        catalogue.allowed(where={"yaer": 1961})
    with pytest.raises(InputError, match="year cannot be compared"):
        catalogue.allowed(where={"year": Between("a", "b")})


def test_a_missing_value_passes_no_range():
    items = pd.DataFrame({"item_id": [1, 2], "title": "t", "text": "t", "year": pd.array([1990, None], "Int64")})
    assert passing(Catalogue(items), where={"year": Between(1980, 2000)}) == {1}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (pd.DataFrame({"item_id": [], "text": [], "title": []}), "no rows"),
        (pd.DataFrame({"item_id": [1], "title": ["a"]}), "no column 'text'"),
        (pd.DataFrame({"item_id": [1, 1], "title": "a", "text": "a"}), "Id 1 occurs more than once"),
        (pd.DataFrame({"item_id": [1, "b"], "title": "a", "text": "a"}), "all integers or all strings"),
    ],
)
def test_unusable_tables_are_refused(items, message):
    with pytest.raises(InputError, match=message):
        Catalogue(items)
