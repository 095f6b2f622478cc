"""What an engine says to a mistake: one line that names the argument."""

import pytest
import tiny_engine
from tiny_engine import HISTORY

import ranker
from encoders.errors import InputError

ERRORS = {
    "no user and no history": (lambda e: e.recommend(), "pass user_ids, or a history"),
    "a user alone": (lambda e: e.recommend(100), "user_ids = 100: pass a list"),
    "a string of users": (lambda e: e.recommend("100"), "user_ids = '100': pass a list"),
    "no users": (lambda e: e.recommend([]), "user_ids is empty"),
    "a user twice": (lambda e: e.recommend([100, 101, 100]), "user_ids holds 1 ids twice"),
    "users of another kind": (lambda e: e.recommend(["100"]), "user_ids: ids here are integers, but '100' is none"),
    "a float for a user": (lambda e: e.recommend([100.0]), "user_ids: ids here are integers, but 100.0 is none"),
    "a truth for a user": (lambda e: e.recommend([True]), "user_ids: ids here are integers, but True is none"),
    "nothing for a user": (lambda e: e.recommend([None]), "user_ids: ids here are integers, but None is none"),
    "a list for a user": (lambda e: e.recommend([[100]]), "user_ids holds what is no id"),
    "k of 0": (lambda e: e.recommend([100], 0), "k = 0, but it must be an integer from 1 to 60"),
    "k over the catalogue": (lambda e: e.recommend([100], 61), "k = 61, .* 1 to 60: the catalogue has 60 items"),
    "a fractional k": (lambda e: e.recommend([100], 2.5), "k = 2.5, but it must be an integer"),
    "a string for k": (lambda e: e.recommend([100], "5"), "k = '5', but it must be an integer"),
    "a truth for k": (lambda e: e.recommend([100], True), "k = True, but it must be an integer"),
    "an unknown user": (lambda e: e.recommend([100, 7], on_unknown="raise"), "1 of 2 users are unknown .first: 7"),
    "another choice": (lambda e: e.recommend([7], on_unknown="ignore"), "on_unknown = 'ignore', but it must be one of"),
    "an empty query": (lambda e: e.recommend([100], query=" "), "query: 1 texts for 1 users; .* none of them empty"),
    "too few queries": (lambda e: e.recommend([100, 7], query=["a"]), "query: 1 texts for 2 users"),
    "a number for a query": (lambda e: e.recommend([100], query=5), "query = 5: pass one text"),
    "numbers for queries": (lambda e: e.recommend([100], query=[5]), "query: 1 texts for 1 users"),
    "an unknown allowed item": (lambda e: e.recommend([100], allow=["zz"]), "allow: 1 items are not in the catalogue"),
    "a string of allowed items": (lambda e: e.recommend([100], allow="i1"), "allow: pass a list of ids"),
    "a denied item of another kind": (lambda e: e.recommend([100], deny=[1]), "deny: ids here are strings, but 1"),
    "an unknown attribute": (lambda e: e.recommend([100], where={"yer": 1}), "where: items have no column 'yer'.*year"),
    "attributes as a list": (lambda e: e.recommend([100], where=["year"]), "where: pass column names and"),
    "a bound of another type": (
        lambda e: e.recommend([100], where={"year": ranker.Between("a", None)}), "where: year cannot be compared",
    ),
    "a history that is no table": (lambda e: e.recommend(history=[("a", "i1")]), "history: pass a DataFrame"),
    "a history without items": (
        lambda e: e.recommend(history=HISTORY[["user_id"]]), "history: no column 'item_id'; the columns are user_id",
    ),
    "an empty history": (lambda e: e.recommend(history=HISTORY[:0]), "user_ids is empty"),
    "a history of others": (lambda e: e.recommend(["a"], history=HISTORY), "user 'b' is not among the 1 users"),
    "a history of another kind": (
        lambda e: e.recommend([1], history=HISTORY), "history: user_id: ids here are integers, but 'a' is none",
    ),
    "a history of unknown items": (
        lambda e: e.recommend(history=HISTORY.assign(item_id="zz")), "history: 1 items are not in the catalogue",
    ),
    "a history with a missing item": (
        lambda e: e.recommend(history=HISTORY.assign(item_id=None)), "history: ids here are strings, but None is none",
    ),
    "a weight below 0": (
        lambda e: e.recommend(history=HISTORY.assign(weight=-1)), r"history: 5 of 5 weights .*\(first: -1 in row 0\)",
    ),
    "a weight beyond float32": (lambda e: e.recommend(history=HISTORY.assign(weight=1e300)), "5 of 5 weights .*1e.300"),
    "too many list ids": (
        lambda e: e.recommend([100, 101], 3, list_ids=["x", "x", "y"]), "2 different texts in 3 ids for 2 users",
    ),
    "a number for list ids": (lambda e: e.recommend([100], 3, list_ids=5), "0 different texts in [01] ids for 1"),
    "a list id that is no text": (
        lambda e: e.recommend([100], 3, list_ids=["\ud800"]), "0 different texts in [01] ids for 1",
    ),
    "a weight that is no number": (
        lambda e: e.recommend(history=HISTORY.assign(weight=float("nan"))), r"5 of 5 weights .*\(first: nan in row 0\)",
    ),
    "a history with texts for times": (
        lambda e: e.recommend(history=HISTORY.assign(datetime="2024")), "history: column 'datetime' holds str",
    ),
    "nothing to rank": (lambda e: e.rank(100, []), "rank: 0 items"),
    "an item to rank twice": (lambda e: e.rank(100, ["i1", "i1"]), "rank: 2 items with 1 distinct"),
    "an unknown item to rank": (lambda e: e.rank(100, ["zz"]), "rank: 1 items are not in the catalogue"),
    "a string to rank": (lambda e: e.rank(100, "i1"), "rank: pass a list of ids"),
    "an unknown user to rank for": (lambda e: e.rank(7, ["i1"], on_unknown="raise"), "1 of 1 users are unknown"),
    "a list of users to rank for": (lambda e: e.rank([100], ["i1"]), "user_ids holds what is no id"),
    "an unknown item's neighbours": (lambda e: e.similar_items(["zz"]), "similar_items: 1 items are not in"),
    "as many neighbours as items": (lambda e: e.similar_items(["i1"], 60), "k = 60, but it must .* 1 to 59"),
    "candidates beyond the catalogue": (lambda e: e.candidates(k=61), "k = 61, but"),
    "candidates of an unknown user": (lambda e: list(e.candidates([7])), "1 of 1 users are unknown"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_a_mistake_is_one_line_that_names_the_argument(fitted, case):
    call, message = ERRORS[case]
    with pytest.raises(InputError, match=message) as caught:
        call(fitted)
    assert "\n" not in str(caught.value)


def test_a_query_needs_the_text_source(checkpoint):
    config = tiny_engine.config(
        checkpoint, sources=("als", "popularity"), rerank=ranker.config.RerankConfig(enabled=False)
    )
    engine = ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)
    for ask in (lambda: engine.recommend([100], query="robot"), lambda: engine.rank(100, ["i1"], query="robot")):
        with pytest.raises(InputError, match="query: needs the source 'text', but this engine has als, popularity"):
            ask()
