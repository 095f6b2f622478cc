"""A build of a store reads no more than it must, and keeps only what its items use."""

import re

import pytest
from tiny_store import TEXTS, Reader, build, files, same_rows

from ranker.states import building
from ranker.states import store as stores
from ranker.states.store import StateStore


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
