"""Files of a store that are not what was written are refused in one line, and the next build heals them."""

import dataclasses
import json
import logging
import random
import re

import numpy as np
import pytest
from tiny_store import FORMATS, TEXTS, WIDTH, Reader, build, files, first_shard, refused, same_rows

from encoders.errors import ArtifactError
from ranker.states.rows import RowFormat
from ranker.states.store import StateStore


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
        ({"kind": "int4"}, "not a readable store .kind:"),
        ({"exact": -1}, "not a readable store .exact:"),
        ({"exact": WIDTH + 1}, "not a readable store .*width is 5 and exact is 6"),
        ({"kind": "float16", "exact": 1}, "not a readable store .*exact is 1 in float16"),
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
@pytest.mark.parametrize("changed", ["version", "width", "kind", "exact end"])
def test_a_folder_of_another_version_or_row_format_is_refused_and_kept(store, row_format, changed, finished):
    changes = {
        "version": {"version": "v2"},
        "width": {"row_format": dataclasses.replace(row_format, width=WIDTH + 1)},
        "kind": {"row_format": FORMATS[FORMATS[0] == row_format]},
        "exact end": {"row_format": RowFormat(WIDTH, "int8", 1)},
    }[changed]
    if not finished:
        (store.folder / "store.json").unlink()
    before, asked = files(store.folder), {"version": "v1", "row_format": row_format, **changes}
    problem = (
        f"holds states of version v1 and {row_format}, but the encoder makes version {asked['version']} and "
        f"{asked['row_format']}: name another folder"
    )
    with pytest.raises(ArtifactError, match=re.escape(problem)):
        build(store.folder, TEXTS, Reader(fails_after=0), **changes)
    assert files(store.folder) == before


def test_a_store_from_before_there_were_kinds_is_read_and_updated(tmp_path):
    store = build(tmp_path, TEXTS, row_format=FORMATS[0])
    manifest = json.loads((store.folder / "store.json").read_bytes())
    (store.folder / "store.json").write_text(
        json.dumps({key: value for key, value in manifest.items() if key not in ("kind", "exact")})
    )
    for path in store.folder.glob("shard-*"):
        content = path.read_bytes()
        header = content[:4096].replace(b',"kind":"float16","exact":0', b"", 1)
        assert header != content[:4096]
        path.write_bytes(header.ljust(4096) + content[4096:])
    same_rows(StateStore.open(store.folder, "v1"), TEXTS)
    reader = Reader()
    same_rows(build(store.folder, [*TEXTS[1:], "new"], reader, row_format=FORMATS[0]), [*TEXTS[1:], "new"])
    assert reader.asked == ["new"]


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
