"""Versions on disk: the old or the new one, whatever happens; and what is damaged is named."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from tests_support import file_limit

from encoders.errors import ArtifactError
from ranker.artifact import CURRENT, KEPT_VERSIONS, MANIFEST, open_version, read_manifest, write_version


def writer(number, size=20_000):
    """A version of several files that all say the same number."""

    def write(folder):
        (folder / "part").mkdir()
        for name in ("a.bin", "part/b.bin", "part/c.bin"):
            (folder / name).write_bytes(bytes([number]) * size)

    return write


def content(folder):
    found = {path.read_bytes()[0] for path in folder.rglob("*.bin")}
    assert len(found) == 1, "a mixture of versions"
    return found.pop()


@pytest.fixture
def root(tmp_path):
    write_version(tmp_path / "model", writer(1))
    write_version(tmp_path / "model", writer(2))
    return tmp_path / "model"


def test_the_newest_version_serves_and_the_one_before_is_kept(root):
    for number in range(3, 6):
        folder = write_version(root, writer(number))
        assert open_version(root) == folder
        assert content(folder) == number
    assert sorted(path.name for path in root.iterdir()) == [CURRENT, "v0004", "v0005"]
    assert content(root / "v0004") == 4
    assert KEPT_VERSIONS == 2


def test_the_one_before_serves_again_once_current_names_it(root):
    (root / CURRENT).write_text("v0001\n")
    assert content(open_version(root)) == 1


def test_the_manifest_names_every_file_and_the_libraries(root):
    manifest = read_manifest(root / "v0002")
    assert set(manifest["files"]) == {"a.bin", "part/b.bin", "part/c.bin"}
    assert manifest["libraries"]["numpy"] == np.__version__


KILLED = """
import os, signal, sys, types
from pathlib import Path
for name in ("encoders", "ranker"):  # without what the whole packages import
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(Path(sys.argv[1]) / name)]
from ranker.artifact import write_version
root, number, step = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

def write(folder):
    (folder / "part").mkdir()
    for name in ("a.bin", "part/b.bin", "part/c.bin"):
        (folder / name).write_bytes(bytes([number]) * 20_000)

steps = 0
def count(event, _):
    global steps
    steps += event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
    if steps == step:
        steps += 1  # the kill is an event too
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
write_version(root, write)
"""


def killed_while_saving(root, number, step):
    """Save in a process that kills itself at its ``step``-th file operation; whether it came that far."""
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parents[2]), str(root), str(number), str(step)]
    done = subprocess.run(arguments, check=False, timeout=60, stderr=subprocess.PIPE)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new_version(root):
    serving, outcomes, number = 2, [], 3
    while killed_while_saving(root, number, step=2 * (number - 2)):
        found = content(open_version(root))
        assert found in (serving, number)
        outcomes.append(found == number)
        serving, number = found, number + 1
    assert outcomes == sorted(outcomes)  # the old version up to one instant, the new one from there
    assert set(outcomes) == {False, True}
    assert len(outcomes) > 8
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


def test_two_saves_at_once_get_a_version_each(root):
    from threading import Thread

    threads = [Thread(target=write_version, args=(root, writer(number))) for number in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {content(root / "v0003"), content(root / "v0004")} == {3, 4}
    assert content(open_version(root)) in (3, 4)


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


@pytest.mark.parametrize("kind", ["file", "folder", "folder with CURRENT's neighbours"])
def test_what_holds_something_else_is_refused_and_kept(tmp_path, kind):
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("a letter")
    else:
        (target / "v0001").mkdir(parents=True)
        (target / "letter.txt").write_text("a letter")
    with pytest.raises(ArtifactError, match="exists and holds no saved engine"):
        write_version(target, writer(1))
    assert (target if kind == "file" else target / "letter.txt").read_text() == "a letter"


@pytest.mark.parametrize("name", ["a.bin", "part/b.bin", "part/c.bin"])
def test_every_damaged_file_is_named(root, name):
    path = open_version(root) / name
    original = path.read_bytes()
    flipped = bytearray(original)
    flipped[len(flipped) // 2] ^= 4
    for damaged, problem in [(bytes(flipped), "its content differs"), (original[:-1], "19999 bytes, but 20000")]:
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=f"v0002/{re.escape(name)}: {problem}"):
            open_version(root)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"v0002/{re.escape(name)}: is missing"):
        open_version(root)
    path.mkdir()
    with pytest.raises(ArtifactError, match=f"v0002/{re.escape(name)}: is missing"):
        open_version(root)


def test_an_extra_file_is_named(root):
    (root / "v0002" / "part" / "z.txt").touch()
    with pytest.raises(ArtifactError, match=r"v0002/part/z\.txt: is not part of what was saved"):
        open_version(root)


def test_a_file_that_may_not_be_read_is_named(root, read_only):
    (root / "v0002" / "a.bin").chmod(0)
    with read_only(root) as folder:
        (folder / "v0002" / "a.bin").chmod(0)
        with pytest.raises(ArtifactError, match=r"a\.bin: cannot be read .Permission denied"):
            open_version(folder)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../model",
        "/etc",
        "v0009",
        "v2",
        "V0002",
        "v0002\nv0001",
        "v0002/",
        "x" * 5000,
        "\0",
        "v" + "9" * 300,
    ],
)
def test_current_that_names_no_version_is_an_error(root, name):
    (root / CURRENT).write_text(name)
    with pytest.raises(ArtifactError, match=r"CURRENT: names .*, which is no version") as caught:
        open_version(root)
    assert "\n" not in str(caught.value)


def test_an_unreadable_or_absent_current_is_an_error(root):
    (root / CURRENT).write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match="no saved engine here"):
        open_version(root)
    with pytest.raises(ArtifactError, match="no saved engine here"):
        open_version(root / "nowhere")


@pytest.mark.parametrize(
    "manifest",
    [
        "", "[]", "null", '{"format": 1}', '{"files": {}}', '{"format": 1, "files": []}', "\xff",
        '{"format": 1, "files": {"a": {"bytes": 1e999, "sha256": ""}}}', '{"format": 1, "files": {"a": {"bytes": 1}}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_an_unreadable_manifest_is_named(root, manifest):
    (root / "v0002" / MANIFEST).write_text(manifest, encoding="latin-1")
    with pytest.raises(ArtifactError, match=r"v0002/manifest\.json: not a readable manifest"):
        open_version(root)


def test_a_newer_format_is_named_whatever_else_it_holds(root):
    (root / "v0002" / MANIFEST).write_text(json.dumps({"format": 2, "parts": []}))
    with pytest.raises(ArtifactError, match=r"manifest\.json: format 2, but this library reads format 1"):
        open_version(root)


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_of_the_manifest_is_an_error_or_harmless(root, seed):
    path = root / "v0002" / MANIFEST
    damaged = bytearray(path.read_bytes())
    damaged[random.Random(seed).randrange(len(damaged))] ^= 1 << random.Random(seed).randrange(8)
    path.write_bytes(damaged)
    try:
        assert content(open_version(root)) == 2
    except ArtifactError as error:
        assert "v0002" in str(error)  # noqa: PT017
