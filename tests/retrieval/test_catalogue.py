import numpy as np
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
    for nothing in ([], np.array([]), pd.Series([], dtype="float64")):
        assert passing(catalogue, allow=nothing) == set()
        assert catalogue.allowed(deny=nothing).all()
    assert passing(catalogue, allow=(item for item in ["i3", "i5"])) == {"i3", "i5"}
    with pytest.raises(InputError, match="allow: 1 items are not in the catalogue"):
        catalogue.allowed(allow=iter(["i3", "zz"]))


def test_attributes_match_by_value_any_of_several_range_or_membership(catalogue):
    assert passing(catalogue, where={"year": 1961}) == {"i1"}
    for several in ([1961, 1963], range(1961, 1965, 2), (year for year in (1961, 1963)), np.array([1961, 1963])):
        assert passing(catalogue, where={"year": several}) == {"i1", "i3"}
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


def test_times_may_be_written():
    days = pd.to_datetime(["2020-01-05", "2020-01-06", None])
    items = pd.DataFrame({"item_id": [1, 2, 3], "title": "t", "text": "t", "day": days})
    assert passing(Catalogue(items), where={"day": "2020-01-05"}) == {1}
    assert passing(Catalogue(items), where={"day": ["2020-01-05", pd.Timestamp("2020-01-06")]}) == {1, 2}
    with pytest.raises(InputError, match="where: day cannot be compared with 'soon'"):
        Catalogue(items).allowed(where={"day": "soon"})


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
        (pd.DataFrame({"item_id": [1], "title": "a", "text": "a", "band": pd.cut([5], [0, 9])}), "cannot be saved"),
        (pd.DataFrame({"item_id": [1], "title": "a", "text": "a", "more": [{}]}), "cannot be saved"),
    ],
)
def test_unusable_tables_are_refused(items, message):
    with pytest.raises(InputError, match=message):
        Catalogue(items)


@pytest.mark.parametrize("name", ["title", "text"])
def test_a_title_or_text_that_is_no_string_is_named(name):
    items = pd.DataFrame({"item_id": [1, 2, 3], "title": "t", "text": "t"})
    items[name] = ["a", None, 5]
    with pytest.raises(InputError, match=f"2 of 3 values of '{name}' are no strings .first: .* in row 1"):
        Catalogue(items)


@pytest.mark.parametrize("kind", [list, tuple, set])
def test_items_without_a_list_of_attributes_match_none_of_them(kind):
    items = pd.DataFrame({"item_id": [1, 2, 3], "title": "t", "text": "t", "genres": [None, kind("ab"), kind("c")]})
    assert passing(Catalogue(items), where={"genres": "a"}) == {2}
    assert passing(Catalogue(items), where={"genres": ["a", "c"]}) == {2, 3}


@pytest.mark.parametrize(
    "where", [{"year": {"from": 1960}}, {"year": [[1960]]}, {"year": "1960"}, {"genres": Between(1, 2)}]
)
def test_a_filter_that_cannot_be_one_is_named(catalogue, where):
    with pytest.raises(InputError, match=rf"^where: {next(iter(where))} cannot be compared with"):
        catalogue.allowed(where=where)


def test_ids_of_another_kind_are_no_ids_of_items(catalogue):
    with pytest.raises(InputError, match=r"^allow: ids here are strings, but 3 is none"):
        catalogue.allowed(allow=["i3", 3])
    with pytest.raises(InputError, match=r"^deny: pass a list of ids"):
        catalogue.allowed(deny="i3")


def test_an_update_keeps_positions_replaces_rows_and_appends_what_is_new(catalogue):
    before = catalogue.frame.copy()
    given = catalogue.frame.iloc[[5, 2]].assign(item_id=["new", "i2"], text=["Another.", "Changed."], year=[2030, 1962])
    given = given[given.columns[::-1]]
    now, changed = catalogue.updated(given)
    assert changed.tolist() == [2, len(catalogue)]
    assert now.ids.at(changed).tolist() == ["i2", "new"]
    assert (now.texts[2], now.texts[-1]) == ("Changed.", "Another.")
    assert passing(now, where={"year": 2030}) == {"new"}
    kept = np.setdiff1d(np.arange(len(catalogue)), [2])
    pd.testing.assert_frame_equal(now.frame.iloc[kept], before.iloc[kept])
    pd.testing.assert_frame_equal(catalogue.frame, before)


def test_an_update_of_attributes_and_titles_changes_no_text(catalogue):
    now, changed = catalogue.updated(catalogue.frame.iloc[[3]].assign(year=1800, title="Other"))
    assert not len(changed)
    assert passing(now, where={"year": 1800}) == {"i3"}
    assert now.titles[3] == "Other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: items.drop(columns="year"), "lacks the column 'year', unlike the catalogue"),
        (lambda items: items.assign(price=1), "has the column 'price', unlike the catalogue"),
        (lambda items: items.assign(item_id=range(len(items))), "ids here are strings, but 0 is none"),
        (lambda items: items.assign(year="old"), "so the table cannot be saved. Give each column one type."),
        (lambda items: items.iloc[[1, 1]], "Id 'i1' occurs more than once"),
        (lambda items: items.iloc[:0], "no rows"),
    ],
)
def test_an_update_that_does_not_fit_is_refused(catalogue, change, message):
    with pytest.raises(InputError, match=message):
        catalogue.updated(change(catalogue.frame.iloc[:3]))
