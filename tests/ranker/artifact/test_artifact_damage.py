"""What of a version is damaged, missing, added or of a newer format is named in one line."""

import json
import random
import re

import pytest
from tiny_versions import content

from encoders.errors import ArtifactError
from ranker.artifact import CURRENT, FORMAT, MANIFEST, open_version


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
        "", "[]", "null", "[" * 100_000, "\xff", '{"files": {}}', f'{{"format": {FORMAT}}}',
        f'{{"format": {FORMAT}, "files": []}}', f'{{"format": {FORMAT}, "files": {{"a": {{"bytes": 1}}}}}}',
        f'{{"format": {FORMAT}, "files": {{"a": {{"bytes": 1e999, "sha256": ""}}}}}}',
    ],
)  # fmt: skip
def test_an_unreadable_manifest_is_named(root, manifest):
    (root / "v0002" / MANIFEST).write_text(manifest, encoding="latin-1")
    with pytest.raises(ArtifactError, match=r"v0002/manifest\.json: not a readable manifest"):
        open_version(root)


def test_a_newer_format_is_named_whatever_else_it_holds(root):
    (root / "v0002" / MANIFEST).write_text(json.dumps({"format": FORMAT + 1, "parts": []}))
    told = rf"manifest\.json: format {FORMAT + 1}, but this library reads format {FORMAT}"
    with pytest.raises(ArtifactError, match=told):
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
