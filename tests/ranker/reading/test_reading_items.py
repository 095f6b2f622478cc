"""Items have an id, a title and a text, and interactions are with items that are known."""

from pathlib import Path

import pandas as pd
import pytest
from tiny_tables import FILMS, log_with

from encoders.errors import InputError
from ranker.data import check_items_known, read_interactions, read_items


def test_a_text_may_be_made_of_several_columns() -> None:
    table = pd.DataFrame(
        {
            "sku": [1, 2, 3, 4],
            "name": ["Toy Story", "Help!", None, "Solo"],
            "genres": ["Comedy", "Music", "Drama", " "],
        }
    )
    frame, _ = read_items(table, {"item_id": "sku", "title": "name", "text": ["name", "genres"]})
    assert frame["text"].tolist() == ["Toy Story. Comedy", "Help! Music", "Drama", "Solo"]
    assert frame["title"].tolist() == ["Toy Story", "Help!", "Drama", "Solo"]
    assert list(frame.columns) == ["item_id", "title", "text", "genres"]  # genres stays, to filter by


def test_without_titles_the_text_is_the_title() -> None:
    frame, _ = read_items(FILMS[["item_id", "text"]])
    assert frame["title"].tolist() == frame["text"].tolist()


def test_texts_that_look_like_numbers_or_gaps_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "films.csv"
    path.write_text('item_id,text,year\n1,1984,1956\n2,NA,\n3,"a ""quoted"", long\ntext",2000\n', encoding="utf-8-sig")
    frame, _ = read_items(path)
    assert frame["text"].tolist() == ["1984", "NA", 'a "quoted", long\ntext']
    assert frame["year"].isna().tolist() == [False, True, False]


def test_items_without_a_text_are_refused_by_id() -> None:
    with pytest.raises(InputError, match=r"items without a text: 2 \(row 1: 7, row 3: 9\)"):
        read_items(pd.DataFrame({"item_id": [7, 8, 9], "text": ["", "x", None]}))


def test_an_item_given_twice_is_left_out_if_equal_and_refused_if_not() -> None:
    equal = pd.concat([FILMS, FILMS.iloc[:1]]).assign(tags=[["x"], ["y"], ["x"]])
    frame, report = read_items(equal)
    assert frame["item_id"].tolist() == [7, 3]
    assert (report.findings[0].code, report.findings[0].examples) == ("duplicate_row", ((3, "7"),))
    different = equal.assign(year=[1999, 2001, 1950])
    with pytest.raises(InputError, match=r"earlier row differently: 1 \(row 3: 7\)"):
        read_items(different)
    frame, report = read_items(different, on_bad_rows="drop")
    assert frame["year"].tolist() == [1999, 2001]
    assert report.findings[0].code == "duplicate_item"


def test_interactions_with_unknown_items_are_found() -> None:
    log, _ = read_interactions(log_with(item_id=[7, 3, 5, 7], datetime=[1, 2, 3, 4]))
    films, _ = read_items(FILMS)
    with pytest.raises(InputError, match=rf"not in the items: 1 \(row 3: 5 of user {log.user_id[2]}\)"):
        check_items_known(log, films)
    known, report = check_items_known(log, films, on_bad_rows="drop")
    assert known["item_id"].tolist() == [7, 3, 7]
    assert (report.rows_read, report.rows_kept, report.findings[0].code) == (4, 3, "unknown_item")
    with pytest.raises(InputError, match="item_id is str in the interactions and int64 in the items"):
        check_items_known(log.astype({"item_id": "str"}), films, on_bad_rows="drop")
