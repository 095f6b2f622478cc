"""Variants: which there are, and the settings that they stand for."""

from bench.variants import every_variant
from ranker import EngineConfig


def test_every_setting_of_the_dial_is_there_by_default() -> None:
    kinds = [(v.joint_layers, v.item_vectors, v.trained_on, v.served_on, v.rows) for v in every_variant((1, 2, 3, 6))]
    usual = [(count, None, "int8", "int8", "float16") for count in (1, 2, 3, 6)]
    fewer = [(2, vectors, "int8", "int8", "float16") for vectors in (8, 4)]
    rows = [(count, vectors, "int8", "int8", "int8") for count, vectors in ((1, None), (2, 8))]
    precisions = [(1, None, "float32", served, "float16") for served in ("float32", "int8")]
    assert kinds == [*usual, *fewer, *rows, *precisions]


def test_only_what_belongs_to_the_asked_joint_layers_is_there() -> None:
    assert [variant.name for variant in every_variant([3, 3])] == ["split 3"]
    assert {variant.joint_layers for variant in every_variant([2, 6])} == {2, 6}


def test_names_and_folders_tell_variants_apart() -> None:
    variants = every_variant(range(1, 7))
    assert len({variant.folder for variant in variants}) == len({variant.name for variant in variants}) == len(variants)
    assert all(variant.folder.replace("-", "").isalnum() for variant in variants)


def test_fewer_joint_layers_are_smaller_than_fewer_vectors() -> None:
    by_size = sorted((v for v in every_variant((1, 2, 3)) if v.usual), key=lambda variant: variant.size)
    assert [v.name for v in by_size] == ["split 1", "split 2, 4 vectors", "split 2, 8 vectors", "split 2", "split 3"]


def test_a_variant_changes_nothing_but_its_own_settings() -> None:
    config = EngineConfig.from_dict({"seed": 3, "rerank": {"split": {"depth": 7}}})
    for variant in every_variant((1, 2)):
        tree, before = variant.settings(config).to_dict(), config.to_dict()
        split = tree["rerank"]["split"]
        assert split["joint_layers"] == variant.joint_layers
        assert split["item_vectors"] == variant.item_vectors
        assert split["states"] == variant.rows
        assert split["quantized"] == (variant.served_on == "int8")
        before["rerank"]["split"] |= {
            name: split[name] for name in ("joint_layers", "item_vectors", "quantized", "states")
        }
        assert tree == before
