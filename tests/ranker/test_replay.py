"""A replay ranks before each event with all that came before it, and with nothing that came after."""

import numpy as np
import pandas as pd
import pytest
import tiny_engine

import ranker
from encoders.errors import InputError
from ranker.config import RerankConfig
from ranker.evaluation import global_temporal, replay
from ranker.evaluation.evaluate import AUTO, CANDIDATES, ENGINE, LASTING, ranked_by_every_part
from ranker.evaluation.questions import asked_before_each
from retrieval.candidates import Requests
from retrieval.histories import Histories
from retrieval.interactions import microseconds

SPLIT = global_temporal(tiny_engine.interactions(), 0.3)


@pytest.fixture(scope="module")
def engine(checkpoint):
    config = tiny_engine.config(checkpoint, rerank=RerankConfig(enabled=False))
    return ranker.fit(SPLIT.train, tiny_engine.items(), config, progress=False)


def by_hand(engine, test, system, relevant):
    """(user, rank) of each judged event, a growing list of plain tuples being all that is known of a user."""
    catalogue = engine.catalogue
    known = {user: [] for user in test["user_id"]}
    for row in SPLIT.train[SPLIT.train["user_id"].isin(known)].itertuples():
        known[row.user_id].append((row.item_id, row.weight, row.datetime))
    found = []
    for asked, row in zip(relevant, test.itertuples(), strict=True):
        past = known[row.user_id]
        if asked and row.item_id not in {item for item, _, _ in past}:
            times = microseconds(pd.Series([time for _, _, time in past], dtype="datetime64[us]"))
            history = Histories.from_rows(
                np.zeros(len(past), np.int64), catalogue.ids.positions(pd.Series([item for item, _, _ in past])),
                np.array([weight for _, weight, _ in past], np.float32), times, 1,
            )  # fmt: skip
            retriever = engine.retriever if system == CANDIDATES else engine.retriever.sources[system]
            listed = retriever.retrieve(Requests(history, np.ones(len(catalogue), np.bool_)), 100).items[0].tolist()
            found.append((row.user_id, 1 + listed.index(catalogue.ids.positions(pd.Series([row.item_id]))[0])))
        past.append((row.item_id, row.weight, row.datetime))
    return found


@pytest.mark.parametrize("system", ["als", CANDIDATES])
def test_it_equals_a_replay_by_hand(engine, system) -> None:
    relevant = np.arange(len(SPLIT.test)) % 3 > 0
    found = replay(engine, SPLIT.test, relevant=relevant)
    expected = by_hand(engine, SPLIT.test, system, relevant)
    gains = sorted((user, 1 / np.log2(1 + rank) if rank <= 10 else 0.0) for user, rank in expected)
    measured = sorted(found.lists[system][["user_id", "ndcg@10"]].itertuples(index=False, name=None))
    assert [user for user, _ in measured] == [user for user, _ in gains]
    np.testing.assert_allclose([gain for _, gain in measured], [gain for _, gain in gains], atol=1e-9)
    assert found.summary.loc[system, "ndcg@10"] == pytest.approx(np.mean([gain for _, gain in gains]))


def test_a_users_events_are_resampled_together(engine) -> None:
    found = replay(engine, SPLIT.test)
    table = found.lists[ENGINE]
    interval = found.interval(ENGINE)
    assert interval.n_users == table["user_id"].nunique() < len(table)
    assert interval.mean == pytest.approx(table["ndcg@10"].mean())
    means = table.groupby("user_id")["ndcg@10"].mean()
    assert found.per_user[ENGINE].set_index("user_id")["ndcg@10"].to_dict() == pytest.approx(means.to_dict())


def test_what_comes_after_an_event_changes_nothing_before_it(engine) -> None:
    whole = replay(engine, SPLIT.test).lists["als"]
    first = replay(engine, SPLIT.test.iloc[: len(SPLIT.test) // 2]).lists["als"]
    assert len(first) < len(whole)
    for user, own in first.groupby("user_id"):
        longer = whole[whole["user_id"] == user]
        np.testing.assert_array_equal(own["mrr@20"], longer["mrr@20"][: len(own)])


def test_a_click_counts_at_once(engine) -> None:
    """A newcomer's first event is ranked by what is popular alone, the second one knows the first."""
    days = pd.to_datetime(["2030-01-01", "2030-01-02"])
    rows = [
        (user, f"i{item}", 1.0, day) for user in (900, 901) for item, day in zip((user - 897, 7), days, strict=True)
    ]
    test = pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "datetime"])
    found = replay(engine, test).lists["als"]
    assert found["user_id"].tolist() == [900, 900, 901, 901]
    assert not found["hr@20"].iloc[[0, 2]].any()  # nothing is known of them yet
    assert replay(engine, test).lists["popularity"]["mrr@20"].iloc[[0, 2]].to_numpy() == pytest.approx(
        [1 / (1 + np.flatnonzero(popular(engine) == item)[0]) if item in popular(engine)[:20] else 0 for item in (3, 4)]
    )


def popular(engine):
    """Items, the most popular first."""
    return np.argsort(-engine.retriever.sources["popularity"].item_scores, kind="stable")


def test_who_comes_back_is_answered_by_lasting_taste(engine) -> None:
    """900's events are minutes apart, 901's a day."""
    times = pd.to_datetime(["2030-01-01 10:00", "2030-01-01 10:03", "2030-01-01 10:00", "2030-01-02 11:00"])
    test = pd.DataFrame(
        {"user_id": [900, 900, 901, 901], "item_id": ["i3", "i7"] * 2, "weight": 1.0, "datetime": times}
    )
    asked = asked_before_each(engine.users, engine.catalogue, test)
    np.testing.assert_array_equal(asked.pauses, [np.nan, 180, np.nan, 25 * 3600])
    np.testing.assert_array_equal(asked.take(np.array([3, 1])).pauses, [25 * 3600, 180])
    ranked = ranked_by_every_part(engine, asked, 10)
    np.testing.assert_array_equal(ranked[AUTO][:3], ranked[ENGINE][:3])
    np.testing.assert_array_equal(ranked[AUTO][3], ranked[LASTING][3])
    assert (ranked[LASTING][3] != ranked[ENGINE][3]).any()


def test_an_event_before_what_the_engine_was_fitted_on_is_refused(engine) -> None:
    with pytest.raises(InputError, match=r"events are earlier than the newest one .* fit on the earlier part"):
        replay(engine, SPLIT.train)


@pytest.mark.parametrize(
    ("test", "arguments", "message"),
    [
        (SPLIT.test.drop(columns="weight"), {}, "no column 'weight'"),
        (SPLIT.test, {"cutoffs": (5,)}, "include it"),
        (SPLIT.test, {"relevant": [True]}, "give one for each"),
        (SPLIT.test, {"relevant": np.zeros(len(SPLIT.test), np.bool_)}, "0 of .* users have an event to judge"),
    ],
)
def test_what_cannot_be_replayed_is_refused(engine, test, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        replay(engine, test, **arguments)
