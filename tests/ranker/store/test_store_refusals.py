"""What no store can hold, from its reader or in its arguments, is refused in one line and not written."""

import numpy as np
import pytest
from tiny_store import TEXTS, WIDTH, Reader, build, files

from encoders.errors import InputError
from ranker.states.building import StoredRows


def test_an_error_of_the_reader_passes_as_it_is(tmp_path):
    error = OSError("the reader's own")

    def read(texts):
        raise error

    with pytest.raises(OSError, match="the reader's own") as caught:
        build(tmp_path, TEXTS, read)
    assert caught.value is error
    assert files(tmp_path) == {}


def giving(places, counts, rows):
    return lambda texts: [StoredRows(np.array(places, np.int64), np.array(counts, np.int64), rows)]


def zeros(*shape, dtype=np.float16):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (giving([0, 1], [1, 1], zeros(2, WIDTH)), "rows of 2 texts, but 3 were asked for; text 2 has none"),
        (lambda texts: [], "rows of 0 texts, but 3 were asked for; text 0 has none"),
        (giving([0, 1, 3], [1, 1, 1], zeros(3, WIDTH)), r"places \[0, 1, 3\] among 3 texts"),
        (giving([0, -1, 1], [1, 1, 1], zeros(3, WIDTH)), r"places \[0, -1, 1\] among 3 texts"),
        (giving([0, 1, 1], [1, 1, 1], zeros(3, WIDTH)), r"places \[0, 1, 1\] among 3 texts"),
        (lambda texts: 2 * giving([0], [1], zeros(1, WIDTH))(texts), r"places \[0\] among 3 texts"),
        (giving([0, 1, 2], [1, 1], zeros(3, WIDTH)), r"3 texts with the counts \[1, 1\]"),
        (giving([0, 1, 2], [1, 0, 2], zeros(3, WIDTH)), r"counts \[1, 0, 2\].*at least 1 row"),
        (giving([0, 1, 2], [1, 1, 2], zeros(3, WIDTH)), r"rows \(3, 5\) of float16, .* \(4, 5\) of float16"),
        (giving([0, 1, 2], [1, 1, 1], zeros(3, WIDTH + 1)), r"rows \(3, 6\) of float16, .* \(3, 5\) of float16"),
        (giving([0, 1, 2], [1, 1, 1], zeros(3)), r"rows \(3,\) of float16"),
        (giving([0, 1, 2], [1, 1, 1], zeros(3, WIDTH, dtype=np.float32)), r"rows \(3, 5\) of float32"),
    ],
)
def test_rows_that_were_not_asked_for_are_refused(tmp_path, read, problem):
    with pytest.raises(InputError, match=problem) as caught:
        build(tmp_path, ["a", "b", "c"], read)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_states_that_are_not_finite_name_the_text_and_write_nothing_of_its_shard(tmp_path, value):
    def read(texts):
        for batch in Reader()(texts):
            for place, end in zip(batch.places, np.cumsum(batch.counts), strict=True):
                if texts[place] in (TEXTS[6], TEXTS[5]):
                    batch.rows[end - 1, 2] = value
            yield batch

    with pytest.raises(InputError, match=r"Text 5: the encoder gave states that are not finite.*65,504") as caught:
        build(tmp_path, TEXTS, read)
    assert "\n" not in str(caught.value)
    assert len(files(tmp_path)) == 1  # the shard before
    reader = Reader()
    build(tmp_path, TEXTS, reader)
    assert reader.asked == TEXTS[4:]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"texts": []}, "There are no texts"),
        ({"texts": ["a", None]}, "Text 1 is None, not a string"),
        ({"shard_items": 0}, "shard_items is 0"),
        ({"version": ""}, "the version has 0 characters"),
        ({"version": "x" * 513}, "the version has 513 characters"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, changed, problem):
    with pytest.raises(InputError, match=problem):
        build(tmp_path, **{"texts": TEXTS, **changed})


def test_the_longest_version_has_room(tmp_path):
    version = "\x01" * 512  # the longest in JSON
    assert build(tmp_path, TEXTS, version=version).version == version
    build(tmp_path, TEXTS[::-1], Reader(fails_after=0), version=version)
