"""A build of a store reads no more than it must, and one that does not end leaves the old store or the new one."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_store import FORMATS, TEXTS, WIDTH, Reader, build, file_limit, files, kept_as, same_rows

from encoders.errors import ArtifactError, InputError
from ranker.states import building
from ranker.states import store as stores
from ranker.states.building import StoredRows
from ranker.states.store import StateStore


@pytest.fixture(scope="module", params=FORMATS, ids=lambda row_format: row_format.kind, autouse=True)
def row_format(request):
    """Every test runs on a store of each kind."""
    with kept_as(request.param):
        yield request.param


@pytest.fixture
def store(tmp_path):
    return build(tmp_path / "store", TEXTS)


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
from ranker.states.rows import RowFormat
from ranker.states.store import StateStore
building.SMALL_SHARDS = 1
root, before, after = Path(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])

def read(texts):
    asked.extend(texts)
    rows = np.array([[float(text)] for text in texts], np.float16)
    yield StoredRows(np.arange(len(texts)), np.ones(len(texts), np.int64), rows)

def build(folder, texts):
    asked.clear()
    return build_store(folder, texts, "v1", RowFormat(1, sys.argv[5]), read, shard_items=4)

def held(store):
    return [str(round(float(row))) for row in store.gather(np.arange(store.n_items))[:, 0]]

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
def test_a_kill_at_any_file_operation_leaves_the_old_store_or_the_new_one(tmp_path, before, row_format):
    after = ["6", "7", "8", "1", "9", "10", "11", "12"]
    arguments = [str(Path(__file__).parents[2]), str(tmp_path), json.dumps(before), json.dumps(after), row_format.kind]
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
