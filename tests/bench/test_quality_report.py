"""What the quality benchmark writes of systems' lists, over seeds that ask for the same lists and over others."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.quality import seeds
from bench.quality.protocols import ProtocolName, Task, Ties, pose
from bench.quality.report import AT_ONCE, FIFTHS, by_history, by_pause, by_time, judge, write
from bench.quality.seeds import Measured, keep, kept, key_of
from bench.quality.systems import SERVED, Answer, K
from ranker.evaluation import read_per_user
from retrieval.candidates import NO_ITEM

N_ITEMS = 60
ITEMS = pd.DataFrame({"item_id": range(N_ITEMS), "title": [f"t{n}" for n in range(N_ITEMS)], "text": "x"})


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    """Users of 3 to 14 ratings, each pair of them in one second."""
    rng = np.random.default_rng(0)
    rows = [
        (user, item, 5, 1000 * (place // 2) + user)
        for user in range(24)
        for place, item in enumerate(rng.permutation(N_ITEMS)[: 3 + user % 12])
    ]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "second"])
    return table.assign(datetime=pd.to_datetime(table["second"], unit="s")).drop(columns="second")


def measured(log: pd.DataFrame, protocol: ProtocolName, ties: Ties, seeds: int) -> list[Measured]:
    """The served system finds everything, the other nothing."""

    def answers(task: Task) -> dict[str, Answer]:
        first = task.asked.relevant.indices[task.asked.relevant.indptr[:-1], None]
        found = np.concatenate([first, (first + 1 + np.arange(K - 1)) % N_ITEMS], axis=1).astype(np.int64)
        missed = np.full_like(found, NO_ITEM)
        return {SERVED[protocol]: Answer(found, 2.0, 0.5), "other": Answer(missed, None, 0.25)}

    tasks = [pose(log, ITEMS, protocol, ties, seed) for seed in range(seeds)]
    return [Measured(task, answers(task), 1.5) for task in tasks]


def test_seeds_that_ask_for_lists_of_the_same_users_are_averaged_and_others_are_added(log) -> None:
    alike, other = (judge(measured(log, protocol, "file", 2)) for protocol in ("loo", "cold"))
    assert len(alike.lists["engine"]) == 24
    assert len(other.lists["lasting"]) == sum(len(one.task.asked) for one in measured(log, "cold", "file", 2)) > 24
    assert alike.summary["hr@10"].tolist() == other.summary["hr@10"].tolist() == [1, 0]


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("protocol", ["loo", "cold"])
def test_lists_are_told_apart_by_how_much_they_know(log, protocol, seeds) -> None:
    made = measured(log, protocol, "file", seeds)
    told = judge(made)
    table = by_history(told, made).set_index(["system", "group"])
    found = table.loc[SERVED[protocol]]
    asked = made[:1] if protocol == "loo" else made  # of the same users by each seed, or not
    known = pd.Series(
        np.concatenate([one.task.asked.lengths for one in asked]),
        np.concatenate([one.task.asked.users for one in asked]),
    )
    groups = {"1 to 4 events": known < 5, "5 to 9 events": (known >= 5) & (known < 10), "10 to 49 events": known >= 10}
    assert found["n_users"].to_dict() == {name: known.index[within].nunique() for name, within in groups.items()}
    assert (found["mean"] > table.loc["other"]["mean"]).all()


def test_a_replay_is_told_apart_by_when_its_lists_were_asked_for(log) -> None:
    made = measured(log, "prequential", "file", 1)
    asked = made[0].task.asked
    times = asked.log.times[asked.ends]
    early = times <= np.median(times)
    engine = made[0].answers["engine"]
    made[0].answers["engine"] = replace(engine, items=np.where(early[:, None], engine.items, NO_ITEM))
    found = by_time(judge(made), made).set_index(["system", "group"])["mean"]["engine"]
    assert list(found.index) == list(FIFTHS)
    assert found.iloc[:2].tolist() == [1, 1]
    assert found.iloc[3:].tolist() == [0, 0]


def test_a_replay_is_told_apart_by_how_long_ago_the_last_event_was(log) -> None:
    made = measured(log, "prequential", "file", 1)
    asked = made[0].task.asked
    at_once = asked.log.times[asked.ends] == asked.log.times[asked.ends - 1]
    assert 0 < at_once.sum() < len(asked)
    engine = made[0].answers["engine"]
    made[0].answers["engine"] = replace(engine, items=np.where(at_once[:, None], engine.items, NO_ITEM))
    found = by_pause(judge(made), made).set_index(["system", "group"]).loc["engine"]
    assert found["n_lists"].to_dict() == {AT_ONCE: at_once.sum(), "within an hour": (~at_once).sum()}
    assert found["mean"].to_list() == [1, 0]
    within = by_time(judge(made), made, (AT_ONCE,)).set_index("system").loc["engine"]
    assert within["n_lists"].sum() == at_once.sum()
    assert (within["mean"] == 1).all()


def test_every_file_is_written_and_tells_of_every_system(log, tmp_path) -> None:
    write(measured(log, "loo", "file", 1), {"settings": {}}, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"quality.md", "quality.json", "quality.svg", "quality.html", "per-user.parquet"}
    told = json.loads((tmp_path / "out" / "quality.json").read_bytes())
    assert {row["system"] for row in told["systems"]} == {"engine", "other"}
    assert {row["group"] for row in told["slices"]} == {"1 to 4 events", "5 to 9 events", "10 to 49 events"}
    assert set(read_per_user(tmp_path / "out" / "per-user.parquet").per_user) == {"engine", "other"}
    page = (tmp_path / "out" / "quality.md").read_text()
    assert "NDCG@10 by events that a list knows" in page
    assert told["minutes"] == 1.5


def test_a_seed_that_was_measured_is_read_again_by_the_same_code_and_settings_alone(log, tmp_path) -> None:
    made = measured(log, "loo", "file", 1)[0]
    key = key_of({"engine": {}}, ["implicit ALS"])
    path = tmp_path / "out" / "seed-0.npz"
    assert kept(made.task, key, path) is None
    keep(made, key, path)
    again = kept(made.task, key, path)
    assert again is not None
    assert again.minutes == made.minutes
    assert list(again.answers) == list(made.answers)
    for name, answer in made.answers.items():
        assert (again.answers[name].items == answer.items).all()
        assert (again.answers[name].fit_s, again.answers[name].list_ms) == (answer.fit_s, answer.list_ms)
    assert kept(made.task, key_of({"engine": {"seed": 1}}, ["implicit ALS"]), path) is None
    assert kept(made.task, key_of({"engine": {}}, []), path) is None
    assert kept(made.task.some(5, 0), key, path) is None


def test_code_that_changed_measures_anew(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(seeds, "ROOT", tmp_path)
    (tmp_path / "ranker").mkdir()
    (tmp_path / "ranker" / "engine.py").write_text("one")
    before = key_of({}, [])
    assert key_of({}, []) == before
    (tmp_path / "ranker" / "engine.py").write_text("another")
    assert key_of({}, []) != before
