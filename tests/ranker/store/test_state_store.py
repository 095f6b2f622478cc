"""A store of states gives back what was read, to any number of readers, and wherever it is copied."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import file_limit
from tiny_store import (
    TEXTS,
    WIDTH,
    Reader,
    build,
    files,
    first_shard,
    refused,
    rows_of,
    same_rows,
)

from encoders.errors import ArtifactError, InputError
from ranker.states.store import StateStore
from retrieval.candidates import NO_ITEM


@pytest.fixture
def single(tmp_path):
    """A store of one row per item."""
    return build(tmp_path / "single", TEXTS, Reader(ragged=False))


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(), max_size=6), min_size=1, max_size=30),
    shard_items=st.integers(1, 9),
    batch=st.integers(1, 7),
)
def test_rows_come_back_as_they_were_read(tmp_path_factory, texts, shard_items, batch):
    folder, reader = tmp_path_factory.mktemp("store"), Reader(batch=batch)
    store = build(folder, texts, reader, shard_items=shard_items)
    same_rows(store, texts)
    encoded = [text.encode("utf-8", "replace") for text in texts]
    assert sorted(text.encode("utf-8", "replace") for text in reader.asked) == sorted(set(encoded))
    assert all(len(call) <= shard_items for call in reader.calls)
    shutil.rmtree(folder)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_items_of_any_shape_equal_a_dictionary(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("store")
    ragged, limit = data.draw(st.booleans()), data.draw(st.integers(1, 6))
    store = build(folder, TEXTS, Reader(ragged), shard_items=data.draw(st.sampled_from([1, 3, 100])))
    expected = dict(enumerate(rows_of(text, ragged)[:limit] for text in TEXTS))
    expected[NO_ITEM] = np.empty((0, WIDTH), np.float16)
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    size = int(np.prod(shape, dtype=int))
    flat = data.draw(st.lists(st.integers(NO_ITEM, len(TEXTS) - 1), min_size=size, max_size=size))
    items = np.array(flat, np.int64).reshape(shape)

    rows, counts = store.gather_ragged(items, limit)
    longest = max([1, *(len(expected[item]) for item in flat)])
    assert rows.shape == (*shape, longest, WIDTH)
    assert rows.dtype == np.float16
    assert counts.shape == shape
    for place in np.ndindex(*shape):
        own = expected[int(items[place])]
        assert counts[place] == len(own)
        np.testing.assert_array_equal(rows[place], np.pad(own, ((0, longest - len(own)), (0, 0))))
    if not ragged:
        np.testing.assert_array_equal(store.gather(items), rows[..., 0, :])
    shutil.rmtree(folder)


def test_a_batch_equals_its_items_one_by_one(store, single):
    items = np.array([[7, NO_ITEM, 0], [3, 3, 10]])
    rows, counts = store.gather_ragged(items, 3)
    for place in np.ndindex(items.shape):
        own, count = store.gather_ragged(items[place].reshape(1), 3)
        assert counts[place] == count[0]
        np.testing.assert_array_equal(rows[place][: count[0]], own[0][: count[0]])
        np.testing.assert_array_equal(single.gather(items)[place], single.gather(items[place].reshape(1))[0])


def test_what_is_given_is_the_callers_own(single):
    first = single.gather(np.array([2]))
    first[:] = 9
    np.testing.assert_array_equal(single.gather(np.array([2]))[0], rows_of(TEXTS[2], ragged=False)[0])


def test_a_store_says_what_it_holds(store, single, row_format):
    counts = [len(rows_of(text)) for text in TEXTS]
    assert (store.n_items, store.width, store.version, store.max_rows) == (len(TEXTS), WIDTH, "v1", max(counts))
    assert store.counts.tolist() == counts
    size = {"float16": WIDTH * 2, "int8": 32 + 2 + 2 * 2}[row_format.kind]
    assert (store.row_format, single.row_format) == (row_format, row_format)
    assert store.bytes_per_item == pytest.approx(np.mean(counts) * size)
    assert (single.max_rows, single.bytes_per_item) == (1, size)


@pytest.mark.parametrize("item", [-2, len(TEXTS), 10**12])
def test_an_item_outside_the_store_is_named(store, single, item):
    items = np.array([[0, NO_ITEM], [item, 1]])
    for ask in (single.gather, lambda items: store.gather_ragged(items, 2)):
        with pytest.raises(InputError, match=rf"Item {item} is not in the store .* holds 11 items.*build it again"):
            ask(items)


def test_several_rows_per_item_are_not_given_as_one(store):
    with pytest.raises(InputError, match="items have up to 4 rows each; use gather_ragged"):
        store.gather(np.array([0]))


def test_a_limit_below_one_is_refused(store):
    with pytest.raises(InputError, match="The limit is 0 rows"):
        store.gather_ragged(np.array([0]), 0)


def test_threads_get_equal_answers(store):
    rng = np.random.default_rng(0)
    asked = [rng.integers(NO_ITEM, len(TEXTS), size=(8, 5)) for _ in range(50)]
    alone = [store.gather_ragged(items, 3) for items in asked]
    with ThreadPoolExecutor(8) as pool:
        for (rows, counts), (own_rows, own_counts) in zip(
            pool.map(lambda items: store.gather_ragged(items, 3), asked), alone, strict=True
        ):
            np.testing.assert_array_equal(rows, own_rows)
            np.testing.assert_array_equal(counts, own_counts)


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "on another file system"])
def test_a_copy_answers_equally_and_outlives_its_source(tmp_path, store, linked, monkeypatch):
    if not linked:

        def link(source, target):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "link", link)
    store.copy_to(tmp_path / "deep" / "copy")
    assert files(tmp_path / "deep" / "copy") == files(store.folder)
    shard = first_shard(store.folder)
    assert (tmp_path / "deep" / "copy" / shard.name).samefile(shard) == linked
    build(store.folder, ["other"])
    shutil.rmtree(store.folder)
    same_rows(StateStore.open(tmp_path / "deep" / "copy", "v1"), TEXTS)
    same_rows(store, TEXTS)


def test_a_copy_into_a_folder_that_holds_something_is_refused(store, single):
    before = files(single.folder)
    for folder in (single.folder, store.folder):
        with pytest.raises(ArtifactError, match="is not empty"):
            store.copy_to(folder)
    assert files(single.folder) == before


def test_a_copy_of_what_is_gone_says_so(tmp_path, store):
    build(store.folder, ["other"])
    with pytest.raises(ArtifactError, match=r"shard-.*|index-.*: is gone since the store was opened; open it again"):
        store.copy_to(tmp_path / "copy")


def test_a_copy_that_does_not_fit_is_no_store(tmp_path, store, monkeypatch):
    def link(source, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(ArtifactError, match=r"copy: the store was not written \(File too large\)"), file_limit(1000):
        store.copy_to(tmp_path / "copy")
    refused(tmp_path / "copy", r"store\.json: cannot be read")
