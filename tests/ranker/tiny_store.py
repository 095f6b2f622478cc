"""Small stores of states, and a reader that notes what it was asked for."""

import json
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import pytest

from encoders.errors import ArtifactError
from ranker.states.building import StoredRows, build_store
from ranker.states.rows import RowFormat
from ranker.states.store import StateStore

WIDTH = 5
FORMATS = [RowFormat(WIDTH), RowFormat(WIDTH, "int8", 2)]


def rows_of(text, ragged=True):
    """What the reader makes of a text: rows that no other text has, and that every format keeps as they are."""
    count = 1 + len(text) % 4 if ragged else 1
    seed = int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH))
    rows[:, :3] = 127, *np.random.default_rng(seed).integers(-127, 128, 2)  # what a scale of 1 leaves exact
    return rows.astype(np.float16)


class Reader:
    """Reads texts in small batches, last text first, and notes what it was asked for."""

    def __init__(self, ragged=True, batch=3, fails_after=None):
        self.ragged, self.batch, self.fails_after = ragged, batch, fails_after
        self.calls = []

    @property
    def asked(self):
        return [text for call in self.calls for text in call]

    def __call__(self, texts):
        self.calls.append(list(texts))
        places = np.arange(len(texts))[::-1]
        for start in range(0, len(places), self.batch):
            if self.fails_after is not None:
                if self.fails_after == 0:
                    raise KeyboardInterrupt
                self.fails_after -= 1
            at = places[start : start + self.batch]
            rows = [rows_of(texts[place], self.ragged) for place in at]
            yield StoredRows(at, np.array([len(each) for each in rows]), np.concatenate(rows))


@contextmanager
def kept_as(row_format):
    """Stores are built of rows that are kept so, unless a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DEFAULTS, "row_format", row_format)
        yield row_format


DEFAULTS = {"version": "v1", "row_format": FORMATS[0], "shard_items": 4}


def build(folder, texts, reader=None, **options):
    options = {**DEFAULTS, **options}
    return build_store(folder, texts, read=reader or Reader(), **options)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_rows(store, texts, ragged=True):
    rows, counts = store.gather_ragged(np.arange(len(texts)), 99)
    for text, its_rows, count in zip(texts, rows, counts, strict=True):
        np.testing.assert_array_equal(its_rows[:count], rows_of(text, ragged))
        assert not its_rows[count:].any()


TEXTS = [f"{'the' * (place % 5)} film {place}" for place in range(11)]  # three shards of four


def first_shard(folder):
    return folder / json.loads((folder / "store.json").read_bytes())["shards"][0]["name"]


def refused(folder, problem):
    with pytest.raises(ArtifactError, match=problem) as caught:
        StateStore.open(folder)
    assert "\n" not in str(caught.value)
