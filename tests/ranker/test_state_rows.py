"""Rows come back from bytes as they were, or within what a byte each can say of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tiny_joint import item_factors

from encoders.errors import InputError
from ranker.states.building import StoredRows, build_store
from ranker.states.rows import BLOCK, RowFormat
from retrieval.candidates import NO_ITEM

FINITE = arrays.arrays(
    np.float16,
    st.tuples(st.integers(1, 4), st.integers(1, 2 * BLOCK + 6)),
    elements=st.floats(width=16, allow_nan=False, allow_infinity=False),
)


def there_and_back(row_format, rows):
    stored = row_format.encode(rows)
    assert stored.dtype == np.uint8
    assert stored.shape == (len(rows), row_format.bytes)
    found = row_format.decode(stored)
    assert found.dtype == np.float16
    assert found.shape == rows.shape
    return found


def assert_within_bounds(rows, found):
    """Half a scale, which is at most a float16 above a 127th of a block's largest, and half of what float16 rounds."""
    for start in range(0, rows.shape[1], BLOCK):
        block, other = (each[:, start : start + BLOCK].astype(np.float64) for each in (rows, found))
        scale = np.abs(block).max(axis=1) / 127
        scale = scale + np.spacing(scale.astype(np.float16)).astype(np.float64)
        step = np.spacing(np.abs(found[:, start : start + BLOCK])).astype(np.float64)
        assert (np.abs(block - other) <= scale[:, None] / 2 + step / 2).all()


@given(FINITE)
def test_float16_rows_come_back_as_they_were(rows):
    found = there_and_back(RowFormat(rows.shape[1]), rows)
    np.testing.assert_array_equal(found.view(np.uint16), rows.view(np.uint16))


@given(FINITE, st.data())
def test_int8_rows_come_back_within_half_a_scale_and_their_end_as_it_was(rows, data):
    exact = data.draw(st.integers(0, rows.shape[1]))
    found = there_and_back(RowFormat(rows.shape[1], "int8", exact), rows)
    kept = rows.shape[1] - exact
    np.testing.assert_array_equal(found[:, kept:].view(np.uint16), rows[:, kept:].view(np.uint16))
    assert_within_bounds(rows[:, :kept], found[:, :kept])


@pytest.mark.parametrize("size", [1, 1e-2, 1e3])
def test_rows_as_encoders_make_them_come_back_within_a_254th_of_a_blocks_largest(size):
    rows = (item_factors(50, 4 * BLOCK) * size).astype(np.float16)
    found = there_and_back(RowFormat(rows.shape[1], "int8"), rows)
    blocks, others = (each.astype(np.float64).reshape(50, 4, BLOCK) for each in (rows, found))
    largest = np.abs(blocks).max(axis=2, keepdims=True)
    half_step = np.spacing(largest.astype(np.float16)).astype(np.float64) / 2
    assert (np.abs(blocks - others) <= largest / 254 + half_step).all()
    assert (np.sign(blocks) * np.sign(others) >= 0).all()


@pytest.mark.parametrize("value", [0, 6e-8, 1e-6, 6.1e-5, 0.3, 65504, -65504])
def test_the_smallest_and_the_largest_come_back_finite_and_close(value):
    rows = np.full((1, BLOCK), value, np.float16)
    rows[0, 1:4] = 0, -rows[0, 0], rows[0, 0] / 3
    found = there_and_back(RowFormat(BLOCK, "int8"), rows)
    assert np.isfinite(found).all()
    assert_within_bounds(rows, found)
    np.testing.assert_allclose(found[0, 0], rows[0, 0], rtol=5e-3)


def test_a_block_does_not_change_what_another_becomes():
    rows = item_factors(3, 3 * BLOCK).astype(np.float16)
    alone = there_and_back(RowFormat(3 * BLOCK, "int8"), rows)
    rows[:, :BLOCK] *= 1000
    together = there_and_back(RowFormat(3 * BLOCK, "int8"), rows)
    np.testing.assert_array_equal(together[:, BLOCK:], alone[:, BLOCK:])


@pytest.mark.parametrize(
    ("row_format", "size"),
    [
        (RowFormat(1560), 3120),
        (RowFormat(1560, "int8", 24), 1536 + 2 * 48 + 2 * 24),
        (RowFormat(384, "int8"), 384 + 2 * 12),
        (RowFormat(33, "int8"), 2 * (32 + 2)),
        (RowFormat(33, "int8", 1), 32 + 2 + 2),
        (RowFormat(3, "int8", 3), 6),
    ],
)
def test_a_row_takes_a_byte_a_number_a_scale_a_block_and_its_exact_end(row_format, size):
    assert row_format.bytes == size
    there_and_back(row_format, item_factors(2, row_format.width).astype(np.float16))


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0, 3)])
def test_rows_of_any_shape_are_decoded(shape):
    row_format = RowFormat(BLOCK + 5, "int8", 2)
    rows = item_factors(int(np.prod(shape, dtype=int)), row_format.width).astype(np.float16)
    stored = row_format.encode(rows)
    found = row_format.decode(stored.reshape(*shape, row_format.bytes))
    np.testing.assert_array_equal(found, row_format.decode(stored).reshape(*shape, row_format.width))


@pytest.mark.parametrize("sizes", [(0,), (-1,), (5, "float16", 1), (5, "int8", -1), (5, "int8", 6)])
def test_sizes_out_of_range_are_refused(sizes):
    with pytest.raises(InputError, match=rf"width is {sizes[0]} and exact is"):
        RowFormat(*sizes)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_a_store_gives_what_its_format_makes_of_the_rows(tmp_path, kind):
    row_format = RowFormat(2 * BLOCK + 9, kind, 4 if kind == "int8" else 0)
    counts = np.arange(10) % 3 + 1
    rows = item_factors(counts.sum(), row_format.width).astype(np.float16)

    def read(texts):
        places = np.array([int(text) for text in texts])
        ends = np.cumsum(counts)[places]
        batch = np.concatenate([rows[end - count : end] for end, count in zip(ends, counts[places], strict=True)])
        yield StoredRows(np.arange(len(texts)), counts[places], batch)

    store = build_store(tmp_path, [str(place) for place in range(10)], "v1", row_format, read, shard_items=4)
    assert store.row_format == row_format
    assert store.bytes_per_item == pytest.approx(counts.mean() * row_format.bytes)
    items = np.array([[7, NO_ITEM, 0], [3, 3, 9]])
    found, numbers = store.gather_ragged(items, 2)
    expected = there_and_back(row_format, rows)
    for place in np.ndindex(items.shape):
        end = np.cumsum(counts)[items[place]]
        own = np.empty((0, row_format.width)) if items[place] == NO_ITEM else expected[end - counts[items[place]] : end]
        assert numbers[place] == min(2, len(own))
        np.testing.assert_array_equal(found[place][: numbers[place]], own[:2])
        assert not found[place][numbers[place] :].any()
