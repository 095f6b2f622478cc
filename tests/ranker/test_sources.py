"""An engine over every source there is: which ones are in use is a setting, and nothing else changes."""

import shutil
from typing import get_args

import pandas as pd
import pytest
import tiny_engine

import ranker
from encoders.errors import ArtifactError, ConfigError
from ranker.config import RerankConfig, SourceName
from ranker.sources import SOURCES
from retrieval.ease import EaseConfig
from retrieval.neighbours import NeighbourConfig
from retrieval.transitions import TransitionConfig

EVERY = get_args(SourceName)
SPARSE = {"neighbours": NeighbourConfig, "transitions": TransitionConfig}


def config(checkpoint, **changes):
    settings = {"sources": EVERY, "ease": EaseConfig(regularization=10.0), "rerank": RerankConfig(enabled=False)}
    return tiny_engine.config(checkpoint, **(settings | changes))


@pytest.fixture(scope="module")
def complete(checkpoint):
    return ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config(checkpoint), progress=False)


@pytest.fixture(scope="module")
def kept(complete, tmp_path_factory):
    folder = tmp_path_factory.mktemp("complete") / "model"
    complete.save(folder)
    return folder


def test_every_source_can_be_fitted_and_loaded():
    assert set(SOURCES) == set(EVERY)


def test_an_engine_with_every_source_answers_the_same_when_loaded(complete, kept):
    loaded = ranker.load(kept)
    assert tuple(loaded.retriever.sources) == EVERY
    for name, source in loaded.retriever.sources.items():
        assert isinstance(source, SOURCES[name])
    before, after = tiny_engine.answers(complete), tiny_engine.answers(loaded)
    for name, table in before.items():
        pd.testing.assert_frame_equal(table, after[name])
    found = before["recommend"]
    assert (found.groupby("user_id").size() == 12).all()
    candidates = before["candidates"]
    assert set(EVERY) <= set(candidates.columns)
    assert candidates[list(EVERY)].nunique().min() > 1  # every source tells items apart


def test_each_source_learns_with_the_settings_under_its_name(complete):
    sources = complete.retriever.sources
    assert sources["ease"].config.regularization == 10.0
    for name, kind in SPARSE.items():
        assert sources[name].config == kind()


@pytest.mark.parametrize("name", ["ease", "neighbours", "transitions"])
def test_a_click_counts_in_the_next_answer(name, checkpoint):
    engine = ranker.fit(
        tiny_engine.interactions(), tiny_engine.items(), config(checkpoint, sources=(name,)), progress=False
    )
    assert engine.recommend([7], 5).empty
    engine.feedback(tiny_engine.events(("e1", 7, "i3", "like")))
    found = engine.recommend([7], 5)
    item_item = engine.retriever.sources[name]
    weights = item_item.weights[[3]]
    row = weights.toarray()[0] if name in SPARSE else weights[0]
    assert len(found) == 5
    assert found["item_id"].iloc[0] == f"i{row.argmax()}"


def test_a_catalogue_too_large_for_ease_is_refused_before_anything_is_made(checkpoint):
    small = config("no such checkpoint", ease=EaseConfig(max_items=10))
    with pytest.raises(ConfigError, match=r"ease\.max_items = 10, but the catalogue has 60 items"):
        ranker.fit(tiny_engine.interactions(), tiny_engine.items(), small, progress=False)


@pytest.mark.parametrize("name", ["ease/weights", "neighbours/indices", "transitions/data"])
def test_a_damaged_source_is_named(name, kept, tmp_path):
    model = shutil.copytree(kept, tmp_path / "model")
    (path,) = model.glob(f"*/sources/{name}.npy")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ArtifactError, match=path.name):
        ranker.load(model)
