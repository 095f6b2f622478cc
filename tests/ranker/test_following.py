"""Streams of feedback: every whole line once, whatever stands beside it."""

import io
import json
import os

import pytest

from encoders.errors import ArtifactError, InputError
from ranker import following
from ranker.following import FollowedFolder, Recorder, follow_folder, follow_stream


def line(name, item="i1", user=100, **more):
    event = {"event_id": name, "user_id": user, "item_id": item, "kind": "click", "datetime": "2024-06-01T10:00:00"}
    return json.dumps(event | more) + "\n"


@pytest.fixture
def refused():
    return []


@pytest.fixture
def recorder(engine, refused):
    return Recorder(engine, lambda text, why: refused.append((text, why)))


def ids(engine):
    return engine.log.read()["event_id"].tolist()


def test_a_stream_is_recorded_to_its_end(engine, recorder):
    text = "".join(line(f"e{n}", f"i{n % 60}") for n in range(1200)) + "\n" + line("e3", "i3") + line("last")[:-1]
    follow_stream(io.StringIO(text), recorder)
    assert ids(engine) == [*(f"e{n}" for n in range(1200)), "last"]
    assert vars(recorder.counts) == {"new": 1201, "known": 1, "refused": 0}


def test_lines_come_through_a_pipe_before_it_is_closed(engine, recorder):
    import threading

    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as stream, os.fdopen(writing, "w", encoding="utf-8") as pipe:
        thread = threading.Thread(target=follow_stream, args=(stream, recorder))
        thread.start()
        for n in range(3):
            pipe.write(line(f"e{n}", f"i{n}"))
            pipe.flush()
            while len(engine.log) <= n:
                assert thread.is_alive()
        pipe.close()
        thread.join()
    assert ids(engine) == ["e0", "e1", "e2"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("no json\n", "this is no JSON object"),
        ("[1, 2]\n", "a list is no object"),
        ("[" * 100_000 + "\n", "this is no JSON object"),
        (line("b", kind="clikc"), "did you mean 'click'"),
        (line("b", item="nothing"), "'nothing'"),
        (line("b", user="someone"), "'someone'"),
        (line("b", datetime="soon"), "datetime is no time"),
        (line("b", value=float("nan"), kind="dwell"), "value is not a finite number"),
        (line("b", value=10**400, kind="dwell"), "value is not a finite number"),
        (json.dumps({"event_id": "b"}) + "\n", "no column 'user_id'|user_id is missing"),
        (line("a", kind="hide"), "'a' (occurs twice|is in the log already) with different content"),
    ],
)
def test_a_line_that_is_no_event_is_refused_alone(engine, recorder, refused, bad, why):
    follow_stream(io.StringIO(line("a") + bad + line("c", "i3")), recorder)
    assert ids(engine) == ["a", "c"]
    assert [text for text, _ in refused] == [bad]
    import re

    assert re.search(why, refused[0][1])
    assert recorder.counts.refused == 1


def test_files_that_appear_and_grow_are_read_on_from_where_they_were(engine, recorder, tmp_path):
    folder, state = tmp_path / "in", tmp_path / "state.json"
    folder.mkdir()
    followed = FollowedFolder(folder, state)
    assert followed.record_new(recorder) == 0
    (folder / "b.jsonl").write_text(line("b0") + line("b1")[:20])
    (folder / "a.jsonl").write_text(line("a0", "i2"))
    (folder / "a.txt").write_text(line("no"))
    followed.record_new(recorder)
    assert ids(engine) == ["a0", "b0"]  # by name; the last line of b is still being written
    with (folder / "b.jsonl").open("a") as file:
        file.write(line("b1")[20:] + "\n" + line("b2", "i4"))
    again = FollowedFolder(folder, state)  # as after a restart
    again.record_new(recorder)
    assert ids(engine) == ["a0", "b0", "b1", "b2"]
    assert vars(recorder.counts) == {"new": 4, "known": 0, "refused": 0}
    state.unlink()
    FollowedFolder(folder, state).record_new(recorder)  # all is read again, and counts once
    assert vars(recorder.counts) == {"new": 4, "known": 4, "refused": 0}


def test_a_file_that_took_the_name_of_another_is_read_whole(engine, recorder, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text(line(f"{name}0") + line(f"{name}1", "i2"))
        FollowedFolder(tmp_path / name, tmp_path / "state").record_new(recorder)
    assert ids(engine) == ["one0", "one1", "other0", "other1"]
    (tmp_path / "one" / "a.jsonl").write_text("".join(line(f"new{n}", "i3") for n in range(4)))
    FollowedFolder(tmp_path / "one", tmp_path / "state").record_new(recorder)
    assert ids(engine)[4:] == ["new0", "new1", "new2", "new3"]


def test_a_state_that_cannot_be_written_is_named(recorder, tmp_path):
    (tmp_path / "a.jsonl").write_text(line("a"))
    with pytest.raises(ArtifactError, match="absent/state: cannot be written"):
        FollowedFolder(tmp_path, tmp_path / "absent" / "state").record_new(recorder)


def test_following_ends_when_it_is_told_to(engine, recorder, tmp_path):
    looks = []

    def until():
        (tmp_path / f"{len(looks)}.jsonl").write_text(line(f"e{len(looks)}", f"i{len(looks)}"))
        looks.append(len(looks))
        return len(looks) == 4

    follow_folder(FollowedFolder(tmp_path, tmp_path / "state"), recorder, 0.001, until)
    assert ids(engine) == ["e0", "e1", "e2"]


def test_a_long_file_is_read_some_lines_at_a_time(engine, recorder, tmp_path, monkeypatch):
    monkeypatch.setattr(following, "AT_ONCE", 7)
    (tmp_path / "a.jsonl").write_text("".join(line(f"e{n}", f"i{n}") for n in range(20)))
    assert FollowedFolder(tmp_path, tmp_path / "state").record_new(recorder) == (tmp_path / "a.jsonl").stat().st_size
    assert len(engine.log) == 20


def test_what_is_no_folder_or_no_state_is_named(tmp_path):
    with pytest.raises(InputError, match="absent: is no folder"):
        FollowedFolder(tmp_path / "absent", tmp_path / "state")
    for text in ("no json", "[]", '{"a": "x"}', '{"a": 1e999}', '{"a": ["x", "y"]}'):
        (tmp_path / "state").write_text(text)
        with pytest.raises(ArtifactError, match=r"state: cannot be read .* Remove it"):
            FollowedFolder(tmp_path, tmp_path / "state")


@pytest.mark.parametrize("field", ["event_id", "user_id", "item_id", "kind", "value", "datetime", "source", "list_id"])
@pytest.mark.parametrize("odd", [[1, 2], {"a": 1}, True, None, 1e400, ""])
def test_any_odd_value_is_an_event_or_refused_alone(engine, recorder, refused, field, odd):
    broken = json.dumps(json.loads(line("b")) | {field: odd}) + "\n"
    follow_stream(io.StringIO(line("a") + broken + line("c", "i3")), recorder)
    assert {"a", "c"} <= set(ids(engine))
    assert len(ids(engine)) + len(refused) == 3
