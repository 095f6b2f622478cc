"""Versions on disk: the old or the new one, however the writing ends."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from tests_support import file_limit
from tiny_versions import content, writer

from encoders.errors import ArtifactError
from ranker.artifact import CURRENT, open_version, write_version

KILLED = """
import json, os, signal, sys, types
from pathlib import Path
for name in ("encoders", "ranker"):  # without what the whole packages import
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(Path(sys.argv[1]) / name)]
sys.path.append(str(Path(sys.argv[1]) / "tests" / "ranker"))
from killing import kill_at
from ranker.artifact import open_version, write_version
from tiny_versions import content, writer
root = Path(sys.argv[2])

OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
number, killed = 2, True
while killed:
    number += 1
    child = os.fork()
    if not child:
        kill_at(2 * (number - 2), OPERATIONS)
        write_version(root, writer(number))
        os._exit(0)
    killed = os.waitpid(child, 0)[1] == signal.SIGKILL
    print(json.dumps([killed, number, content(open_version(root))]))
"""


def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new_version(root):
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parents[3]), str(root)]
    done = subprocess.run(arguments, check=False, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    saves = [json.loads(line) for line in done.stdout.splitlines()]
    serving = [2, *(found for *_, found in saves)]
    assert all(now in (before, number) for before, (_, number, now) in zip(serving, saves, strict=False))
    outcomes = [found == number for _, number, found in saves]
    assert outcomes == sorted(outcomes)  # the old version up to one instant, the new one from there
    assert set(outcomes[:-1]) == {False, True}  # the last save came to its end
    assert [killed for killed, *_ in saves] == [True] * (len(saves) - 1) + [False]
    assert len(saves) > 8
    assert content(write_version(root, writer(99))) == 99  # what the killed left does no harm
    assert content(open_version(root)) == 99


def test_what_a_killed_first_save_left_does_not_stop_the_next(tmp_path):
    left = tmp_path / f".{'0' * 32}.tmp"
    left.mkdir()
    (left / "a.bin").write_bytes(b"half")
    shutil.copytree(left, tmp_path / "v0001")
    assert content(write_version(tmp_path, writer(7))) == 7
    assert left.exists()  # it may be a save that is still at work
    os.utime(left, (0, 0))
    write_version(tmp_path, writer(8))
    assert not left.exists()


BIG = np.zeros((500, 100), np.float32)
WRITES = {
    "bytes": lambda folder: (folder / "a.bin").write_bytes(bytes(BIG)),
    "numpy": lambda folder: np.save(folder / "a.npy", BIG),
    "safetensors": lambda folder: save_file({"a": BIG}, folder / "a.safetensors"),
    "parquet": lambda folder: (
        __import__("pandas")
        .DataFrame(np.random.default_rng(0).normal(size=(5000, 5)), columns=list("abcde"))
        .to_parquet(folder / "a.parquet")
    ),
    "faiss": lambda folder: write_index(folder / "a.faiss"),
    "copy": lambda folder: shutil.copyfile(pd.core.frame.__file__, folder / "a.py"),
}


def write_index(path):
    import faiss

    index = faiss.IndexFlatIP(BIG.shape[1])
    index.add(BIG)
    faiss.write_index(index, str(path))


@pytest.mark.parametrize("write", WRITES)
def test_a_full_disk_leaves_the_old_version_and_says_so_in_a_line(root, write):
    before = sorted(root.rglob("*"))
    full = pytest.raises(ArtifactError, match=r"model: the engine was not saved \(the disk is full\)")
    with full as caught, file_limit(30_000):
        write_version(root, WRITES[write])
    assert "\n" not in str(caught.value)
    assert sorted(root.rglob("*")) == before
    assert content(open_version(root)) == 2


def test_a_disk_that_refuses_the_last_step_leaves_the_old_version(root):
    def write(folder):
        writer(3)(folder)
        (root / CURRENT).unlink()
        (root / CURRENT).mkdir()  # so that CURRENT cannot be replaced
        (root / CURRENT / "x").touch()

    with pytest.raises(ArtifactError, match="was not saved"):
        write_version(root, write)
    shutil.rmtree(root / CURRENT)
    assert sorted(path.name for path in root.iterdir()) == ["v0001", "v0002"]


@pytest.mark.parametrize("error", [ValueError("a defect"), KeyboardInterrupt(), ArtifactError("gone")])
def test_any_other_error_passes_and_leaves_nothing(root, error):
    def write(folder):
        (folder / "a.bin").touch()
        raise error

    with pytest.raises(type(error)) as caught:
        write_version(root, write)
    assert caught.value is error
    assert sorted(path.name for path in root.iterdir()) == [CURRENT, "v0001", "v0002"]


def test_an_error_without_a_number_gives_its_words(root):
    def write(folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(ArtifactError, match=r"not saved .Input/output error.; what was there before is untouched"):
        write_version(root, write)
