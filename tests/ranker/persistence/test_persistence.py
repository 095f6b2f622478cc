"""A saved engine answers as it did, in this process and in another."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest
import tiny_engine
from tests_support import is_mapped
from tiny_engine import answers, assert_same, events, small_fit

import ranker
from encoders.errors import InputError

ALL = tiny_engine.N_ITEMS


def test_a_loaded_engine_answers_as_the_fitted_one(fitted, engine):
    assert_same(answers(fitted), answers(engine))
    everybody = [list(one.candidates(k=50)) for one in (fitted, engine)]
    for before, after in zip(*everybody, strict=True):
        assert after.equals(before)
    assert engine.config == fitted.config
    assert engine.training == fitted.training
    assert engine.calibration == fitted.calibration


def test_saving_again_changes_no_answer(engine, tmp_path):
    engine.feedback(events(("e1", 100, "i1", "like"), ("e2", 7, "i2", "like"), ("e3", 101, "i3", "skip")))
    before = answers(engine)
    for _ in range(4):  # more than the versions that are kept
        engine.save(tmp_path / "model")
    engine.save(tmp_path / "other")
    assert_same(before, answers(engine))
    assert_same(before, answers(ranker.load(tmp_path / "model")))
    assert_same(before, answers(ranker.load(tmp_path / "other")))


def test_weights_of_short_histories_are_kept(engine, tmp_path):
    engine.retriever.short = {
        3: {"als": 0.25, "transitions": 0.5, "text": 0.0, "popularity": 1 / 3},
        2: dict.fromkeys(engine.retriever.sources, 1.0),
    }
    engine.save(tmp_path / "model")
    loaded = ranker.load(tmp_path / "model")
    assert list(loaded.retriever.short.items()) == list(engine.retriever.short.items())
    history = pd.DataFrame({"user_id": ["few", "more", "more", "more"], "item_id": engine.catalogue.ids.ids[:4]})
    answers = [one.recommend(history=history, k=9) for one in (engine, loaded)]
    pd.testing.assert_frame_equal(*answers)
    loaded.log.close()


def test_arrays_stay_memory_mapped(engine):
    mapped = [
        engine.retriever.sources["als"].item_factors,
        engine.retriever.sources["transitions"].weights.data,
        engine.retriever.sources["text"].vectors,
        engine.retriever.sources["popularity"].item_scores,
        *(getattr(engine.users.base.histories, name) for name in ("indptr", "items", "weights", "times")),
    ]
    assert all(is_mapped(array) for array in mapped)


FRESH = """
import sys
sys.path[:0] = sys.argv[3:]
import torch
torch.set_num_threads(1)
import pandas as pd
import ranker, tiny_engine
engine = ranker.load(sys.argv[1])
for name, table in tiny_engine.answers(engine).items():
    table.to_parquet(f"{sys.argv[2]}/{name}.parquet")
engine.feedback(tiny_engine.events(("theirs", 100, "i9", "like")))
"""


@pytest.mark.slow
def test_another_process_answers_the_same_and_its_feedback_shows_here(engine, model, tmp_path):
    engine.feedback(events(("ours", 100, "i1", "like"), ("new", 7, "i2", "like")))
    arguments = [sys.executable, "-W", "error", "-c", FRESH, str(model), str(tmp_path), *sys.path]
    ours = answers(engine)
    subprocess.run(arguments, check=True)
    assert_same(ours, {name: pd.read_parquet(tmp_path / f"{name}.parquet") for name in ours})
    assert "i9" not in set(engine.recommend([100], ALL)["item_id"])  # told there, known here
    loaded = ranker.load(model)
    assert loaded.log.read()["event_id"].tolist() == ["ours", "new", "theirs"]
    assert "i9" not in set(loaded.recommend([100], ALL)["item_id"])


def test_a_folder_may_be_named_by_a_string_or_relative(engine, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine.feedback(events(("e1", 7, "i1", "like")))
    again = ranker.load("model")
    assert_same(answers(engine), answers(again))
    again.save(model)
    assert_same(answers(engine), answers(again))
    shutil.move(model, tmp_path / "moved")
    assert_same(answers(engine), answers(ranker.load("moved")))


@pytest.mark.parametrize("kind", [tuple, set, list])
def test_attributes_filter_alike_before_and_after(checkpoint, tmp_path, kind):
    items = tiny_engine.items().assign(genres=lambda table: table["genres"].map(kind))
    items.loc[3, "genres"] = None
    engine = small_fit(checkpoint, items, tiny_engine.interactions())
    before = engine.recommend([100], ALL, where={"genres": "g0"})
    engine.save(tmp_path / "model")
    after = ranker.load(tmp_path / "model").recommend([100], ALL, where={"genres": "g0"})
    pd.testing.assert_frame_equal(after, before)


def test_attributes_that_no_file_can_hold_are_refused_before_the_fit(checkpoint):
    items = tiny_engine.items()
    items["odd"] = [1, "a", *[None] * (ALL - 2)]
    with pytest.raises(InputError, match=r"^items: .* column odd .*cannot be saved") as caught:
        small_fit(checkpoint, items, tiny_engine.interactions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("columns", [{"year": 5}, {"year": "title"}])
def test_columns_need_names_of_their_own(checkpoint, columns):
    with pytest.raises(InputError, match=r"^items: columns need different strings for names"):
        small_fit(checkpoint, tiny_engine.items().rename(columns=columns), tiny_engine.interactions())
