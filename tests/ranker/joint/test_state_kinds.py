"""Joint layers score items whose states are kept in a byte each nearly as they score them in float16."""

import dataclasses

import numpy as np
import pytest
from tiny_joint import TEXTS, candidates, fresh_model, input_reader, item_reader, moved, requests, run

from encoders.errors import ArtifactError
from ranker.reranker import Gain
from ranker.split.reranker import STORE, SplitReranker
from ranker.split.serving import OnnxJoint
from ranker.states.building import build_store

ASKED = requests([1, 2, 3], [(5, 3.0), 7], [11])
OFFERED = candidates([0, 4, 6, 8, 9, 10], [0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10])


@pytest.fixture(scope="module", params=[1, 2])
def model(request, encoder):
    return moved(fresh_model(encoder, request.param))


@pytest.fixture(scope="module")
def readers(model, encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return {kind: input_reader(folder / kind, encoder, model.shape, TEXTS, kind) for kind in ("float16", "int8")}


@pytest.fixture
def reranker(model, encoder, readers):
    items = item_reader(encoder, model.shape)
    return SplitReranker(OnnxJoint.trace(model), readers["int8"], items, 8, Gain(1, 0))


def test_logits_are_near_those_of_float16_states(model, readers):
    exact, near = (run(model, readers[kind].read(ASKED, OFFERED)).logits for kind in ("float16", "int8"))
    real = OFFERED.items >= 0
    assert 0 < np.abs(near - exact)[real].max() < 0.1 * exact[real].std()


def test_rows_take_little_more_than_half_the_room_and_weights_stay_exact(model, readers):
    stores = {kind: readers[kind].store for kind in readers}
    joint_layers, dim, heads = model.shape.joint_layers, model.shape.layer.dim, model.shape.layer.heads
    coded, exact = (4 * dim, 2 * heads) if joint_layers == 1 else (dim, 0)
    rows = stores["float16"].counts.mean()
    assert stores["float16"].bytes_per_item == pytest.approx(rows * 2 * (coded + exact))
    assert stores["int8"].bytes_per_item == pytest.approx(rows * (coded + 2 * coded / 32 + 2 * exact))
    both = [stores[kind].gather_ragged(np.arange(len(TEXTS)), 99)[0][..., coded:] for kind in stores]
    assert both[0].shape[-1] == exact
    np.testing.assert_array_equal(*both)


def test_what_is_saved_scores_as_before(reranker, encoder, tmp_path):
    before = reranker.score(ASKED, OFFERED)
    reranker.save(tmp_path)
    again = SplitReranker.load(tmp_path, encoder, 8, Gain(1, 0))
    assert again.inputs.store.row_format == reranker.inputs.store.row_format
    np.testing.assert_allclose(again.score(ASKED, OFFERED), before, atol=1e-5)


def test_items_read_anew_are_kept_as_before(reranker, encoder, tmp_path):
    again = reranker.read_by(encoder, TEXTS, tmp_path)
    assert again.inputs.store.row_format.kind == "int8"
    np.testing.assert_allclose(again.score(ASKED, OFFERED), reranker.score(ASKED, OFFERED), atol=1e-5)


def test_a_store_whose_rows_are_kept_otherwise_is_refused(reranker, encoder, tmp_path):
    reranker.save(tmp_path)
    items, row_format = reranker.items, reranker.inputs.store.row_format
    other = dataclasses.replace(row_format, exact=row_format.exact + 1)
    for path in (tmp_path / STORE).iterdir():
        path.unlink()
    build_store(tmp_path / STORE, TEXTS, items.version, other, items.read)
    with pytest.raises(
        ArtifactError, match=rf"{STORE}: holds rows of width {other.width} in int8 .* Save the engine again"
    ):
        SplitReranker.load(tmp_path, encoder, 8, Gain(1, 0))
