"""A build of a store that does not end leaves the old store or the new one, and the next goes on from there."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import file_limit
from tiny_store import TEXTS, Reader, build, files, same_rows

from encoders.errors import ArtifactError
from ranker.states.store import StateStore


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
sys.path.append(str(Path(sys.argv[1]) / "tests" / "ranker"))
import numpy as np
from killing import kill_at
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

asked, step, killed = [], 0, True
while killed:
    folder, step = root / str(step), step + 1
    if before:
        build(folder, before[:5])
        build(folder, before)
    child = os.fork()
    if not child:
        kill_at(step, ("open", "os.rename", "os.remove"))
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
    arguments = [str(Path(__file__).parents[3]), str(tmp_path), json.dumps(before), json.dumps(after), row_format.kind]
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
