"""What may be searched, and what is drawn from it."""

import re
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml

from encoders.errors import ConfigError
from ranker import EngineConfig
from ranker.tuning import Choices, Range, SearchSpace

YAML = """
als.factors: {low: 16, high: 128, step: 16}
als.regularization: {low: 1e-1, high: 100, log: true}
als.half_life: {choices: [null, 5.0]}
sources: {choices: [[als, text], [popularity]]}
fusion: {choices: [{method: rrf}, {depth: 50}]}
"""


def refusal(tree):
    with pytest.raises(ConfigError) as caught:
        SearchSpace.from_dict(tree, origin="space.yaml")
    assert str(caught.value).startswith("space.yaml: ")
    return str(caught.value)


def test_a_file_says_ranges_and_choices(tmp_path):
    (tmp_path / "space.yaml").write_text(YAML)
    base = EngineConfig.from_dict({"als": {"alpha": 0.7}, "fusion": {"rank_constant": 1.0}})
    space = SearchSpace.from_yaml(tmp_path / "space.yaml", base)
    assert space.settings == {
        "als.factors": Range(16, 128, step=16),
        "als.regularization": Range(0.1, 100.0, log=True),
        "als.half_life": Choices((None, 5.0)),
        "sources": Choices((["als", "text"], ["popularity"])),
        "fusion": Choices(({"method": "rrf"}, {"depth": 50})),
    }
    config = space.config({"als.half_life": None, "als.factors": 32, "sources": ["popularity"]})
    assert (config.als.half_life, config.als.factors, config.sources) == (None, 32, ("popularity",))
    assert (config.als.alpha, config.fusion.rank_constant) == (0.7, 1.0)  # what is not searched stays
    assert (
        space.config({"fusion": {"method": "rrf"}}).fusion
        == EngineConfig.from_dict({"fusion": {"method": "rrf"}}).fusion
    )


def test_the_space_in_the_docs_is_one():
    page = (Path(__file__).parents[3] / "docs" / "tuning.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert "sources" in SearchSpace.from_dict(yaml.safe_load(example)).settings


def test_every_drawn_value_lies_where_the_space_says():
    space = SearchSpace.from_dict(
        {
            "als.factors": {"low": 16, "high": 64, "step": 16},
            "als.iterations": {"low": 1, "high": 1000, "log": True},
            "als.alpha": {"low": 0.25, "high": 1, "step": 0.25},
            "als.regularization": {"low": 0.01, "high": 100.0, "log": True},
            "popularity.half_life_days": {"choices": [None, 30]},
            "sources": {"choices": [["als"], ["als", "text"]]},
        }
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(300)]
    drawn = [space.draw(trial) for trial in trials]
    seen = {path: [values[path] for values in drawn] for path in space.settings}
    assert set(seen["als.factors"]) == {16, 32, 48, 64}
    assert set(seen["als.alpha"]) == {0.25, 0.5, 0.75, 1.0}
    assert set(seen["popularity.half_life_days"]) == {None, 30}
    assert {tuple(sources) for sources in seen["sources"]} == {("als",), ("als", "text")}
    assert all(type(value) is int and 1 <= value <= 1000 for value in seen["als.iterations"])
    assert np.median(seen["als.iterations"]) < 100  # evenly in the logarithm: half are below 32
    assert all(0.01 <= value <= 100 for value in seen["als.regularization"])
    assert np.median(seen["als.regularization"]) < 5
    assert [space.decoded(trial.params) for trial in trials] == drawn
    assert [space.config(values).als.factors for values in drawn] == seen["als.factors"]


def test_what_is_drawn_does_not_depend_on_the_order_of_the_settings():
    tree = {name: {"low": 0.1, "high": 1.0} for name in ("als.alpha", "als.regularization", "fusion.rank_constant")}
    drawn = []
    for settings in (tree, dict(reversed(tree.items()))):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        drawn.append(SearchSpace.from_dict(settings).draw(study.ask()))
    assert drawn[0] == drawn[1]
    assert list(drawn[0]) == list(tree)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("als.factor", "did you mean 'als.factors'?"),
        ("asl.factors", "did you mean 'als'?"),
        ("rerank.split.training.epoch", "did you mean 'rerank.split.training.epochs'?"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(path, named):
    assert named in refusal({path: {"low": 1, "high": 2}})


@pytest.mark.parametrize(
    ("path", "entry", "told"),
    [
        ("als.factors", {"low": 8, "high": 8}, "low = 8 is not below high = 8"),
        ("als.factors", {"low": 8}, "here is no high"),
        ("als.factors", 8, "found 8; give {low: …, high: …} or {choices: […]}"),
        ("als.factors", {}, "found {}"),
        ("als.factors", {"low": 8, "high": 16, "stpe": 2}, "unknown key 'stpe'; did you mean 'step'?"),
        ("als.factors", {"low": 8, "high": 16, "choices": [1, 2]}, "unknown key 'low'; here may stand choices"),
        ("als.factors", {"low": "few", "high": 16}, "low = 'few'; it has to be a number"),
        ("als.factors", {"low": 8, "high": True}, "high = True; it has to be a number"),
        ("als.alpha", {"low": 0.1, "high": float("inf")}, "high = inf; it has to be a number"),
        ("als.factors", {"low": 8, "high": 16, "log": 10}, "log = 10; it is true or false"),
        ("als.alpha", {"low": 0, "high": 1, "log": True}, "low = 0 has no logarithm"),
        ("als.factors", {"low": 8, "high": 16, "log": True, "step": 2}, "log and step exclude each other"),
        ("als.factors", {"low": 8, "high": 16, "step": 3}, "steps of 3 do not lead from 8 to 16"),
        ("als.factors", {"low": 8, "high": 16, "step": 0}, "steps of 0 do not lead"),
        ("als.factors", {"choices": [8]}, "list two values at least"),
        ("als.factors", {"choices": [8, 16, 8]}, "choices have 8 twice"),
        ("als.half_life", {"choices": [None, float("nan")]}, "choices hold what no setting can be"),
        ("als.factors", {"low": 0, "high": 16}, "als.factors = 0: Input should be greater than or equal to 1"),
        ("als.factors", {"low": 1.0, "high": 16.0}, "als.factors = 5.77"),  # whole at both ends, and not between
        ("rerank.split.training.queries", {"low": 0.1, "high": 1.0}, "queries = 1.0: Input should be less than 1"),
        ("fusion.method", {"choices": ["weighted", "sum"]}, "fusion.method = 'sum'"),
        ("als.factors.few", {"low": 1, "high": 2}, "als.factors"),
    ],
)  # fmt: skip
def test_what_no_trial_could_take_is_refused_before_any(path, entry, told):
    assert told in refusal({path: entry})


def test_a_setting_and_its_part_are_not_searched_together():
    tree = {"als": {"choices": [{"factors": 8}, {"factors": 16}]}, "als.alpha": {"low": 0.1, "high": 1.0}}
    assert "als.alpha is a part of als" in refusal(tree)


def test_an_empty_space_is_refused():
    assert "nothing to search" in refusal({})
