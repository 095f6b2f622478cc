"""The store of item states: rows come back as they were read, whatever happens to a build or to its files."""

import errno
import json
import logging
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import ArtifactError, InputError
from ranker.states import building
from ranker.states import store as stores
from ranker.states.building import StoredRows, build_store
from ranker.states.store import StateStore
from retrieval.candidates import NO_ITEM

WIDTH = 5


def rows_of(text, ragged=True):
    """What the reader makes of a text: rows that no other text has."""
    count = 1 + len(text) % 4 if ragged else 1
    seed = int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float16)


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


def build(folder, texts, reader=None, **options):
    options = {"version": "v1", "width": WIDTH, "shard_items": 4, **options}
    return build_store(folder, texts, read=reader or Reader(), **options)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_rows(store, texts, ragged=True):
    rows, counts = store.gather_ragged(np.arange(len(texts)), 99)
    for text, its_rows, count in zip(texts, rows, counts, strict=True):
        np.testing.assert_array_equal(its_rows[:count], rows_of(text, ragged))
        assert not its_rows[count:].any()


TEXTS = [f"{'the' * (place % 5)} film {place}" for place in range(11)]  # three shards of four


@pytest.fixture
def store(tmp_path):
    return build(tmp_path / "store", TEXTS)


@pytest.fixture
def single(tmp_path):
    """A store of one row per item."""
    return build(tmp_path / "single", TEXTS, Reader(ragged=False))


# What comes back


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


def test_a_store_says_what_it_holds(store, single):
    counts = [len(rows_of(text)) for text in TEXTS]
    assert (store.n_items, store.width, store.version, store.max_rows) == (len(TEXTS), WIDTH, "v1", max(counts))
    assert store.counts.tolist() == counts
    assert store.bytes_per_item == pytest.approx(np.mean(counts) * WIDTH * 2)
    assert (single.max_rows, single.bytes_per_item) == (1, WIDTH * 2)


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


# What is read, and what is kept


def test_no_call_reads_more_than_a_shard(tmp_path):
    reader = Reader()
    build(tmp_path, TEXTS, reader)
    assert [len(call) for call in reader.calls] == [4, 4, 3]
    assert reader.asked == TEXTS


def test_equal_texts_are_read_once(tmp_path):
    reader, texts = Reader(), ["b", "a", "b", "a?", "a\ud800", "a"]
    same_rows(build(tmp_path, texts, reader), texts)
    assert reader.asked == ["b", "a", "a?"]  # a lone surrogate is a question mark to every encoder


@pytest.mark.parametrize("order", [TEXTS, TEXTS[::-1], TEXTS[3:5], [*TEXTS, TEXTS[0]]], ids=len)
def test_texts_that_are_held_are_not_read_again(tmp_path, order):
    build(tmp_path, TEXTS)
    reader = Reader()
    same_rows(build(tmp_path, order, reader, shard_items=100), order)
    assert reader.calls == []


def test_only_a_changed_text_is_read_again(tmp_path):
    build(tmp_path, TEXTS)
    reader, texts = Reader(), [*TEXTS[:6], "changed", *TEXTS[7:], "new"]
    same_rows(build(tmp_path, texts, reader), texts)
    assert reader.asked == ["changed", "new"]


def test_what_no_item_uses_is_deleted_while_an_open_store_keeps_it(tmp_path):
    before = build(tmp_path, TEXTS)
    old = set(files(tmp_path))
    texts = [f"other {place}" for place in range(7)]
    same_rows(build(tmp_path, texts), texts)
    assert set(files(tmp_path)) & old == {"store.json"}
    assert len(files(tmp_path)) == 4  # and an index and two shards
    same_rows(before, TEXTS)


def test_an_update_between_the_steps_of_opening_gives_the_new_store(store, monkeypatch):
    read, texts = stores.read_manifest, [f"other {place}" for place in range(7)]
    updates = [texts]

    def read_before_an_update(folder):
        manifest = read(folder)
        if updates:
            build(folder, updates.pop())
        return manifest

    monkeypatch.setattr(stores, "read_manifest", read_before_an_update)
    same_rows(StateStore.open(store.folder), texts)


def test_what_cannot_be_deleted_is_named_and_does_no_harm(tmp_path, caplog):
    (tmp_path / f"index-{'0' * 32}.bin").mkdir()
    same_rows(build(tmp_path, TEXTS), TEXTS)
    assert re.search(r"index-0+\.bin: no item uses it, but it could not be deleted \(.*\)", caplog.text)


def test_small_shards_are_written_together_without_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "SMALL_SHARDS", 3)
    texts, reader = [], Reader()
    for step in range(30):
        texts = [*texts[-25:], f"text {step}"]
        same_rows(build(tmp_path, texts, reader, shard_items=10), texts)
        assert len(files(tmp_path)) <= 2 + 3 + 2 * 3  # small shards, and others at least half used
    assert reader.asked == [f"text {step}" for step in range(30)]


def test_files_of_others_are_left_alone(tmp_path):
    for name in ("notes.txt", "shard-1.bin", ".x.tmp"):
        (tmp_path / name).write_text("mine")
    build(tmp_path, TEXTS)
    assert {name for name, content in files(tmp_path).items() if content == b"mine"} == {
        "notes.txt",
        "shard-1.bin",
        ".x.tmp",
    }


# Builds that do not end


@pytest.mark.parametrize("batches", range(5))
def test_a_build_goes_on_where_it_was_stopped(tmp_path, batches):
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "stopped", TEXTS, Reader(fails_after=batches))
    (tmp_path / "stopped" / f".{'0' * 32}.tmp").write_bytes(b"half a shard")
    reader = Reader()
    build(tmp_path / "stopped", TEXTS, reader)
    assert reader.asked == TEXTS[batches // 2 * 4 :]  # two batches to a shard
    build(tmp_path / "whole", TEXTS)
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


KILLED = """
import json, os, shutil, signal, sys, types
from pathlib import Path
for name in ("encoders", "ranker", "retrieval"):  # without what the whole packages import
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(Path(sys.argv[1]) / name)]
import numpy as np
from ranker.states import building
from ranker.states import store as stores
from ranker.states.building import StoredRows, build_store
from ranker.states.store import StateStore
building.SMALL_SHARDS = 1
root, before, after = Path(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])

def read(texts):
    asked.extend(texts)
    rows = np.array([[float(text)] for text in texts], np.float16)
    yield StoredRows(np.arange(len(texts)), np.ones(len(texts), np.int64), rows)

def build(folder, texts):
    asked.clear()
    return build_store(folder, texts, "v1", 1, read, shard_items=4)

def held(store):
    return [str(int(row)) for row in store.gather(np.arange(store.n_items))[:, 0]]

def kill_at(step):
    steps = 0
    def count(event, _):
        nonlocal steps
        steps += event in ("open", "os.rename", "os.remove")
        if steps == step:
            steps += 1  # the kill is an event too
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)

asked, step, killed = [], 0, True
while killed:
    folder, step = root / str(step), step + 1
    if before:
        build(folder, before[:5])
        build(folder, before)
    child = os.fork()
    if not child:
        kill_at(step)
        build(folder, after)
        os._exit(0)
    killed = os.waitpid(child, 0)[1] == signal.SIGKILL
    found = held(StateStore.open(folder)) if (folder / "store.json").exists() else []
    resumed = held(build(folder, after))
    names = [path.name for path in folder.iterdir()]
    print(json.dumps([killed, found, resumed, list(asked), len(names)]))
"""


@pytest.mark.parametrize("before", [[], ["1", "2", "3", "4", "5", "6"]], ids=["first build", "update"])
def test_a_kill_at_any_file_operation_leaves_the_old_store_or_the_new_one(tmp_path, before):
    after = ["6", "7", "8", "1", "9", "10", "11", "12"]
    arguments = [str(Path(__file__).parents[2]), str(tmp_path), json.dumps(before), json.dumps(after)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], check=False, timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) > 12
    assert not outcomes[-1][0]
    news = [found == after for _, found, *_ in outcomes]
    assert news == sorted(news)  # the old store up to one instant, the new one from there
    assert all(found in (before, after) for _, found, *_ in outcomes)
    assert all(resumed == after for _, _, resumed, _, _ in outcomes)
    numbers = [len(asked) for _, _, _, asked, _ in outcomes]
    assert numbers == sorted(numbers, reverse=True)  # the later it was killed, the less is read again
    assert (numbers[0], numbers[-1]) == (len(set(after) - set(before)), 0)
    assert len({names for *_, names in outcomes[:1] + outcomes[-1:]}) == 1  # and nothing is left over


@contextmanager
def file_limit(size):
    """No file grows beyond this size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:  # before pytest writes to a log that may be longer
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 1000, 4100, 4200])
def test_a_full_disk_leaves_the_store_that_was_there(tmp_path, limit):
    build(tmp_path, TEXTS)
    before = files(tmp_path)
    refused = pytest.raises(ArtifactError, match=r"the store was not written \(File too large\)")
    with refused as caught, file_limit(limit):
        build(tmp_path, ["new", *TEXTS, *(f"more {place}" for place in range(100))], shard_items=100)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == before
    same_rows(StateStore.open(tmp_path), TEXTS)


@pytest.mark.parametrize("synced", range(12))
def test_a_disk_that_fills_at_any_sync_leaves_a_store_that_can_be_updated(tmp_path, monkeypatch, synced):
    build(tmp_path, TEXTS)
    real, left = os.fsync, [synced]

    def fsync(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    texts = [*TEXTS[1:], *(f"new {place}" for place in range(9))]  # three new shards, an index and store.json
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        if synced < 10:
            with pytest.raises(ArtifactError, match=r"the store was not written \(No space left on device\)"):
                build(tmp_path, texts)
            same_rows(StateStore.open(tmp_path), texts if synced == 9 else TEXTS)  # the last is of the folder alone
        else:
            build(tmp_path, texts)
    same_rows(build(tmp_path, texts), texts)
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]


def test_an_error_of_the_reader_passes_as_it_is(tmp_path):
    error = OSError("the reader's own")

    def read(texts):
        raise error

    with pytest.raises(OSError, match="the reader's own") as caught:
        build(tmp_path, TEXTS, read)
    assert caught.value is error
    assert files(tmp_path) == {}


# Rows that are not what was asked for


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
        ({"width": 0}, "width is 0"),
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


# Files that are not what was written


def first_shard(folder):
    return folder / json.loads((folder / "store.json").read_bytes())["shards"][0]["name"]


def refused(folder, problem):
    with pytest.raises(ArtifactError, match=problem) as caught:
        StateStore.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["shard", "index"])
@pytest.mark.parametrize("damage", ["short", "long", "empty", "missing", "folder"])
def test_a_damaged_file_is_named_and_the_next_build_heals_it(tmp_path, store, kind, damage, caplog):
    path = first_shard(store.folder) if kind == "shard" else next(store.folder.glob("index-*"))
    before, content = files(store.folder), path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"short": content[:-1], "long": content + b"x", "empty": b""}[damage])
    problem = {
        "short": f"truncated: {len(content) - 1:,} of {len(content):,} bytes; build the store again",
        "long": f"{len(content) + 1:,} instead of {len(content):,} bytes; build the store again",
        "empty": f"truncated: 0 of {len(content):,} bytes",
        "missing": "cannot be read .No such file or directory.; build the store again",
        "folder": "bytes; build the store again",
    }[damage]
    refused(store.folder, re.escape(str(path)) + ": .*" + problem)
    if damage == "folder":
        path.rmdir()
    reader = Reader()
    with caplog.at_level(logging.WARNING):
        build(store.folder, TEXTS, reader)
    assert reader.asked == (TEXTS[:4] if kind == "shard" else [])
    warned = kind == "shard" and damage not in ("missing", "folder")
    assert [path.name in message for message in caplog.messages] == [True] * warned
    assert files(store.folder) == before


@pytest.mark.parametrize("place", [0, 4096, -8, -9])
def test_a_shard_damaged_within_is_no_reason_to_fail(store, place):
    path = first_shard(store.folder)
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)
    build(store.folder, TEXTS)
    assert StateStore.open(store.folder).n_items == len(TEXTS)


@pytest.mark.parametrize(
    ("row", "value"),
    [(0, -1), (0, 3), (0, 2**62), (1, -1), (1, 10**6), (1, 2**63 - 1), (2, 0), (2, -1), (2, 10**6), (2, 2**63 - 1)],
)
def test_an_index_outside_the_shards_is_refused(store, row, value):
    path = next(store.folder.glob("index-*"))
    index = np.fromfile(path, "<i8").reshape(3, -1)
    index[row, 7] = value
    index.tofile(path)
    refused(store.folder, rf"{path}: item 7 has .* rows from row .* which are not there; build the store again")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{}", b'{"format": 1}', b'{"format": "one"}', b"\xff", b"[" * 100_000, b'{"format": 1e999}'],
)
def test_an_unreadable_manifest_is_refused_by_readers_and_builders(store, content):
    (store.folder / "store.json").write_bytes(content)
    refused(store.folder, r"store\.json: not a readable store .*Delete it and build the store again")
    with pytest.raises(ArtifactError, match=r"store\.json: not a readable store"):
        build(store.folder, TEXTS)
    (store.folder / "store.json").unlink()
    refused(store.folder, r"store\.json: cannot be read")
    reader = Reader()
    same_rows(build(store.folder, TEXTS, reader), TEXTS)
    assert reader.asked == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pooling": "mean"}, "not a readable store .pooling: Unexpected"),
        ({"width": 0}, "not a readable store .width:"),
        ({"n_items": -3}, "not a readable store .n_items:"),
        ({"n_items": 10**30}, "truncated"),
        ({"n_items": 10}, "264 instead of 240 bytes"),
        ({"shards": []}, "not a readable store .shards:"),
        ({"shards": [{"name": "../x", "rows": 1, "bytes": 9}]}, r"not a readable store .shards\.0\.name:"),
        ({"index": "/etc/passwd"}, "not a readable store .index:"),
        ({"width": 10**6}, "rows do not fit in the .* bytes of shard-"),
        ({"format": 2, "parts": 7}, "format 2, but this library reads format 1. Install"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(store, changes, problem):
    path = store.folder / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
    refused(store.folder, problem)


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_of_the_manifest_is_an_error_or_harmless(store, seed):
    path = store.folder / "store.json"
    damaged = bytearray(path.read_bytes())
    damaged[random.Random(seed).randrange(len(damaged))] ^= 1 << random.Random(seed).randrange(8)
    path.write_bytes(damaged)
    try:
        same_rows(StateStore.open(store.folder), TEXTS)
    except ArtifactError as error:
        assert str(store.folder) in str(error)  # noqa: PT017


def test_another_version_is_refused_with_both_names(store):
    with pytest.raises(ArtifactError, match=r"states of version v1, but this encoder is version v2\. Build"):
        StateStore.open(store.folder, "v2")
    assert StateStore.open(store.folder, "v1").version == "v1"


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("changes", [{"version": "v2"}, {"width": WIDTH + 1}])
def test_a_folder_of_another_version_or_width_is_refused_and_kept(store, changes, finished):
    if not finished:
        (store.folder / "store.json").unlink()
    before, asked = files(store.folder), {"version": "v1", "width": WIDTH, **changes}
    problem = (
        f"holds states of version v1 and width {WIDTH}, but the encoder makes version {asked['version']} and width "
        f"{asked['width']}: name another folder"
    )
    with pytest.raises(ArtifactError, match=problem):
        build(store.folder, TEXTS, Reader(fails_after=0), **changes)
    assert files(store.folder) == before


def test_a_shard_of_a_newer_format_is_refused(store):
    path = first_shard(store.folder)
    (store.folder / "store.json").unlink()
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2', 1))
    with pytest.raises(ArtifactError, match=rf"{path}: format 2, but this library reads format 1"):
        build(store.folder, TEXTS)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "store").write_text("a letter")
    with pytest.raises(ArtifactError, match=r"store: the store was not written \(File exists\)"):
        build(tmp_path / "store", TEXTS)


# Copies


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
