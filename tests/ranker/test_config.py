"""Settings in one file: what is wrong in it is named, with its path and its value."""

import os
from dataclasses import fields, is_dataclass, replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from encoders.errors import ConfigError
from ranker import EngineConfig
from ranker.config import JointTrainingConfig, PairConfig, RerankConfig, SplitConfig, TrainingConfig
from retrieval.als import AlsConfig
from retrieval.fusion import FusionConfig

CHANGED = EngineConfig(
    seed=7,
    sources=("text", "als"),
    als=AlsConfig(factors=3, half_life=None),
    fusion=FusionConfig(weights={"als": 1.5, "text": 0.0}),
    rerank=RerankConfig(
        enabled=False,
        split=SplitConfig(states="int8"),
        pair=PairConfig(training=TrainingConfig(learning_rate=1e-6, report_to="wandb")),
    ),
)


def read(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return EngineConfig.from_yaml(path)


@pytest.mark.parametrize("config", [EngineConfig(), CHANGED])
def test_what_is_written_is_read_back(config, tmp_path):
    config.to_yaml(tmp_path / "config.yaml")
    assert EngineConfig.from_yaml(tmp_path / "config.yaml") == config
    assert EngineConfig.from_yaml(str(tmp_path / "config.yaml")) == config
    assert EngineConfig.from_dict(config.to_dict()) == config


def test_what_is_left_out_of_a_section_keeps_the_default_of_that_section():
    """A loop of the sequence source has other defaults than any loop."""
    config = EngineConfig.from_dict({"sequence": {"training": {"epochs": 3}}})
    assert config.sequence.training == replace(EngineConfig().sequence.training, epochs=3)


def test_a_path_may_be_a_string(tmp_path):
    CHANGED.to_yaml(str(tmp_path / "config.yaml"))
    assert EngineConfig.from_yaml(tmp_path / "config.yaml") == CHANGED


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}"])
def test_an_empty_file_gives_the_defaults(tmp_path, text):
    assert read(tmp_path, text) == EngineConfig()


def test_what_is_left_out_keeps_its_default(tmp_path):
    config = read(tmp_path, "als:\n  factors: 8\nrerank:\n  split: {training: {epochs: 3}}\n")
    assert config == EngineConfig(
        als=AlsConfig(factors=8), rerank=RerankConfig(split=SplitConfig(training=JointTrainingConfig(epochs=3)))
    )


def settings(config, path=()):
    """Every setting, by the keys that lead to it."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from settings(value, (*path, field.name))
        else:
            yield (*path, field.name)


SETTINGS = list(settings(EngineConfig()))


def nested(path, value):
    for key in reversed(path):
        value = {key: value}
    return value


@pytest.mark.parametrize("path", SETTINGS, ids=".".join)
def test_a_misspelt_key_at_any_depth_names_the_nearest_known_one(path):
    *above, name = path
    prefix = "".join(f"{key}." for key in above)
    with pytest.raises(ConfigError) as caught:
        EngineConfig.from_dict(nested([*above, f"{name}x"], 1), "my.yaml")
    assert str(caught.value) == f"my.yaml: unknown key {prefix + name + 'x'!r}; did you mean {prefix + name!r}?"


def test_a_key_like_no_other_names_all_that_are_known():
    with pytest.raises(ConfigError, match=r"unknown key 'als\.zzz'; known here are factors, regularization, alpha"):
        EngineConfig.from_dict({"als": {"zzz": 1}})
    with pytest.raises(ConfigError, match=r"unknown key '5'; known here are seed, sources"):
        EngineConfig.from_dict({5: 1})


@pytest.mark.parametrize("path", SETTINGS, ids=".".join)
def test_a_value_of_the_wrong_type_names_its_key_and_itself(path):
    with pytest.raises(ConfigError) as caught:
        EngineConfig.from_dict(nested(path, {"odd": ["value"]}), "my.yaml")
    message = str(caught.value)
    assert message.startswith(f"my.yaml: {'.'.join(path)}")
    assert "'value'" in message or "odd" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"seed": -1}, r"^config: seed = -1: Input should be greater than or equal to 0"),
        ({"als": {"factors": 0}}, r"^config: als\.factors = 0: Input should be greater than"),
        ({"als": {"alpha": float("nan")}}, r"^config: als\.alpha = nan"),
        ({"als": {"regularization": "much"}}, r"^config: als\.regularization = 'much': Input should be a valid number"),
        (
            {"rerank": {"pair": {"training": {"validation_fraction": 1}}}},
            r"^config: rerank\.pair\.training\.validation_fraction = 1: ",
        ),
        (
            {"rerank": {"pair": {"training": {"report_to": "paper"}}}},
            r"^config: rerank\.pair\.training\.report_to = 'paper': .*'none'",
        ),
        ({"rerank": {"split": {"states": "int4"}}}, r"^config: rerank\.split\.states = 'int4': .*'float16' or 'int8'"),
        ({"sources": []}, r"^config: sources = \[\]: "),
        ({"sources": ["als", "magic"]}, r"^config: sources\.1 = 'magic': Input should be 'als', 'ease', "),
        ({"transitions": {"window": 0}}, r"^config: transitions\.window = 0: Input should be greater than"),
        ({"ease": {"regularisation": 3}}, r"^config: unknown key 'ease\.regularisation'; did you mean .*zation'"),
        ({"neighbours": {"similarity": "jaccard"}}, r"^config: neighbours\.similarity = 'jaccard': .* 'bm25'"),
        ({"fusion": {"method": "vote"}}, r"^config: fusion\.method = 'vote'"),
        ({"encoder": {"pooling": "max"}}, r"^config: encoder\.pooling = 'max'"),
        ({"text": {"index": {"min_recall": 2}}}, r"^config: text\.index\.min_recall = 2"),
        ({"feedback": {"click": 0}}, r"^config: feedback\.click = 0"),
        ({"als": 5}, r"^config: als = 5"),
        ({"als": None}, r"^config: als = None"),
        ({"als": ["factors"]}, r"^config: als = \['factors'\]"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_names_its_key_and_itself(tree, message):
    with pytest.raises(ConfigError, match=message) as caught:
        EngineConfig.from_dict(tree)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "seed", "5", "2024-01-01"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"config\.yaml: expected keys and values, found (list|str|int|date)"):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\ta: 1", "a: !!python/object/apply:os.system ['true']", "a: *b"])
def test_a_file_that_is_no_yaml_is_refused_in_one_line(tmp_path, text):
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read as YAML") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    problems = {"absent.yaml": "No such file", "": "Is a directory", "binary.yaml": "as YAML"}
    for name, problem in problems.items():
        with pytest.raises(ConfigError, match=f"cannot be read.*{problem}") as caught:
            EngineConfig.from_yaml(tmp_path / name)
        assert os.fspath(tmp_path / name) in str(caught.value)


def test_numbers_are_read_as_people_write_them(tmp_path):
    config = read(tmp_path, "rerank: {split: {training: {learning_rate: 1e-4}}}\nals: {factors: 32, alpha: 1}\n")
    assert config.rerank.split.training.learning_rate == 1e-4  # YAML 1.1 reads 1e-4 as a string
    assert config.als.alpha == 1.0


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none() | st.lists(st.integers())))
def test_any_other_tree_is_a_config_error(tree):
    if set(tree) - {field.name for field in fields(EngineConfig)}:
        with pytest.raises(ConfigError) as caught:
            EngineConfig.from_dict(tree)
        assert len(str(caught.value).splitlines()) == 1


def test_a_key_that_is_twice_in_a_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"key 'seed' is there twice"):
        read(tmp_path, "seed: 1\nals: {factors: 2}\nseed: 2\n")


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        EngineConfig().seed = 3
    assert yaml.safe_load(yaml.safe_dump(EngineConfig().to_dict())) == EngineConfig().to_dict()
